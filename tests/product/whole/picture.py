"""What there is, in lines that two runs have in common: machines, snapshots, disks, and what is on the disks.

    web1 Running
    web1/0 15 MiB A
    monday is a snapshot, Halted

What a disk holds is read through an iSCSI login: of a machine that runs, by the one that the machine has; of others by
one of our own, which the array's administrator lets in for that time.
"""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.sr.equal.names import vdi_volume
from tests.product.engine.initiator import Initiator
from tests.product.whole.agent_process import HeldSessions
from tests.product.whole.held_disk import BAND, BANDS, HeldDisk
from tests.product.whole.host import Host

if TYPE_CHECKING:
    from tests.product.whole.whole import Whole

Picture = list[str]
MIB = 1024**2
EMPTY, BROKEN, REFUSED = "empty", "something else", "something that its machine may not write to"
READER = "iqn.2026-01.test:reader"
BLOCK = 512
AT_ONCE = 1 * MIB


def filled(letter: str, size_bytes: int) -> bytes:
    image = bytearray(size_bytes)
    for start in BANDS:
        image[start : start + BAND] = letter.encode() * BAND
    return bytes(image)


def letter_of(image: bytes) -> str:
    if not any(image):
        return EMPTY
    letter = chr(image[0])
    return letter if letter.isalpha() and image == filled(letter, len(image)) else BROKEN


def letter_held(disk: HeldDisk, size_bytes: int) -> str:
    """As ``letter_of``, without moving all of it; and its machine writes there, what is there already."""
    disk.look_at_size(size_bytes)
    letter = disk.read(0, 16)[:1]
    if not all(disk.holds(letter[0], start, BAND) for start in BANDS):
        return BROKEN
    gaps = [(BANDS[0] + BAND, BANDS[1]), (BANDS[1] + BAND, size_bytes)]
    if not all(disk.holds(0, start, end - start) for start, end in gaps):
        return BROKEN
    try:
        disk.write(0, letter * BLOCK)
    except SeamError:
        return REFUSED
    return letter.decode() if letter.isalpha() else EMPTY


async def take(whole: "Whole") -> Picture:
    return await Photographer(whole).take()


class Photographer:
    def __init__(self, whole: "Whole") -> None:
        self.whole = whole
        self.records = whole.state.records()
        self.machines: dict[str, tuple[Host, str]] = {}  # uuid -> where it runs, and as which start
        self.places: dict[str, tuple[str, Path | None]] = {}  # VDI -> (what of, the session that its machine has)

    async def take(self) -> Picture:
        for host, domain in await self.whole.domains():
            self.machines[domain.uuid] = host, domain.start_id
        lines = [self._vm(vm) for vm in self.records["VM"].values() if self._counts(vm)]
        if self.whole.state.tells_hosts:
            names = {vm["uuid"]: vm["name_label"] for vm in self.records["VM"].values()}
            lines += [f"{names.get(uuid, uuid)} runs on {host.hostname}" for uuid, (host, _) in self.machines.items()]
        srs = {ref: sr["name_label"] for ref, sr in self.records["SR"].items()}
        vdis = self.records.get("VDI", {})
        if self.whole.state.tells_srs:
            lines += [f"{what} is in {srs[vdis[ref]['SR']]}" for ref, (what, _) in self.places.items()]
        for ref, vdi in vdis.items():
            self.places.setdefault(ref, (f"{vdi['name_label']} of no machine, in {srs[vdi['SR']]}", None))
        async with self.whole.group.connect() as administrator:
            letters = await asyncio.gather(*(self._letter(ref, administrator) for ref in vdis))
        for (ref, vdi), letter in zip(vdis.items(), letters, strict=True):
            lines.append(f"{self.places[ref][0]} {vdi['virtual_size'] // MIB} MiB {letter}")
        return sorted(lines)

    @staticmethod
    def _counts(vm: dict[str, Any]) -> bool:
        return not (vm["is_control_domain"] or vm["is_default_template"])

    def _vm(self, vm: dict[str, Any]) -> str:
        name = vm["name_label"]
        for ref in vm["VBDs"]:
            vbd = self.records["VBD"][ref]
            if vbd["VDI"] != NULL_REF:
                here = vbd["currently_attached"] and vm["power_state"] in ("Running", "Paused")
                session = self._session(vm["uuid"], vbd["userdevice"]) if here else None
                self.places[vbd["VDI"]] = f"{name}/{vbd['userdevice']}", session
        if vm["suspend_VDI"] != NULL_REF:
            self.places[vm["suspend_VDI"]] = f"{name}/memory", None
        return f"{name} is a snapshot, {vm['power_state']}" if vm["is_a_snapshot"] else f"{name} {vm['power_state']}"

    def _session(self, vm: str, device: str) -> Path:
        host, start_id = self.machines[vm]
        return HeldSessions.stem(host.run / "held", f"{vm}/{start_id}/{device}")

    async def _letter(self, ref: str, administrator: asyncssh.SSHClientConnection) -> str:
        vdi = self.records["VDI"][ref]
        session = self.places[ref][1]
        if vdi["type"] == "suspend":
            return "memory"
        if session is not None:
            disk = HeldDisk(session)
            return await asyncio.to_thread(letter_held, disk, vdi["virtual_size"])
        return letter_of(await self._login(vdi, administrator))

    async def _login(self, vdi: dict[str, Any], administrator: asyncssh.SSHClientConnection) -> bytes:
        """All that the volume or the snapshot holds."""

        async def ask(words: str) -> str:
            said = str((await administrator.run(f"volume select {volume} {words}")).stdout)
            assert "% Error" not in said, f"{words}: {said}"
            return said

        name = vdi_volume(self.records["SR"][vdi["SR"]]["uuid"], vdi["uuid"])
        target, volume = self.whole.state.targets()[name]
        what = "" if volume == name else f"snapshot select {name} "
        kind = "snapshot" if what else "volume"
        said = await ask(f"access create initiator {READER} authmethod none apply-to {kind}")
        try:
            await ask(f"{what}online")
            return await asyncio.to_thread(self._read, target, vdi["virtual_size"])
        finally:
            await ask(f"{what}offline")
            found = re.search(r"ID is (\d+)", said)
            assert found is not None, said
            await ask(f"access delete {found[1]}")

    def _read(self, target: str, size_bytes: int) -> bytes:
        reader = Initiator(3260, READER, source=self.whole.address, host=self.whole.address)
        try:
            reader.login(target, keys={"MaxRecvDataSegmentLength": str(MIB)})
            pieces = [reader.read10(at // BLOCK, AT_ONCE // BLOCK) for at in range(0, size_bytes, AT_ONCE)]
        finally:
            reader.close()
        return b"".join(pieces)
