"""Where the client's settings come from, and which words go to the server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.xe.client.options import (
    UsageError,
    is_secret,
    read_options,
    read_settings,
    split_extra,
    without_secrets,
)


def test_switches_and_keys_are_the_clients_own() -> None:
    words = ["vm-list", "-s", "h", "-p", "8443", "-u", "root", "-pw", "x=y", "--nossl", "params=all", "--minimal"]
    options = read_options(words, {}, "")
    assert (options.server, options.port, options.user, options.password, options.tls) == (
        *("h", 8443, "root", "x=y"),
        False,
    )
    assert options.words == ["vm-list", "params=all", "--minimal"]
    same = read_options(["vm-list", "server=h", "port=8443", "username=root", "password=x=y"], {}, "")
    assert (same.server, same.port, same.user, same.password) == ("h", 8443, "root", "x=y")


def test_the_command_line_is_stronger_than_the_environment_and_that_than_the_file() -> None:
    environment = {"XE_EXTRA_ARGS": "username=env,password=a\\,b,--debug"}
    options = read_options(["vm-list", "-u", "me"], environment, "server = filehost\nusername=file\npassword=file\n")
    assert (options.user, options.password, options.server, options.debug) == ("me", "a,b", "filehost", True)


def test_a_ca_file() -> None:
    assert read_options(["x"], {}, "ca=/a.pem").ca_file == "/a.pem"
    assert read_options(["x"], {"GESPANN_CA": "/b.pem"}, "ca=/a.pem").ca_file == "/b.pem"


@pytest.mark.parametrize("words", [["-s"], ["x", "-p", "many"], ["x", "-p", "0"], ["x", "port=65536"]])
def test_what_makes_no_sense(words: list[str]) -> None:
    with pytest.raises(UsageError):
        read_options(words, {}, "")


@given(st.lists(st.text(min_size=1, max_size=8), max_size=5))
def test_extra_words_survive_being_joined(words: list[str]) -> None:
    joined = ",".join(word.replace("\\", "\\\\").replace(",", "\\,") for word in words)
    assert split_extra(joined) == words


@given(st.text(max_size=200))
def test_any_settings_file_is_read_or_passed_over(text: str) -> None:
    assert set(read_settings(text)) <= {
        *("server", "port", "username", "password", "passwordfile", "nossl", "debug", "debugonfail", "ca")
    }


@pytest.mark.parametrize(
    "word",
    ["password=x", "device-config:password=x", "device-config:chappassword=x", "value=x", "master-password=x", "new=x"],
)
def test_secrets_are_blotted_out(word: str) -> None:
    assert is_secret(word)
    assert without_secrets(["cmd", word, "-pw", "y", "a=b"]) == ["cmd", word.split("=")[0] + "=*", "-pw", "*", "a=b"]


def test_no_password_is_in_a_repr() -> None:
    assert "hush" not in repr(read_options(["vm-list", "-pw", "hush"], {}, ""))
