"""Which coordinator this host obeys: ``seams.host_membership``, kept in DATA/allegiance.json."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

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
from gespann.seams.json_lines import SeamError
from gespann.system.files import read_secret, write_secret
from gespann.system.mutual_tls import certificate_of, checked_certificate, ensure_identity

log = logging.getLogger(__name__)

FILE, IDENTITY = "allegiance.json", "identity.pem"


class _Kept(msgspec.Struct, frozen=True):
    state: AllegianceState = "alone"
    pool_uuid: str = ""
    coordinator_certificate: str = ""
    coordinator_address: str = ""


class Membership:
    """``on_change`` is called after each change, once it is durable."""

    def __init__(self, data_dir: Path) -> None:
        self.identity = ensure_identity(data_dir / IDENTITY)
        self.door_port = 0  # as the door says when it is open
        self.on_change: Callable[[], Awaitable[None]] | None = None
        self.told: Callable[[Event], None] = lambda event: None
        self._path = data_dir / FILE
        self._kept = self._read()

    @property
    def coordinator_certificate(self) -> str:
        """Of the coordinator that may connect from elsewhere; "" while there is none."""
        return self._kept.coordinator_certificate

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {
            Allegiance: self._ask,
            JoinOffer: self._offer,
            JoinWithdraw: self._withdraw,
            JoinAdopt: self._adopt,
            JoinRelease: self._release,
        }

    def reply(self) -> AllegianceReply:
        return AllegianceReply(
            state=self._kept.state,
            certificate=certificate_of(self.identity),
            door_port=self.door_port,
            coordinator_address=self._kept.coordinator_address,
            pool_uuid=self._kept.pool_uuid,
        )

    async def _ask(self, request: Request) -> AllegianceReply:
        return self.reply()

    async def _offer(self, request: JoinOffer) -> AllegianceReply:
        if self._kept.state == "member" and self._kept.pool_uuid != request.pool_uuid:
            raise SeamError("BAD_STATE", f"this host is a member of the pool {self._kept.pool_uuid}")
        if self._kept.state == "member":
            return self.reply()
        try:
            certificate = checked_certificate(request.coordinator_certificate)
        except ValueError:
            raise SeamError("BAD_REQUEST", "the coordinator's certificate cannot be read") from None
        await self._keep(_Kept("joining", request.pool_uuid, certificate, request.coordinator_address))
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
            await self._keep(_Kept())
        return self.reply()

    async def _keep(self, kept: _Kept) -> None:
        write_secret(self._path, msgspec.json.encode(kept))
        self._kept = kept
        log.info("this host is now: %s %s", kept.state, kept.pool_uuid)
        self.told(AllegianceChanged(allegiance=self.reply()))
        if self.on_change is not None:
            await self.on_change()

    def _read(self) -> _Kept:
        """A file that cannot be read is no reason to obey somebody else: the agent does not start."""
        if not self._path.exists():
            return _Kept()
        return msgspec.json.decode(read_secret(self._path), type=_Kept)
