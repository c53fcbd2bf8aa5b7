"""The protocol byte by byte: literal bytes as documented, any split of the input, and hostile input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.xe import frames
from gespann.xe.frames import FrameError, FrameReader

SAMPLES = [
    (frames.COMMAND, frames.PRINT, ["hé"], b"\x0f\0\0\0\x09\0\0\0\x00\0\0\0\x03\0\0\0h\xc3\xa9"),
    (frames.COMMAND, frames.LOAD, ["a"], b"\x0d\0\0\0\x09\0\0\0\x01\0\0\0\x01\0\0\0a"),
    (frames.COMMAND, frames.PROMPT, [], b"\x08\0\0\0\x09\0\0\0\x03\0\0\0"),
    (frames.COMMAND, frames.EXIT, [-1], b"\x0c\0\0\0\x09\0\0\0\x04\0\0\0\xff\xff\xff\xff"),
    (frames.COMMAND, frames.HTTP_GET, ["f", "/p"], b"\x13\0\0\0\x09\0\0\0\x0c\0\0\0\x01\0\0\0f\x02\0\0\0/p"),
    (frames.COMMAND, frames.HTTP_PUT, ["f", "/p"], b"\x13\0\0\0\x09\0\0\0\x0d\0\0\0\x01\0\0\0f\x02\0\0\0/p"),
    (
        *(frames.COMMAND, frames.ERROR, ["E", ["", "x"]]),
        b"\x1a\0\0\0\x09\0\0\0\x0e\0\0\0\x01\0\0\0E\x02\0\0\0\0\0\0\0\x01\0\0\0x",
    ),
    (frames.COMMAND, frames.DEBUG, [""], b"\x0c\0\0\0\x09\0\0\0\x0f\0\0\0\0\0\0\0"),
    (frames.COMMAND, frames.PRINT_STDERR, [""], b"\x0c\0\0\0\x09\0\0\0\x10\0\0\0\0\0\0\0"),
    (frames.COMMAND, frames.HTTP_CONNECT, [""], b"\x0c\0\0\0\x09\0\0\0\x11\0\0\0\0\0\0\0"),
    (frames.RESPONSE, frames.OK, [], b"\x08\0\0\0\x0a\0\0\0\x05\0\0\0"),
    (frames.RESPONSE, frames.FAILED, [], b"\x08\0\0\0\x0a\0\0\0\x06\0\0\0"),
    (frames.RESPONSE, frames.WAIT, [], b"\x08\0\0\0\x0a\0\0\0\x12\0\0\0"),
    (frames.BLOB, frames.END, [], b"\x08\0\0\0\x0b\0\0\0\x08\0\0\0"),
]


def test_the_greeting() -> None:
    assert frames.GREETING == b"XenSource thin CLI protocol\0\0\0\0\x02\0\0\0"


@pytest.mark.parametrize(("family", "tag", "values", "expected"), SAMPLES)
def test_literal_bytes(family: int, tag: int, values: list, expected: bytes) -> None:
    assert frames.encode(family, tag, *values) == expected
    reader = FrameReader()
    reader.feed(expected)
    message = reader.next()
    assert message is not None
    assert (message.family, message.tag, message.values) == (family, tag, values)
    assert reader.next() is None


def test_a_chunk_is_followed_by_raw_bytes() -> None:
    assert frames.encode_chunk(b"abc") == b"\x0c\0\0\0\x0b\0\0\0\x07\0\0\0\x03\0\0\0abc"


@given(st.lists(st.sampled_from([*range(len(SAMPLES)), "chunk"]), max_size=8), st.data())
def test_any_split_gives_the_same_messages(picks: list, data: st.DataObject) -> None:
    stream = b"".join(frames.encode_chunk(b"x" * 9) if pick == "chunk" else SAMPLES[pick][3] for pick in picks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader, found = FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        while (message := reader.next()) is not None:
            found.append(message)
    assert len(found) == len(picks)
    for message, pick in zip(found, picks, strict=True):
        expected = (frames.BLOB, frames.CHUNK) if pick == "chunk" else SAMPLES[pick][:2]
        assert (message.family, message.tag) == expected
        assert message.data == (b"x" * 9 if pick == "chunk" else b"")


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_or_wait(data: bytes) -> None:
    reader = FrameReader(limit_bytes=1000)
    reader.feed(data)
    try:
        while reader.next() is not None:
            pass
    except FrameError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",  # a negative length
        b"\xff\xff\xff\x7f",  # an absurd one
        b"\x04\0\0\0\x09\0\0\0",  # too short for a message
        b"\x08\0\0\0\x09\0\0\0\x63\0\0\0",  # no such message
        b"\x0c\0\0\0\x09\0\0\0\x03\0\0\0zzzz",  # more than the message takes
        b"\x0c\0\0\0\x09\0\0\0\x00\0\0\0\xff\0\0\0",  # a string longer than its frame
        b"\x0c\0\0\0\x0b\0\0\0\x07\0\0\0\xff\xff\xff\xff",  # a chunk of less than nothing
    ],
)
def test_broken_frames_are_refused(data: bytes) -> None:
    reader = FrameReader()
    reader.feed(data)
    with pytest.raises(FrameError):
        reader.next()


def test_no_value_is_in_a_repr() -> None:
    assert "hush" not in repr(frames.Message(frames.COMMAND, frames.PRINT, ["hush"]))
