"""What a driver holds on the storage ends with the process, and nothing else does."""

import asyncio
from pathlib import Path

from gespann.array.data_plane.fake import FakeEngine
from gespann.main.coordinator import Coordinator, Settings
from gespann.seams.sr_driver import Opening, Sr, VolumeSpec
from gespann.sr.equal import EqualDriver
from gespann.sr.memory import MemoryDriver, MemoryStorage
from tests.product.sr.arrays import group_over

SR_UUID, DISK = "0ff867ef-3121-0e7c-5497-f5c34916727d", "22267eb7-23c0-4479-a063-f5c34916727d"


async def test_the_coordinator_says_good_bye_to_its_drivers(tmp_path: Path) -> None:
    storage = MemoryStorage()
    password = tmp_path / "password"
    password.write_text("let-me-in-please")
    for folder in ("data", "run"):
        (tmp_path / folder).mkdir(mode=0o700)
    settings = Settings(data=tmp_path / "data", run=tmp_path / "run", root_password_file=password)
    async with Coordinator(settings, drivers={"memory": MemoryDriver(storage)}):
        assert storage.drivers_shut_down == 0
    assert storage.drivers_shut_down == 1


async def test_equal_gives_its_sessions_back_and_leaves_openings_alone(tmp_path: Path) -> None:
    driver = EqualDriver()
    async with group_over(FakeEngine(total_bytes=2**40), tmp_path) as (group, config):
        sr = Sr(SR_UUID, config)
        await driver.create(sr, 0)
        await driver.attach(sr)
        await driver.volume_create(sr, VolumeSpec(DISK, 2**30))
        opening = Opening("a", "RW", "iqn.2026-11.org.example:a", "a", "abcdefabcdef")
        await driver.open(sr, DISK, opening)
        assert group.ssh.sessions
        await driver.shut_down()
        async with asyncio.timeout(120):
            while group.ssh.sessions or group.ssh.logins:  # noqa: ASYNC110 - the group runs in this loop
                await asyncio.sleep(0)
        assert await driver.openings(sr, DISK) == ["a"]
        await driver.shut_down()
