"""What cannot be meant is refused before anything is touched."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.host import spec_check
from gespann.host.nbd_export import image_words
from gespann.seams import host_agent as seam
from gespann.seams.host_agent import Disk, FileSource, Nic
from gespann.seams.json_lines import SeamError
from tests.unit.host.fake_agent import UUID, Agent, disk, iscsi, spec

NIC = Nic(device=0, mac="02:00:00:00:07:09", bridge="xenbr0")


def changed(value: msgspec.Struct, **fields: object) -> msgspec.Struct:
    return msgspec.structs.replace(value, **fields)


BAD = {
    "uuid": spec(uuid="x"),
    "uuid with newline": spec(uuid=UUID + "\n"),
    "no start": spec(start_id=""),
    "start with slash": spec(start_id="a/../b"),
    "no memory": spec(memory_bytes=0),
    "negative memory": spec(memory_bytes=-1),
    "absurd memory": spec(memory_bytes=2**60),
    "odd memory": spec(memory_bytes=128 * 1024**2 + 1),
    "no vcpu": spec(vcpus=0),
    "too many vcpus": spec(vcpus=256),
    "boot order": spec(boot_order="cx"),
    "boot order twice": spec(boot_order="cc"),
    "two of a device": spec(disks=[disk(0), changed(disk(1), device=0)]),
    "two of a serial": spec(disks=[disk(0), changed(disk(1), serial="serial-0")]),
    "device 256": spec(disks=[changed(disk(0), device=256)]),
    "device -1": spec(disks=[changed(disk(0), device=-1)]),
    "long serial": spec(disks=[changed(disk(0), serial="x" * 21)]),
    "serial with comma": spec(disks=[changed(disk(0), serial="a,b")]),
    "disk without source": spec(disks=[Disk(device=0, serial="a", source=None)]),
    "part without a size": spec(disks=[changed(disk(0), source=changed(iscsi(), offset_bytes=512))]),
    "part between sectors": spec(disks=[changed(disk(0), source=changed(iscsi(), offset_bytes=512, size_bytes=100))]),
    "part before the LUN": spec(disks=[changed(disk(0), source=changed(iscsi(), offset_bytes=-512, size_bytes=512))]),
    "target with comma": spec(disks=[changed(disk(0), source=changed(iscsi(), target="iqn.a:b,file.lun=1"))]),
    "initiator": spec(disks=[changed(disk(0), source=changed(iscsi(), initiator="host 1"))]),
    "portal": spec(disks=[changed(disk(0), source=changed(iscsi(), host="a,b"))]),
    "port": spec(disks=[changed(disk(0), source=changed(iscsi(), port=0))]),
    "user without secret": spec(disks=[changed(disk(0), source=changed(iscsi(), chap_secret=""))]),
    "secret with newline": spec(disks=[changed(disk(0), source=changed(iscsi(), chap_secret="a\nb"))]),
    "relative path": spec(disks=[changed(disk(0), source=FileSource(path="a.iso"))]),
    "path with newline": spec(disks=[changed(disk(0), source=FileSource(path="/a\n.iso"))]),
    "mac": spec(nics=[changed(NIC, mac="02:00:00:00:07")]),
    "multicast mac": spec(nics=[changed(NIC, mac="03:00:00:00:07:09")]),
    "two of a mac": spec(nics=[NIC, changed(NIC, device=1)]),
    "bridge": spec(nics=[changed(NIC, bridge="../x")]),
    "long bridge": spec(nics=[changed(NIC, bridge="x" * 16)]),
    "mtu": spec(nics=[changed(NIC, mtu=0)]),
    "nic device": spec(nics=[changed(NIC, device=16)]),
}


@pytest.mark.parametrize("made", BAD.values(), ids=BAD.keys())
def test_refused(made: seam.DomainSpec):
    with pytest.raises(SeamError) as refused:
        spec_check.check_domain(made)
    assert refused.value.code == "BAD_REQUEST"
    assert "secret-of" not in refused.value.message


def test_accepted():
    spec_check.check_domain(spec())
    spec_check.check_domain(spec(disks=[], nics=[], boot_order=""))
    spec_check.check_source(changed(iscsi(), host="fd00::1", chap_user="", chap_secret=""))


async def test_a_refused_request_changes_nothing(agent: Agent):
    with pytest.raises(SeamError, match="BAD_REQUEST"):
        await agent.client.call(seam.DomainCreate(spec=BAD["target with comma"]))
    assert agent.storage.open_now == {}
    for request in (
        seam.DiskResize(uuid=UUID, device=0, size_bytes=-512),
        seam.DiskResize(uuid=UUID, device=0, size_bytes=513),
        seam.DiskDetach(uuid=UUID, device=0, timeout_s=0),
        seam.DomainShutdown(uuid=UUID, timeout_s=-1),
        seam.DomainShutdown(uuid="../../etc"),
        seam.ImageOpen(image_id="../x", source=iscsi()),
        seam.ImageClose(image_id=""),
        seam.BridgeEnsure(bridge="a b"),
        seam.BridgeEnsure(bridge="xenbr1", mtu=10),
    ):
        with pytest.raises(SeamError, match="BAD_REQUEST"):
            await agent.client.call(request)
    assert list(agent.fake.bridges) == ["xenbr0"]


async def test_another_version_is_refused(agent: Agent):
    with pytest.raises(SeamError, match="BAD_VERSION"):
        await agent.client.call(seam.Hello(version=2))


@given(st.builds(lambda name: iscsi().__class__(**{**msgspec.structs.asdict(iscsi()), "target": name}), st.text()))
def test_no_accepted_target_adds_an_option(source: seam.IscsiSource):
    """A comma in QEMU's option list would begin another option."""
    try:
        spec_check.check_source(source)
    except SeamError:
        return
    usual = image_words(iscsi(), Path("/s"))[-1].count(",")
    assert image_words(source, Path("/s"))[-1].count(",") == usual
