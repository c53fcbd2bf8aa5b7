"""Operations to be cut short: what each needs, does, and how it is taken back. All on the VM web1 with two disks, in a
pool with two SRs, ``array`` and ``other``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.product.whole.picture import MIB, Picture, filled
from tests.product.whole.whole import HOSTNAME, OTHER_AGENT, OTHER_HOSTNAME, Whole

ROOT_MIB, DATA_MIB, PAGE_MIB, MEMORY_MIB = 15, 30, 15, 195
HALTED, RUNNING, SUSPENDED = "Halted", "Running", "Suspended"
ROOT, DATA, OTHER_ROOT, OTHER_DATA = "ABCD"  # what is on the disks, and what was before or will be
WEB1_DISKS = [f"web1/0 {ROOT_MIB} MiB {ROOT}", f"web1/1 {DATA_MIB} MiB {DATA}"]


@dataclass
class Stage:
    """web1 as the trials need it."""

    whole: Whole
    folder: Path
    other: str = ""

    async def build(self) -> None:
        """For all of them."""
        whole = self.whole
        await whole.group.cli("pool create second capacity 4GB")
        self.other = await whole.make_sr("other", storagepool="second")
        await self.build_web1()
        packed = await whole.xe("vm-clone vm=web1 new-name-label=packed")
        await whole.xe(f"vm-export uuid={packed} filename={self.folder}/packed.xva")
        await whole.xe(f"vm-uninstall uuid={packed} force=true")

    async def build_web1(self) -> None:
        """For those that need one SR only."""
        whole = self.whole
        self.vm = await whole.make_vm("web1")
        whole.state.machines = {"web1": 2, "copy": 2, "packed": 2, "monday": 2}
        whole.state.loose = {"data"}
        for letter in (ROOT, DATA, OTHER_ROOT, OTHER_DATA):
            size_bytes = (ROOT_MIB if letter in (ROOT, OTHER_ROOT) else DATA_MIB) * MIB
            (self.folder / letter).write_bytes(filled(letter, size_bytes))
        self.root, self.data = await self.add_disk("root", 0, ROOT), await self.add_disk("data", 1, DATA)
        await whole.xe(f"vm-param-set uuid={self.vm} suspend-SR-uuid={whole.sr}")

    async def add_disk(self, name: str, device: int, letter: str) -> str:
        """With room for snapshots: else the array deletes the oldest when they hold more than their volume."""
        whole, size = self.whole, f"virtual-size={DATA_MIB if device else ROOT_MIB}MiB"
        config = "sm-config:snap-reserve-percentage=1000"
        vdi = await whole.xe(f"vdi-create sr-uuid={whole.sr} name-label={name} {size} {config}")
        vbd = await whole.xe(f"vbd-create vm-uuid={self.vm} vdi-uuid={vdi} device={device} type=Disk mode=RW")
        await whole.xe(f"vbd-param-set uuid={vbd} other-config:owner=true")
        await self.fill(vdi, letter)
        return vdi

    async def fill(self, vdi: str, letter: str) -> None:
        await self.whole.xe(f"vdi-import uuid={vdi} filename={self.folder}/{letter}")

    async def bring(self, wanted: str) -> None:
        """web1 in this power state."""
        steps = {
            (HALTED, RUNNING): "vm-start",
            (HALTED, SUSPENDED): "vm-start",
            (SUSPENDED, RUNNING): "vm-resume",
            (RUNNING, SUSPENDED): "vm-suspend",
        }
        while (
            now := (await self.whole.xe("vm-param-get uuid=" + self.vm + " param-name=power-state")).title()
        ) != wanted:
            await self.whole.xe(f"{steps.get((now, wanted), 'vm-shutdown force=true')} uuid={self.vm}")

    async def uninstall(self, name: str) -> None:
        await self.whole.xe(f"vm-uninstall vm={name} force=true")

    async def template_of_web1(self) -> None:
        """With disks of its own."""
        if not await self.whole.xe("template-list name-label=golden --minimal"):
            vm = await self.whole.xe("vm-clone vm=web1 new-name-label=golden")
            await self.whole.xe(f"vm-param-set uuid={vm} is-a-template=true")

    async def remove_template(self) -> None:
        template = await self.whole.xe("template-list name-label=golden --minimal")
        await self.whole.xe(f"template-uninstall template-uuid={template} force=true")

    async def remove_snapshot(self) -> None:
        snapshot = await self.whole.xe("snapshot-list name-label=monday --minimal")
        await self.whole.xe(f"snapshot-uninstall snapshot-uuid={snapshot} force=true")

    async def snapshot_of_other_contents(self) -> None:
        """Of web1, halted: since then its disks have been written to."""
        if not await self.whole.xe("snapshot-list name-label=monday --minimal"):
            await self.fill(self.root, OTHER_ROOT)
            await self.fill(self.data, OTHER_DATA)
            await self.whole.xe("vm-snapshot vm=web1 new-name-label=monday")
        await self.fill(self.root, ROOT)
        await self.fill(self.data, DATA)

    async def have_other_host(self) -> None:
        """Only migrations use it: machines start on the host where the other trials' doors are."""
        if OTHER_AGENT not in self.whole.hosts:
            await self.whole.join_other_host()
        await self.whole.xe(f"host-enable host={OTHER_HOSTNAME}")
        self.whole.state.tells_hosts = True

    async def leave_other_host(self) -> None:
        await self.come_home()
        await self.whole.xe(f"host-disable host={OTHER_HOSTNAME}")
        self.whole.state.tells_hosts = False

    async def come_home(self) -> None:
        home = await self.whole.xe(f"host-list hostname={HOSTNAME} --minimal")
        if await self.whole.xe(f"vm-param-get uuid={self.vm} param-name=resident-on") != home:
            await self.whole.xe(f"vm-migrate uuid={self.vm} host={HOSTNAME}")

    async def new_data_disk(self) -> None:
        """In place of the one that has been resized, or written to."""
        await self.bring(HALTED)
        await self.whole.xe(f"vdi-destroy uuid={self.data}")
        self.data = await self.add_disk("data", 1, DATA)

    async def tell_srs(self) -> None:
        self.whole.state.tells_srs = True

    async def tell_no_srs(self) -> None:
        self.whole.state.tells_srs = False

    async def move_back(self) -> None:
        """The data disk, from wherever it is by now."""
        whole = self.whole
        self.data = await whole.xe(f"vbd-list vm-uuid={self.vm} userdevice=1 params=vdi-uuid --minimal")
        if await whole.xe(f"vdi-param-get uuid={self.data} param-name=sr-uuid") != whole.sr:
            self.data = await whole.xe(f"vdi-pool-migrate uuid={self.data} sr-uuid={whole.sr}")


