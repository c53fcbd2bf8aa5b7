"""A real guest on one of several disks of one LUN: a volume of the array that an administrator has opened to the
pool's hosts, an SR of type lvmoiscsi by the dialogue of the original, an image brought in, and a machine that boots."""

import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.demo.guest import GuestConsole
from gespann.demo.job import BOOT_TIMEOUT_S, Job, size_mib
from gespann.demo.show import Show
from gespann.demo.site import Site
from tests.own_nets import OWN, net_of

pytestmark = [pytest.mark.real, pytest.mark.engine, pytest.mark.timeout(1200)]

MIB = 1 << 20


@pytest.fixture
def job() -> Iterator[Job]:
    directory = Path(tempfile.mkdtemp(prefix="gs-lv-"))
    site = Site(directory, f"tv{OWN}", net_of(4))
    try:
        job = Job(site, Show(steps=1))
        job.start()
        yield job
    finally:
        site.down()


def chosen(refusal: str, code: str, element: str) -> str:
    """What a step of the dialogue offers."""
    assert code in refusal
    return re.findall(rf"<{element}>(.*?)</{element}>", refusal)[0]


def a_full_array_only_makes_it_wait(job: Job) -> None:
    """The guest writes more than the array has; it is paused, sees no error, and goes on when there is space."""
    user = job.user

    def state() -> str:
        return user.get("vm", job.vm, "power-state")

    in_use = user.group_value("volume select heartbeat show", "VolReserveInUse")
    user.group(f"member select member1 capacity {math.ceil(size_mib(in_use)) + 20}MB")
    with GuestConsole(job.show, job.site.access, "web1") as guest:
        guest.run("(dd if=/dev/urandom of=/root/data bs=1M count=60; sync; echo $? >/root/done) >/dev/null 2>&1 & true")
        user.wait_for("the guest waits", lambda: "waits" if state() == "paused" else "", 300)
        assert "VM_WAITS_FOR_STORAGE" in user.xe("message-list params=name --minimal")
        user.group("member select member1 no capacity")
        user.wait_for("the guest goes on", lambda: "runs" if state() == "running" else "", 300)
        assert guest.run("while ! cat /root/done; do sleep 1; done 2>/dev/null").strip() == "0"
        assert guest.run("dmesg | grep -ci 'i/o error' || true").strip() == "0"


def storage_is_added_and_grows_under_it(job: Job) -> None:
    """A second storage pool becomes an SR while the machine runs, then grows, and a disk in it grows in the guest."""
    xe, user = job.user.xe, job.user
    user.group("pool create gold capacity 300MB")
    config = f"device-config:target={job.site.access.storage_address} device-config:username=grpadmin"
    config += f" device-config-filename:password={job.site.access.group_password_file} device-config:storagepool=gold"
    sr = xe(f"sr-create name-label=gold type=equal shared=true content-type=user {config} sm-config:allocation=thin")
    assert user.get("sr", sr, "physical-size") == str(300 * MIB)
    vdi = xe(f"vdi-create sr-uuid={sr} name-label=grows type=user virtual-size={60 * MIB}")
    xe(f"vbd-plug uuid={xe(f'vbd-create vm-uuid={job.vm} vdi-uuid={vdi} device=2 type=Disk mode=RW')}")
    user.group("pool select gold capacity 600MB")
    xe(f"sr-scan uuid={sr}")
    assert user.get("sr", sr, "physical-size") == str(600 * MIB)
    assert int(user.get("sr", sr, "physical-utilisation")) > 0
    with GuestConsole(job.show, job.site.access, "web1") as guest:
        sizes = "cat /sys/block/sd*/size"
        assert str(60 * MIB // 512) in guest.run(sizes).split()
        xe(f"vdi-resize uuid={vdi} disk-size={90 * MIB}")
        user.wait_for("the guest sees it", lambda: "yes" if str(90 * MIB // 512) in guest.run(sizes) else "", 300)
    assert user.get("vdi", vdi, "virtual-size") == str(90 * MIB)


def test_a_guest_boots_from_one_of_several_disks(job: Job) -> None:
    xe, user = job.user.xe, job.user
    iqn = xe("host-list params=iscsi_iqn --minimal")
    user.group("volume create heartbeat 2GB thin-provision")
    user.group(f"volume select heartbeat access create initiator {iqn}")
    config = f"type=lvmoiscsi device-config:target={job.site.access.storage_address}"
    config += f" device-config:targetIQN={chosen(user.xe_refused(f'sr-probe {config}'), 'FAILURE_96', 'TargetIQN')}"
    config += f" device-config:SCSIid={chosen(user.xe_refused(f'sr-probe {config}'), 'FAILURE_107', 'SCSIid')}"
    job.sr = xe(f"sr-create name-label=one-lun shared=true content-type=user {config}")
    assert job.sr in xe(f"sr-probe {config}")

    first = xe(f"vdi-create sr-uuid={job.sr} name-label=first type=user virtual-size={64 * MIB}")
    job.import_template()  # into this SR: the host agent writes to a range of the LUN
    xe(f"vm-param-set uuid={job.template} is-a-template=false name-label=web1")
    data = xe(f"vbd-create vm-uuid={job.template} vdi-uuid={first} device=1 type=Disk mode=RW")
    xe(f"vm-start uuid={job.template}")
    job.vm = job.template
    user.wait_for("the guest boots", job.guest_address, BOOT_TIMEOUT_S)
    assert xe(f"vbd-param-get uuid={data} param-name=currently-attached") == "true"
    a_full_array_only_makes_it_wait(job)
    storage_is_added_and_grows_under_it(job)
    assert user.xe_refused(f"sr-destroy uuid={job.sr}")
    xe(f"vm-shutdown uuid={job.vm} force=true")
    xe(f"vm-uninstall uuid={job.vm} force=true")
    xe(f"vdi-destroy uuid={first}")
    pbd = xe(f"pbd-list sr-uuid={job.sr} --minimal")
    xe(f"pbd-unplug uuid={pbd}")
    xe(f"sr-forget uuid={job.sr}")
