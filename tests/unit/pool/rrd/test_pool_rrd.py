"""Figures of hosts and machines: gathered from the fake hypervisor, kept in archives, told in each form."""

import json
import math
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from gespann.host.fake import counters as fake
from gespann.pool.rrd.archive import SHAPES, STEP_S, Ring, Rrd, Source
from gespann.pool.rrd.collector import Collector
from gespann.pool.rrd.export import number, updates, updates_json, updates_xml, whole_json, whole_xml
from gespann.pool.rrd.figures import collector_of
from gespann.pool.rrd.sources import rate
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.records.computed import TABLES

SOURCE = Source("cpu0", "CPU0 usage", "(fraction)", most=1.0)


def filled(values: list[float], first_slot: int = 0) -> Rrd:
    rrd = Rrd()
    for at, value in enumerate(values):
        rrd.update((first_slot + at) * STEP_S, {"cpu0": (SOURCE, value)})
    return rrd


def known(rrd: Rrd, archive: int, function: str) -> dict[int, float]:
    ring = rrd.series["cpu0"].ring(archive, function)
    rows = range(max(0, ring.newest - ring.rows), ring.newest + 1)
    return {row: ring.get(row) for row in rows if not math.isnan(ring.get(row))}


# -- archives


def test_ring_keeps_the_newest_and_knows_gaps():
    ring = Ring(4)
    for row in (10, 11, 13, 14, 15):
        ring.put(row, float(row))
    assert [ring.get(row) for row in (11, 13, 14, 15)] != [11.0, 13.0, 14.0, 15.0]  # 11 has gone: four are kept
    assert math.isnan(ring.get(12))
    assert [ring.get(row) for row in (13, 14, 15)] == [13.0, 14.0, 15.0]
    assert math.isnan(ring.get(16))
    ring.put(14, 99.0)  # the past does not change
    assert ring.get(14) == 14.0
    ring.put(1000, 1.0)
    assert ring.get(1000) == 1.0
    assert all(math.isnan(ring.get(row)) for row in range(990, 1000))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_ring_is_the_same_after_it_was_stored(count):
    ring, again = Ring(4), Ring(4)
    for row in range(7, 7 + count):
        ring.put(row, float(row))
    again.restore(*ring.stored())
    for at in range(3):
        ring.put(7 + count + at, 0.5)
        again.put(7 + count + at, 0.5)
    rows = range(0, 30)
    assert [number(ring.get(row)) for row in rows] == [number(again.get(row)) for row in rows]


def test_minute_is_average_least_and_greatest_of_its_steps():
    rrd = filled([float(n) for n in range(25)])
    assert known(rrd, 1, "AVERAGE") == {0: 5.5, 1: 17.5}
    assert known(rrd, 1, "MIN") == {0: 0.0, 1: 12.0}
    assert known(rrd, 1, "MAX") == {0: 11.0, 1: 23.0}


def test_hour_and_day_follow_from_minutes():
    rrd = filled([1.0] * (17_280 + 1))
    assert known(rrd, 2, "AVERAGE") == dict.fromkeys(range(24), 1.0)
    assert known(rrd, 3, "MAX") == {0: 1.0}


def test_minute_of_which_less_than_half_is_known_is_not_known():
    rrd = filled([1.0] * 5 + [math.nan] * 7 + [1.0] * 7 + [math.nan] * 6)
    assert known(rrd, 1, "AVERAGE") == {1: 1.0}


def test_forgotten_source_is_not_recorded_until_asked_for_again():
    rrd = filled([1.0])
    assert rrd.forget("cpu0")
    rrd.update(STEP_S, {"cpu0": (SOURCE, 1.0)})
    assert "cpu0" not in rrd.series
    assert rrd.record("cpu0")
    rrd.update(2 * STEP_S, {"cpu0": (SOURCE, 1.0)})
    assert "cpu0" in rrd.series
    assert not rrd.record("cpu9")
    assert not rrd.forget("cpu9")


def test_counter_that_started_anew_gives_no_rate():
    assert rate(150.0, 100.0, 10.0) == 5.0
    for new, old, elapsed_s in ((50.0, 100.0, 10.0), (50.0, None, 10.0), (50.0, 10.0, 0.0)):
        assert math.isnan(rate(new, old, elapsed_s))


# -- telling


def test_updates_are_newest_first_and_from_the_start_on():
    rrd = filled([float(n) for n in range(20)], first_slot=1000)
    now_s = 1019 * STEP_S
    found = updates([("vm:u:", rrd)], -20, 5, "AVERAGE", now_s)
    assert list(found.rows()) == [(at * STEP_S, [float(at - 1000)]) for at in (1019, 1018, 1017, 1016)]
    assert [text for text, _ in found.columns] == ["AVERAGE:vm:u:cpu0"]


