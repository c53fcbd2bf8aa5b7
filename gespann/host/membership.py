"""Which coordinator this host obeys (``seams.host_membership``, ``host_succession``): kept in DATA/allegiance.json."""

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gespann.host.pool_copy import PoolCopy
from gespann.seams.engine_socket import Request
from gespann.seams.host_agent import Event
from gespann.seams.host_membership import (
    Allegiance,
    AllegianceChanged,
    AllegianceReply,
    AllegianceState,
    JoinAdopt,
    JoinOffer,
    JoinRelease,
    JoinWithdraw,
)
from gespann.seams.host_succession import (
    CopyKeep,
    CopyPart,
    CopyShow,
    CopyShowReply,
    PoolFollow,
    PoolLead,
    PoolMoved,
    PoolTake,
    PoolTakeWithdraw,
)
from gespann.seams.json_lines import SeamError
from gespann.system.files import read_secret, write_secret
from gespann.system.mutual_tls import certificate_of, checked_certificate, ensure_identity

log = logging.getLogger(__name__)

FILE, IDENTITY = "allegiance.json", "identity.pem"
ADDRESS_LIMIT_CHARS = 300


class NotLeading(Exception):
    """At the door is a coordinator that leads no longer."""


class _Kept(msgspec.Struct, frozen=True):
    """``epoch``: the highest seen of this pool. ``taken_copy``: by which this machine's coordinator leads by it.
    ``withdrawn_copy``: none may lead by it any more."""

    state: AllegianceState = "alone"
    pool_uuid: str = ""
    coordinator_certificate: str = ""
    coordinator_address: str = ""
    epoch: int = 0
    taken_copy: str = ""
    taken_how: str = ""
    withdrawn_copy: str = ""


