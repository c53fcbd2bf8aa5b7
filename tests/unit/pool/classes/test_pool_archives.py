"""Whole VMs out of a pool and into it, over the real door."""

import asyncio
import gzip
import io
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from gespann.seams.xenapi.datamodel import NULL_REF
from tests.unit.pool.door import ask
from tests.unit.pool.foreign_archive import MIB, ForeignArchive, tar
from tests.unit.pool.world import World, cd_fields, until, vif_fields

GET, PUT = "GET /export?uuid=", "PUT /import?"


async def make_vm(world: World, sr: str) -> str:
    """Two disks with something at odd places, a CD drive, a network interface."""
    vm = await world.make_vm_with_disk(sr)
    await world.make_vbd(vm, await world.make_vdi(sr, "data", virtual_size=45 * MIB), userdevice="3")
    chance = random.Random(1)
    for vdi in disks(world, vm):
        size = world.get("VDI", vdi)["virtual_size"]
        for at in (0, 5 * MIB - 7, 9 * MIB, size - 4):
            world.medium(vdi).write(at, chance.randbytes(min(100_000, size - at)))
    await world.call("VBD.create", cd_fields(vm))
    network = await world.call("network.create", {"name_label": "lan", "other_config": {}, "bridge": "br7"})
    await world.call("VIF.create", vif_fields(vm, network, MAC="02:00:00:00:00:07"))
    await world.call("VM.add_to_other_config", vm, "note", "kept")
    return vm


def disks(world: World, vm: str) -> list[str]:
    vbds = [world.get("VBD", vbd) for vbd in world.get("VM", vm)["VBDs"]]
    return [vbd["VDI"] for vbd in sorted(vbds, key=lambda vbd: vbd["userdevice"]) if vbd["type"] == "Disk"]


def contents(world: World, vm: str) -> list[bytes]:
    return [world.medium(vdi).read(0, world.get("VDI", vdi)["virtual_size"]) for vdi in disks(world, vm)]


async def export(world: World, door: Path, vm: str, more: str = "") -> bytes:
    status, body = await ask(door, world, f"{GET}{world.get('VM', vm)['uuid']}{more}")
    assert status == 200, body
    return body


async def put(world: World, door: Path, archive: bytes, query: str = "", path: str = PUT) -> tuple[str, list[str]]:
    """Status of the task, and the VMs that came or the error."""
    task = await world.call("task.create", "import", "")
    await ask(door, world, f"{path}task_id={task}&{query}", archive)
    await until(lambda: world.get("task", task)["status"] != "pending")
    record = world.get("task", task)
    refs = [word.split("<")[0] for word in record["result"].split("<value>") if word.startswith("OpaqueRef:")]
    return record["status"], refs or list(record["error_info"])


async def refusal(world: World, door: Path, archive: bytes, query: str = "", path: str = PUT) -> list[str]:
    """The error; and nothing has happened."""
    before = world.snapshot()
    status, error = await put(world, door, archive, query, path)
    assert status == "failure"
    assert world.snapshot() == before
    assert world.work.journal.entries() == []
    return error


@pytest.mark.parametrize("compression", ["", "&use_compression=true", "&use_compression=zstd"])
async def test_what_goes_out_comes_in_elsewhere(world: World, door: Path, compression: str) -> None:
    one, two = await world.make_sr("one"), await world.make_sr("two")
    vm = await make_vm(world, one)
    archive = await export(world, door, vm, compression)
    status, (made,) = await put(world, door, archive, f"sr_id={two}")
    assert status == "success"
    assert contents(world, made) == contents(world, vm)
    assert {world.get("VDI", vdi)["SR"] for vdi in disks(world, made)} == {two}
    old, new = world.get("VM", vm), world.get("VM", made)
    for name in ("name_label", "memory_static_max", "VCPUs_max", "HVM_boot_params", "power_state", "is_a_template"):
        assert new[name] == old[name], name
    assert (new["other_config"]["note"], new["uuid"] == old["uuid"]) == ("kept", False)
    assert new["other_config"]["mac_seed"] != old["other_config"]["mac_seed"]
    devices = sorted((v["type"], v["userdevice"], v["empty"]) for v in (world.get("VBD", vbd) for vbd in new["VBDs"]))
    assert devices == [("CD", "1", True), ("Disk", "0", False), ("Disk", "3", False)]
    (old_vif,), (new_vif,) = ([world.get("VIF", vif) for vif in record["VIFs"]] for record in (old, new))
    assert new_vif["network"] == old_vif["network"]
    assert new_vif["MAC"] != old_vif["MAC"]
    assert world.openings() == []
    await world.call("VM.start", made, False, False)


