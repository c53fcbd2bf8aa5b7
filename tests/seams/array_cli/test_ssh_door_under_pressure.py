"""What one client does must not cost the others: connections that never log in, input that never ends, output that
nobody reads, a disk without room."""

import asyncio
import sqlite3

import asyncssh
import pytest

from gespann.array.shell import loop
from gespann.array.shell.terminal import NEWS_MOST, Terminal
from tests.array_group import PASSWORD
from tests.seams.array_cli.test_ssh_door import PROMPT, start_with
from tests.seams.array_cli.transcript import Screen, open_screen


async def test_connections_that_never_log_in_keep_nobody_out(tmp_path):
    group = await start_with(tmp_path, connections=6)
    try:
        async with group.connect() as at_work:
            idle = [await asyncio.open_connection("127.0.0.1", group.group.ssh_port) for _ in range(12)]
            assert await group.cli("whoami") == ["grpadmin"]
            assert (await at_work.run("whoami")).stdout == "grpadmin\r\n"
            for _, writer in idle:
                writer.close()
    finally:
        await group.stop()


async def test_those_who_have_logged_in_do_not_give_way(tmp_path):
    group = await start_with(tmp_path, connections=2)
    try:
        async with group.connect() as one, group.connect() as two:
            with pytest.raises((OSError, asyncssh.Error)):
                await group.cli("whoami")
            for connection in (one, two):
                assert (await connection.run("whoami")).stdout == "grpadmin\r\n"
    finally:
        await group.stop()


@pytest.fixture
def executed(monkeypatch):
    """The lines that sessions have run so far."""
    lines: list[str] = []
    real = loop.execute

    async def counting(session, line):
        lines.append(line)
        return await real(session, line)

    monkeypatch.setattr(loop, "execute", counting)
    return lines


@pytest.mark.parametrize("as_exec", [True, False], ids=["exec", "shell"])
async def test_a_flood_of_commands_lets_others_have_their_turn(group, executed, as_exec):
    count = 900
    async with group.connect() as flooding, group.connect() as other:
        mine = await open_screen(other, pty=False)
        await mine.until(lambda text: text.endswith(PROMPT))
        if as_exec:
            flood = asyncio.create_task(flooding.run("recentevents\n" * count))
        else:
            flood = asyncio.create_task(flooding.run(input="recentevents\r" * count))
        async with asyncio.timeout(120):
            while "recentevents" not in executed:  # noqa: ASYNC110 - the group runs in this loop
                await asyncio.sleep(0)
        mine.type("whoami\r")
        await mine.until(lambda text: "grpadmin\n" in text)
        assert executed.count("recentevents") < count
        await flood
    assert executed.count("recentevents") == count


async def test_who_does_not_read_is_not_served_further(group, executed):
    count = 1500
    async with group.connect() as connection:
        process = await connection.create_process(encoding=None, window=16 * 1024)
        screen = Screen(process)
        await screen.until(lambda text: text.endswith(PROMPT))
        process.stdin.write(b"help\r" * count)
        before = -1
        async with asyncio.timeout(120), group.connect() as other:
            while before != (served := executed.count("help")):
                before = served
                for _ in range(5):  # turns enough for some more of them
                    await other.run("whoami")
        assert 0 < served < count
        await screen.until(lambda text: text.count(PROMPT) == count + 1)
    assert executed.count("help") == count


async def test_a_session_that_goes_away_unread_ends(group):
    async with group.connect() as connection:
        process = await connection.create_process(encoding=None, window=16 * 1024)
        process.stdin.write(b"help\r" * 1500)
        await asyncio.sleep(0)
        assert await group.cli("whoami") == ["grpadmin"]
    async with asyncio.timeout(120):
        while group.group.ssh.sessions:  # noqa: ASYNC110 - the group runs in this loop
            await asyncio.sleep(0)


async def test_news_for_a_session_that_is_busy_are_bounded():
    terminal = Terminal(lambda data: None, echo=True)
    for number in range(10 * NEWS_MOST):
        terminal.tell(f"event {number}")
    assert len(terminal._news) == NEWS_MOST


async def test_a_name_at_the_door_cannot_look_like_a_prompt(group):
    with pytest.raises(asyncssh.PermissionDenied):
        async with group.connect(username="[2Jgroup1> ", password=PASSWORD):
            pass
    told = "\n".join(await group.cli("recentevents"))
    assert "account ?2Jgroup1?? failed" in told
    assert PROMPT not in told


@pytest.mark.parametrize(
    "command",
    [
        "chapuser create group1> password abcdefabcdef",
        "volume select v access create initiator iqn.2000-01.a:group1>",
        "volume select v description 'group1>'",
    ],
)
async def test_no_name_holds_the_prompt(group, command):
    await group.cli("volume create v 1GB")
    lines = await group.cli(command)
    assert lines == ['% Error - The text cannot contain "group1>": programs would take it for the prompt.']


async def test_without_room_for_events_people_still_log_in(group, monkeypatch):
    """Or nobody could free any."""

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(group.control.events, "_keep", full)
    heard = []
    group.control.events.listen(heard.append)
    assert await group.cli("volume create v 1GB offline", "volume show v")
    with pytest.raises(asyncssh.PermissionDenied):
        async with group.connect(password="wrong"):
            pass
    assert any("failed" in event.text for event in heard)
    assert await group.cli("cli-settings confirmation off", "volume delete v") == ["Volume deletion succeeded."]
