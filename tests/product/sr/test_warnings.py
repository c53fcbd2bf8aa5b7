"""What the group warns of, as far as it concerns a repository."""

from pathlib import Path

from gespann.array.data_plane.fake import FakeEngine
from gespann.seams.sr_driver import SnapshotSpec, Sr, VolumeSpec
from gespann.sr.equal import output
from tests.product.sr.arrays import Bench, drivers, group_over
from tests.product.sr.test_changes import made_sr
from tests.product.sr.test_conformance import COPY, DISK, MIB


async def test_of_its_own_volumes_and_of_space(tmp_path: Path) -> None:
    engine = FakeEngine(total_bytes=400 * MIB)
    async with group_over(engine, tmp_path) as (group, config), drivers() as make:
        driver = make()
        sr = await made_sr(driver, config)
        thin = VolumeSpec(DISK, 150 * MIB, "d", sm_config={"allocation": "thin"})
        await driver.volume_create(sr, thin)
        await driver.volumes_snapshot(sr, [SnapshotSpec(DISK, VolumeSpec(COPY, 0))])
        before = await driver.warnings(sr, None)
        assert before == []
        events = group.control.events
        (volume,) = [one for one in group.control.volumes.all() if not one.name.endswith("management")]
        engine.write(volume.naa, 0, 120 * MIB)
        await group.control.look_at_thin_volumes()
        events.add("WARNING", "8.6.1", "Volume XenStorage of somebody else uses 80% of its size, warning limit 60%.")
        events.add("WARNING", "8.6.1", f"Volume XenStorage{'0' * 32}{'1' * 20} uses 80% of its size.")
        events.add("INFO", "8.2.3", f"Volume {volume.name} set offline.")
        events.add("ERROR", "8.9.2", "The group has no free space: writes wait.")
        events.add("WARNING", "8.1.1", "Login of x failed.")
        found = await driver.warnings(sr, 0)
        assert found is not None
        assert [(one.text.split(" ")[0], one.vdi_uuid_begins) for one in found] == [("Volume", DISK[:23]), ("The", "")]
        assert await driver.warnings(sr, found[0].number) == found[1:]
        assert await driver.warnings(sr, None) == found


async def test_a_group_that_does_not_know_the_words(bench: Bench, sr: Sr) -> None:
    assert await bench.driver.warnings(sr, 5) in ([], None)


def test_events_are_read_as_the_array_prints_them() -> None:
    line = "8:1:groupd:16-Feb-2010 09:30:00.000000:WARNING::8.6.1:Volume v: uses 65%, limit 60%."
    assert output.events((line, "", "% nonsense", line[2:])) == [(8, "Volume v: uses 65%, limit 60%.")]
