"""A machine's XML for the host that it moves to: openings and paths are new, what a guest sees is not."""

from pathlib import Path

from defusedxml.ElementTree import fromstring

from gespann.host.libvirt.domain_xml import Paths, domain_xml, parse_domain
from gespann.host.libvirt.moved_xml import moved_xml
from gespann.seams.host_migration import Landing, MovedDisk
from tests.unit.host.fake_agent import disk, spec

LANDING = Landing(serial_socket="/there/serial.sock", serial_log="/there/vm.log", vnc_socket="/there/vnc.sock")


def test_only_what_belongs_to_the_host_changes() -> None:
    paths = Paths(Path("/here/serial.sock"), Path("/here/vnc.sock"), Path("/here/vm.log"))
    before = domain_xml(spec(disks=[disk(0), disk(3)]), "tcg", paths)
    moved = MovedDisk(
        device=3, host="198.51.100.9", port=3261, initiator="iqn.2026-01.org.example:new", chap_user="new"
    )
    after = moved_xml(before, "start-2", [moved], LANDING)

    assert "/here/" not in after
    assert after.count("/there/serial.sock") == before.count("/here/serial.sock")
    assert after.count("/there/vnc.sock") == before.count("/here/vnc.sock") == 2
    view, old = parse_domain(after), parse_domain(before)
    assert view.start_id == "start-2"
    assert (view.disks, view.nics, view.memory_bytes, view.vcpus) == (old.disks, old.nics, old.memory_bytes, old.vcpus)

    first, second = fromstring(after).findall("devices/disk")
    assert first.find("source/initiator/iqn").get("name") == "iqn.2026-01.org.example:start-1"
    assert second.find("source/initiator/iqn").get("name") == "iqn.2026-01.org.example:new"
    assert second.find("source/host").get("name") == "198.51.100.9"
    assert second.find("source/host").get("port") == "3261"
    assert second.find("source/auth").get("username") == "new"
    old_second = fromstring(before).findall("devices/disk")[1]
    assert second.find("source").get("name") == old_second.find("source").get("name")  # the same volume
    assert second.find("source/auth/secret").attrib == old_second.find("source/auth/secret").attrib
