"""What an agent reads of a disk that moves, and what it tells libvirt."""

from pathlib import Path
from xml.etree.ElementTree import tostring

from defusedxml.ElementTree import fromstring

from gespann.host.libvirt.domain_xml import Paths, domain_xml, secret_uuid
from gespann.host.libvirt.mirror_xml import copy_xml, moving_disk, other_slot
from gespann.host.libvirt.moved_xml import moved_xml
from gespann.seams.host_agent import Disk, IscsiSource
from gespann.seams.host_migration import Landing, MovedDisk
from gespann.seams.host_mirror import opening_meant
from tests.unit.host.fake_agent import disk, spec

PATHS = Paths(Path("/here/serial.sock"), Path("/here/vnc.sock"), Path("/here/vm.log"))
UUID = spec().uuid
NEW = IscsiSource(
    host="198.51.100.9", port=3260, target="iqn.2026-01.org.example:new", initiator="iqn.2026-01.org.example:start-2",
    chap_user="new", chap_secret="secret-of-new-01", lun=3, offset_bytes=1 << 20, size_bytes=1 << 24,
)  # fmt: skip


def machine(*disks: Disk) -> str:
    return domain_xml(spec(disks=list(disks)), "tcg", PATHS)


def mirrored(text: str, ready: str) -> str:
    """As libvirt shows it while it copies disk 3 to NEW."""
    copy = fromstring(copy_xml(UUID, 3, NEW, 1))
    source = tostring(copy.find("source")).decode()
    mirror = f"<mirror type='network' job='copy'{ready}><format type='raw'/>{source}</mirror>"
    head, tail = text.split('<target dev="sdd"', 1)
    return f'{head}{mirror}<target dev="sdd"{tail}'


def test_a_disk_that_does_not_move() -> None:
    plain = disk(3)
    seen = moving_disk(machine(disk(0), plain), 3)
    assert seen is not None
    assert isinstance(plain.source, IscsiSource)
    assert (seen.leads_to, seen.mirror, seen.in_step) == (opening_meant(plain.source), None, False)
    assert seen.secret == secret_uuid(UUID, 3)
    assert seen.start_id == spec().start_id


def test_no_disk_and_a_cd_drive() -> None:
    drive = Disk(device=3, serial="drive", source=None, kind="cdrom", read_only=True)
    assert moving_disk(machine(disk(0), drive), 3) is None
    assert moving_disk(machine(disk(0)), 5) is None


def test_a_copy_is_known_by_where_it_goes_and_in_step_when_libvirt_says_so() -> None:
    text = machine(disk(0), disk(3))
    for ready, in_step in (("", False), (" ready='yes'", True), (" ready='abort'", False)):
        seen = moving_disk(mirrored(text, ready), 3)
        assert seen is not None
        assert (seen.mirror, seen.in_step) == (opening_meant(NEW), in_step)
        assert seen.secret == secret_uuid(UUID, 3)  # still the first one's


def test_the_two_secrets_of_a_disk_take_turns() -> None:
    assert other_slot(UUID, 3, secret_uuid(UUID, 3)) == 1
    assert other_slot(UUID, 3, secret_uuid(UUID, 3, 1)) == 0
    assert len({secret_uuid(UUID, device, slot) for device in (3, 31) for slot in (0, 1)}) == 4
    text = copy_xml(UUID, 3, NEW, 1)
    assert secret_uuid(UUID, 3, 1) in text
    assert NEW.chap_secret not in text


def test_on_another_host_a_disk_that_has_moved_has_the_first_of_its_secrets() -> None:
    """There only that one is known."""
    root = fromstring(machine(disk(0), disk(3)))
    secret = root.findall("devices/disk")[1].find("source/auth/secret")
    secret.set("uuid", secret_uuid(UUID, 3, 1))
    landing = Landing(serial_socket="/there/s", serial_log="/there/l", vnc_socket="/there/v")
    moved = MovedDisk(device=3, host="198.51.100.9", port=3260, initiator="iqn.2026-01.org.example:x", chap_user="x")
    after = fromstring(moved_xml(tostring(root).decode(), "start-2", [moved], landing))
    assert after.findall("devices/disk")[1].find("source/auth/secret").get("uuid") == secret_uuid(UUID, 3)
