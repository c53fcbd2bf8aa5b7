"""What a host takes as a copy of the pool, and whom it obeys: also after it was started anew."""

import hashlib
import sqlite3
import stat
from pathlib import Path

import pytest

from gespann.host.membership import Membership, NotLeading
from gespann.host.pool_copy import PoolCopy
from gespann.seams.host_membership import AllegianceReply, JoinAdopt, JoinOffer, JoinRelease
from gespann.seams.host_succession import (
    CopyAbout,
    CopyKeep,
    CopyPart,
    PoolFollow,
    PoolLead,
    PoolMoved,
    PoolTake,
    PoolTakeWithdraw,
    next_epoch,
)
from gespann.seams.json_lines import SeamError
from gespann.system.mutual_tls import certificate_of, ensure_identity
from gespann.system.packing import pack


def packed(base: Path, word: str) -> bytes:
    plain = base / "plain.db"
    plain.unlink(missing_ok=True)
    connection = sqlite3.connect(plain)
    connection.execute("CREATE TABLE said (word TEXT)")
    connection.execute("INSERT INTO said VALUES (?)", (word,))
    connection.commit()
    connection.close()
    pack(plain, base / "packed")
    return (base / "packed").read_bytes()


def about(data: bytes, epoch: int = 5, taken_at: str = "20260101T00:00:00Z") -> CopyAbout:
    name = hashlib.sha256(data).hexdigest()
    return CopyAbout(copy_id=name, size_bytes=len(data), pool_uuid="p", epoch=epoch, taken_at=taken_at)


def content(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def copies_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("pool-copy*"))


async def send(copy: PoolCopy, data: bytes, step: int = 1000) -> None:
    name = about(data).copy_id
    for offset in range(0, len(data), step):
        await copy.part(CopyPart(copy_id=name, offset_bytes=offset, data=data[offset : offset + step]))


async def test_a_copy_is_kept_when_it_is_whole_and_sound(tmp_path: Path) -> None:
    copy = PoolCopy(tmp_path)
    first, second = packed(tmp_path, "first"), packed(tmp_path, "second")
    await send(copy, first)
    kept = await copy.keep(about(first))
    path = Path(kept.path)
    assert (content(path), mode(path)) == (first, 0o600)

    with pytest.raises(SeamError, match="has not been sent"):
        await copy.keep(about(second))
    await copy.part(CopyPart(copy_id=about(second).copy_id, offset_bytes=0, data=second[:-1]))
    with pytest.raises(SeamError, match="is not the copy"):
        await copy.keep(about(second))
    with pytest.raises(SeamError, match="parts before"):
        await copy.part(CopyPart(copy_id="a" * 64, offset_bytes=7, data=b"x"))
    noise = b"this is no database at all" * 50
    await send(copy, noise)
    with pytest.raises(SeamError, match="no database"):
        await copy.keep(about(noise))
    for wrong in (
        CopyPart(copy_id="../x", offset_bytes=0, data=b"x"),
        CopyPart(copy_id="a" * 64, offset_bytes=0, data=b""),
    ):
        with pytest.raises(SeamError, match="not "):
            await copy.part(wrong)
    assert PoolCopy(tmp_path).show().path == kept.path
    assert content(path) == first

    await send(copy, second)
    await copy.keep(about(second))
    later = about(second, taken_at="20260101T00:01:00Z")
    await copy.keep(later)
    again = PoolCopy(tmp_path)
    assert again.about == later
    assert path.name not in copies_in(tmp_path)
    again.forget()
    assert PoolCopy(tmp_path).show().about is None
    assert copies_in(tmp_path) == []


