"""What the pool may count on from every storage repository driver."""

import asyncio
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from gespann.seams.host_agent import IscsiSource
from gespann.seams.sr_driver import Opening, Sr, SrError, VolumeSpec
from gespann.sr.registry import DRIVERS
from tests.product.sr.arrays import BENCHES, OTHER_TYPES, Bench

DISK, COPY = "22267eb7-23c0-4479-a063-f5c34916727d", "33367eb7-23c0-4479-a063-f5c34916727d"
MIB, GIB = 2**20, 2**30
SPEC = VolumeSpec(DISK, 4 * GIB, "web1 0", "Root disk of web1", sm_config={"allocation": "thin"})
NO_SPACE = {44, 167}


def opening(name: str, mode: str = "RW") -> Opening:
    assert mode in ("RO", "RW")
    return Opening(name, "RW" if mode == "RW" else "RO", f"iqn.2026-11.org.example:{name}", name, f"secret{name:0>10}")


async def refusal(call: object) -> SrError:
    with pytest.raises(SrError) as caught:
        await call  # type: ignore[misc]
    return caught.value


def test_every_registered_driver_is_tried() -> None:
    assert set(DRIVERS) <= set(BENCHES) | set(OTHER_TYPES)
    assert all((Path(__file__).parent / name).exists() for name in OTHER_TYPES.values())
    for sr_type, make in DRIVERS.items():
        assert make().info.type == sr_type


async def test_capabilities_are_declared(bench: Bench) -> None:
    info = bench.driver.info
    assert {"VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH"} <= set(info.capabilities)
    assert info.secret_keys <= info.configuration.keys()
    assert bench.device_config.keys() <= info.configuration.keys() | {"port"}


# The repository


async def test_probe_finds_what_create_made(bench: Bench, sr: Sr) -> None:
    found = fromstring(await bench.driver.probe(bench.device_config, {}))
    assert found.tag == "SRlist"
    assert [one.findtext("UUID") for one in found.iter("SR")] == [sr.uuid]
    assert int(found.findtext("SR/Size") or 0) > 0


async def test_create_may_be_repeated(bench: Bench, sr: Sr) -> None:
    before = await bench.left()
    assert await bench.driver.create(sr, 0) == sr.sm_config
    assert await bench.left() == before


async def test_create_without_storage_pool_lists_them(bench: Bench) -> None:
    config = {key: value for key, value in bench.device_config.items() if key != "storagepool"}
    error = await refusal(bench.driver.create(Sr(DISK, config), 0))
    assert error.number == 163
    pools = {one.findtext("Name"): one for one in fromstring(error.detail).iter("StoragePool")}
    assert pools["default"].findtext("Default") == "true"
    for child in ("Capacity", "Freespace", "Volumes", "Members"):
        assert int(pools["default"].findtext(child) or -1) >= 0
    assert await bench.left() == []


@pytest.mark.parametrize("name", ["nosuch", "no such", 'x" delete', "x\rvolume delete y", "-", ""])
async def test_a_storage_pool_that_is_none(bench: Bench, name: str) -> None:
    error = await refusal(bench.driver.create(Sr(DISK, {**bench.device_config, "storagepool": name}), 0))
    assert error.number == (172 if name else 163)
    assert await bench.left() == []


@pytest.mark.parametrize(("key", "number"), [("target", 160), ("username", 161), ("password", 162)])
async def test_missing_keys(bench: Bench, key: str, number: int) -> None:
    config = {k: v for k, v in bench.device_config.items() if k != key}
    assert (await refusal(bench.driver.create(Sr(DISK, config), 0))).number == number


async def test_wrong_password(bench: Bench) -> None:
    config = {**bench.device_config, "password": "wr0ng-secret"}
    for call in (bench.driver.probe(config, {}), bench.driver.create(Sr(DISK, config), 0)):
        error = await refusal(call)
        assert error.number == 169
        assert "wr0ng-secret" not in repr(error) + error.detail
    assert await bench.left() == []


async def test_destroy_leaves_nothing(bench: Bench, sr: Sr) -> None:
    await bench.driver.destroy(sr)
    assert await bench.left() == []
    await bench.driver.destroy(sr)
    assert (await refusal(bench.driver.attach(sr))).number == 47


