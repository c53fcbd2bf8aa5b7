"""Snapshots by the group CLI over the real engine, looked at by a real initiator."""

import contextlib
import signal

import pytest

from gespann.seams.engine_socket import VolumeList
from gespann.seams.json_lines import SeamLost
from gespann.system.processes import is_running, kill_session, run_async
from tests.product.array.group_process import GroupProcess

pytestmark = pytest.mark.engine
ME = "iqn.2000-01.org.example:me"


@pytest.fixture
async def group(tmp_path, engine_path, ssh_host_keys):
    made = GroupProcess(tmp_path, engine_path, ssh_host_keys)
    made.start()
    try:
        await made.until_up()
        await made.cli("cli-settings confirmation off", "cli-settings formatoutput off")
        yield made
    finally:
        if is_running(made.process.pid):
            made.stop(signal.SIGKILL)
        with contextlib.suppress(SeamLost):
            kill_session(await made.engine_pid())


async def make(group, name: str) -> None:
    lines = await group.cli(f"volume create {name} 100MB thin-provision unrestricted")
    assert lines[0] == "Volume creation succeeded."


async def target_of(group, *words: str) -> str:
    lines = await group.cli(f"volume select {' '.join(words)} show")
    return next(line.split(": ", 1)[1] for line in lines if line.startswith("iSCSI Name: "))


async def qemu_io(group, target: str, *commands: str) -> None:
    """Each must succeed; ``read -P 5 0 1M`` does so only if what is there are fives."""
    words = ["qemu-io"]
    for command in commands:
        words += ["-c", command]
    options = f"driver=iscsi,transport=tcp,portal=127.0.0.1:{group.iscsi_port},target={target},lun=0"
    done = await run_async([*words, "--image-opts", f"{options},initiator-name={ME}"], check=False, timeout_s=240)
    assert done.exit_code == 0, done.stderr
    assert "verification failed" not in done.stdout


async def test_a_snapshot_stays_as_it_was_and_the_volume_becomes_so_again(group):
    await make(group, "v")
    target = await target_of(group, "v")
    await qemu_io(group, target, "write -P 1 0 4M", "flush")
    await group.cli("volume select v snapshot create one online", "volume select v snapshot create two")
    await qemu_io(group, target, "write -P 2 1M 4M", "flush", "read -P 1 0 1M")
    one = await target_of(group, "v snapshot select one")
    assert one != target
    await qemu_io(group, one, "read -P 1 0 4M", "read -P 0 4M 1M", "write -P 3 0 1M", "flush")
    await qemu_io(group, target, "read -P 1 0 1M", "read -P 2 1M 4M")
    assert (await group.show("v"))["Snap-Reserve-Avail"] == "73% (11MB)"  # 3 MB of two, 1 MB of the one written to
    assert (await group.cli("volume select v restore two"))[0].startswith("% Error - Volume v is online")
    assert await group.cli("volume select v offline", "volume select v restore two") == []
    shown = await group.show("v")
    assert (shown["Snapshots"], shown["Status"]) == ("3", "offline")
    assert await group.cli("volume select v online") == []
    await qemu_io(group, target, "read -P 1 0 4M", "read -P 0 4M 1M")
    await qemu_io(group, one, "read -P 3 0 1M", "read -P 1 1M 3M")
    await group.cli("volume select v snapshot select two clone w unrestricted")
    await qemu_io(group, await target_of(group, "w"), "read -P 1 0 4M", "write -P 4 0 1M")
    await qemu_io(group, target, "read -P 1 0 4M")


async def test_a_collection_and_what_a_killed_group_and_engine_find_again(group):
    for name in ("data", "log"):
        await make(group, name)
        await qemu_io(group, await target_of(group, name), "write -P 7 0 1M", "flush")
    words = ("collection create db", "collection select db add data", "collection select db add log")
    lines = await group.cli(*words, "collection select db snapshot create-now online")
    assert lines[0] == "Snapshot collection creation succeeded."
    name = lines[1].split()[-1]
    row = (await group.cli(f"collection select db snapshot show {name}"))[2].split()
    snapshot = f"data snapshot select {row[1]}"
    target = await target_of(group, snapshot)
    pid = await group.engine_pid()
    group.stop(signal.SIGKILL)
    kill_session(pid)
    group.start()
    await group.until_up()
    await qemu_io(group, target, "read -P 7 0 1M")
    for volume in ("data", "log"):
        shown = await group.show(volume)
        assert (shown["Snapshots"], shown["Status"]) == ("1", "online")
    infos = (await group.engine(VolumeList())).volumes
    assert sorted(info.origin is None for info in infos) == [False, False, True, True]


async def test_template_and_thin_clones(group):
    await make(group, "gold")
    await qemu_io(group, await target_of(group, "gold"), "write -P 9 0 8M", "flush")
    words = ("volume select gold offline", "volume select gold read-only", "volume select gold convert-to template")
    assert await group.cli(*words) == []
    for name in ("a", "b"):
        lines = await group.cli(f"volume select gold create-thin-clone {name} unrestricted")
        assert lines[0] == "Volume creation succeeded."
    await qemu_io(group, await target_of(group, "a"), "read -P 9 0 8M", "write -P 1 0 8M", "flush")
    await qemu_io(group, await target_of(group, "b"), "read -P 9 0 8M")
    assert (await group.cli("volume delete gold"))[0].startswith("% Error - Volume gold is the template of thin clones")
    await group.cli("volume select b offline", "volume delete b", "volume select a detach", "volume delete gold")
    await qemu_io(group, await target_of(group, "a"), "read -P 1 0 8M")
    assert len((await group.engine(VolumeList())).volumes) == 1
