"""Snapshots of a real guest on the whole product: quiet while it runs, plugged into a machine, and back to it."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gespann.demo.guest import GuestConsole
from gespann.demo.job import VM, Job
from gespann.demo.show import Show
from gespann.demo.site import AGENT_RUN, Site
from gespann.seams import host_agent as seam
from gespann.system.json_lines import JsonLinesClient
from tests.own_nets import OWN, net_of

pytestmark = [pytest.mark.real, pytest.mark.engine, pytest.mark.timeout(1200)]


@pytest.fixture
def job() -> Iterator[Job]:
    directory = Path(tempfile.mkdtemp(prefix="gs-sn-"))
    site = Site(directory, f"gsn{OWN}", net_of(20))
    try:
        job = Job(site, Show(steps=5))
        job.start()
        yield job
    finally:
        site.down()


def in_guest(job: Job, command: str) -> str:
    with GuestConsole(job.show, job.site.access, VM) as guest:
        return guest.run(command).strip()


def test_a_quiet_snapshot_and_back_to_it(job: Job) -> None:
    xe = job.user.xe
    job.create_repository()
    job.import_template()
    job.install()
    job.start_vm()

    in_guest(job, "echo old >/root/note")  # not synced: the snapshot has it because the guest was asked to be quiet
    snapshot = xe(f"vm-snapshot-with-quiesce vm={VM} new-name-label=monday")
    assert "quiesced" in xe(f"snapshot-param-get uuid={snapshot} param-name=snapshot-info")
    in_guest(job, "echo new >/root/note && sync")
    held_and_let_go(job)

    vdi = xe(f"vbd-list vm-uuid={snapshot} type=Disk params=vdi-uuid --minimal")
    vbd = xe(f"vbd-create vm-uuid={job.vm} vdi-uuid={vdi} device=1 mode=RO type=Disk")
    xe(f"vbd-plug uuid={vbd}")
    serial = vdi.replace("-", "")[:20]
    mount = f"mount -t ext4 -o ro,noload $(disk-by-serial {serial})1 /mnt && cat /mnt/root/note && umount /mnt"
    assert in_guest(job, mount).splitlines()[-1] == "old"
    xe(f"vbd-unplug uuid={vbd}")
    xe(f"vbd-destroy uuid={vbd}")

    xe(f"snapshot-revert snapshot-uuid={snapshot}")
    assert job.user.get("vm", job.vm, "power-state") == "halted"
    job.start_vm()
    assert in_guest(job, "cat /root/note") == "old"

    xe(f"vm-uninstall uuid={job.vm} force=true")
    left = job.user.group("volume show")
    xe(f"snapshot-uninstall uuid={snapshot} force=true")
    assert len(left.splitlines()) > len(job.user.group("volume show").splitlines())


def held_and_let_go(job: Job) -> None:
    """Nobody thaws: the host's agent does, and the guest's writes go on."""

    async def hold() -> None:
        socket = job.site.lab.node("host1").path(AGENT_RUN) / "agent.sock"
        client = JsonLinesClient(socket, hello=seam.Hello(version=seam.VERSION), timeout_s=60)
        try:
            await client.call(seam.GuestFreeze(uuid=job.vm, hold_s=1.0))
        finally:
            await client.close()

    asyncio.run(hold())
    in_guest(job, "echo written >/root/other && sync")
