"""The frames of the thin-CLI protocol, bytes only: no socket, no clock, nothing but ``struct``.

Both ends first send ``GREETING``. After it every message is a frame: int32 length, then a payload whose first int32 is
a family (command, response, blob) and whose second is a tag. All integers are little-endian int32, a string is an int32
length and its bytes. A blob chunk frame announces how many raw bytes follow it, outside any frame.

This module is imported by the thin client too, whose start-up time users feel: it imports nothing heavy.
"""

from __future__ import annotations

import struct

MAGIC = b"XenSource thin CLI protocol"
MAJOR, MINOR = 0, 2
GREETING = MAGIC + struct.pack("<ii", MAJOR, MINOR)

COMMAND, RESPONSE, BLOB = 9, 10, 11
PRINT, LOAD, PROMPT, EXIT = 0, 1, 3, 4
HTTP_GET, HTTP_PUT, ERROR, DEBUG, PRINT_STDERR, HTTP_CONNECT = 12, 13, 14, 15, 16, 17
OK, FAILED, WAIT = 5, 6, 18
CHUNK, END = 7, 8

# What follows the tag: "s" a string, "i" an int32, "l" an int32 count and as many strings.
_SHAPES = {
    (COMMAND, PRINT): "s",
    (COMMAND, LOAD): "s",
    (COMMAND, PROMPT): "",
    (COMMAND, EXIT): "i",
    (COMMAND, HTTP_GET): "ss",
    (COMMAND, HTTP_PUT): "ss",
    (COMMAND, ERROR): "sl",
    (COMMAND, DEBUG): "s",
    (COMMAND, PRINT_STDERR): "s",
    (COMMAND, HTTP_CONNECT): "s",
    (RESPONSE, OK): "",
    (RESPONSE, FAILED): "",
    (RESPONSE, WAIT): "",
    (BLOB, CHUNK): "i",
    (BLOB, END): "",
}

FRAME_LIMIT_BYTES = 64 * 1024 * 1024  # a --minimal list of a large pool is one frame
CHUNK_LIMIT_BYTES = 16 * 1024 * 1024


class FrameError(Exception):
    """The other side does not speak the protocol."""


class Message:
    """One decoded frame: ``family``, ``tag``, ``values`` (str, int or list of str, as the shape says); ``data`` holds
    the raw bytes of a blob chunk."""

    __slots__ = ("data", "family", "tag", "values")

    def __init__(self, family: int, tag: int, values: list[str | int | list[str]], data: bytes = b"") -> None:
        self.family, self.tag, self.values, self.data = family, tag, values, data

    def text(self, index: int = 0) -> str:
        value = self.values[index]
        if not isinstance(value, str):
            raise FrameError(f"value {index} is not a string")
        return value

    def number(self, index: int = 0) -> int:
        value = self.values[index]
        if not isinstance(value, int):
            raise FrameError(f"value {index} is not a number")
        return value

    def __repr__(self) -> str:
        return f"Message({self.family}, {self.tag}, {len(self.values)} values)"  # values may hold secrets


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<i", len(raw)) + raw


def encode(family: int, tag: int, *values: str | int | list[str]) -> bytes:
    """One frame. The values must fit the shape of (family, tag)."""
    shape = _SHAPES[(family, tag)]
    if len(shape) != len(values):
        raise ValueError(f"frame {family}/{tag} takes {len(shape)} values, not {len(values)}")
    payload = struct.pack("<ii", family, tag)
    for value in values:
        if isinstance(value, str):
            payload += _string(value)
        elif isinstance(value, int):
            payload += struct.pack("<i", value)
        else:
            payload += struct.pack("<i", len(value)) + b"".join(map(_string, value))
    return struct.pack("<i", len(payload)) + payload


def encode_chunk(data: bytes) -> bytes:
    return encode(BLOB, CHUNK, len(data)) + data


class _Payload:
    def __init__(self, payload: bytes) -> None:
        self.payload, self.at = payload, 0

    def number(self) -> int:
        if self.at + 4 > len(self.payload):
            raise FrameError("a frame ends inside a number")
        (value,) = struct.unpack_from("<i", self.payload, self.at)
        self.at += 4
        return int(value)

    def string(self) -> str:
        length = self.number()
        if length < 0 or self.at + length > len(self.payload):
            raise FrameError("a string is longer than its frame")
        raw = self.payload[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", "surrogateescape")

    def value(self, kind: str) -> str | int | list[str]:
        if kind == "l":
            return self.strings()
        return self.string() if kind == "s" else self.number()

    def strings(self) -> list[str]:
        count = self.number()
        if count < 0 or count > len(self.payload):
            raise FrameError("a list is longer than its frame")
        return [self.string() for _ in range(count)]


def decode(payload: bytes) -> Message:
    """The payload of one frame. FrameError for anything that is not exactly one known message."""
    reader = _Payload(payload)
    family, tag = reader.number(), reader.number()
    shape = _SHAPES.get((family, tag))
    if shape is None:
        raise FrameError(f"unknown message {family}/{tag}")
    values = [reader.value(kind) for kind in shape]
    if reader.at != len(payload):
        raise FrameError("a frame is longer than its message")
    return Message(family, tag, values)


class FrameReader:
    """Bytes in (``feed``), messages out (``next``); any split of the input gives the same messages."""

    def __init__(self, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self._buffer = bytearray()
        self._limit_bytes = limit_bytes
        self._chunk: Message | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Message | None:
        """The next whole message, None if more bytes are needed."""
        message = self._chunk or self._next_frame()
        if message is None or (message.family, message.tag) != (BLOB, CHUNK):
            return message
        self._chunk = message
        length = message.number()
        if length < 0 or length > CHUNK_LIMIT_BYTES:
            raise FrameError(f"a chunk of {length} bytes")
        if len(self._buffer) < length:
            return None
        message.data = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._chunk = None
        return message

    def _next_frame(self) -> Message | None:
        if len(self._buffer) < 4:
            return None
        (length,) = struct.unpack_from("<i", self._buffer)
        if length < 8 or length > self._limit_bytes:
            raise FrameError(f"a frame of {length} bytes")
        if len(self._buffer) < 4 + length:
            return None
        payload = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return decode(payload)