async def nothing(stage: Stage) -> None:
    pass


@dataclass
class Trial:
    """``line``: with {root} and {data}, web1's disks, {sr} and {other}, {folder}. ``becomes``: the picture afterwards.
    ``half``: what a disk may hold when this was cut short."""

    needs: str
    line: str
    becomes: Callable[[Picture], Picture]
    undo: Callable[[Stage], Awaitable[None]]
    prepare: Callable[[Stage], Awaitable[None]] = nothing
    end: Callable[[Stage], Awaitable[None]] = nothing  # after the last try
    half: str = ""

    async def request_line(self, stage: Stage) -> str:
        snapshot = (
            await stage.whole.xe("snapshot-list name-label=monday --minimal") if "{snapshot}" in self.line else ""
        )
        uuids = {"root": stage.root, "data": stage.data, "sr": stage.whole.sr, "other": stage.other}
        return self.line.format(**uuids, folder=stage.folder, snapshot=snapshot)


def more(*lines: str) -> Callable[[Picture], Picture]:
    return lambda before: sorted([*before, *lines])


def instead(changes: dict[str, str]) -> Callable[[Picture], Picture]:
    """Lines that become others; "" for none. One whose old line is "" is new."""

    def become(before: Picture) -> Picture:
        assert set(changes) - {""} <= set(before)
        after = [changes.get(line, line) for line in before]
        return sorted([line for line in after if line] + ([changes[""]] if "" in changes else []))

    return become


def disks(name: str, root: str = ROOT, data: str = DATA) -> list[str]:
    return [f"{name}/0 {ROOT_MIB} MiB {root}", f"{name}/1 {DATA_MIB} MiB {data}"]


def machine(name: str) -> Callable[[Picture], Picture]:
    return more(f"{name} {HALTED}", *disks(name))


def grown(before: Picture) -> Picture:
    return instead({WEB1_DISKS[1]: f"web1/1 {DATA_MIB + PAGE_MIB} MiB {DATA}"})(before)


async def _uninstall_copy(stage: Stage) -> None:
    await stage.uninstall("copy")