async def test_the_archive_is_one_that_others_read(world: World, door: Path) -> None:
    vm = await make_vm(world, await world.make_sr())
    names, data = [], b""
    with tarfile.open(fileobj=io.BytesIO(await export(world, door, vm))) as archive:
        for info in archive:
            names.append(info.name)
            file = archive.extractfile(info)
            assert file is not None
            before, data = data, file.read()
            if info.name.endswith(".xxhash"):
                assert data == xxhash.xxh64(before).hexdigest().upper().encode()
    assert names[0] == "ova.xml"
    blocks = [name for name in names[1:] if not name.endswith(".xxhash")]
    assert names[1:] == [name for block in blocks for name in (block, f"{block}.xxhash")]
    prefixes = sorted({name.split("/")[0] for name in blocks})
    wanted = [0, 4, 5, 9, 29], [0, 4, 5, 9, 44]
    assert blocks == [f"{p}/{n:08d}" for p, numbers in zip(prefixes, wanted, strict=True) for n in numbers]


async def test_a_vm_that_runs_is_not_exported(world: World, door: Path) -> None:
    vm = await make_vm(world, await world.make_sr())
    await world.call("VM.start", vm, False, False)
    status, body = await ask(door, world, f"{GET}{world.get('VM', vm)['uuid']}&use_compression=gzip")
    assert (status, body.split()[0]) == (500, b"VM_BAD_POWER_STATE")
    assert (await ask(door, world, f"{GET}nobody"))[0] == 404


async def test_templates_keep_what_they_are(world: World, door: Path) -> None:
    vm = await make_vm(world, await world.make_sr())
    await world.call("VM.set_is_a_template", vm, True)
    _, (made,) = await put(world, door, await export(world, door, vm), f"sr_uuid={sr_uuid(world)}")
    assert world.get("VM", made)["is_a_template"]


def sr_uuid(world: World) -> str:
    return str(next(iter(world.db.all("SR").values()))["uuid"])


# -- archives of other programs


def foreign() -> ForeignArchive:
    """Its first disk is the second one by number, as text goes: Ref:10 before Ref:9."""
    made = ForeignArchive()
    made.add_disk("Ref:10", "1", 5 * MIB + 4096, {2: b"second disk"})
    made.add_disk("Ref:9", "0", 40 * MIB, {0: b"boot sector", 7: b"x" * MIB, 39: b"\1"})
    made.add_vif("Ref:11")
    return made


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
async def test_an_archive_of_an_older_product(world: World, door: Path, packed: Callable[[bytes], bytes]) -> None:
    await world.call("pool.set_default_SR", next(iter(world.db.all("pool"))), await world.make_sr())
    status, (vm,) = await put(world, door, packed(foreign().whole()))
    assert status == "success"
    record = world.get("VM", vm)
    assert (record["name_label"], record["name_description"]) == ("old web server", "Größe < 5 & klein")
    assert (record["power_state"], record["resident_on"], record["affinity"]) == ("Halted", NULL_REF, NULL_REF)
    assert (record["memory_dynamic_min"], record["VCPUs_max"], record["tags"]) == (256 * MIB, 2, ["production"])
    assert set(record["other_config"]) == {"mac_seed", "base_template_name"}
    boot, second = disks(world, vm)
    assert [world.get("VDI", vdi)["virtual_size"] for vdi in (boot, second)] == [45 * MIB, 15 * MIB]  # as stored here
    assert world.get("VDI", boot)["sm_config"] == {"allocation": "thick"}
    data = world.medium(boot).read(0, 45 * MIB)
    assert data[:12] == b"boot sector\0"
    assert data[7 * MIB - 1 : 8 * MIB + 1] == b"\0" + b"x" * MIB + b"\0"
    assert (data[39 * MIB], data.count(0)) == (1, 45 * MIB - MIB - 12)
    assert world.medium(second).read(2 * MIB, 12) == b"second disk\0"
    (vif,) = record["VIFs"]
    assert world.get("network", world.get("VIF", vif)["network"])["name_label"] == "Pool-wide network 0"
    await world.call("VM.start", vm, False, False)