@pytest.mark.parametrize(
    ("back_s", "interval_s", "step_s"),
    [(300, 5, 5), (300, 60, 60), (3600, 5, 60), (86_400, 5, 3600), (86_400 * 30, 5, 86_400), (300, 10**9, 86_400)],
)
def test_finest_archive_that_reaches_back(back_s, interval_s, step_s):
    assert updates([], -back_s, interval_s, None, 1_900_000_000).step_s == step_s
    assert step_s in {steps * STEP_S for steps, _ in SHAPES}


def test_minutes_are_told_at_their_end():
    rrd = filled([float(n) for n in range(25)])
    found = updates([("", rrd)], 0, 60, "AVERAGE", 24 * STEP_S)
    assert list(found.rows()) == [(120, [17.5]), (60, [5.5])]


def test_xml_and_json_of_updates_say_the_same():
    rrd = filled([0.5, math.nan, 1.0])
    found = updates([("host:u:", rrd)], -10, 5, None, 10)
    xml = ElementTree.fromstring("".join(updates_xml(found)))
    shown = json.loads("".join(updates_json(found)))
    assert [entry.text for entry in xml.findall("meta/legend/entry")] == shown["meta"]["legend"]
    for name in ("start", "step", "end", "rows", "columns"):
        assert int(xml.findtext(f"meta/{name}")) == shown["meta"][name]
    rows = [(int(row.findtext("t")), [v.text for v in row.findall("v")]) for row in xml.findall("data/row")]
    assert rows == [(row["t"], row["values"]) for row in shown["data"]]
    assert rows[0] == (10, ["1", "1", "1"])
    assert rows[1] == (5, ["NaN", "NaN", "NaN"])


def test_whole_archives_have_all_rows():
    rrd = filled([float(n) for n in range(30)])
    xml = ElementTree.fromstring("".join(whole_xml(rrd)))
    shown = json.loads("".join(whole_json(rrd)))
    assert [ds.findtext("name") for ds in xml.findall("ds")] == ["cpu0"] == [ds["name"] for ds in shown["ds"]]
    assert len(xml.findall("rra")) == len(shown["rra"]) == 12
    for rra, same in zip(xml.findall("rra"), shown["rra"], strict=True):
        rows = [[v.text for v in row.findall("v")] for row in rra.findall("database/row")]
        assert rows == same["database"]
        assert (rra.findtext("cf"), rra.findtext("pdp_per_row")) == (same["cf"], same["pdp_per_row"])
    assert [len(rra["database"]) for rra in shown["rra"][::3]] == [rows for _, rows in SHAPES]
    assert shown["rra"][0]["database"][-1] == ["29"]


# -- from the agents


@pytest.fixture
async def running(world):
    """A VM that runs, and figures of two moments ten seconds apart on the agent's clock."""
    sr = await world.make_sr()
    vm = await world.make_vm_with_disk(sr)
    await world.call("VM.start", vm, False, False)
    await gather(world, 10.0)
    world.clock.advance(STEP_S)
    await gather(world, 20.0)
    return world, vm


async def gather(world, taken_s: float) -> None:
    machines = list(world.hypervisor._running.values())
    reply = fake.fake_counters(taken_s, 64 << 30, 60 << 30, machines)
    collector_of(world.pool).take(world.host, reply)


async def test_rates_of_a_machine(running):
    world, vm = running
    expected = {
        "cpu0": fake.BUSY,
        "cpu_usage": fake.BUSY,
        "memory": 128 << 20,
        "vbd_xvda_read": fake.READ_BYTES,
        "vbd_xvda_write": fake.WRITTEN_BYTES,
        "vbd_xvda_iops_read": fake.READS,
        "vbd_xvda_iops_total": fake.READS + fake.WRITES,
        "vbd_xvda_io_throughput_total": 1.5,
        "vbd_xvda_read_latency": fake.READ_US,
        "vbd_xvda_write_latency": fake.WRITE_US,
    }
    for name, value in expected.items():
        assert await world.call("VM.query_data_source", vm, name) == pytest.approx(value), name
    listed = {source["name_label"]: source for source in await world.call("VM.get_data_sources", vm)}
    assert set(expected) <= set(listed)
    assert listed["cpu0"]["units"] == "(fraction)"
    assert listed["cpu0"]["enabled"] is True


