"""Group control as a process over the real engine: volumes are made, served, outlive both, and open to their owner."""

import asyncio
import contextlib
import os
import signal

import pytest

from gespann.array.data_plane.link import HELLO
from gespann.seams.engine_socket import SessionList, VolumeList
from gespann.seams.json_lines import SeamLost
from gespann.system.processes import is_running, kill_session, run_async
from tests.product.array.group_process import GroupProcess

pytestmark = pytest.mark.engine


@pytest.fixture
async def group(tmp_path, engine_path, ssh_host_keys):
    made = GroupProcess(tmp_path, engine_path, ssh_host_keys)
    made.start()
    try:
        await made.until_up()
        yield made
    finally:
        if is_running(made.process.pid):
            made.stop(signal.SIGKILL)
        with contextlib.suppress(SeamLost):
            kill_session(await made.engine_pid())


async def test_volume_life(group):
    create = await group.cli("volume create v 1GB thin-provision", "volume create w 64MB")
    assert create[0] == "Volume creation succeeded."
    assert (await group.show("w"))["VolReserve"] == "75MB"
    assert {(info.size_bytes >> 20, info.thick) for info in (await group.engine(VolumeList())).volumes} == {
        (1035, False),
        (75, True),
    }
    assert await group.cli("volume select v size 2GB no-snap") == []
    assert (await group.cli("volume select v clone c"))[0] == "Volume creation succeeded."
    assert (await group.show("c"))["Size"] == "2GB"
    assert await group.cli("volume select w no thin-provision", "volume select w thin-provision") == []
    await group.cli("cli-settings confirmation off")
    for name in "vwc":
        assert await group.cli(f"volume select {name} offline") == []
        assert await group.cli(f"volume delete {name}") == ["Volume deletion succeeded."]
    assert (await group.engine(VolumeList())).volumes == []


async def test_group_killed_and_started_again_adopts_the_engine(group):
    await group.cli("volume create v 1GB thin-provision")
    pid = await group.engine_pid()
    group.stop(signal.SIGKILL)
    assert is_running(pid)
    group.start()
    await group.until_up()
    assert await group.engine_pid() == pid
    assert (await group.show("v"))["Status"] == "online"


async def test_engine_killed_is_started_again_and_configured(group):
    await group.cli("volume create v 1GB thin-provision unrestricted")
    pid = await group.engine_pid()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(120):
        while True:
            try:
                hello = await group.engine(HELLO)
                if hello.pid != pid and hello.configured:
                    break
            except SeamLost:
                pass
            await asyncio.sleep(0.05)
    assert (await group.show("v"))["Status"] == "online"


async def test_second_group_on_the_same_data_is_refused(group):
    done = await run_async(group.words, check=False)
    assert done.exit_code == 1
    assert "another process uses" in done.stderr


async def qemu_io(group, address: str, initiator: str, *commands: str):
    words = ["qemu-io"]
    for command in commands:
        words += ["-c", command]
    words += ["--image-opts", f"driver=iscsi,{address},initiator-name={initiator}"]
    return await run_async(words, check=False, timeout_s=240)


def image(group, target: str, user: str = "", secret: str = "") -> str:
    options = f"transport=tcp,portal=127.0.0.1:{group.iscsi_port},target={target},lun=0"
    return f"{options},user={user},password={secret}" if user else options


async def test_access_records_and_thin_usage_by_a_real_initiator(group):
    me = "iqn.2000-01.org.example:me"
    await group.cli("volume create v 1GB thin-provision")
    target = (await group.show("v"))["iSCSI Name"]
    assert (await qemu_io(group, image(group, target), me, "read 0 4k")).exit_code != 0  # no record: nobody
    await group.cli(
        "chapuser create alice password twelve-letters",
        f"volume select v access create initiator {me} username alice apply-to volume",
    )
    right = image(group, target, "alice", "twelve-letters")
    assert (await qemu_io(group, image(group, target), me, "read 0 4k")).exit_code != 0  # no CHAP
    assert (await qemu_io(group, image(group, target, "alice", "twelve-lettres"), me, "read 0 4k")).exit_code != 0
    assert (await qemu_io(group, right, "iqn.2000-01.org.example:other", "read 0 4k")).exit_code != 0
    written = await qemu_io(group, right, me, "write -P 5 0 32M", "flush")
    assert written.exit_code == 0, written.stderr
    used = int((await group.show("v"))["VolReserveInUse"].removesuffix("MB"))
    assert 32 <= used <= 40
    trimmed = await qemu_io(group, right, me, "discard 0 32M", "flush")
    assert trimmed.exit_code == 0, trimmed.stderr
    assert int((await group.show("v"))["VolReserveInUse"].removesuffix("MB")) < 8
    await group.cli("volume select v offline")
    assert (await qemu_io(group, right, me, "read 0 4k")).exit_code != 0
    assert (await group.engine(SessionList())).sessions == []
    await group.cli("volume select v online", "chapuser select alice disable")
    assert (await qemu_io(group, right, me, "read 0 4k")).exit_code != 0
