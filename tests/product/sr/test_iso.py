from pathlib import Path

import pytest

from gespann.seams.host_agent import FileSource
from gespann.seams.sr_driver import Opening, Sr, SrError, VolumeSpec
from gespann.sr.iso import IsoDriver

SR_UUID = "0ff867ef-3121-0e7c-5497-f5c34916727d"
READ = Opening("a", "RO", "iqn.x:y", "", "s3cretS3cret16ch")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "debian-12.ISO").write_bytes(b"x" * 4096)
    (folder / "windows.iso").write_bytes(b"x" * 10)
    (folder / "notes.txt").write_text("not an image")
    (folder / "folder.iso").mkdir()
    (tmp_path / "secret").write_text("of the host")
    (folder / "trap.iso").symlink_to(tmp_path / "secret")
    (folder / "dangling.iso").symlink_to(folder / "nothing")
    (folder / "same.iso").symlink_to(folder / "windows.iso")
    return folder


@pytest.fixture
def sr(media: Path) -> Sr:
    return Sr(SR_UUID, {"location": str(media)})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def refusal(call: object) -> int:
    with pytest.raises(SrError) as caught:
        await call  # type: ignore[misc]
    return caught.value.number


async def test_images_are_found(sr: Sr) -> None:
    driver = IsoDriver()
    await driver.create(sr, 0)
    await driver.attach(sr)
    found = await driver.scan(sr)
    assert [(one.location, one.virtual_size_bytes) for one in found] == [
        ("debian-12.ISO", 4096),
        ("same.iso", 10),
        ("windows.iso", 10),
    ]
    assert all(one.read_only for one in found)
    assert (await IsoDriver().scan(sr)) == found
    assert len({one.vdi_uuid for one in found}) == len(found)
    assert (await driver.stat(sr)).virtual_allocation_bytes == 4116


async def test_opened_for_reading_only(sr: Sr, media: Path) -> None:
    driver = IsoDriver()
    image = (await driver.scan(sr))[0]
    assert await driver.open(sr, image.vdi_uuid, READ) == FileSource(path=str(media / "debian-12.ISO"))
    await driver.close(sr, image.vdi_uuid, "a")
    assert await driver.openings(sr, image.vdi_uuid) == []
    writing = Opening("a", "RW", "iqn.x:y", "", "s3cretS3cret16ch")
    assert await refusal(driver.open(sr, image.vdi_uuid, writing)) == 46
    (media / "debian-12.ISO").unlink()
    assert await refusal(driver.open(sr, image.vdi_uuid, READ)) == 144


async def test_the_pool_changes_nothing(sr: Sr, media: Path) -> None:
    driver = IsoDriver()
    before = names_in(media)
    image = (await driver.scan(sr))[0]
    spec = VolumeSpec(image.vdi_uuid, 4096)
    for call in (
        driver.volume_create(sr, spec),
        driver.volume_update(sr, spec),
        driver.volume_clone(sr, image.vdi_uuid, spec),
        driver.volume_resize(sr, image.vdi_uuid, 8192),
        driver.volume_destroy(sr, image.vdi_uuid),
    ):
        assert await refusal(call) == 38
    await driver.volume_destroy(sr, SR_UUID)
    await driver.destroy(sr)
    assert names_in(media) == before


@pytest.mark.parametrize(
    ("location", "number"),
    [("", 220), ("media", 226), ("/no/such/folder", 226), ("/etc/hostname", 226), ("/etc/../etc", 226), ("/a\nb", 226)],
)
async def test_locations_that_are_none(location: str, number: int) -> None:
    driver = IsoDriver()
    config = {"location": location} if location else {}
    assert await refusal(driver.create(Sr(SR_UUID, config), 0)) == number
    assert await refusal(driver.probe(config, {})) == number


async def test_unknown_key(sr: Sr) -> None:
    assert await refusal(IsoDriver().create(Sr(SR_UUID, {**sr.device_config, "lokation": "x"}), 0)) == 143