async def test_destroy_refuses_while_volumes_are_there(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    assert (await refusal(bench.driver.destroy(sr))).number == 39
    assert len(await bench.driver.scan(sr)) == 1


async def test_what_is_not_there_is_not_attached(bench: Bench) -> None:
    missing = Sr("99999999-3121-0e7c-5497-f5c34916727d", bench.device_config)
    assert (await refusal(bench.driver.attach(missing))).number == 47
    assert (await refusal(bench.driver.scan(missing))).number == 47


async def test_stat_counts_virtual_sizes(bench: Bench, sr: Sr) -> None:
    before = await bench.driver.stat(sr)
    volume = await bench.driver.volume_create(sr, SPEC)
    after = await bench.driver.stat(sr)
    assert after.virtual_allocation_bytes - before.virtual_allocation_bytes == volume.virtual_size_bytes
    assert after.physical_size_bytes == before.physical_size_bytes > 0
    assert before.physical_utilisation_bytes < after.physical_utilisation_bytes <= after.physical_size_bytes


async def test_introduced_again_from_the_array_alone(bench: Bench, sr: Sr) -> None:
    """As sr-introduce does: a driver that knows nothing, the uuid, and how to log in."""
    spec = replace(SPEC, name_label="Größe: 5 % „x“ #1", name_description="a  b\t'c' \"d\"", vdi_type="system")
    made = await bench.driver.volume_create(sr, replace(spec, read_only=True, sharable=True))
    config = {key: value for key, value in bench.device_config.items() if key != "storagepool"}
    other = bench.fresh_driver()
    introduced = Sr(sr.uuid, config)
    await other.attach(introduced)
    assert await other.scan(introduced) == [made]
    assert (made.name_label, made.name_description) == (spec.name_label, spec.name_description)
    assert (made.vdi_type, made.read_only, made.sharable) == ("system", True, True)
    assert (
        await other.volume_create(introduced, replace(SPEC, vdi_uuid=COPY))
    ).virtual_size_bytes == 4 * GIB + 14 * MIB


async def test_repository_name_is_kept(bench: Bench, sr: Sr) -> None:
    await bench.driver.update(replace(sr, name_label="Ärger", name_description=""))
    await bench.driver.update(replace(sr, name_label="Ärger", name_description=""))
    if bench.driver.info.type == "equal":
        found = fromstring(await bench.driver.probe(bench.device_config, {}))
        assert found.findtext("SR/name_label") == "Ärger"


# Volumes


@pytest.mark.parametrize(("asked", "got"), [(1, 15), (15 * MIB, 15), (15 * MIB + 1, 30), (4 * GIB + 1, 4110)])
async def test_sizes_are_rounded_up(bench: Bench, sr: Sr, asked: int, got: int) -> None:
    volume = await bench.driver.volume_create(sr, replace(SPEC, size_bytes=asked))
    assert volume.virtual_size_bytes == got * MIB
    assert (await bench.driver.scan(sr))[0].virtual_size_bytes == got * MIB


@pytest.mark.parametrize("size_bytes", [0, -1, -(2**70)])
async def test_impossible_sizes(bench: Bench, sr: Sr, size_bytes: int) -> None:
    before = await bench.left()
    assert (await refusal(bench.driver.volume_create(sr, replace(SPEC, size_bytes=size_bytes)))).number == 79
    assert await bench.left() == before


@pytest.mark.parametrize("size_bytes", [2**42, 2**80])
async def test_more_than_there_is(bench: Bench, sr: Sr, size_bytes: int) -> None:
    before = await bench.left()
    thick = replace(SPEC, size_bytes=size_bytes, sm_config={"allocation": "thick"})
    error = await refusal(bench.driver.volume_create(sr, thick))
    assert error.number in (NO_SPACE if size_bytes < 2**60 else {*NO_SPACE, 78})
    assert await bench.left() == before


async def test_create_may_be_repeated_but_not_with_another_size(bench: Bench, sr: Sr) -> None:
    made = await bench.driver.volume_create(sr, SPEC)
    assert await bench.driver.volume_create(sr, SPEC) == made
    assert (await refusal(bench.driver.volume_create(sr, replace(SPEC, size_bytes=GIB)))).number == 43
    assert await bench.driver.scan(sr) == [made]


async def test_two_creations_at_once_make_one(bench: Bench, sr: Sr) -> None:
    first, second = await asyncio.gather(*(bench.driver.volume_create(sr, SPEC) for _ in range(2)))
    assert first == second
    assert await bench.driver.scan(sr) == [first]


async def test_many_at_once(bench: Bench, sr: Sr) -> None:
    specs = [replace(SPEC, vdi_uuid=f"{n:08x}-23c0-4479-a063-f5c34916727d", size_bytes=30 * MIB) for n in range(12)]
    made = await asyncio.gather(*(bench.driver.volume_create(sr, spec) for spec in specs))
    by_uuid = {one.vdi_uuid: one for one in await bench.driver.scan(sr)}
    assert by_uuid == {one.vdi_uuid: one for one in made}


async def test_names_change(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    changed = await bench.driver.volume_update(sr, replace(SPEC, name_label="db1 1", name_description=""))
    assert (changed.name_label, changed.name_description) == ("db1 1", "")
    assert await bench.driver.scan(sr) == [changed]
    assert (await refusal(bench.driver.volume_update(sr, replace(SPEC, vdi_uuid=COPY)))).number == 144


async def test_allocation_changes(bench: Bench, sr: Sr) -> None:
    made = await bench.driver.volume_create(sr, SPEC)
    assert made.sm_config["allocation"] == "thin"
    thick = await bench.driver.volume_update(sr, replace(SPEC, sm_config={"allocation": "thick"}))
    assert thick.sm_config["allocation"] == "thick"
    thin = await bench.driver.volume_update(sr, replace(SPEC, sm_config={"allocation": "thin"}))
    assert thin.sm_config["allocation"] == "thin"


async def test_growing(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    await bench.driver.open(sr, DISK, opening("a"))
    grown = await bench.driver.volume_resize(sr, DISK, 6 * GIB)
    assert grown.virtual_size_bytes == 6150 * MIB
    assert await bench.driver.volume_resize(sr, DISK, 6 * GIB) == grown
    for smaller in (3 * GIB, 6135 * MIB):
        error = await refusal(bench.driver.volume_resize(sr, DISK, smaller))
        assert error.number == 79
        assert "Shrinking is not supported" in error.description
    assert (await refusal(bench.driver.volume_resize(sr, COPY, GIB))).number == 144
    assert await bench.driver.openings(sr, DISK) == ["a"]


async def test_clone_is_a_volume_of_its_own(bench: Bench, sr: Sr) -> None:
    made = await bench.driver.volume_create(sr, SPEC)
    await bench.driver.open(sr, DISK, opening("a"))
    copied = await bench.driver.volume_clone(sr, DISK, VolumeSpec(COPY, 0, "web2 0", "Copy"))
    assert (copied.vdi_uuid, copied.name_label, copied.virtual_size_bytes) == (COPY, "web2 0", made.virtual_size_bytes)
    assert await bench.driver.volume_clone(sr, DISK, VolumeSpec(COPY, 0, "web2 0", "Copy")) == copied
    assert await bench.driver.openings(sr, COPY) == []
    await bench.driver.volume_destroy(sr, DISK)
    assert await bench.driver.scan(sr) == [copied]
    assert (await refusal(bench.driver.volume_clone(sr, DISK, SPEC))).number == 144


async def test_destroyed_while_open(bench: Bench, sr: Sr) -> None:
    before = await bench.left()
    await bench.driver.volume_create(sr, SPEC)
    source = await bench.driver.open(sr, DISK, opening("a"))
    assert await bench.log_in(source)
    await bench.driver.volume_destroy(sr, DISK)
    await bench.driver.volume_destroy(sr, DISK)
    assert await bench.left() == before
    assert not await bench.log_in(source)
    assert await bench.connections() == 0


# Openings


async def test_open_admits_exactly_this_opening(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    source = await bench.driver.open(sr, DISK, opening("start-1"))
    assert isinstance(source, IscsiSource)
    assert opening("start-1").chap_secret not in repr(source)
    for wrong in (
        msg(source, chap_secret="secretsecret"),
        msg(source, chap_user="start-2"),
        msg(source, initiator="iqn.2026-11.org.example:other"),
    ):
        assert not await bench.log_in(wrong)
    assert await bench.log_in(source)
    assert await bench.driver.openings(sr, DISK) == ["start-1"]


def msg(source: IscsiSource, **changes: str) -> IscsiSource:
    fields = {name: getattr(source, name) for name in source.__struct_fields__}
    return IscsiSource(**{**fields, **changes})


async def test_open_may_be_repeated(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    source = await bench.driver.open(sr, DISK, opening("a"))
    assert await bench.log_in(source)
    assert await bench.driver.open(sr, DISK, opening("a")) == source
    assert await bench.connections() == 1
    assert await bench.fresh_driver().open(sr, DISK, opening("a")) == source
    assert await bench.driver.openings(sr, DISK) == ["a"]


async def test_close_drops_and_shuts_out(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    source = await bench.driver.open(sr, DISK, opening("a"))
    assert await bench.log_in(source)
    await bench.driver.close(sr, DISK, "a")
    assert await bench.connections() == 0
    assert not await bench.log_in(source)
    assert await bench.driver.openings(sr, DISK) == []
    await bench.driver.close(sr, DISK, "a")
    again = await bench.driver.open(sr, DISK, opening("b"))
    assert not await bench.log_in(source)
    assert await bench.log_in(again)


async def test_closed_by_another_driver(bench: Bench, sr: Sr) -> None:
    """The coordinator that opened it is gone."""
    before = await bench.left()
    await bench.driver.volume_create(sr, SPEC)
    await bench.driver.open(sr, DISK, opening("a"))
    other = bench.fresh_driver()
    assert await other.openings(sr, DISK) == ["a"]
    await other.close(sr, DISK, "a")
    await other.volume_destroy(sr, DISK)
    assert await bench.left() == before


async def test_one_writer(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    source = await bench.driver.open(sr, DISK, opening("a"))
    assert await bench.log_in(source)
    for mode in ("RW", "RO"):
        assert (await refusal(bench.driver.open(sr, DISK, opening("b", mode)))).number == 24
    assert await bench.driver.openings(sr, DISK) == ["a"]
    assert await bench.connections() == 1


async def test_two_that_want_it_at_once(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    calls = [bench.driver.open(sr, DISK, opening(name)) for name in ("a", "b")]
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [one for one in results if isinstance(one, SrError)]
    assert [one.number for one in errors] == [24]
    assert len(await bench.driver.openings(sr, DISK)) == 1


async def test_two_coordinators_that_want_it_at_once(bench: Bench, sr: Sr) -> None:
    """Neither knows of the other; both may be refused, but never both be let in."""
    await bench.driver.volume_create(sr, SPEC)
    both = [bench.driver, bench.fresh_driver()]
    for turn in range(5):
        names = [f"{turn}-a", f"{turn}-b"]
        calls = [driver.open(sr, DISK, opening(name)) for driver, name in zip(both, names, strict=True)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        let_in = [name for name, one in zip(names, results, strict=True) if isinstance(one, IscsiSource)]
        assert [one.number for one in results if isinstance(one, SrError)] == [24] * (2 - len(let_in))
        assert len(let_in) < 2
        assert await bench.driver.openings(sr, DISK) == let_in
        for name in names:
            await bench.driver.close(sr, DISK, name)


async def test_readers_share(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    sources = [await bench.driver.open(sr, DISK, opening(name, "RO")) for name in ("a", "b")]
    for source in sources:
        assert await bench.log_in(source)
    assert (await refusal(bench.driver.open(sr, DISK, opening("c")))).number == 24
    await bench.driver.close(sr, DISK, "a")
    assert not await bench.log_in(sources[0])
    assert await bench.log_in(sources[1])
    await bench.driver.close(sr, DISK, "b")
    assert await bench.log_in(await bench.driver.open(sr, DISK, opening("c")))


async def test_a_volume_changes_hands_while_it_is_in_use(bench: Bench, sr: Sr) -> None:
    """A machine that moves to another host: the second opening is beside the first, nobody else is; closing the first
    shuts it out, and leaves the second."""
    await bench.driver.volume_create(sr, SPEC)
    old = await bench.driver.open(sr, DISK, opening("old"))
    assert await bench.log_in(old)
    beside = replace(opening("new"), beside="old")
    assert (await refusal(bench.driver.open(sr, DISK, replace(opening("new"), beside="other")))).number == 24
    new = await bench.driver.open(sr, DISK, beside)
    assert await bench.driver.open(sr, DISK, beside) == new
    assert await bench.log_in(new)
    assert (await refusal(bench.driver.open(sr, DISK, opening("third")))).number == 24
    assert await bench.driver.openings(sr, DISK) == ["new", "old"]
    await bench.driver.close(sr, DISK, "old")
    await bench.driver.close(sr, DISK, "old")
    assert await bench.driver.openings(sr, DISK) == ["new"]
    assert not await bench.log_in(old)
    assert await bench.log_in(new)
    await bench.driver.close(sr, DISK, "new")
    assert await bench.driver.openings(sr, DISK) == []


async def test_the_right_to_write_moves_and_whoever_lost_it_is_closed_later(bench: Bench, sr: Sr) -> None:
    """As the pool moves a machine: it goes on at its new host before the old one's opening ends."""
    await bench.driver.volume_create(sr, SPEC)
    old = await bench.driver.open(sr, DISK, opening("old"))
    assert await bench.log_in(old)
    assert (await refusal(bench.driver.hand_over(sr, DISK, "old", "new"))).number in (24, 46)
    new = await bench.driver.open(sr, DISK, replace(opening("new"), beside="old"))
    assert await bench.log_in(new)
    for _ in range(2):
        await bench.driver.hand_over(sr, DISK, "old", "new")
    assert "new" in await bench.driver.openings(sr, DISK)
    assert await bench.log_in(new)
    await bench.driver.close(sr, DISK, "old")
    await bench.driver.hand_over(sr, DISK, "old", "new")
    assert await bench.driver.openings(sr, DISK) == ["new"]
    assert not await bench.log_in(old)
    assert await bench.log_in(new)
    third = await bench.driver.open(sr, DISK, replace(opening("third"), beside="new"))
    await bench.driver.hand_over(sr, DISK, "new", "third")
    await bench.driver.close(sr, DISK, "new")
    assert await bench.log_in(third)
    await bench.driver.close(sr, DISK, "third")
    assert await bench.driver.openings(sr, DISK) == []


async def test_a_volume_stays_where_it_is(bench: Bench, sr: Sr) -> None:
    """The move is undone: the first opening is as it was."""
    await bench.driver.volume_create(sr, SPEC)
    old = await bench.driver.open(sr, DISK, opening("old"))
    assert await bench.log_in(old)
    new = await bench.driver.open(sr, DISK, replace(opening("new"), beside="old"))
    await bench.driver.close(sr, DISK, "new")
    assert not await bench.log_in(new)
    assert await bench.log_in(old)
    assert await bench.driver.openings(sr, DISK) == ["old"]
    assert (await refusal(bench.driver.open(sr, DISK, opening("new")))).number == 24


async def test_what_is_not_there_is_not_opened(bench: Bench, sr: Sr) -> None:
    assert (await refusal(bench.driver.open(sr, DISK, opening("a")))).number == 144
    await bench.driver.close(sr, DISK, "a")
    assert (await refusal(bench.driver.openings(sr, DISK))).number == 144


async def test_nothing_is_left_in_the_end(bench: Bench, sr: Sr) -> None:
    await bench.driver.volume_create(sr, SPEC)
    await bench.driver.volume_clone(sr, DISK, replace(SPEC, vdi_uuid=COPY))
    for disk in (DISK, COPY):
        await bench.driver.open(sr, disk, opening("a"))
        await bench.driver.close(sr, disk, "a")
        await bench.driver.volume_destroy(sr, disk)
    await bench.driver.detach(sr)
    await bench.driver.destroy(sr)
    assert await bench.left() == []
