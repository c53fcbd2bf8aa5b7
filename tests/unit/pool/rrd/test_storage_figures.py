"""Figures of storage: what machines do on each SR, and how full it is."""

import math

import pytest

from gespann.host.fake import counters as fake
from gespann.pool.rrd.archive import STEP_S
from gespann.pool.rrd.collector import Collector
from gespann.pool.rrd.figures import collector_of
from gespann.pool.rrd.storage_sources import UNKNOWN, Traffic, sr_values
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import MIB, World


async def gather(world: World, taken_s: float) -> None:
    """One round of the collector, with counters of a moment on the agent's clock."""
    machines = list(world.hypervisor._running.values())
    collector = collector_of(world.pool)
    collector.take(world.host, fake.fake_counters(taken_s, 64 << 30, 60 << 30, machines))
    collector.take_srs()


@pytest.fixture
async def busy(world: World) -> tuple[World, str, str]:
    """Two SRs; a VM with a disk on the one, and one with two disks, one on each."""
    first, second = await world.make_sr("first"), await world.make_sr("second")
    for srs in ([first], [first, second]):
        vm = await world.make_vm()
        for device, sr in enumerate(srs):
            await world.make_vbd(vm, await world.make_vdi(sr, virtual_size=150 * MIB), userdevice=str(device))
        await world.call("VM.start", vm, False, False)
    await gather(world, 10.0)
    world.clock.advance(STEP_S)
    await gather(world, 20.0)
    return world, first, second


async def test_what_machines_do_on_an_sr(busy: tuple[World, str, str]) -> None:
    world, first, second = busy
    for sr, disks in ((first, 2), (second, 1)):
        expected = {
            "io_throughput_read": fake.READ_BYTES * disks / MIB,
            "io_throughput_write": fake.WRITTEN_BYTES * disks / MIB,
            "io_throughput_total": 1.5 * disks,
            "iops_read": fake.READS * disks,
            "iops_write": fake.WRITES * disks,
            "iops_total": (fake.READS + fake.WRITES) * disks,
            "read_latency": fake.READ_US,
            "write_latency": fake.WRITE_US,
        }
        short = world.get("SR", sr)["uuid"][:8]
        for name, value in expected.items():
            assert await world.call("SR.query_data_source", sr, name) == pytest.approx(value), name
            assert await world.call("host.query_data_source", world.host, f"{name}_{short}") == pytest.approx(value)


async def test_how_full_it_is(busy: tuple[World, str, str]) -> None:
    world, first, _ = busy
    await world.call("SR.scan", first)
    await gather(world, 30.0)
    record = world.get("SR", first)
    assert record["physical_utilisation"] > 0
    for name, field in (("size", "physical_size"), ("physical_utilisation", "physical_utilisation")):
        assert await world.call("SR.query_data_source", first, name) == record[field]
    listed = {source["name_label"]: source for source in await world.call("SR.get_data_sources", first)}
    assert (listed["size"]["units"], listed["iops_read"]["units"]) == ("B", "requests/s")
    assert listed["iops_read"]["enabled"] is True


async def test_recording_is_ended_and_begun(busy: tuple[World, str, str]) -> None:
    world, first, _ = busy

    async def enabled() -> bool:
        found = await world.call("SR.get_data_sources", first)
        return next(source["enabled"] for source in found if source["name_label"] == "size")

    await world.call("SR.forget_data_source_archives", first, "size")
    assert not await enabled()
    await world.call("SR.record_data_source", first, "size")
    await gather(world, 30.0)
    assert await enabled()
    for message in ("query_data_source", "record_data_source", "forget_data_source_archives"):
        with pytest.raises(XenApiError, match="INVALID_VALUE"):
            await world.call(f"SR.{message}", first, "cpu0")


async def test_figures_of_an_sr_outlive_the_coordinator_and_go_with_it(busy: tuple[World, str, str], tmp_path) -> None:
    world, first, second = busy
    uuid, gone = world.get("SR", first)["uuid"], world.get("SR", second)["uuid"]
    collector = Collector(world.pool, tmp_path / "rrd")
    collector.srs = dict.fromkeys((uuid, gone, "00000000-0000-0000-0000-000000000000"), next(iter(_rrds(world))))
    collector.keep()
    again = Collector(world.pool, tmp_path / "rrd")
    again._load()
    assert set(again.srs) == {uuid, gone}
    assert "size" in again.srs[uuid].series


def _rrds(world: World):
    world.pool.services["rrd"].take_srs()
    return world.pool.services["rrd"].srs.values()


def test_nobody_has_told() -> None:
    values = sr_values({"physical_size": 10, "physical_utilisation": 4}, [])
    assert values["size"][1] == 10.0
    assert math.isnan(values["iops_read"][1])
    known = sr_values({"physical_size": 10, "physical_utilisation": 4}, [Traffic(1.0, 2.0, 3.0, 4.0), Traffic()])
    assert known["iops_total"][1] == 7.0
    slow = Traffic(1.0, 2.0, 10.0, 0.0, 5000.0, 0.0) + Traffic(1.0, 2.0, 30.0, 0.0, 3000.0, 0.0)
    both = sr_values({"physical_size": 10, "physical_utilisation": 4}, [slow])
    assert (both["read_latency"][1], both["write_latency"][1]) == (200.0, 0.0)
    assert math.isnan(sr_values({"physical_size": 1, "physical_utilisation": 1}, [UNKNOWN])["read_latency"][1])
    assert math.isnan(sr_values({"physical_size": 1, "physical_utilisation": 1}, [UNKNOWN])["iops_total"][1])