async def test_blocks_without_bytes_keep_the_connection_and_take_no_place(world: World, door: Path) -> None:
    sr = await world.make_sr()
    made = ForeignArchive()
    made.add_disk("Ref:5", "0", 4 * MIB, {})
    made.members.clear()
    for number, data in ((0, b"a" * MIB), (1, b""), (3, b"b" * MIB), (4, b""), (5, b"c" * MIB)):
        made.block("Ref:5", number, data)
    _, (vm,) = await put(world, door, made.whole(), f"sr_id={sr}")
    data = world.medium(disks(world, vm)[0]).read(0, 4 * MIB)
    assert data == b"a" * MIB + bytes(MIB) + b"b" * MIB + b"c" * MIB


async def test_a_client_that_sends_only_after_the_answer(world: World, door: Path) -> None:
    """As the thin client of old does: HTTP/1.0, and the file follows the answer."""
    sr, archive = await world.make_sr(), foreign().whole()
    task = await world.call("task.create", "import", "")
    reader, writer = await asyncio.open_unix_connection(door)
    head = f"PUT /import?sr_id={sr}&session_id={world.session}&task_id={task} HTTP/1.0\r\n"
    writer.write(f"{head}content-length: {len(archive)}\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readline(), 120)).split()[1] == b"200"
    writer.write(archive)
    await reader.read()
    assert world.get("task", task)["status"] == "success"
    writer.close()


# -- archives that nobody should take


def changed(change: Callable[[ForeignArchive], object]) -> bytes:
    made = foreign()
    change(made)
    return made.whole()


def swap(text: bytes, other: bytes) -> bytes:
    made = foreign()
    return tar([("ova.xml", made.ova_xml().replace(text, other)), *made.members])


def rename(at: int, name: str) -> Callable[[ForeignArchive], object]:
    return lambda made: made.members.__setitem__(at, (name, made.members[at][1]))


def link() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("ova.xml")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return file.getvalue()


def giant() -> bytes:
    info = tarfile.TarInfo("ova.xml")
    info.size = 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)