class Host:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.certificate = certificate_of(ensure_identity(base / "coordinator.pem"))
        self.membership = Membership(base)

    async def ask(self, request: object) -> AllegianceReply:
        reply = await self.membership.handlers()[type(request)](request)
        assert isinstance(reply, AllegianceReply)
        self.membership = Membership(self.base)  # what it has answered, it knows when it is started anew
        return reply

    async def refused(self, request: object, text: str) -> None:
        before = self.membership.reply()
        with pytest.raises(SeamError, match=text):
            await self.membership.handlers()[type(request)](request)
        assert self.membership.reply().state == before.state
        assert self.membership.reply().epoch == before.epoch

    async def join(self) -> None:
        offer = JoinOffer(
            pool_uuid="p", coordinator_certificate=self.certificate, coordinator_address="10.0.0.1", epoch=5
        )
        await self.ask(offer)
        await self.ask(JoinAdopt(pool_uuid="p"))

    async def has_copy(self, word: str = "x", epoch: int = 5) -> str:
        data = packed(self.base, word)
        await send(self.membership.copy, data)
        await self.membership.handlers()[CopyKeep](CopyKeep(about=about(data, epoch)))
        return about(data).copy_id


async def test_a_member_leads_from_a_copy_that_it_has_and_that_was_not_withdrawn(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await host.join()
    await host.refused(PoolTake(pool_uuid="p", epoch=6, copy_id="a" * 64), "has not that copy")
    first = await host.has_copy("first")
    await host.refused(PoolTake(pool_uuid="q", epoch=6, copy_id=first), "no member of that pool")
    await host.refused(PoolTake(pool_uuid="p", epoch=5, copy_id=first), "has seen the epoch 5")
    assert (await host.ask(PoolTakeWithdraw(copy_id=first))).epoch == 5
    await host.refused(PoolTake(pool_uuid="p", epoch=6, copy_id=first), "withdrawn")

    second = await host.has_copy("second")
    take = PoolTake(pool_uuid="p", epoch=6, copy_id=second)
    for _ in range(2):
        said = await host.ask(take)
        assert (said.state, said.epoch, said.taken_copy) == ("alone", 6, second)
    assert (await host.ask(PoolTakeWithdraw(copy_id=second))).epoch == 6  # too late, and it says so
    await host.refused(
        PoolFollow(pool_uuid="p", epoch=5, certificate=host.certificate, coordinator_address="x"), "seen"
    )
    same = PoolFollow(pool_uuid="p", epoch=6, certificate=host.certificate, coordinator_address="10.0.0.1")
    await host.refused(same, "leads by that epoch itself")


async def test_a_host_obeys_the_highest_epoch_that_it_has_seen(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await host.join()
    await host.membership.heed(5, "10.0.0.1")
    await host.membership.heed(9, "10.0.0.2")
    host.membership = Membership(tmp_path)
    assert host.membership.leader == (9, "10.0.0.2")
    with pytest.raises(NotLeading):
        await host.membership.heed(5, "10.0.0.1")
    await host.refused(PoolLead(pool_uuid="p", epoch=10, certificate=host.certificate), "obeys the coordinator")
    said = await host.ask(PoolMoved(coordinator_address="10.0.0.3:443"))
    assert (said.coordinator_address, said.epoch) == ("10.0.0.3:443", 9)
    for wrong in ("", "a b", "x" * 400):
        await host.refused(PoolMoved(coordinator_address=wrong), "no address")
    with pytest.raises(SeamError, match="has seen the epoch 9"):
        await host.has_copy()  # of a coordinator that leads no longer
    await host.has_copy(epoch=9)
    assert (await host.ask(JoinRelease(pool_uuid="p"))).state == "alone"
    assert copies_in(tmp_path) == []  # the pool's keys were in it
    await host.refused(PoolMoved(coordinator_address="10.0.0.3"), "no member")


async def test_a_coordinator_that_leads_gives_way_to_a_higher_epoch_only(tmp_path: Path) -> None:
    host = Host(tmp_path)
    lead = PoolLead(pool_uuid="p", epoch=5, certificate=host.certificate)
    assert (await host.ask(lead)).state == "alone"
    for epoch in (4, 5):  # nobody else leads by its own epoch
        with pytest.raises(NotLeading):
            await host.membership.heed(epoch, "10.0.0.2")
    await host.refused(PoolLead(pool_uuid="p", epoch=4, certificate=host.certificate), "has seen the epoch 5")
    await host.membership.heed(6, "10.0.0.2")
    assert host.membership.reply().state == "member"


def test_two_that_take_over_at_once_have_different_epochs() -> None:
    epochs = {next_epoch(7) for _ in range(100)}
    assert len(epochs) == 100
    assert min(next_epoch(epoch) - epoch for epoch in epochs) > 0
