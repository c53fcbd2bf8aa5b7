"""A spec as libvirt's XML, and back."""

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from gespann.host.libvirt.domain_xml import METADATA_URI as URI
from gespann.host.libvirt.domain_xml import (
    Paths,
    boot_orders,
    disk_xml,
    domain_xml,
    parse_domain,
    secret_uuid,
    secret_xml,
    target_name,
)
from gespann.seams.host_agent import Disk, DomainSpec, FileSource, Nic
from tests.unit.host.fake_agent import UUID, disk, spec

PATHS = Paths(Path("/run/g/serial.sock"), Path("/run/g/vnc.sock"), Path("/var/g/serial.log"))


def root_of(made: DomainSpec, accelerator: str = "tcg") -> ET.Element:
    return fromstring(domain_xml(made, "kvm" if accelerator == "kvm" else "tcg", PATHS))


def test_what_goes_in_comes_back():
    view = parse_domain(domain_xml(spec(disks=[disk(0), disk(200)]), "tcg", PATHS))
    assert (view.uuid, view.start_id, view.memory_bytes, view.vcpus) == (UUID, "start-1", 128 * 1024**2, 1)
    assert view.disks == {0: "serial-0", 200: "serial-200"}
    assert view.nics == {0: "02:00:00:00:07:09"}
    assert not view.agent_connected


def test_no_secret_is_in_it():
    text = domain_xml(spec(), "tcg", PATHS)
    assert "secret-of" not in text
    assert secret_uuid(UUID, 0) in text
    assert "secret-of" not in secret_xml(UUID, 0)


def test_secret_is_private_and_never_on_a_disk():
    secret = fromstring(secret_xml(UUID, 3))
    assert (secret.get("private"), secret.get("ephemeral")) == ("yes", "yes")
    assert secret.findtext("uuid") == secret_uuid(UUID, 3) != secret_uuid(UUID, 4)


def test_iscsi_disk_has_its_own_name_address_and_policy():
    element = fromstring(disk_xml(UUID, disk(7)))
    driver, address = element.find("driver").attrib, element.find("address").attrib
    assert (driver["cache"], driver["discard"]) == ("none", "unmap")
    assert (driver["error_policy"], driver["rerror_policy"]) == ("stop", "stop")
    assert (address["target"], address["unit"]) == ("7", "0")
    assert element.find("source/initiator/iqn").get("name") == "iqn.2026-01.org.example:start-1"
    assert element.find("source").get("name") == "iqn.2026-01.org.example:volume-7/0"
    assert element.find("auth") is None  # below source: libvirt has no other place for network disks we make
    assert element.find("source/auth").get("username") == "start-1"


def test_a_part_of_a_lun_is_a_slice():
    whole = disk(0)
    source = msgspec.structs.replace(whole.source, offset_bytes=10 << 20, size_bytes=4 << 20)
    assert fromstring(disk_xml(UUID, whole)).find("source/slices") is None
    found = fromstring(disk_xml(UUID, msgspec.structs.replace(whole, source=source))).find("source/slices/slice")
    assert found.attrib == {"type": "storage", "offset": str(10 << 20), "size": str(4 << 20)}


def test_emulation_and_kvm():
    emulated, kvm = root_of(spec()), root_of(spec(), "kvm")
    assert (emulated.get("type"), emulated.find("cpu").get("mode")) == ("qemu", "maximum")
    assert emulated.findtext("features/tcg/tb-cache") == "32"
    assert kvm.get("type") == "kvm"
    assert kvm.find("features/tcg") is None


def test_boot_order_by_letters():
    cd = Disk(device=3, serial="cd", source=None, kind="cdrom")
    made = spec(disks=[disk(0), disk(1), cd], boot_order="dcn")
    assert boot_orders(made) == ({3: 1, 0: 2}, {0: 3})
    assert boot_orders(spec(disks=[disk(2, 1), disk(1, 1)], boot_order="c")) == ({1: 1}, {})


def test_empty_drive_is_read_only_and_without_source():
    element = fromstring(disk_xml(UUID, Disk(device=3, serial="cd", source=None, kind="cdrom")))
    assert element.get("device") == "cdrom"
    assert element.find("source") is None
    assert element.find("readonly") is not None


@pytest.mark.parametrize(("device", "name"), [(0, "sda"), (25, "sdz"), (26, "sdaa"), (255, "sdiv")])
def test_names_of_targets(device: int, name: str):
    assert target_name(device) == name


@given(st.text(max_size=200))
def test_any_label_is_well_formed_and_one_line(label: str):
    root = root_of(spec(name_label=label))
    assert "\n" not in root.findtext("title", "")
    assert root.findtext(f"metadata/{{{URI}}}start") == "start-1"


@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=100))
def test_any_path_stays_one_attribute(name: str):
    source = FileSource(path=f"/iso/{name}")
    made = Disk(device=0, serial="x", source=source, kind="cdrom")
    assert fromstring(disk_xml(UUID, made)).find("source").get("file") == source.path


def test_nics_keep_their_device():
    made = spec(nics=[Nic(device=4, mac="02:00:00:00:00:04", bridge="b4", mtu=9000)])
    assert parse_domain(domain_xml(made, "tcg", PATHS)).nics == {4: "02:00:00:00:00:04"}