BOMB = b'<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
UNEXPECTED = "IMPORT_ERROR_UNEXPECTED_FILE"
HOSTILE: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "no archive": (lambda: b"x" * 4096, ["IMPORT_ERROR"]),
    "nothing": (lambda: b" ", ["IMPORT_ERROR_PREMATURE_EOF"]),
    "gzip of nothing": (lambda: gzip.compress(b""), ["IMPORT_ERROR_PREMATURE_EOF"]),
    "damaged gzip": (lambda: gzip.compress(foreign().whole())[:-900] + b"x" * 900, ["IMPORT_ERROR_PREMATURE_EOF"]),
    "empty archive": (lambda: bytes(10240), [UNEXPECTED, "ova.xml", "the end of the archive"]),
    "another file first": (lambda: tar([("a", b"")]), [UNEXPECTED, "ova.xml", "a"]),
    "a path that climbs": (lambda: tar([("../../etc/passwd", b"x")]), [UNEXPECTED, "ova.xml", "../../etc/passwd"]),
    "an absolute path": (lambda: tar([("/etc/passwd", b"x")]), [UNEXPECTED, "ova.xml", "/etc/passwd"]),
    "a link": (link, ["IMPORT_ERROR"]),
    "records without end": (giant, ["IMPORT_ERROR"]),
    "no XML": (lambda: tar([("ova.xml", b"hello")]), ["IMPORT_ERROR"]),
    "an XML bomb": (lambda: swap(b"<?xml version='1.0'?>", BOMB), ["IMPORT_ERROR"]),
    "deep XML": (lambda: tar([("ova.xml", b"<value><array><data>" * 5000)]), ["IMPORT_ERROR"]),
    "not a struct": (lambda: tar([("ova.xml", b"<value>5</value>")]), ["IMPORT_ERROR"]),
    "a newer product": (lambda: changed(lambda a: a.version.update(xapi_major=2)), ["IMPORT_INCOMPATIBLE_VERSION"]),
    "no checksums": (lambda: changed(lambda a: a.version.pop("export_vsn")), ["IMPORT_INCOMPATIBLE_VERSION"]),
    "no version": (lambda: changed(lambda a: a.version.clear()), ["IMPORT_INCOMPATIBLE_VERSION"]),
    "no VM": (lambda: changed(lambda a: a.objects.__delitem__(0)), ["IMPORT_ERROR"]),
    "an object twice": (lambda: changed(lambda a: a.add("VM", "Ref:0", a.vm)), ["IMPORT_ERROR"]),
    "no SR": (lambda: changed(lambda a: a.objects.__delitem__(1)), ["IMPORT_ERROR_FAILED_TO_FIND_OBJECT", "Ref:1"]),
    "no network": (lambda: changed(lambda a: a.objects.__delitem__(2)), ["IMPORT_ERROR_FAILED_TO_FIND_OBJECT"]),
    "a wrong number": (lambda: swap(b"536870912", b"lots"), ["FIELD_TYPE_ERROR", "memory_static_max"]),
    "no CPU": (lambda: changed(lambda a: a.vm.update(VCPUs_max="0")), ["INVALID_VALUE", "VCPUs_max"]),
    "memory upside down": (
        lambda: changed(lambda a: a.vm.update(memory_static_min="999999999999")),
        ["MEMORY_CONSTRAINT_VIOLATION_ORDER"],
    ),
    "a disk without size": (lambda: swap(b">41943040<", b">0<"), ["INVALID_VALUE", "virtual_size", "0"]),
    "a disk of an exabyte": (lambda: swap(b">41943040<", b">9000000000000000000<"), ["INVALID_VALUE"]),
    "a disk larger than all": (lambda: swap(b">41943040<", b">4000000000000000000<"), ["SR_BACKEND_FAILURE_44"]),
    "two disks in one place": (
        lambda: changed(lambda a: a.add_disk("Ref:95", "0", MIB, {})),
        ["DEVICE_ALREADY_EXISTS", "0"],
    ),
    "two NICs in one place": (lambda: changed(lambda a: a.add_vif("Ref:12")), ["DEVICE_ALREADY_EXISTS", "0"]),
    "a strange device": (lambda: changed(lambda a: a.add_vif("Ref:12", device="x")), ["INVALID_DEVICE", "x"]),
    "frames of 5 bytes": (lambda: changed(lambda a: a.add_vif("Ref:12", device="1", MTU="5")), ["INVALID_VALUE"]),
    "no address": (
        lambda: changed(lambda a: a.add_vif("Ref:12", device="1", ipv4_allowed=["x"])),
        ["INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed"],
    ),
    "a network for 5 bytes": (
        lambda: changed(lambda a: a.objects[2]["snapshot"].update(MTU="5", name_label="else", bridge="else")),
        ["INVALID_VALUE", "MTU", "5"],
    ),
    "no blocks": (lambda: changed(lambda a: a.members.clear()), [UNEXPECTED, "Ref:10/00000000"]),
    "a block of no disk": (lambda: changed(rename(0, "Ref:77/00000000")), [UNEXPECTED, "Ref:10/00000000"]),
    "a block that climbs": (lambda: changed(rename(0, "Ref:10/../x")), [UNEXPECTED, "Ref:10/00000000"]),
    "a block twice": (lambda: changed(rename(2, "Ref:10/00000000")), [UNEXPECTED, "Ref:10/00000001"]),
    "blocks far behind": (lambda: changed(rename(2, "Ref:10/99999999")), ["IMPORT_ERROR"]),
    "a sum of another block": (lambda: changed(rename(1, "Ref:10/00000001.checksum")), [UNEXPECTED]),
    "no sum": (lambda: changed(lambda a: a.members.__delitem__(1)), [UNEXPECTED, "Ref:10/00000000.xxhash"]),
    "a wrong sum": (
        lambda: changed(lambda a: a.members.__setitem__(3, (a.members[3][0], b"0" * 40))),
        ["IMPORT_ERROR_SOME_CHECKSUMS_FAILED"],
    ),
    "a changed block": (
        lambda: changed(lambda a: a.members.__setitem__(8, (a.members[8][0], b"y" * MIB))),
        ["IMPORT_ERROR_SOME_CHECKSUMS_FAILED"],
    ),
    "a long sum": (
        lambda: changed(lambda a: a.members.__setitem__(1, (a.members[1][0], b"0" * 400))),
        ["IMPORT_ERROR"],
    ),
    "a huge block": (
        lambda: changed(lambda a: a.members.__setitem__(0, (a.members[0][0], bytes(5 * MIB)))),
        ["IMPORT_ERROR"],
    ),
    "more after the end": (lambda: changed(lambda a: a.block("Ref:99", 0, b"x")), [UNEXPECTED]),
}  # fmt: skip