class Membership:
    """``on_change`` is called after each change, once it is durable."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.identity = ensure_identity(data_dir / IDENTITY)
        self.door_port = 0  # as the door says when it is open
        self.on_change: Callable[[], Awaitable[None]] | None = None
        self.told: Callable[[Event], None] = lambda event: None
        self.copy = PoolCopy(data_dir)
        self._path = data_dir / FILE
        self._kept = self._read()
        self._connected = 0  # connections of the coordinator
        self._silent_since_s = time.monotonic()

    @property
    def coordinator_certificate(self) -> str:
        """Of the coordinator that may connect from elsewhere, now or as the next to lead; "" while there is none."""
        return self._kept.coordinator_certificate

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {
            Allegiance: self._ask,
            JoinOffer: self._offer,
            JoinWithdraw: self._withdraw,
            JoinAdopt: self._adopt,
            JoinRelease: self._release,
            PoolLead: self._lead,
            PoolFollow: self._follow,
            PoolMoved: self._moved,
            PoolTake: self._take,
            PoolTakeWithdraw: self._take_withdraw,
            CopyShow: self._copy_show,
            CopyPart: self.copy.part,
            CopyKeep: self._copy_keep,
        }

    def reply(self) -> AllegianceReply:
        kept = self._kept
        return AllegianceReply(
            state=kept.state,
            certificate=certificate_of(self.identity),
            door_port=self.door_port,
            coordinator_address=kept.coordinator_address,
            pool_uuid=kept.pool_uuid,
            epoch=kept.epoch,
            taken_copy=kept.taken_copy,
            taken_how=kept.taken_how,
            silent_s=0.0 if self._connected or kept.state != "member" else time.monotonic() - self._silent_since_s,
        )

    # -- who comes to the door with the pool's key

    async def heed(self, epoch: int, coordinator_address: str) -> None:
        """NotLeading for an epoch lower than one seen. A higher one is obeyed from here on, durably."""
        kept = self._kept
        if kept.state == "joining":
            return
        if epoch < kept.epoch or (kept.state == "alone" and epoch == kept.epoch):
            raise NotLeading(f"epoch {epoch} is over: {kept.epoch} leads")
        address = coordinator_address or kept.coordinator_address
        if epoch == kept.epoch and address == kept.coordinator_address:
            return
        if kept.state == "alone":
            log.warning("the coordinator of this machine leads no longer: %s does", address)
        await self._keep(_Kept("member", kept.pool_uuid, kept.coordinator_certificate, address, epoch))

    @property
    def leader(self) -> tuple[int, str]:
        """Epoch, and where its coordinator is ("": here)."""
        return self._kept.epoch, self._kept.coordinator_address

    def coordinator_came(self) -> None:
        self._connected += 1

    def coordinator_went(self) -> None:
        self._connected -= 1
        self._silent_since_s = time.monotonic()

    # -- joining and leaving

    async def _ask(self, request: Request) -> AllegianceReply:
        return self.reply()

    async def _offer(self, request: JoinOffer) -> AllegianceReply:
        if self._kept.state == "member" and self._kept.pool_uuid != request.pool_uuid:
            raise SeamError("BAD_STATE", f"this host is a member of the pool {self._kept.pool_uuid}")
        if self._kept.state == "member":
            return self.reply()
        certificate = _checked(request.coordinator_certificate)
        kept = _Kept("joining", request.pool_uuid, certificate, request.coordinator_address, request.epoch)
        await self._keep(kept)
        return self.reply()

    async def _withdraw(self, request: JoinWithdraw) -> AllegianceReply:
        if self._kept.state == "joining":
            await self._keep(_Kept())
        return self.reply()

    async def _adopt(self, request: JoinAdopt) -> AllegianceReply:
        if self._kept.state == "alone" or self._kept.pool_uuid != request.pool_uuid:
            raise SeamError("BAD_STATE", "this host is not about to join that pool")
        if self._kept.state == "joining":
            await self._keep(msgspec.structs.replace(self._kept, state="member"))
        return self.reply()

    async def _release(self, request: JoinRelease) -> AllegianceReply:
        if self._kept.pool_uuid == request.pool_uuid:
            self.copy.forget()  # the pool's keys are in it
            await self._keep(_Kept())
        return self.reply()

    # -- who leads

    async def _lead(self, request: PoolLead) -> AllegianceReply:
        kept = self._kept
        if kept.state != "alone":
            raise SeamError("BAD_STATE", f"this host obeys the coordinator at {kept.coordinator_address}")
        if kept.pool_uuid == request.pool_uuid and kept.epoch > request.epoch:
            raise SeamError("BAD_STATE", f"this host has seen the epoch {kept.epoch}")
        known = (kept.pool_uuid, kept.epoch, kept.coordinator_certificate)
        certificate = _checked(request.certificate)
        if known != (request.pool_uuid, request.epoch, certificate):
            taken = (kept.taken_copy, kept.taken_how) if known[:2] == (request.pool_uuid, request.epoch) else ("", "")
            await self._keep(_Kept("alone", request.pool_uuid, certificate, "", request.epoch, *taken))
        return self.reply()

    async def _follow(self, request: PoolFollow) -> AllegianceReply:
        kept = self._kept
        if kept.pool_uuid not in ("", request.pool_uuid) or request.epoch < kept.epoch:
            raise SeamError("BAD_STATE", f"this host has seen the epoch {kept.epoch} of the pool {kept.pool_uuid}")
        if kept.state == "member" and kept.epoch == request.epoch:
            return self.reply()
        if kept.epoch == request.epoch and kept.taken_copy:
            raise SeamError("BAD_STATE", "the coordinator of this machine leads by that epoch itself")
        certificate = _checked(request.certificate)
        address = _checked_address(request.coordinator_address)
        await self._keep(_Kept("member", request.pool_uuid, certificate, address, request.epoch))
        return self.reply()

    async def _moved(self, request: PoolMoved) -> AllegianceReply:
        if self._kept.state != "member":
            raise SeamError("BAD_STATE", "this host is no member of a pool")
        address = _checked_address(request.coordinator_address)
        await self._keep(msgspec.structs.replace(self._kept, coordinator_address=address))
        return self.reply()

    async def _take(self, request: PoolTake) -> AllegianceReply:
        kept, about = self._kept, self.copy.about
        if kept.taken_copy == request.copy_id and kept.epoch == request.epoch:
            return self.reply()
        if kept.state != "member" or kept.pool_uuid != request.pool_uuid:
            raise SeamError("BAD_STATE", "this host is no member of that pool")
        if request.epoch <= kept.epoch:
            raise SeamError("BAD_STATE", f"this host has seen the epoch {kept.epoch}")
        if about is None or about.copy_id != request.copy_id or kept.withdrawn_copy == request.copy_id:
            raise SeamError("BAD_STATE", "this host has not that copy of the pool, or it was withdrawn")
        await self._keep(
            _Kept(
                "alone",
                kept.pool_uuid,
                kept.coordinator_certificate,
                epoch=request.epoch,
                taken_copy=request.copy_id,
                taken_how=request.how,
            )
        )
        return self.reply()

    async def _take_withdraw(self, request: PoolTakeWithdraw) -> AllegianceReply:
        if self._kept.taken_copy != request.copy_id and self._kept.withdrawn_copy != request.copy_id:
            await self._keep(msgspec.structs.replace(self._kept, withdrawn_copy=request.copy_id))
        return self.reply()

    # -- the copy

    async def _copy_show(self, request: CopyShow) -> CopyShowReply:
        return self.copy.show()

    async def _copy_keep(self, request: CopyKeep) -> CopyShowReply:
        kept = self._kept
        if kept.state != "member" or kept.pool_uuid != request.about.pool_uuid:
            raise SeamError("BAD_STATE", "this host is no member of that pool")
        if request.about.epoch < kept.epoch:
            raise SeamError("BAD_STATE", f"this host has seen the epoch {kept.epoch}")
        return await self.copy.keep(request.about)

    async def _keep(self, kept: _Kept) -> None:
        before = msgspec.structs.replace(self.reply(), silent_s=0.0)
        write_secret(self._path, msgspec.json.encode(kept))
        self._kept = kept
        log.info("this host is now: %s %s, epoch %d", kept.state, kept.pool_uuid, kept.epoch)
        if before != msgspec.structs.replace(self.reply(), silent_s=0.0):
            self.told(AllegianceChanged(allegiance=self.reply()))
        if self.on_change is not None:
            await self.on_change()

    def _read(self) -> _Kept:
        """A file that cannot be read is no reason to obey somebody else: the agent does not start."""
        if not self._path.exists():
            return _Kept()
        return msgspec.json.decode(read_secret(self._path), type=_Kept)


def _checked(certificate: str) -> str:
    try:
        return checked_certificate(certificate)
    except ValueError:
        raise SeamError("BAD_REQUEST", "the coordinator's certificate cannot be read") from None


def _checked_address(address: str) -> str:
    if not 0 < len(address) <= ADDRESS_LIMIT_CHARS or not address.isprintable() or " " in address:
        raise SeamError("BAD_REQUEST", "no address of a coordinator")
    return address
