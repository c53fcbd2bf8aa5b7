"""One client asks for something of a machine or its disk while another's wish is being carried out, at each moment of
that: all pairs. Exactly one gets what it wants and the other is told that it is not first; what only reads goes
together; what may cut another short does.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World, until

BUSY, DONE, CANCELLED = "OTHER_OPERATION_IN_PROGRESS", "done", "TASK_CANCELLED"
BAD_STATE = "VM_BAD_POWER_STATE"
HALTED, RUNNING, SUSPENDED, PAUSED = "Halted", "Running", "Suspended", "Paused"
SEED = 20260
NEVER = -1
TURNS = 60  # of the event loop: many more than a request needs to be refused


@dataclass
class Machine:
    """A machine with a disk in use, another one plugged, a third that is not, and a snapshot."""

    world: World
    vm: str
    disk: str
    plugged: str  # VBDs
    loose: str
    snapshot: str
    other_sr: str
    other_host: str

    @classmethod
    async def make(cls, world: World, state: str) -> "Machine":
        """In a world with two SRs and two hosts."""
        sr, other_sr = list(world.db.all("SR"))[:2]
        (host,) = set(world.db.all("host")) - {world.host}
        vm = await world.make_vm_with_disk(sr)
        snapshot = await world.call("VM.snapshot", vm, "monday")
        disk = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
        plugged = await world.make_vbd(vm, await world.make_vdi(sr, "second"))
        await world.call("VM.set_suspend_SR", vm, sr)
        if state != HALTED:
            await world.call("VM.start_on", vm, world.host, False, False)
        loose = await world.make_vbd(vm, await world.make_vdi(sr, "third"))
        if state == SUSPENDED:
            await world.call("VM.suspend", vm)
        if state == PAUSED:
            await world.call("VM.pause", vm)
        made = cls(world, vm, disk, plugged, loose, snapshot, other_sr, host)
        await made.settle()
        return made

    async def away(self) -> None:
        """It, and what was made of it."""
        world = self.world
        for vm, record in list(world.db.all("VM").items()):
            if record["is_control_domain"] or record["is_default_template"]:
                continue
            if record["power_state"] != HALTED and not record["is_a_snapshot"]:
                await world.call("VM.hard_shutdown", vm)
            await world.call("VM.destroy", vm)
        for vdi in list(world.db.all("VDI")):
            await world.call("VDI.destroy", vdi)

    async def settle(self) -> None:
        world = self.world
        await until(lambda: world.reconciler.quiet and not world.work._under_way)


Ask = Callable[[Machine], Awaitable[Any]]


def on_vm(method: str, *params: Any) -> Ask:
    return lambda machine: machine.world.call(method, machine.vm, *params)


#: what may be asked for, and in which states it alone succeeds
REQUESTS: dict[str, tuple[frozenset[str], Ask]] = {
    "start": (frozenset({HALTED}), on_vm("VM.start", False, False)),
    "clean_shutdown": (frozenset({RUNNING}), on_vm("VM.clean_shutdown")),
    "hard_shutdown": (frozenset({RUNNING, PAUSED, SUSPENDED}), on_vm("VM.hard_shutdown")),
    "hard_reboot": (frozenset({RUNNING, PAUSED}), on_vm("VM.hard_reboot")),
    "pause": (frozenset({RUNNING}), on_vm("VM.pause")),
    "unpause": (frozenset({PAUSED}), on_vm("VM.unpause")),
    "suspend": (frozenset({RUNNING}), on_vm("VM.suspend")),
    "resume": (frozenset({SUSPENDED}), on_vm("VM.resume", False, False)),
    "migrate": (frozenset({RUNNING}), lambda m: m.world.call("VM.pool_migrate", m.vm, m.other_host, {})),
    "snapshot": (frozenset({HALTED, RUNNING, PAUSED, SUSPENDED}), on_vm("VM.snapshot", "tuesday")),
    "checkpoint": (frozenset({RUNNING}), on_vm("VM.checkpoint", "tuesday")),
    "revert": (frozenset({HALTED}), lambda m: m.world.call("VM.revert", m.snapshot)),
    "clone": (frozenset({HALTED}), on_vm("VM.clone", "copy")),
    "copy": (frozenset({HALTED}), lambda m: m.world.call("VM.copy", m.vm, "copy", m.other_sr)),
    "destroy": (frozenset({HALTED}), on_vm("VM.destroy")),
    "resize": (frozenset({HALTED}), lambda m: m.world.call("VDI.resize", m.disk, 60 * MIB)),
    "resize_online": (frozenset({RUNNING, PAUSED}), lambda m: m.world.call("VDI.resize_online", m.disk, 60 * MIB)),
    "vdi_snapshot": (frozenset({HALTED, RUNNING, PAUSED}), lambda m: m.world.call("VDI.snapshot", m.disk, {})),
    "vdi_clone": (frozenset({HALTED, RUNNING, PAUSED}), lambda m: m.world.call("VDI.clone", m.disk, {})),
    "vdi_destroy": (frozenset({HALTED}), lambda m: m.world.call("VDI.destroy", m.disk)),
    "plug": (frozenset({RUNNING}), lambda m: m.world.call("VBD.plug", m.loose)),
    "unplug": (frozenset({RUNNING}), lambda m: m.world.call("VBD.unplug", m.plugged)),
}


READING = frozenset({"clone", "copy", "vdi_snapshot", "vdi_clone"})
#: what only reads a disk goes beside what leaves the disk as it is; and a machine's reset beside its disks' growth
BESIDE = {
    ("snapshot", "start", "clean_shutdown", "hard_shutdown", "hard_reboot", "pause", "unpause", "suspend", "resume"): (
        "vdi_snapshot",
        "vdi_clone",
    ),
    ("migrate", "checkpoint", "plug", "unplug", "destroy"): ("vdi_snapshot", "vdi_clone"),
    ("destroy", "hard_reboot", "pause", "unpause", "plug", "unplug"): ("resize", "resize_online"),
    ("destroy",): ("vdi_destroy",),
    ("plug",): ("unplug",),
}
TOGETHER = {frozenset(pair) for pair in product(READING, READING)} | {
    frozenset(pair) for some, others in BESIDE.items() for pair in product(some, others)
}
#: these are over, as far as the machine is concerned, when its disks are still being closed
ENDS = ("clean_shutdown", "hard_shutdown", "suspend")
CUTS_SHORT = {
    (first, second)
    for second, firsts in {
        "hard_shutdown": ("clean_shutdown", "suspend"),
        "hard_reboot": ("clean_shutdown",),
    }.items()
    for first in firsts
}


class Gate:
    """In front of the array or a host: when the call of a number comes by, ``strike`` happens first."""

    def __init__(self) -> None:
        self.passed, self.at = 0, -1
        self.strike: Callable[[], Awaitable[None]] | None = None
        self.open = False

    async def pass_by(self) -> None:
        if not self.open:
            return
        self.passed += 1
        if self.passed - 1 == self.at and self.strike is not None:
            strike, self.strike = self.strike, None
            await strike()

    def guard(self, target: Any, name: str) -> None:
        inner = getattr(target, name)

        async def guarded(*args: Any, **kwargs: Any) -> Any:
            await self.pass_by()
            answer = await inner(*args, **kwargs)
            await self.pass_by()
            return answer

        setattr(target, name, guarded)


VOLUME_CALLS = ("volume_create", "volume_destroy", "volume_resize", "volume_clone", "volume_restore", "open", "close")


def gate_of(world: World) -> Gate:
    gate = Gate()
    for name in (*VOLUME_CALLS, "volumes_snapshot"):
        gate.guard(world.driver, name)
    for agent in world.pool.agents.values():
        gate.guard(agent, "call")
    return gate


async def outcome(work: Awaitable[Any]) -> str:
    try:
        await work
    except XenApiError as error:
        return error.code
    return DONE


@dataclass
class Meeting:
    """How it went for whoever came first, and for the other ("": it was over before that moment came)."""

    first: str
    second: str = ""
    came_after: bool = False  # the first was served already
    moments: int = 0  # of the first


async def meet(world: World, gate: Gate, state: str, names: tuple[str, str], at: int) -> Meeting:
    machine = await Machine.make(world, state)
    late: list[asyncio.Task[str]] = []
    meeting = Meeting("")
    gate.passed = 0

    async def other() -> str:
        meeting.came_after = not world.work._under_way
        return await outcome(REQUESTS[names[1]][1](machine))

    async def strike() -> None:
        late.append(asyncio.create_task(other()))
        for _ in range(TURNS):
            await asyncio.sleep(0)

    gate.open, gate.at, gate.strike = True, at, strike
    meeting.first = await outcome(REQUESTS[names[0]][1](machine))
    gate.open, meeting.moments = False, gate.passed
    meeting.second = await late[0] if late else ""
    await machine.settle()
    assert (world.work.stalled, world.work.journal.entries()) == ([], [])
    world.assert_nothing_orphaned()
    await machine.away()
    return meeting


def went_well(names: tuple[str, str], meeting: Meeting) -> bool:
    if meeting.first != DONE:  # the other one made it stop
        return names in CUTS_SHORT and (meeting.first, meeting.second) == (CANCELLED, DONE)
    if not meeting.second or meeting.came_after:
        already = ("DEVICE_ALREADY_ATTACHED", "DEVICE_ALREADY_DETACHED")  # the same request, after the other was done
        return meeting.second in ("", DONE, BUSY, BAD_STATE, "HANDLE_INVALID", "VDI_IN_USE", *already)
    if frozenset(names) in TOGETHER:
        return meeting.second == DONE
    return meeting.second == BUSY or (meeting.second == BAD_STATE and names[0] in ENDS)


@pytest.mark.parametrize("state", [HALTED, RUNNING, SUSPENDED, PAUSED])
async def test_one_of_the_two_is_served(world: World, state: str) -> None:
    await world.make_sr()
    await world.make_sr("other")
    await world.second_host()
    gate, chance = gate_of(world), random.Random(SEED)
    names = [name for name, (states, _) in REQUESTS.items() if state in states]
    met = 0
    for first in names:
        alone = await meet(world, gate, state, (first, first), NEVER)
        assert alone.first == DONE, first
        for second in names if alone.moments else []:
            at = chance.randrange(alone.moments)
            meeting = await meet(world, gate, state, (first, second), at)
            assert went_well((first, second), meeting), f"{second} at moment {at} of {first}: {meeting}"
            met += not meeting.came_after
    assert met > len(names)