async def test_a_bad_archive_is_refused_and_leaves_nothing(world: World, door: Path) -> None:
    sr = await world.make_sr()
    for name, (make, expected) in HOSTILE.items():
        error = await refusal(world, door, make(), f"sr_id={sr}")
        assert error[: len(expected)] == expected, name
    assert (await put(world, door, foreign().whole(), f"sr_id={sr}"))[0] == "success"


async def test_an_archive_that_stops_anywhere(world: World, door: Path) -> None:
    sr, whole = await world.make_sr(), foreign().whole()
    end = len(whole.rstrip(b"\0"))
    for cut in (1, 512, 3000, end // 2, end - 3):
        assert await refusal(world, door, whole[:cut], f"sr_id={sr}") == ["IMPORT_ERROR_PREMATURE_EOF"], cut
    packed = gzip.compress(whole)
    for cut in (20, len(packed) // 2, len(packed) - 300):
        error = await refusal(world, door, packed[:cut], f"sr_id={sr}")
        assert error == ["IMPORT_ERROR_PREMATURE_EOF"], cut
    assert (await put(world, door, whole[: -(-end // 512) * 512], f"sr_id={sr}"))[
        0
    ] == "success"  # only its end is gone


async def test_wrong_checksums_pass_when_forced(world: World, door: Path) -> None:
    archive = HOSTILE["a changed block"][0]()
    _, (vm,) = await put(world, door, archive, f"sr_id={await world.make_sr()}&force=true")
    assert world.medium(disks(world, vm)[0]).read(7 * MIB, 3) == b"yyy"


def run_zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


async def test_a_stream_that_swells_is_not_held_in_memory(world: World, door: Path) -> None:
    """A thousand million zeroes in a few kilobytes, as records and as blocks."""
    swollen = run_zstd(bytes(64 * MIB))
    error = await refusal(world, door, swollen * 16, f"sr_id={await world.make_sr()}")
    assert error == ["IMPORT_ERROR_UNEXPECTED_FILE", "ova.xml", "the end of the archive"]


async def test_a_cancelled_import_leaves_nothing(world: World, door: Path) -> None:
    sr, archive = await world.make_sr(), foreign().whole()
    before = world.snapshot()
    task = await world.call("task.create", "import", "")
    reader, writer = await asyncio.open_unix_connection(door)
    head = f"PUT /import?sr_id={sr}&session_id={world.session}&task_id={task} HTTP/1.1\r\nHost: x\r\n"
    writer.write(f"{head}Content-Length: {len(archive)}\r\n\r\n".encode() + archive[: 3 * MIB])
    await until(lambda: world.get("task", task)["progress"] > 0)
    await world.call("task.cancel", task)
    await until(lambda: world.get("task", task)["status"] == "cancelled")
    assert world.snapshot() == before
    assert b"TASK_CANCELLED" in await asyncio.wait_for(reader.read(), 120)
    writer.close()


async def test_where_disks_cannot_go(world: World, door: Path) -> None:
    archive = foreign().whole()
    assert (await refusal(world, door, archive))[0] == "DEFAULT_SR_NOT_FOUND"
    assert (await refusal(world, door, archive, "sr_id=nobody"))[0] == "UUID_INVALID"
    sr = await world.make_sr()
    (pbd,) = world.get("SR", sr)["PBDs"]
    await world.call("PBD.unplug", pbd)
    assert await refusal(world, door, archive, f"sr_id={sr}") == ["SR_NOT_ATTACHED", sr]


# -- the same VM again


async def test_a_vm_comes_back_as_it_was(world: World, door: Path) -> None:
    sr = await world.make_sr()
    vm = await make_vm(world, sr)
    old, data = world.get("VM", vm), contents(world, vm)
    mac = world.get("VIF", old["VIFs"][0])["MAC"]
    archive = await export(world, door, vm)
    query = f"sr_id={sr}&restore=true"
    versions = ["VM_TO_IMPORT_IS_NOT_NEWER_VERSION", vm, "0", "0"]
    assert await refusal(world, door, archive, query) == versions
    _, (forced,) = await put(world, door, archive, f"{query}&force=true")
    assert world.db.find("VM", vm) is None
    record = world.get("VM", forced)
    assert (record["uuid"], record["other_config"]) == (old["uuid"], old["other_config"])
    assert (record["version"], world.get("VIF", record["VIFs"][0])["MAC"]) == (1, mac)
    assert contents(world, forced) == data
    await world.call("VM.start", forced, False, False)
    assert (await refusal(world, door, archive, query))[0] == "VM_BAD_POWER_STATE"
    await world.call("VM.hard_shutdown", forced)
    await world.call("VM.destroy", forced)
    _, (again,) = await put(world, door, archive, query)
    assert world.get("VM", again)["uuid"] == old["uuid"]


async def test_two_vms_of_one_seed_would_share_their_addresses(world: World, door: Path) -> None:
    sr = await world.make_sr()
    await world.make_vm("twin", other_config={"mac_seed": "seed-1"})
    error = await refusal(world, door, foreign().whole(), f"sr_id={sr}&restore=true")
    assert error == ["DUPLICATE_MAC_SEED", "seed-1"]


# -- records alone


async def test_records_alone_find_their_disks_again(world: World, door: Path) -> None:
    vm = await make_vm(world, await world.make_sr())
    uuid, there = world.get("VM", vm)["uuid"], disks(world, vm)
    status, archive = await ask(door, world, f"GET /export_metadata?uuid={uuid}")
    assert status == 200
    path = "PUT /import_metadata?"
    before = world.snapshot()
    assert await put(world, door, archive, "dry_run=true", path) == ("success", [])
    assert world.snapshot() == before
    await world.call("VM.destroy", vm)
    _, (made,) = await put(world, door, archive, "restore=true", path)
    assert (world.get("VM", made)["uuid"], disks(world, made)) == (uuid, there)

    await world.call("VM.destroy", made)
    await world.call("VDI.destroy", there[1])
    assert (await refusal(world, door, archive, "", path))[0] == "VDI_LOCATION_MISSING"
    _, (made,) = await put(world, door, archive, "force=true", path)
    assert disks(world, made) == there[:1]


async def test_records_of_all_vms(world: World, door: Path) -> None:
    for name in ("web1", "web2"):
        await world.make_vm(name)
    status, archive = await ask(door, world, "GET /export_metadata?all=true")
    assert status == 200
    for vm in [*world.db.by_name_label("VM", "web1"), *world.db.by_name_label("VM", "web2")]:
        await world.call("VM.destroy", vm)
    _, made = await put(world, door, archive, "restore=true", "PUT /import_metadata?")
    assert sorted(world.get("VM", vm)["name_label"] for vm in made) == ["web1", "web2"]


async def test_operations_that_exclude_each_other(world: World, door: Path) -> None:
    vm = await make_vm(world, await world.make_sr())
    await world.call("VM.add_to_blocked_operations", vm, "export", "not this one")
    status, body = await ask(door, world, f"{GET}{world.get('VM', vm)['uuid']}")
    assert (status, body.split()[0]) == (500, b"OPERATION_BLOCKED")
    assert "export" not in world.get("VM", vm)["allowed_operations"]
