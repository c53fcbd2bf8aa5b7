"""The front's half of the NBD handshake, without any I/O: one option of a client in, what to do about it out.

Written after the protocol document (NetworkBlockDevice/nbd, doc/proto.md): fixed newstyle negotiation, and TLS in its
mode FORCEDTLS: in the clear a client may ask for TLS, or leave. The names of exports hold sessions, so they are listed
to nobody. What a client wants of an export goes on to the server behind, which knows it by the empty name.
"""

import struct
from dataclasses import dataclass

INIT_MAGIC, IHAVEOPT, REPLY_MAGIC = b"NBDMAGIC", b"IHAVEOPT", 0x0003E889045565A9
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO = 1, 2, 3, 5, 6, 7
OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT = 8, 9, 10
REP_ACK, REP_ERRORS = 1, 1 << 31
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_TLS_REQD, ERR_UNKNOWN = (REP_ERRORS | number for number in (1, 2, 3, 5, 6))
#: the option's number and its length follow IHAVEOPT
OPTION_HEADER, REPLY_HEADER = struct.Struct(">8sII"), struct.Struct(">QIII")
GREETING = INIT_MAGIC + IHAVEOPT + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES)
#: a name has 4096 bytes at most; the rest is for what is asked about it
OPTION_LIMIT_BYTES, NAME_LIMIT_BYTES = 8192, 4096
#: what an old client expects after the answer to OPT_EXPORT_NAME
ZEROES = bytes(124)
_NAMED = frozenset({OPT_INFO, OPT_GO, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT})


class BadClient(ConnectionError):
    """It does not speak NBD, or not this kind: nothing that could be answered."""


@dataclass(frozen=True)
class Say:
    data: bytes


@dataclass(frozen=True)
class StartTls:
    """Said in the clear; whatever comes next is TLS."""

    data: bytes


@dataclass(frozen=True)
class Pass:
    """For the server behind. ``name``: the export that the client wants; None: said of no export."""

    option: int
    data: bytes
    name: str | None = None


@dataclass(frozen=True)
class End:
    data: bytes = b""


Answer = Say | StartTls | Pass | End


def client_flags(data: bytes) -> bool:
    """Whether the client wants no zeroes after the answer to OPT_EXPORT_NAME. BadClient."""
    (flags,) = struct.unpack(">I", data)
    if not flags & FIXED_NEWSTYLE or flags & ~(FIXED_NEWSTYLE | NO_ZEROES):
        raise BadClient(f"flags {flags:#x}")
    return bool(flags & NO_ZEROES)


def option_header(data: bytes) -> tuple[int, int]:
    """(option, bytes that follow). BadClient."""
    magic, option, length = OPTION_HEADER.unpack(data)
    if magic != IHAVEOPT or length > OPTION_LIMIT_BYTES:
        raise BadClient("no option, or too long a one")
    return option, length


def option_bytes(option: int, data: bytes = b"") -> bytes:
    return OPTION_HEADER.pack(IHAVEOPT, option, len(data)) + data


def reply(option: int, kind: int, text: str = "") -> bytes:
    data = text.encode()
    return REPLY_HEADER.pack(REPLY_MAGIC, option, kind, len(data)) + data


def answer(option: int, data: bytes, *, secure: bool) -> Answer:
    if option == OPT_ABORT:
        return End(reply(option, REP_ACK))
    if not secure:
        return _in_the_clear(option, data)
    if option == OPT_EXPORT_NAME:
        name = _decoded(data)
        return End() if name is None else Pass(option, b"", name)
    if option in _NAMED:
        return _about_an_export(option, data)
    if option == OPT_STRUCTURED_REPLY:
        return Say(reply(option, ERR_INVALID, "no data expected")) if data else Pass(option, b"")
    if option == OPT_LIST:
        return Say(reply(option, ERR_POLICY, "exports are not listed: VDI.get_nbd_info tells a name"))
    if option == OPT_STARTTLS:
        return Say(reply(option, ERR_INVALID, "this is TLS already"))
    return Say(reply(option, ERR_UNSUP))


def _in_the_clear(option: int, data: bytes) -> Answer:
    if option == OPT_EXPORT_NAME:
        return End()  # the one option that has no refusal
    if option != OPT_STARTTLS:
        return Say(reply(option, ERR_TLS_REQD, "only over TLS"))
    return Say(reply(option, ERR_INVALID, "no data expected")) if data else StartTls(reply(option, REP_ACK))


def _about_an_export(option: int, data: bytes) -> Answer:
    length = int.from_bytes(data[:4], "big")
    name = _decoded(data[4 : 4 + length])
    if len(data) < 4 + length or name is None:
        return Say(reply(option, ERR_INVALID, "not the name of an export"))
    return Pass(option, bytes(4) + data[4 + length :], name)


def _decoded(name: bytes) -> str | None:
    try:
        return name.decode() if len(name) <= NAME_LIMIT_BYTES else None
    except UnicodeDecodeError:
        return None