async def _uninstall_packed(stage: Stage) -> None:
    await stage.uninstall("packed")


async def _destroy_copied_disk(stage: Stage) -> None:
    vdi = await stage.whole.xe(f"vdi-list sr-uuid={stage.other} name-label=data --minimal")
    await stage.whole.xe(f"vdi-destroy uuid={vdi}")


async def _remove_file(stage: Stage) -> None:
    (stage.folder / "out").unlink(missing_ok=True)


MEMORY = f"web1/memory {MEMORY_MIB} MiB memory"
TRIALS: dict[str, Trial] = {
    "install": Trial(
        HALTED,
        "vm-install template=golden new-name-label=copy sr-uuid={sr}",
        machine("copy"),
        _uninstall_copy,
        Stage.template_of_web1,
        Stage.remove_template,
    ),
    "clone": Trial(HALTED, "vm-clone vm=web1 new-name-label=copy", machine("copy"), _uninstall_copy),
    "full copy": Trial(
        HALTED, "vm-copy vm=web1 new-name-label=copy sr-uuid={other}", machine("copy"), _uninstall_copy
    ),
    "copy of a disk": Trial(
        HALTED,
        "vdi-copy uuid={data} sr-uuid={other}",
        more(f"data of no machine, in other {DATA_MIB} MiB {DATA}"),
        _destroy_copied_disk,
    ),
    "import of a VM": Trial(
        HALTED, "vm-import filename={folder}/packed.xva sr-uuid={sr}", machine("packed"), _uninstall_packed
    ),
    "import of a disk": Trial(
        HALTED,
        f"vdi-import uuid={{data}} filename={{folder}}/{OTHER_DATA}",
        instead({WEB1_DISKS[1]: f"web1/1 {DATA_MIB} MiB {OTHER_DATA}"}),
        Stage.new_data_disk,
        half=f"web1/1 {DATA_MIB} MiB",
    ),
    "export of a VM": Trial(HALTED, "vm-export vm=web1 filename={folder}/out", list, _remove_file),
    "export of a disk": Trial(HALTED, "vdi-export uuid={data} filename={folder}/out", list, _remove_file),
    "resize": Trial(HALTED, f"vdi-resize uuid={{data}} disk-size={DATA_MIB + PAGE_MIB}MiB", grown, Stage.new_data_disk),
    "revert": Trial(
        HALTED,
        "snapshot-revert snapshot-uuid={snapshot}",
        instead(dict(zip(WEB1_DISKS, disks("web1", OTHER_ROOT, OTHER_DATA), strict=True))),
        Stage.snapshot_of_other_contents,
        Stage.snapshot_of_other_contents,
        Stage.remove_snapshot,
    ),
    "snapshot": Trial(
        RUNNING,
        "vm-snapshot vm=web1 new-name-label=monday",
        more(f"monday is a snapshot, {HALTED}", *disks("monday")),
        Stage.remove_snapshot,
    ),
    "resize of a disk in use": Trial(
        RUNNING, f"vdi-resize uuid={{data}} disk-size={DATA_MIB + PAGE_MIB}MiB", grown, Stage.new_data_disk
    ),
    "move of a disk in use": Trial(
        RUNNING,
        "vdi-pool-migrate uuid={data} sr-uuid={other}",
        instead({"web1/1 is in array": "web1/1 is in other"}),
        Stage.move_back,
        Stage.tell_srs,
        Stage.tell_no_srs,
    ),
    "checkpoint": Trial(
        RUNNING,
        "vm-checkpoint vm=web1 new-name-label=monday",
        more(
            f"monday is a snapshot, {SUSPENDED}", *disks("monday"), f"monday/memory {MEMORY_MIB} MiB memory"
        ),
        Stage.remove_snapshot,
    ),
    "migrate": Trial(
        RUNNING,
        f"vm-migrate vm=web1 host={OTHER_HOSTNAME}",
        instead({f"web1 runs on {HOSTNAME}": f"web1 runs on {OTHER_HOSTNAME}"}),
        Stage.come_home,
        Stage.have_other_host,
        Stage.leave_other_host,
    ),
    "suspend": Trial(
        RUNNING, "vm-suspend vm=web1", instead({"web1 Running": "web1 Suspended", "": MEMORY}), nothing
    ),
    "resume": Trial(
        SUSPENDED, "vm-resume vm=web1", instead({"web1 Suspended": "web1 Running", MEMORY: ""}), nothing
    ),
}  # fmt: skip