async def test_rates_of_a_disk_on_the_command_line(running):
    """``xe vbd-param-get``, which has to know what the figures of a disk are called."""
    world, vm = running
    (vbd,) = world.get("VM", vm)["VBDs"]
    call = SimpleNamespace(request=world.call)
    for column, rate_of in (("io_read_kbs", fake.READ_BYTES), ("io_write_kbs", fake.WRITTEN_BYTES)):
        shown = await TABLES["vbd"][column].fetch(call, SimpleNamespace(record=world.get("VBD", vbd)))
        assert float(shown) == pytest.approx(rate_of / 1024)


async def test_rates_of_a_host(running):
    world, _ = running
    assert await world.call("host.query_data_source", world.host, "cpu_avg") == pytest.approx(fake.BUSY)
    assert await world.call("host.query_data_source", world.host, "memory_free_kib") == 60 << 20
    assert await world.call("host.query_data_source", world.host, "pif_eth0_rx") == pytest.approx(fake.RECEIVED_BYTES)
    assert await world.call("host.query_data_source", world.host, "pif_aggr_tx") == pytest.approx(fake.SENT_BYTES)
    names = {source["name_label"] for source in await world.call("host.get_data_sources", world.host)}
    assert {"cpu0", "cpu7", "loadavg", "memory_total_kib"} <= names


async def enabled(world, method: str, ref: str) -> bool:
    return next(s["enabled"] for s in await world.call(method, ref) if s["name_label"] == "cpu0")


async def test_recording_of_a_machine_is_ended_and_begun(running):
    world, vm = running
    await world.call("VM.forget_data_source_archives", vm, "cpu0")
    assert not await enabled(world, "VM.get_data_sources", vm)
    await world.call("VM.record_data_source", vm, "cpu0")
    await gather(world, 30.0)
    assert await enabled(world, "VM.get_data_sources", vm)


async def test_recording_of_a_host_is_ended_and_begun(running):
    world, _ = running
    await world.call("host.forget_data_source_archives", world.host, "cpu0")
    assert not await enabled(world, "host.get_data_sources", world.host)
    await world.call("host.record_data_source", world.host, "cpu0")
    await gather(world, 30.0)
    assert await enabled(world, "host.get_data_sources", world.host)


@pytest.mark.parametrize("message", ["query_data_source", "record_data_source", "forget_data_source_archives"])
async def test_source_that_is_not_there(running, message):
    world, vm = running
    for class_name, ref in (("VM", vm), ("host", world.host)):
        with pytest.raises(XenApiError, match="INVALID_VALUE"):
            await world.call(f"{class_name}.{message}", ref, "cpu99")


async def test_halted_machine_has_no_figures(world):
    vm = await world.make_vm()
    with pytest.raises(XenApiError) as caught:
        await world.call("VM.query_data_source", vm, "cpu0")
    assert [caught.value.code, *caught.value.params] == ["VM_BAD_POWER_STATE", vm, "running", "halted"]


async def test_next_start_of_a_machine_counts_from_its_own_beginning(running):
    world, vm = running
    await world.call("VM.hard_shutdown", vm)
    await world.call("VM.start", vm, False, False)
    await gather(world, 30.0)
    assert await world.call("VM.query_data_source", vm, "cpu0") == 0.0  # no second count yet
    await gather(world, 40.0)
    assert await world.call("VM.query_data_source", vm, "cpu0") == pytest.approx(fake.BUSY)


async def test_agents_are_asked_and_one_that_fails_has_no_figures_for_now(world):
    collector = collector_of(world.pool)
    await collector.round()
    world.hypervisor.fail_next("counters", SeamError("HYPERVISOR", "no"))
    await collector.round()
    assert world.host not in collector._last
    await collector.round()
    uuid = world.get("host", world.host)["uuid"]
    assert "cpu_avg" in collector.hosts[uuid].series


async def test_figures_outlive_the_coordinator_and_go_with_their_vm(running, tmp_path):
    world, vm = running
    uuid = world.get("VM", vm)["uuid"]
    collector = Collector(world.pool, tmp_path / "rrd")
    await gather(world, 50.0)
    await gather(world, 60.0)
    collector.keep()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "rrd").iterdir())
    (tmp_path / "rrd" / f"vm-{'0' * 8}-0000-0000-0000-{'0' * 12}").write_bytes(b"no figures")
    again = Collector(world.pool, tmp_path / "rrd")
    again._load()
    assert list(again.vms) == [uuid]
    now, then = ("".join(whole_xml(c.vms[uuid])) for c in (again, collector))
    assert now.partition("<ds>")[0] == then.partition("<ds>")[0]
    assert now.partition("<rra>")[2] == then.partition("<rra>")[2]
    await world.call("VM.hard_shutdown", vm)
    await world.call("VM.destroy", vm)
    again.keep()
    assert [path.name[:4] for path in (tmp_path / "rrd").iterdir()] == ["host"]
