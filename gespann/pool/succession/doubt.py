"""The note of a coordinator that it is about to give the pool away, and how it learns afterwards whether it has.

    DATA/handing.json is written ──► PoolTake is asked ──► its own agent follows ──► DATA/handing.json is taken away
                                          └─ refused ──► taken away

Whoever starts and finds the note leads nothing before the other host has said which of the two it was. ``resolve``
withdraws the offer there, so that it cannot be taken any more; or hears that it was taken.
"""

from pathlib import Path

import msgspec

from gespann.pool.links import DoorRefused, open_door
from gespann.pool.pool import HostDoor
from gespann.seams.host_agent import VERSION, Hello
from gespann.seams.host_membership import AllegianceReply, Open
from gespann.seams.host_succession import PoolTakeWithdraw
from gespann.seams.json_lines import SeamLost
from gespann.system.files import read_secret, sync_directory, write_secret
from gespann.system.json_lines import JsonLinesClient
from gespann.system.streams import Streams

FILE = "handing.json"
ASK_WITHIN_S = 10.0


class Handing(msgspec.Struct, frozen=True, kw_only=True):
    """``epoch``: by which the other one would lead; ``own_epoch``: by which this one does."""

    pool_uuid: str
    own_epoch: int
    epoch: int
    copy_id: str
    address: str  # where clients would find the other one
    door_address: str
    door_port: int
    door_certificate: str

    @property
    def door(self) -> HostDoor:
        return HostDoor(self.door_address, self.door_port, self.door_certificate)


def note(data: Path, handing: Handing) -> None:
    write_secret(data / FILE, msgspec.json.encode(handing))


def noted(data: Path) -> Handing | None:
    """A note that cannot be read is no reason to lead: msgspec.MsgspecError, OSError."""
    if not (data / FILE).exists():
        return None
    return msgspec.json.decode(read_secret(data / FILE), type=Handing)


def take_away(data: Path) -> None:
    (data / FILE).unlink(missing_ok=True)
    sync_directory(data)


def judge(handing: Handing, said: AllegianceReply) -> tuple[int, str] | None:
    """What the other host's answer to ``PoolTakeWithdraw`` means: who leads now, None for this one."""
    if said.epoch < handing.epoch:
        return None
    return said.epoch, said.coordinator_address or handing.address


async def resolve(handing: Handing, identity: Path) -> tuple[int, str] | None:
    """Who leads now (epoch, address); None: this coordinator still does, and the other one will not by this offer.
    SeamLost: nobody knows."""
    refused: list[DoorRefused] = []

    async def connect() -> Streams:
        try:
            return await open_door(handing.door, identity, Open(what="agent"), handing.own_epoch, "")
        except DoorRefused as error:
            refused.append(error)
            raise

    client = JsonLinesClient("handover", connect=connect, hello=Hello(version=VERSION))
    try:
        return judge(handing, await client.call(PoolTakeWithdraw(copy_id=handing.copy_id), ASK_WITHIN_S))
    except SeamLost:
        for error in refused:
            epoch, address = error.leader
            if epoch >= handing.epoch:
                return epoch, address or handing.address
        raise
    finally:
        await client.close()
