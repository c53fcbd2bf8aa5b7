"""The argument grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.xe.arguments import Arguments, parse_arguments, parse_boolean, parse_size
from gespann.xe.failures import CommandFailure, ParameterMissing, SyntaxFailure


def test_words_become_pairs() -> None:
    words = ["vm-start", "--force", "--on=h", "vm=a=b", "bare", "-u", "root", "-pw", "x=y", "-s", "h", "-p", "1"]
    assert parse_arguments(words).pairs == (
        *(("force", "true"), ("on", "h"), ("vm", "a=b"), ("bare", "")),
        *(("username", "root"), ("password", "x=y"), ("server", "h"), ("port", "1")),
    )


@pytest.mark.parametrize("words", [[], [""], ["a=b"], ["vm-list", "-x", "y"], ["vm-list", "-u"]])
def test_what_cannot_be_read(words: list[str]) -> None:
    with pytest.raises(SyntaxFailure):
        parse_arguments(words)


def test_the_first_of_a_repeated_key_counts() -> None:
    arguments = parse_arguments(["x", "a=1", "a=2"])
    assert arguments.get("a", None) == "1"
    assert arguments.filters() == [("a", "1"), ("a", "2")]


def test_maps_in_both_spellings() -> None:
    arguments = parse_arguments(["x", "device-config:target=a:b", "device-config-user=u", "device-config=no", "d:e=f"])
    assert arguments.mapping("device-config") == {"target": "a:b", "user": "u"}


def test_filters_leave_out_standard_and_own_keys() -> None:
    words = ["x", "uuid=1", "force=true", "message-priority=1", "on=h", "sm-config:a=b", "other-config:a=b"]
    assert parse_arguments(words).filters("on", "sm-config:") == [("uuid", "1"), ("other-config:a", "b")]


@pytest.mark.parametrize("word", ["true", "T", "Yes", "y", "1"])
def test_true_words(word: str) -> None:
    assert parse_boolean("k", word) is True


@pytest.mark.parametrize("word", ["false", "F", "No", "n", "0"])
def test_false_words(word: str) -> None:
    assert parse_boolean("k", word) is False


@pytest.mark.parametrize("word", ["", "perhaps", "truee"])
def test_no_boolean(word: str) -> None:
    with pytest.raises(CommandFailure, match="Failed to parse parameter 'k'"):
        parse_boolean("k", word)


@given(st.integers(0, 2**40), st.sampled_from(["", "b", "KiB", "kb", "K", "MiB", "m", "GiB", "tib", "TB", "bytes"]))
def test_sizes_are_powers_of_1024(number: int, suffix: str) -> None:
    power = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}[suffix[:1].lower()]
    size_bytes = number * 1024**power
    if size_bytes < 2**63:
        assert parse_size("s", f"{number}{suffix}") == size_bytes
    else:
        with pytest.raises(CommandFailure):
            parse_size("s", f"{number}{suffix}")


@pytest.mark.parametrize("text", ["", "GiB", "1.5GiB", "1 2", "0x10", "1PiB", "1GiBB", "٣"])
def test_no_size(text: str) -> None:
    with pytest.raises(CommandFailure, match="possibly with suffix KiB, MiB, GiB, TiB"):
        parse_size("s", text)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    try:
        arguments = parse_arguments(words)
    except SyntaxFailure:
        return
    assert arguments.command == words[0]
    assert len(arguments.pairs) <= len(words) - 1


def test_required() -> None:
    with pytest.raises(ParameterMissing, match="uuid"):
        Arguments("x", ()).required("uuid")


def test_no_value_is_in_a_repr() -> None:
    assert "hush" not in repr(parse_arguments(["secret-create", "value=hush"]))
