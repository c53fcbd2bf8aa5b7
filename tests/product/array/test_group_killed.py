"""Group control as a process, killed while it waits for the engine in the middle of a change, and started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import sys

import asyncssh
import pytest

from gespann.array.data_plane.fake import FakeEngine
from gespann.seams.json_lines import SeamLost
from gespann.system.json_lines import JsonLinesServer
from gespann.system.processes import run_async
from tests.product.array.group_process import GroupProcess

STEPS = [
    ("volume create new 1GB thin-provision", "volume.create"),
    ("volume create new 1GB", "target.put"),
    ("volume select old clone new", "volume.clone"),
    ("volume select gone size 3GB no-snap", "volume.resize"),
    ("volume delete gone", "target.remove"),
    ("volume delete gone", "volume.delete"),
]


@pytest.fixture
async def engine(tmp_path):
    """It lives here, on the socket where the group looks first, so that the group adopts it and its death is ours."""
    fake = FakeEngine()
    (tmp_path / "r").mkdir(mode=0o700)
    server = JsonLinesServer(tmp_path / "r" / "engine.sock", fake.handlers())
    await server.start()
    yield fake
    await server.stop(grace_s=0)


@pytest.fixture
async def group(tmp_path, engine, ssh_host_keys):
    made = GroupProcess(tmp_path, tmp_path / "no-engine-program", ssh_host_keys)
    made.start()
    await made.until_up()
    yield made
    made.stop(signal.SIGKILL)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("command", "op"), STEPS, ids=[f"{op}-{command.split()[1]}" for command, op in STEPS])
async def test_killed_in_the_middle_and_tried_again(group, engine, command, op, after):
    await group.cli("cli-settings confirmation off", "volume create old 1GB", "volume create gone 1GB offline")
    fault = engine.fail(op, after=after, hang=True)
    asking = asyncio.create_task(group.cli(command))
    await asyncio.wait_for(fault.reached.wait(), 120)
    group.stop(signal.SIGKILL)
    with contextlib.suppress(asyncssh.Error, OSError, SeamLost):
        await asking
    group.start()
    await group.until_up()
    names = {line.split()[0] for line in (await group.cli("volume show"))[2:]}
    assert "new" not in names
    assert len(engine.volumes) == len(engine.targets) == len(names)
    lines = await group.cli(command)
    if command == "volume delete gone":  # it had been decided, and was finished at the start
        assert lines == ["% Error - Volume gone does not exist."]
    else:
        assert not any(line.startswith("% Error") for line in lines), lines
    names = {line.split()[0] for line in (await group.cli("volume show"))[2:]}
    assert len(engine.volumes) == len(engine.targets) == len(names)


async def test_asked_to_end_it_ends_well_and_leaves_the_engine(group, engine):
    await group.cli("volume create v 1GB")
    os.kill(group.process.pid, signal.SIGTERM)
    assert await asyncio.to_thread(group.process.wait, 30) == 0
    assert len(engine.targets) == 1
    group.start()
    await group.until_up()
    assert len(await group.cli("volume show")) == 3


async def test_setup_with_a_given_password(tmp_path, ssh_host_keys):
    data_dir = tmp_path / "data"
    shutil.copytree(ssh_host_keys, data_dir)
    password = tmp_path / "password"
    password.write_text("chosen-by-me\n")
    words = [sys.executable, "-m", "gespann.main.group", "setup", "--data", str(data_dir), "--group-name", "mine"]
    password.chmod(0o644)
    refused = await run_async([*words, "--admin-password-file", password], check=False)
    assert refused.exit_code == 1
    assert "chmod 600" in refused.stderr
    password.chmod(0o600)
    done = await run_async([*words, "--admin-password-file", password])
    assert "chosen-by-me" not in done.stdout + done.stderr
    assert not (data_dir / "grpadmin.password").exists()
    bad = await run_async([*words[:-1], "bad name"], check=False)
    assert "name of a group" in bad.stderr


async def test_generated_password_is_private(group):
    path = group.data_dir / "grpadmin.password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() not in (group.folder / "group.log").read_text()
