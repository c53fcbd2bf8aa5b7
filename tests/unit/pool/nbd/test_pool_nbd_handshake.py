"""The front's half of the NBD handshake, option by option."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.pool.nbd import handshake as nbd

NAME = "/d5b2a9b0-0000-4000-8000-000000000001?session_id=OpaqueRef:1"


def named(name: str | bytes, rest: bytes = b"\0\0") -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    return struct.pack(">I", len(raw)) + raw + rest


def kind_of(said: nbd.Answer) -> int:
    assert isinstance(said, nbd.Say)
    magic, _, kind, length = nbd.REPLY_HEADER.unpack(said.data[:20])
    assert (magic, length) == (nbd.REPLY_MAGIC, len(said.data) - 20)
    return int(kind)


@pytest.mark.parametrize("option", [nbd.OPT_LIST, nbd.OPT_INFO, nbd.OPT_GO, nbd.OPT_STRUCTURED_REPLY, 77])
def test_in_the_clear_nothing_is_to_be_had(option: int) -> None:
    assert kind_of(nbd.answer(option, named(NAME), secure=False)) == nbd.ERR_TLS_REQD
    assert nbd.answer(nbd.OPT_EXPORT_NAME, NAME.encode(), secure=False) == nbd.End()


def test_tls_is_begun_once_and_without_data() -> None:
    assert nbd.answer(nbd.OPT_STARTTLS, b"", secure=False) == nbd.StartTls(nbd.reply(nbd.OPT_STARTTLS, nbd.REP_ACK))
    assert kind_of(nbd.answer(nbd.OPT_STARTTLS, b"x", secure=False)) == nbd.ERR_INVALID
    assert kind_of(nbd.answer(nbd.OPT_STARTTLS, b"", secure=True)) == nbd.ERR_INVALID


def test_the_server_behind_hears_no_name() -> None:
    """Nor the session that is in it."""
    context = struct.pack(">I", 1) + named("base:allocation", b"")
    assert nbd.answer(nbd.OPT_GO, named(NAME), secure=True) == nbd.Pass(nbd.OPT_GO, bytes(6), NAME)
    wanted = nbd.answer(nbd.OPT_SET_META_CONTEXT, named(NAME, context), secure=True)
    assert wanted == nbd.Pass(nbd.OPT_SET_META_CONTEXT, bytes(4) + context, NAME)
    assert nbd.answer(nbd.OPT_EXPORT_NAME, NAME.encode(), secure=True) == nbd.Pass(nbd.OPT_EXPORT_NAME, b"", NAME)
    assert nbd.answer(nbd.OPT_STRUCTURED_REPLY, b"", secure=True) == nbd.Pass(nbd.OPT_STRUCTURED_REPLY, b"")


def test_exports_are_not_listed() -> None:
    assert kind_of(nbd.answer(nbd.OPT_LIST, b"", secure=True)) == nbd.ERR_POLICY


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x08short", named(b"\xff\xfe"), named("x" * 4097)])
def test_what_is_no_name(data: bytes) -> None:
    assert kind_of(nbd.answer(nbd.OPT_GO, data, secure=True)) == nbd.ERR_INVALID


def test_clients_of_another_kind() -> None:
    assert [nbd.client_flags(flags) for flags in (b"\0\0\0\x03", b"\0\0\0\x01")] == [True, False]
    for flags in (b"\0\0\0\0", b"\0\0\0\x07", b"\xff\xff\xff\xff"):
        with pytest.raises(nbd.BadClient):
            nbd.client_flags(flags)
    for header in (b"GET / HTTP/1.1\r\n", nbd.OPTION_HEADER.pack(nbd.IHAVEOPT, 7, 8193)):
        with pytest.raises(nbd.BadClient):
            nbd.option_header(header)


@given(st.integers(0, 2**32 - 1) | st.integers(0, 12), st.binary(max_size=64), st.booleans())
def test_whatever_is_asked_has_an_answer(option: int, data: bytes, secure: bool) -> None:
    said = nbd.answer(option, data, secure=secure)
    if not secure:
        assert not isinstance(said, nbd.Pass)
    if isinstance(said, nbd.Say):
        assert kind_of(said) & nbd.REP_ERRORS
