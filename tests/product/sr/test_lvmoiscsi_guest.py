"""A real guest on one of several disks of one LUN: a volume of the array that an administrator has opened to the
pool's hosts, an SR of type lvmoiscsi by the dialogue of the original, an image brought in, and a machine that boots."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.demo.job import BOOT_TIMEOUT_S, Job
from gespann.demo.show import Show
from gespann.demo.site import Site

pytestmark = [pytest.mark.real, pytest.mark.engine, pytest.mark.timeout(400)]

MIB = 1 << 20


@pytest.fixture
def job() -> Iterator[Job]:
    directory = Path(tempfile.mkdtemp(prefix="gs-lv-"))
    site = Site(directory, "glvm", "198.18.117")
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
    assert user.xe_refused(f"sr-destroy uuid={job.sr}")
    xe(f"vm-shutdown uuid={job.vm} force=true")
    xe(f"vm-uninstall uuid={job.vm} force=true")
    xe(f"vdi-destroy uuid={first}")
    pbd = xe(f"pbd-list sr-uuid={job.sr} --minimal")
    xe(f"pbd-unplug uuid={pbd}")
    xe(f"sr-forget uuid={job.sr}")
