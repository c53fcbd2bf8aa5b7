"""A volume shown as a file, on files: what is written is there when it is closed, and what hangs can be killed."""

import contextlib
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gespann.host.libvirt.domain_xml import Paths, domain_xml, parse_domain
from gespann.host.libvirt.saved_xml import restored_xml
from gespann.host.memory_file import MemoryFiles, daemon_words
from gespann.seams.host_agent import FileSource
from gespann.seams.json_lines import SeamError
from tests.unit.host.fake_agent import disk, iscsi, spec

MIB = 1024**2


@pytest.fixture
def volume(tmp_path: Path) -> FileSource:
    path = tmp_path / "volume,with comma"
    path.write_bytes(bytes(MIB))
    return FileSource(path=str(path))


def content(volume: FileSource) -> bytes:
    return Path(volume.path).read_bytes()


@pytest.mark.real
async def test_written_flushed_and_closed(tmp_path: Path, volume: FileSource):
    files = MemoryFiles(tmp_path / "m")
    await files.open()
    shown = await files.show("one", volume, False)
    assert shown.stat().st_size == MIB
    with shown.open("wb") as file:  # truncates, as libvirt does: the volume keeps its size
        file.write(b"memory")
    assert shown.stat().st_size == MIB
    await files.end("one")
    assert content(volume)[:6] == b"memory"
    assert list((tmp_path / "m").iterdir()) == []
    with pytest.raises(SeamError, match="STORAGE"):
        await files.end("one")


@pytest.mark.real
async def test_only_read(tmp_path: Path, volume: FileSource):
    files = MemoryFiles(tmp_path / "m")
    await files.open()
    shown = await files.show("one", volume, True)
    with pytest.raises(OSError, match=r"Transport endpoint|Permission|not connected|Read-only"):
        shown.write_bytes(b"x")
    await files.end("one")
    assert content(volume) == bytes(MIB)


@pytest.mark.real
async def test_killed_it_frees_who_holds_the_file(tmp_path: Path, volume: FileSource):
    files = MemoryFiles(tmp_path / "m")
    await files.open()
    held = os.open(await files.show("one", volume, False), os.O_RDWR)
    await files.kill("one")
    with pytest.raises(OSError, match=r"Transport endpoint|Permission|not connected|Read-only"):
        os.pwrite(held, b"x", 0)
    with contextlib.suppress(OSError):
        os.close(held)
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.real
async def test_what_a_crash_left_is_swept(tmp_path: Path, volume: FileSource):
    files = MemoryFiles(tmp_path / "m")
    await files.open()
    shown = await files.show("one", volume, False)
    daemon = files._daemons.pop("one")
    daemon.process.kill()
    await daemon.process.wait()
    with pytest.raises(OSError, match=r"Transport endpoint|Permission|not connected|Read-only"):
        shown.stat()
    await MemoryFiles(tmp_path / "m").open()
    assert list((tmp_path / "m").iterdir()) == []


async def test_a_volume_that_cannot_be_opened_leaves_nothing(tmp_path: Path):
    files = MemoryFiles(tmp_path / "m")
    await files.open()
    with pytest.raises(SeamError, match="STORAGE"):
        await files.show("one", FileSource(path=str(tmp_path / "none")), False)
    assert list((tmp_path / "m").iterdir()) == []


def test_the_secret_is_no_word_of_a_command(tmp_path: Path):
    source = iscsi(1)
    words = " ".join(daemon_words(source, False, tmp_path))
    assert source.chap_secret not in words
    assert f"target={source.target}" in words
    assert "read-only=on" in " ".join(daemon_words(source, True, tmp_path))


def kept(tmp_path: Path, start: int) -> tuple[str, Paths]:
    paths = Paths(tmp_path / f"{start}.serial", tmp_path / f"{start}.vnc", tmp_path / "serial.log")
    return domain_xml(spec(start), "tcg", paths), paths


def test_kept_xml_leads_to_the_new_start(tmp_path: Path):
    old, _ = kept(tmp_path, 1)
    wanted, paths = kept(tmp_path, 2)
    assert restored_xml(old, spec(2), paths) != old
    assert parse_domain(restored_xml(old, spec(2), paths)) == parse_domain(wanted)
    for word in (spec(2).disks[0].source.initiator, str(paths.serial_socket), str(paths.vnc_socket)):
        assert word in restored_xml(old, spec(2), paths)
    assert spec(1).disks[0].source.initiator not in restored_xml(old, spec(2), paths)


def test_memory_with_other_devices_is_refused(tmp_path: Path):
    old, paths = kept(tmp_path, 1)
    for wrong in (spec(2, disks=[]), spec(2, disks=[disk(0, 2), disk(4, 2)]), spec(2, nics=[])):
        with pytest.raises(SeamError, match="BAD_STATE"):
            restored_xml(old, wrong, paths)


@pytest.mark.parametrize(
    ("place", "foreign"),
    [
        ("devices", '<hostdev mode="subsystem" type="usb"/>'),
        ("devices", '<filesystem type="mount"><source dir="/"/><target dir="root"/></filesystem>'),
        ("devices", '<disk type="file" device="disk"><source file="/etc/shadow"/><target dev="sdz"/></disk>'),
        ("devices", '<serial type="file"><source path="/etc/passwd"/></serial>'),
        (
            "devices",
            '<channel type="unix"><source path="/run/x"/><target type="virtio" name="x"/></channel>',
        ),
        ("devices", '<interface type="bridge"><source bridge="br9"/><script path="/bin/sh"/></interface>'),
        ("devices", '<interface type="user"/>'),
        ("devices", '<graphics type="spice" port="5900"/>'),
        ("devices", '<rng model="virtio"><backend model="random">/dev/sda</backend></rng>'),
        ("os", "<kernel>/etc/shadow</kernel>"),
        ("os", '<loader type="rom">/etc/shadow</loader>'),
        (".", '<commandline xmlns="http://libvirt.org/schemas/domain/qemu/1.0"><arg value="-S"/></commandline>'),
        (".", '<memoryBacking><source type="file"/></memoryBacking>'),
    ],
)
def test_memory_that_somebody_else_wrote_opens_nothing_of_the_host(place: str, foreign: str) -> None:
    paths = Paths(Path("/run/a.sock"), Path("/run/b.sock"), Path("/log"))
    root = ET.fromstring(domain_xml(spec(1), "tcg", paths))
    found = root.find(place)
    assert found is not None
    found.append(ET.fromstring(foreign))
    with pytest.raises(SeamError, match="BAD_STATE"):
        restored_xml(ET.tostring(root, encoding="unicode"), spec(2), paths)


def test_what_libvirt_finds_by_itself_is_not_taken_from_a_volume() -> None:
    paths = Paths(Path("/run/a.sock"), Path("/run/b.sock"), Path("/log"))
    root = ET.fromstring(domain_xml(spec(1), "tcg", paths))
    devices, channel = root.find("devices"), root.find("devices/channel")
    driver = root.find("devices/disk/driver")
    assert devices is not None
    assert channel is not None
    assert driver is not None
    ET.SubElement(devices, "emulator").text = "/tmp/evil"
    ET.SubElement(channel, "source", mode="connect", path="/run/libvirt/libvirt-sock")
    ET.SubElement(root, "seclabel", type="static", model="dac").append(ET.Element("label"))
    driver.set("type", "qcow2")
    made = restored_xml(ET.tostring(root, encoding="unicode"), spec(2), paths)
    for word in ("evil", "libvirt-sock", "seclabel", "qcow2"):
        assert word not in made
