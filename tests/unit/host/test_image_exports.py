"""Images by qemu-nbd on files, and in the fake's memory: what is written through the socket is there."""

from pathlib import Path

import pytest

from gespann.host.fake import AnyStorage
from gespann.host.fake.images import FakeImages
from gespann.host.images import Images
from gespann.host.nbd_export import QemuNbdImages
from gespann.seams.host_agent import FileSource
from gespann.seams.json_lines import SeamError
from gespann.system import processes

MIB = 1024**2


@pytest.fixture(params=["qemu-nbd", "fake"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Images:
    if request.param == "fake":
        return FakeImages(AnyStorage(), tmp_path)
    return QemuNbdImages(tmp_path / "i")


@pytest.fixture
def disk(tmp_path: Path) -> FileSource:
    path = tmp_path / "disk,with comma.img"
    path.write_bytes(bytes(64 * MIB))
    return FileSource(path=str(path))


def sockets(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


async def test_written_and_read_back(images: Images, disk: FileSource, tmp_path: Path):
    await images.open()
    content = tmp_path / "content"
    content.write_bytes(bytes(range(256)) * 4096 * 64)
    socket = await images.export("one", disk, False)
    assert await images.export("one", disk, False) == socket
    await processes.run_async(["nbdcopy", str(content), f"nbd+unix:///?socket={socket}"])
    await images.end("one")
    await images.end("one")
    assert sockets(tmp_path) == []
    socket = await images.export("two", disk, True)
    back = tmp_path / "back"
    await processes.run_async(["nbdcopy", f"nbd+unix:///?socket={socket}", str(back)])
    await images.close()
    assert back.read_bytes() == content.read_bytes()


async def test_read_only_means_it(images: Images, disk: FileSource):
    await images.open()
    socket = await images.export("one", disk, True)
    uri = f"nbd+unix:///?socket={socket}"
    written = await processes.run_async(["qemu-io", "-f", "raw", "-c", "write 0 4k", uri], check=False)
    await images.close()
    assert written.exit_code != 0 or "failed" in written.stdout + written.stderr


async def test_what_is_not_there_is_refused_and_leaves_nothing(tmp_path: Path):
    images = QemuNbdImages(tmp_path / "i")
    await images.open()
    with pytest.raises(SeamError, match="STORAGE"):
        await images.export("one", FileSource(path=str(tmp_path / "none")), True)
    assert list((tmp_path / "i").iterdir()) == []


async def test_what_a_crash_left_is_swept(tmp_path: Path):
    (tmp_path / "i/old").mkdir(parents=True)
    (tmp_path / "i/old/secret").write_text("x")
    images = QemuNbdImages(tmp_path / "i")
    await images.open()
    assert list((tmp_path / "i").iterdir()) == []


async def test_nothing_is_kept_of_images_that_are_closed(disk: FileSource, tmp_path: Path):
    """Each import has an id of its own, and an agent lives for months."""
    images = QemuNbdImages(tmp_path / "i")
    await images.open()
    for number in range(3):
        await images.export(f"import-{number}", disk, False)
        await images.end(f"import-{number}")
        await images.end(f"import-{number}")
    assert (len(images._locks), len(images._exports)) == (0, 0)
    assert list((tmp_path / "i").iterdir()) == []
