import asyncio
import signal

import pytest

from gespann.system.processes import CommandFailed, is_running, kill_session, run, run_async, start_logged


async def test_output_and_stdin():
    assert run(["cat"], stdin=b"a b").stdout == "a b"
    assert (await run_async(["cat"], stdin=b"a b")).stdout == "a b"


async def test_failure_names_the_command_as_it_can_be_pasted():
    words = ["sh", "-c", "echo why >&2; exit 3"]

    async def run_here():
        run(words)

    for failed in (run_here, lambda: run_async(words)):
        with pytest.raises(CommandFailed) as failure:
            await failed()
        assert failure.value.exit_code == 3
        assert str(failure.value) == "sh -c 'echo why >&2; exit 3'\n  exit status 3: why"


async def test_unchecked_failure_is_a_result():
    assert (await run_async(["false"], check=False)).exit_code == 1


async def test_missing_program():
    with pytest.raises(CommandFailed, match="cannot be started"):
        await run_async(["/no/such/program"])


async def test_late_command_is_killed():
    with pytest.raises(CommandFailed, match="not done within"):
        await run_async(["sleep", "1000"], timeout_s=0.01)


def test_start_logged_runs_apart_and_can_be_ended(tmp_path):
    process = start_logged(["sh", "-c", "echo started; exec sleep 1000"], tmp_path / "log")
    assert is_running(process.pid)
    kill_session(process.pid, signal.SIGTERM)
    process.wait(120)
    assert not is_running(process.pid)


async def test_cancel_kills():
    task = asyncio.create_task(run_async(["sleep", "1000"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
