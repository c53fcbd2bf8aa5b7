import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.seams.sr_driver import SrError
from gespann.sr.equal import output, words

ANY = st.text(max_size=60)
MIB = 2**20


@given(ANY)
def test_no_word_becomes_another_command(untrusted: str) -> None:
    try:
        made = words.line("volume", "select", untrusted, "show")
    except ValueError:
        return
    quoted = untrusted.startswith('"')
    assert (made.text.split(" ")[3:] == ["show"]) != quoted
    assert not set(made.text) & set("\r\n#'\\;")


@given(ANY)
def test_storage_pools_are_checked(untrusted: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,62}", untrusted):
        assert words.storage_pool_show(untrusted).text == f"pool select {untrusted} show"
    else:
        with pytest.raises(SrError, match="SR_BACKEND_FAILURE_172"):
            words.storage_pool_show(untrusted)


def test_secrets_stay_out_of_what_is_shown() -> None:
    line = words.chap_user_create("gespann-rw-a", "s3cretS3cret16ch")
    assert line.text.endswith("password s3cretS3cret16ch")
    assert "s3cret" not in repr(line) + line.public
    assert line.without_secret("% Error - s3cretS3cret16ch is bad") == "% Error - (hidden) is bad"


@given(st.integers(1, 2**60))
def test_sizes_are_whole_pages(size_bytes: int) -> None:
    mib = words.whole_pages_mib(size_bytes)
    assert mib % 15 == 0
    assert mib * MIB - 15 * MIB < size_bytes <= mib * MIB


@given(st.integers(1, 69_000))
def test_gigabytes_with_two_decimals_tell_the_page(pages: int) -> None:
    """Up to a terabyte the rounded number stands for one page count only; whole ones may be a page off."""
    mib = pages * 15
    shown = f"{mib / 1024:.2f}".rstrip("0").rstrip(".") + "GB"
    if mib < 1024:
        shown = f"{mib}MB"
    off = abs(output.volume_size_bytes(shown) - mib * MIB)
    assert off == 0 if "." in shown or "MB" in shown else off <= 15 * MIB


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("0MB", 0), ("1GB", 2**30), ("1.01GB", 1035 * MIB), ("2TB", 2**41), ("512 MB", 2**29)]
)
def test_sizes_as_they_are_shown(text: str, size_bytes: int) -> None:
    assert output.size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "big", "-", "GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(output.NotThere):
        output.size_bytes(text)


@given(st.lists(st.text(max_size=100), max_size=30))
def test_any_output_is_read(lines: list[str]) -> None:
    output.table(tuple(lines))
    output.detail(tuple(lines))
