"""The driver's reading of what real groups are known to print, whole, character by character, and in odd pieces."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gespann.seams.sr_driver import SrError
from gespann.sr.equal import errors, group, words
from gespann.sr.equal.dialogue import Dialogue, Reply
from gespann.sr.equal.group import AccessRecord, ArrayVolume, Group, ListedVolume, StoragePool
from gespann.sr.equal.words import Line
from tests.seams.array_cli_client.transcript import DIALOGUES, PROMPT, exchanges

GB, MB = 2**30, 2**20
IQN = "iqn.2001-05.com.equallogic:0-8a0906-19f91850c-067000000b4532c1-volume-74cf9c04-4543-47ae-a937-a9b7c6c921e7"
GREETING = "\r\n           Welcome to Group Manager\r\n\r\n        Copyright 2001-2014 Dell Inc.\r\n\r\n"


class Replay:
    """A connection that answers from a transcript, fed in pieces of ``step`` characters."""

    def __init__(self, name: str, step: int) -> None:
        self._exchanges = iter(exchanges(name))
        self._step = step
        self._dialogue = Dialogue()
        assert self._feed(GREETING + PROMPT) is not None

    async def run(self, line: Line) -> Reply:
        expected = next(self._exchanges)
        assert line.text == expected.sent
        self._dialogue.sent(line)
        reply = self._feed(expected.answer)
        assert reply is not None
        if reply.error:
            raise errors.CliRefusal(line.public, reply.error)
        return reply

    def _feed(self, text: str) -> Reply | None:
        for piece in self._pieces(text):
            reply = self._dialogue.receive(piece)
            if reply is not None:
                return reply
        return None

    def _pieces(self, text: str) -> Iterator[str]:
        for start in range(0, len(text), self._step):
            yield text[start : start + self._step]


CASES: dict[str, tuple[Callable[[Group], Any], Any]] = {
    "volume_list.txt": (
        lambda g: g.volumes(),
        [
            ListedVolume("MBX02-DBPF", 5130 * MB),
            ListedVolume("BlahBlah", 1048590 * MB),
            ListedVolume("a-lun-with-a-very-long-lun-name", 105 * MB),
            ListedVolume("XenStorage0ff867ef31210e7c5497f5c34916727d22267eb723c04479a063", 1035 * MB),
        ],
    ),
    "access_records.txt": (
        lambda g: g.access_records("MBX01-DB01"),
        [
            AccessRecord("1", "iqn.1998-01.com.vmware:xxxxxvm01-4c08cb5e", "", "volume"),
            AccessRecord("2", "iqn.1998-01.com.vmware:xxxxxvm02-7b27a2a8", "", "volume"),
            AccessRecord("3", "", "18.cloud_8_1_"),
        ],
    ),
    "volume_detail_wrapped.txt": (
        lambda g: g.volume("volume-74cf9c04-4543-47ae-a937-a9b7c6c921e7"),
        ArrayVolume(
            name="volume-74cf9c04-4543-47ae-a937-a9b7c6c921e7",
            size_bytes=1035 * MB,
            reserve_bytes=1035 * MB,
            target=IQN,
            description="",
            online=True,
            connections=0,
            read_only=False,
            storage_pool="",
            thin=False,
            multihost_access=None,
            snap_reserve_percent="100",
            snap_depletion="delete-oldest",
        ),
    ),
    "volume_missing.txt": (lambda g: g.volume("nosuch"), None),
    "storage_pools.txt": (
        lambda g: g.storage_pools(),
        [
            StoragePool("default", True, 2, 12, round(2.72 * 1024 * GB), 55398 * 15 * MB),
            StoragePool("fast_sas", False, 1, 0, 300 * GB, 300 * GB),
        ],
    ),
    "storage_pool_detail.txt": (lambda g: g.space("default"), (111 * GB, 11 * GB)),
    "members.txt": (lambda g: g.firmware(), (4, 3)),
    "volume_create.txt": (lambda g: g.run(words.line("volume", "create", "v1", "15MB")), None),
}


def test_every_transcript_is_read() -> None:
    assert {path.name for path in DIALOGUES.iterdir()} == set(CASES)


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("name", CASES)
async def test_transcripts(name: str, step: int) -> None:
    ask, expected = CASES[name]
    assert await ask(Group(Replay(name, step))) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["Size: 1GB", "Status: online", "Connections: 0"])
async def test_a_detail_view_that_lacks_what_all_have(missing: str) -> None:
    (only,) = exchanges("volume_detail_wrapped.txt")

    class Lacking(Replay):
        async def run(self, line: Line) -> Reply:
            reply = await super().run(line)
            return Reply(tuple(text for text in reply.lines if text != missing))

    with pytest.raises(SrError) as caught:
        await Group(Lacking("volume_detail_wrapped.txt", 50)).volume(only.sent.split()[2])  # type: ignore[arg-type]
    assert caught.value.number == 174


def test_a_table_is_not_taken_for_another() -> None:
    assert group.output.table(("no table here",)) == []
