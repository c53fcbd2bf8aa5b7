"""Changed-block tracking: VDI.enable_cbt, disable_cbt, list_changed_blocks."""

import base64

import pytest

from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.door import ask
from tests.unit.pool.world import MIB, World

KIB = 1024


async def refusal(world: World, method: str, *params: str) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await world.call(method, *params)
    return [caught.value.code, *caught.value.params]


def blocks(bitmap: str) -> list[int]:
    """Of 64 KiB."""
    bits = "".join(f"{byte:08b}" for byte in base64.b64decode(bitmap))
    assert len(bits) == 30 * MIB // (64 * KIB)
    return [number for number, bit in enumerate(bits) if bit == "1"]


async def test_what_has_changed_between_two_snapshots(world: World) -> None:
    vdi = await world.make_vdi(await world.make_sr())
    await world.call("VDI.enable_cbt", vdi)
    assert world.get("VDI", vdi)["cbt_enabled"]
    older, newer = [await world.call("VDI.snapshot", vdi, {}) for _ in range(2)]
    assert all(world.get("VDI", one)["cbt_enabled"] for one in (older, newer))
    for one in (older, newer):
        world.medium(one).write(3 * MIB, b"the same")
    world.medium(older).write(64 * KIB - 1, b"gone")  # crosses a border
    world.medium(newer).write(29 * MIB + 1000 * KIB, b"new")
    world.medium(newer).write(7 * MIB, b"first of its byte")
    for told_by_storage in (True, False):
        opened = world.moments.passed.count("before open")
        assert blocks(await world.call("VDI.list_changed_blocks", older, newer)) == [0, 1, 112, 479]
        assert blocks(await world.call("VDI.list_changed_blocks", older, vdi)) == [0, 1, 48]
        assert blocks(await world.call("VDI.list_changed_blocks", newer, newer)) == []
        assert world.openings() == []
        assert (world.moments.passed.count("before open") == opened) == told_by_storage
        world.storage.block_differences = None
    task = await world.call("Async.VDI.list_changed_blocks", older, newer)
    assert world.get("task", task)["name_label"] == "Async.VDI.list_changed_blocks"


async def test_where_nothing_is_tracked(world: World) -> None:
    sr = await world.make_sr()
    vdi = await world.make_vdi(sr)
    before = await world.call("VDI.snapshot", vdi, {})
    assert await refusal(world, "VDI.list_changed_blocks", before, vdi) == ["VDI_NO_CBT_METADATA", before]
    await world.call("VDI.enable_cbt", vdi)
    after = await world.call("VDI.snapshot", vdi, {})
    assert await refusal(world, "VDI.list_changed_blocks", before, after) == ["VDI_NO_CBT_METADATA", before]
    assert (await refusal(world, "VDI.enable_cbt", after))[0] == "OPERATION_NOT_ALLOWED"
    image = await world.make_vdi(sr, type="suspend")
    assert await refusal(world, "VDI.enable_cbt", image) == ["VDI_INCOMPATIBLE_TYPE", image, "suspend"]
    await world.call("VDI.disable_cbt", vdi)
    assert not world.get("VDI", vdi)["cbt_enabled"]
    assert world.get("VDI", after)["cbt_enabled"]


async def test_a_disk_in_use_is_not_compared(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    vdi = world.get("VBD", world.get("VM", vm)["VBDs"][0])["VDI"]
    await world.call("VM.start", vm, False, False)
    await world.call("VDI.enable_cbt", vdi)
    older = await world.call("VDI.snapshot", vdi, {})
    assert await refusal(world, "VDI.list_changed_blocks", older, vdi) == ["VDI_IN_USE", vdi, "list_changed_blocks"]


async def test_a_snapshot_of_a_running_vm_goes_out(world: World, door) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    await world.call("VM.start", vm, False, False)
    snapshot = await world.call("VM.snapshot", vm, "before the change", [])
    status, body = await ask(door, world, f"GET /export?uuid={world.get('VM', snapshot)['uuid']}")
    assert (status, body[:7]) == (200, b"ova.xml")
    task = await world.call("task.create", "import", "")
    sr = next(iter(world.db.all("SR")))
    status, _ = await ask(door, world, f"PUT /import?sr_id={sr}&task_id={task}", body)
    assert status == 200
    made = world.get("task", task)["result"].split("<value>")[2].split("<")[0]
    record = world.get("VM", made)
    assert (record["name_label"], record["is_a_template"], record["is_a_snapshot"]) == (
        "before the change",
        True,
        False,
    )
