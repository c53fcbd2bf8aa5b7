"""For every operation that can be in a journal: a world in which it makes sense, and the request that causes it.

A scene must exist for each name in ``OPERATIONS``; a test sees to it. A second scene of one has more words in its name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gespann.pool.classes.context import capabilities_of
from gespann.pool.images import ova
from gespann.pool.images.nbd import nbd_client
from gespann.pool.images.streams import Pieces
from gespann.pool.images.tar import TarReader
from gespann.pool.images.xva import ArchiveReader
from gespann.pool.plan import export_plans, image_plans, import_plans
from gespann.pool.plan.data_plans import plan_shed_data
from gespann.pool.plan.disk_plans import plan_export, plan_import, plan_serve
from gespann.pool.plan.power_plans import plan_stopped
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.far_hosts import FarHost
from tests.unit.pool.world import DEVICE_CONFIG, MIB, World, cd_fields, until, vbd_fields, vdi_fields, vif_fields

Prepare = Callable[[World], Awaitable[Any]]
Request = Callable[[World, Any], Awaitable[Any]]
DISKS = (
    f'<provision><disk device="0" size="{30 * MIB}" sr="{{sr}}" bootable="true" type="system"/>'
    f'<disk device="1" size="{45 * MIB}" sr="{{sr}}" bootable="false" type="user"/></provision>'
)


@dataclass(frozen=True)
class Scene:
    prepare: Prepare
    request: Request


async def _nothing(world: World) -> None:
    return None


async def _sr(world: World) -> str:
    return await world.make_sr()


async def _vdi(world: World) -> str:
    return await world.make_vdi(await world.make_sr())


async def _vm(world: World) -> str:
    """Two disks, an empty CD drive, and a network interface."""
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.make_vbd(vm, await world.make_vdi(sr, "data"))
    await world.call("VBD.create", cd_fields(vm))
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}, "bridge": "br7"})
    await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:00:07"))
    return vm


async def _vm_with_disk(world: World) -> str:
    return await world.make_vm_with_disk(await world.make_sr())


async def _running(world: World) -> str:
    vm = await _vm(world)
    await world.call("VM.start", vm, False, False)
    return vm


async def _paused(world: World) -> str:
    vm = await _vm(world)
    await world.call("VM.start", vm, True, False)
    return vm


async def _two_vcpus_at_most(world: World) -> str:
    vm = await world.make_vm(VCPUs_max=2)
    await world.call("VM.start", vm, False, False)
    return vm


async def _with_room_for_memory(world: World) -> str:
    """Running with a half of what it may have."""
    limits = {"memory_static_min": 16 * MIB, "memory_dynamic_min": 64 * MIB, "memory_dynamic_max": 64 * MIB}
    vm = await world.make_vm(**limits)
    await world.call("VM.start", vm, False, False)
    return vm


async def _to_suspend(world: World) -> str:
    """A running VM with a place for its memory."""
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.set_suspend_SR", vm, sr)
    await world.call("VM.start", vm, False, False)
    return vm


async def _suspended(world: World) -> str:
    vm = await _to_suspend(world)
    await until(lambda: all(running.has_address for running in world.hypervisor._running.values()))
    await world.call("VM.suspend", vm)
    return vm


async def _to_suspend_and_paused(world: World) -> str:
    vm = await _to_suspend(world)
    await until(lambda: all(running.has_address for running in world.hypervisor._running.values()))
    await world.call("VM.pause", vm)
    return vm


async def _suspended_snapshot(world: World) -> str:
    """Since then the VM was shut down."""
    vm = await _suspended(world)
    snapshot = await world.call("VM.snapshot", vm, "monday")
    await world.call("VM.hard_shutdown", vm)
    return snapshot


async def _checkpoint(world: World) -> str:
    """Since then the VM was shut down."""
    vm = await _to_suspend(world)
    await until(lambda: all(running.has_address for running in world.hypervisor._running.values()))
    checkpoint = await world.call("VM.checkpoint", vm, "monday")
    await world.call("VM.hard_shutdown", vm)
    return checkpoint


async def _template(world: World) -> str:
    sr = await world.make_sr()
    disks = DISKS.format(sr=world.get("SR", sr)["uuid"])
    return await world.make_vm("template", is_a_template=True, other_config={"disks": disks})


async def _two_srs(world: World) -> tuple[str, str]:
    vdi = await world.make_vdi(await world.make_sr("one"))
    return vdi, await world.make_sr("two")


async def _plugged_disk_and_sr(world: World) -> tuple[str, str]:
    vdi, sr = await _two_srs(world)
    await world.make_vbd(await world.make_vm(), vdi)
    return vdi, sr


async def _running_with_two_disks_and_sr(world: World) -> tuple[str, list[str], str]:
    vm = await _running(world)
    vbds = [world.get("VBD", vbd) for vbd in world.get("VM", vm)["VBDs"]]
    return vm, [vbd["VDI"] for vbd in vbds if vbd["type"] == "Disk"], await world.make_sr("two")


async def _running_disk_and_sr(world: World) -> tuple[str, str]:
    _, disks, sr = await _running_with_two_disks_and_sr(world)
    return disks[0], sr


async def _move_both(world: World, subject: tuple[str, list[str], str]) -> str:
    vm, disks, sr = subject
    network = next(iter(world.db.all("network")))
    dest = await world.call("host.migrate_receive", world.get("VM", vm)["resident_on"], network, {})
    return await world.call("VM.migrate_send", vm, dest, True, dict.fromkeys(disks, sr), {}, {})


async def _source_target_base(world: World) -> tuple[str, str, str, str]:
    """As VDI.copy takes them: source, SR, base, target."""
    sr = await world.make_sr()
    source, base, target = [await world.make_vdi(sr, name) for name in ("source", "base", "target")]
    for vdi, text in ((source, b"new"), (base, b"old")):
        world.medium(vdi).write(5 * MIB, text)
    return source, NULL_REF, base, target


async def _vm_and_sr(world: World) -> tuple[str, str]:
    return await world.make_vm_with_disk(await world.make_sr("one")), await world.make_sr("two")


async def _running_with_loose_disk(world: World) -> str:
    vm = await _running(world)
    sr = next(iter(world.db.all("SR")))
    return await world.call("VBD.create", vbd_fields(vm, await world.make_vdi(sr, "extra")))


async def _plugged(world: World) -> str:
    vbd = await _running_with_loose_disk(world)
    await world.call("VBD.plug", vbd)
    return vbd


def _cd_of(world: World, vm: str) -> str:
    return next(vbd for vbd in world.get("VM", vm)["VBDs"] if world.get("VBD", vbd)["type"] == "CD")


async def _cd_and_medium(world: World) -> tuple[str, str]:
    vm = await _running(world)
    return _cd_of(world, vm), await world.make_vdi(next(iter(world.db.all("SR"))), "cd")


async def _filled_cd(world: World) -> str:
    cd, medium = await _cd_and_medium(world)
    await world.call("VBD.insert", cd, medium)
    return cd


async def _loose_vif(world: World) -> str:
    vm = await _running(world)
    network = next(ref for ref, record in world.db.all("network").items() if record["bridge"] == "br7")
    return await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:00:08"))


async def _vif_and_network(world: World) -> tuple[str, str]:
    vm = await _running(world)
    network = await world.call("network.create", {"name_label": "dmz", "other_config": {}, "bridge": "br9"})
    return world.get("VM", vm)["VIFs"][0], network


async def _unplugged_sr(world: World) -> tuple[str, str]:
    sr = await world.make_sr()
    (pbd,) = world.get("SR", sr)["PBDs"]
    await world.call("PBD.unplug", pbd)
    return sr, pbd


async def _attached_vdi(world: World) -> str:
    vm = await _running(world)
    return next(world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", vm)["VBDs"])


async def _pbd(world: World) -> str:
    (pbd,) = world.get("SR", await world.make_sr())["PBDs"]
    return pbd


def call(method: str, *more: Any) -> Request:
    async def request(world: World, subject: Any) -> Any:
        first = subject if isinstance(subject, tuple) else (subject,)
        return await world.call(method, *first, *more)

    return request


async def _body() -> AsyncIterator[bytes]:
    for _ in range(4):
        yield b"block of a disk " * 1024


async def _import(world: World, vdi: str) -> None:
    await world.work.run(lambda: plan_import(world.db, vdi, "iqn.2026-01.org.gespann"), memory={"body": _body()})


async def _export(world: World, vdi: str) -> None:
    async def sink(piece: bytes) -> None:
        return None

    await world.work.run(lambda: plan_export(world.db, vdi, "iqn.2026-01.org.gespann"), memory={"sink": sink})


PREFIX = "iqn.2026-01.org.gespann"
VERSION = {"hostname": "h", "date": "", "product_version": "1", "product_brand": "g", "build_number": "1"}


async def _export_vm(world: World, vm: str) -> bytes:
    pieces: list[bytes] = []

    async def sink(piece: bytes) -> None:
        pieces.append(piece)

    await world.work.run(lambda: export_plans.plan_export(world.db, vm, PREFIX, VERSION), memory={"sink": sink})
    return b"".join(pieces)


async def _export_with_memory(world: World, vm: str) -> bytes:
    pieces: list[bytes] = []

    async def sink(piece: bytes) -> None:
        pieces.append(piece)

    plan = partial(export_plans.plan_export, world.db, vm, PREFIX, VERSION, preserve=True)
    await world.work.run(plan, memory={"sink": sink})
    return b"".join(pieces)


async def _archive_with_memory(world: World) -> tuple[bytes, str]:
    vm = await _suspended(world)
    archive = await _export_with_memory(world, vm)
    disk = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    await world.call("VM.hard_shutdown", vm)
    await world.call("VM.destroy", vm)
    await world.call("VDI.destroy", disk)
    return archive, next(iter(world.db.all("SR")))


async def _import_with_memory(world: World, subject: tuple[bytes, str]) -> None:
    await _import_vm(world, subject, restore=True)


async def _archive(world: World) -> tuple[bytes, str]:
    """A VM as an archive, and gone itself; and an SR to take it."""
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    disk = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    world.medium(disk).write(7 * MIB, b"contents")
    archive = await _export_vm(world, vm)
    await world.call("VM.destroy", vm)
    await world.call("VDI.destroy", disk)
    return archive, sr


async def _import_vm(world: World, subject: tuple[bytes, str], *, restore: bool = False) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield subject[0]

    archive = ArchiveReader(TarReader(Pieces(body())))
    metadata = ova.parse(await archive.ova_xml())
    wanted = import_plans.Wanted(sr=subject[1], restore=restore)
    await world.work.run(
        lambda: import_plans.plan_import(world.db, metadata, wanted, capabilities_of(world.pool), PREFIX),
        memory={"archive": archive},
    )


async def _metadata(world: World) -> ova.Metadata:
    """The records of a VM that is gone, but for its disk."""
    vm = await world.make_vm_with_disk(await world.make_sr())
    metadata = ova.parse(export_plans.gather(world.db, [vm]).writer.xml(VERSION))
    await world.call("VM.destroy", vm)
    return metadata


async def _import_metadata(world: World, metadata: ova.Metadata) -> None:
    await world.work.run(lambda: import_plans.plan_import_metadata(world.db, metadata, import_plans.Wanted()))


async def _vhd(world: World) -> tuple[bytes, str]:
    """A disk as a VHD, and the disk."""
    vdi = await _vdi(world)
    world.medium(vdi).write(7 * MIB, b"contents")
    return await _export_image(world, (vdi, "")), vdi


async def _serve(world: World, vdi: str) -> None:
    """One reader comes, reads, and leaves."""
    read: list[bytes] = []

    async def serve(socket: str) -> None:
        async with nbd_client(socket) as client:
            read.append(await client.read(0, 4096))

    await world.work.run(partial(plan_serve, world.db, vdi, PREFIX), memory={"serve": serve})
    assert set(read) == {bytes(4096)}


async def _import_image(world: World, subject: tuple[bytes, str]) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield subject[0]

    plan = partial(image_plans.plan_import_image, world.db, subject[1], "vhd", PREFIX)
    await world.work.run(plan, memory={"body": body()})


async def _disk_and_base(world: World) -> tuple[str, str]:
    sr = await world.make_sr()
    vdi, base = await world.make_vdi(sr), await world.make_vdi(sr, "base")
    world.medium(vdi).write(7 * MIB, b"contents")
    return vdi, base


async def _export_image(world: World, subject: tuple[str, str]) -> bytes:
    pieces: list[bytes] = []

    async def sink(piece: bytes) -> None:
        pieces.append(piece)

    plan = partial(image_plans.plan_export_image, world.db, *subject, "vhd", PREFIX)
    await world.work.run(plan, memory={"sink": sink, "begin": lambda length: None})
    return b"".join(pieces)


async def _tracked(world: World) -> tuple[str, str]:
    """Two snapshots of a disk."""
    vdi = await _vdi(world)
    await world.call("VDI.enable_cbt", vdi)
    return await world.call("VDI.snapshot", vdi, {}), await world.call("VDI.snapshot", vdi, {})


async def _tracked_where_nobody_can_tell(world: World) -> tuple[str, str]:
    world.storage.block_differences = None
    return await _tracked(world)


async def _last_of_two(world: World) -> str:
    """Its volume stays for now."""
    older, _ = await _tracked(world)
    world.clock.advance(1.0)
    return await world.call("VDI.snapshot", world.get("VDI", older)["snapshot_of"], {})


async def _without_data(world: World) -> str:
    """A snapshot whose volume is only there until somebody looks: the next one has been made since."""
    vdi = await _vdi(world)
    await world.call("VDI.enable_cbt", vdi)
    older = await world.call("VDI.snapshot", vdi, {})
    await world.call("VDI.data_destroy", older)
    world.clock.advance(1.0)
    await world.call("VDI.snapshot", vdi, {})
    return older


async def _between_without_data(world: World) -> str:
    """The snapshot by way of which another is compared that has no volume any more."""
    older = await _without_data(world)
    await _shed(world, older)
    world.clock.advance(1.0)
    disk = world.get("VDI", older)["snapshot_of"]
    await world.call("VDI.snapshot", disk, {})
    return next(ref for ref in world.get("VDI", disk)["snapshots"] if ref != older)


async def _shed(world: World, vdi: str) -> None:
    await world.work.run(lambda: plan_shed_data(world.db, vdi))


async def _stopped(world: World, vm: str) -> None:
    await world.work.run(lambda: plan_stopped(world.db, vm))


async def _create_vdi(world: World, sr: str) -> str:
    return await world.call("VDI.create", vdi_fields(sr))


async def _create_sr(world: World, _: None) -> str:
    return await world.call("SR.create", world.host, DEVICE_CONFIG, 0, "array", "", "memory", "user", True, {})


async def _copy_vm(world: World, subject: tuple[str, str]) -> str:
    return await world.call("VM.copy", subject[0], "copy", subject[1])


async def _resize_online(world: World, vdi: str) -> None:
    await world.call("VDI.resize_online", vdi, 60 * MIB)


async def _forget_sr(world: World, subject: tuple[str, str]) -> None:
    await world.call("SR.forget", subject[0])


async def _destroy_sr(world: World, subject: tuple[str, str]) -> None:
    await world.call("SR.destroy", subject[0])


async def _stranger(world: World) -> FarHost:
    await world.make_sr()
    return await world.make_far_host()


async def _join(world: World, far: FarHost) -> str:
    return await world.join(far)


async def _member(world: World) -> str:
    return await world.join(await _stranger(world))


async def _dead_member(world: World) -> str:
    far = await _stranger(world)
    host = await world.join(far)
    far.reachable = False
    world.reconciler.agent_down(host)
    return host


async def _running_beside_another_host(world: World) -> tuple[str, str]:
    vm = await _running(world)
    return vm, await world.second_host()


async def _designate(world: World, subject: tuple[str, str]) -> None:
    """Until the other one leads. A process that is in doubt, or has given the pool away, ends and looks anew."""
    try:
        await world.call("pool.designate_new_master", subject[1])
    except XenApiError:
        if world.in_doubt:
            await _anew(world)
        raise
    await _anew(world)


async def _anew(world: World) -> None:
    passed = world.moments.passed
    await world.power_cut()
    await world.boot()
    world.moments.passed = passed


async def _card_and_network(world: World) -> tuple[str, int, str]:
    network = await world.call("network.create", {"name_label": "tagged", "other_config": {}, "bridge": "br100"})
    return world.get("host", world.host)["PIFs"][0], 100, network


async def _vlan(world: World) -> str:
    return await world.call("VLAN.create", *await _card_and_network(world))


async def _vlan_pif(world: World) -> str:
    return world.get("VLAN", await _vlan(world))["untagged_PIF"]


async def _unplugged_vlan_pif(world: World) -> str:
    pif = await _vlan_pif(world)
    await world.call("PIF.unplug", pif)
    return pif


async def _plug_pbd(world: World, subject: tuple[str, str]) -> None:
    await world.call("PBD.plug", subject[1])


async def _many_disks(world: World) -> str:
    """Nine, in two SRs: more than one call of a driver takes."""
    vm = await _running(world)
    await world.call("VM.hard_shutdown", vm)
    first, second = next(iter(world.db.all("SR"))), await world.make_sr("two")
    for number in range(7):
        await world.make_vbd(vm, await world.make_vdi(first if number else second, f"more {number}"))
    await world.call("VM.start", vm, False, False)
    return vm


async def _snapshot(world: World) -> str:
    """Of a VM of which since then one disk was written to, one was destroyed, and one was added."""
    vm = await _vm(world)
    world.write(vm, "old")
    snapshot = await world.call("VM.snapshot", vm, "monday")
    world.write(vm, "new")
    disks = [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", vm)["VBDs"]]
    gone = next(vdi for vdi in disks if vdi in world.db.all("VDI") and world.get("VDI", vdi)["name_label"] == "data")
    await world.call("VDI.destroy", gone)
    await world.make_vbd(vm, await world.make_vdi(next(iter(world.db.all("SR"))), "added"))
    return snapshot


async def _snapshot_of_a_vdi(world: World) -> str:
    """The disk was written to since."""
    vm = await _vm_with_disk(world)
    (disk,) = [world.get("VBD", vbd)["VDI"] for vbd in world.get("VM", vm)["VBDs"]]
    snapshot = await world.call("VDI.snapshot", disk, {})
    world.write(vm, "new")
    return snapshot


SCENES: dict[str, Scene] = {
    "VM.start": Scene(_vm, call("VM.start", False, False)),
    "VM.hard_shutdown": Scene(_running, call("VM.hard_shutdown")),
    "VM.clean_shutdown": Scene(_running, call("VM.clean_shutdown")),
    "VM.clean_reboot": Scene(_running, call("VM.clean_reboot")),
    "VM.hard_reboot": Scene(_running, call("VM.hard_reboot")),
    "VM.pause": Scene(_running, call("VM.pause")),
    "VM.unpause": Scene(_paused, call("VM.unpause")),
    "VM.power_state_reset": Scene(_vm, call("VM.power_state_reset")),
    "VM.hard_reboot of a paused VM": Scene(_paused, call("VM.hard_reboot")),
    "VM.set_VCPUs_number_live": Scene(_two_vcpus_at_most, call("VM.set_VCPUs_number_live", 2)),
    "VM.set_memory_dynamic_range": Scene(
        _with_room_for_memory, call("VM.set_memory_dynamic_range", 64 * MIB, 96 * MIB)
    ),
    "VM.checkpoint": Scene(_to_suspend, call("VM.checkpoint", "monday")),
    "VM.checkpoint of a paused VM": Scene(_to_suspend_and_paused, call("VM.checkpoint", "monday")),
    "VM.checkpoint of a suspended VM": Scene(_suspended, call("VM.checkpoint", "monday")),
    "VM.snapshot of a suspended VM": Scene(_suspended, call("VM.snapshot", "monday")),
    "VM.revert to a suspended VM": Scene(_suspended_snapshot, call("VM.revert")),
    "VM.revert to a checkpoint": Scene(_checkpoint, call("VM.revert")),
    "VM.destroy of a checkpoint": Scene(_checkpoint, call("VM.destroy")),
    "VM.add_to_VCPUs_params_live": Scene(_running, call("VM.add_to_VCPUs_params_live", "weight", "512")),
    "VM.suspend": Scene(_to_suspend, call("VM.suspend")),
    "VM.resume": Scene(_suspended, call("VM.resume", False, False)),
    "VM.hard_shutdown of a suspended VM": Scene(_suspended, call("VM.hard_shutdown")),
    "VM.pool_migrate": Scene(_running_beside_another_host, call("VM.pool_migrate", {})),
    "VM.stopped": Scene(_running, _stopped),
    "VM.clone": Scene(_vm, call("VM.clone", "clone")),
    "VM.copy": Scene(_vm_and_sr, _copy_vm),
    "VM.provision": Scene(_template, call("VM.provision")),
    "VM.export": Scene(_vm_with_disk, _export_vm),
    "VM.export with memory": Scene(_suspended, _export_with_memory),
    "VM.import with memory": Scene(_archive_with_memory, _import_with_memory),
    "VM.import": Scene(_archive, _import_vm),
    "VM.import_metadata": Scene(_metadata, _import_metadata),
    "VM.snapshot": Scene(_many_disks, call("VM.snapshot", "monday")),
    "VM.snapshot_with_quiesce": Scene(_running, call("VM.snapshot_with_quiesce", "monday")),
    "VM.revert": Scene(_snapshot, call("VM.revert")),
    "VM.destroy": Scene(_vm, call("VM.destroy")),
    "VDI.create": Scene(_sr, _create_vdi),
    "VDI.destroy": Scene(_vdi, call("VDI.destroy")),
    "VDI.snapshot": Scene(_attached_vdi, call("VDI.snapshot", {})),
    "VDI.revert": Scene(_snapshot_of_a_vdi, call("VDI.revert")),
    "VDI.clone": Scene(_vdi, call("VDI.clone", {})),
    "VDI.copy": Scene(_two_srs, call("VDI.copy")),
    "VDI.pool_migrate": Scene(_plugged_disk_and_sr, call("VDI.pool_migrate", {})),
    "VDI.pool_migrate of a running VM's": Scene(_running_disk_and_sr, call("VDI.pool_migrate", {})),
    "VM.migrate_send": Scene(_running_with_two_disks_and_sr, _move_both),
    "VDI.copy_into": Scene(_source_target_base, call("VDI.copy")),
    "VDI.resize": Scene(_attached_vdi, _resize_online),
    "VDI.update": Scene(_vdi, call("VDI.set_name_label", "another")),
    "VDI.import": Scene(_vdi, _import),
    "VDI.export": Scene(_vdi, _export),
    "VDI.serve": Scene(_vdi, _serve),
    "VDI.import_image": Scene(_vhd, _import_image),
    "VDI.export_image": Scene(_disk_and_base, _export_image),
    "VDI.list_changed_blocks": Scene(_tracked, call("VDI.list_changed_blocks")),
    "VDI.compare": Scene(_tracked_where_nobody_can_tell, call("VDI.list_changed_blocks")),
    "VDI.data_destroy": Scene(_last_of_two, call("VDI.data_destroy")),
    "VDI.shed_data": Scene(_without_data, _shed),
    "VDI.destroy of what others are compared by": Scene(_between_without_data, call("VDI.destroy")),
    "VDI.forget": Scene(_vdi, call("VDI.forget")),
    "VBD.plug": Scene(_running_with_loose_disk, call("VBD.plug")),
    "VBD.unplug": Scene(_plugged, call("VBD.unplug")),
    "VBD.insert": Scene(_cd_and_medium, call("VBD.insert")),
    "VBD.eject": Scene(_filled_cd, call("VBD.eject")),
    "VBD.destroy": Scene(_running_with_loose_disk, call("VBD.destroy")),
    "VIF.plug": Scene(_loose_vif, call("VIF.plug")),
    "VIF.move": Scene(_vif_and_network, call("VIF.move")),
    "VIF.unplug": Scene(_running, lambda world, vm: world.call("VIF.unplug", world.get("VM", vm)["VIFs"][0])),
    "SR.create": Scene(_nothing, _create_sr),
    "SR.destroy": Scene(_unplugged_sr, _destroy_sr),
    "SR.forget": Scene(_unplugged_sr, _forget_sr),
    "SR.update": Scene(_sr, call("SR.set_name_label", "another")),
    "pool.add_host": Scene(_stranger, _join),
    "pool.eject": Scene(_member, call("pool.eject")),
    "pool.designate_new_master": Scene(_running_beside_another_host, _designate),
    "host.destroy": Scene(_dead_member, call("host.destroy")),
    "VLAN.create": Scene(_card_and_network, call("VLAN.create")),
    "VLAN.destroy": Scene(_vlan, call("VLAN.destroy")),
    "PIF.plug": Scene(_unplugged_vlan_pif, call("PIF.plug")),
    "PIF.unplug": Scene(_vlan_pif, call("PIF.unplug")),
    "PBD.plug": Scene(_unplugged_sr, _plug_pbd),
    "PBD.unplug": Scene(_pbd, call("PBD.unplug")),
}
