"""SSH itself: who gets in, how many, in which ways a command can be given, and what bytes cannot do."""

import asyncio
import stat

import asyncssh
import pytest

from gespann.array.shell.server import Limits
from tests.array_group import PASSWORD, GroupOfATest
from tests.seams.array_cli.transcript import open_screen

PROMPT = "group1> "


async def start_with(tmp_path, **limits) -> GroupOfATest:
    made = GroupOfATest(tmp_path / "group", Limits(failure_delay_s=0, **limits))
    await made.start()
    return made


async def test_wrong_password_and_unknown_account_are_refused_and_recorded(group):
    for name, password in (("grpadmin", "wrong"), ("nobody", PASSWORD), ("grpadmin", ""), ("x" * 500, "y" * 5000)):
        with pytest.raises(asyncssh.PermissionDenied):
            async with group.connect(username=name, password=password):
                pass
    texts = [event.text for event in group.control.events.recent(20)]
    assert "CLI: Login to account grpadmin failed, from 127.0.0.1." in texts
    assert "CLI: Login to account nobody failed, from 127.0.0.1." in texts
    assert await group.cli("whoami") == ["grpadmin"]


async def test_guessing_on_one_connection_is_cut_off(group):
    class Guesser(asyncssh.SSHClient):
        tries = 0

        def password_auth_requested(self):
            self.tries += 1
            return f"guess{self.tries}"

    guesser = Guesser()
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
        await asyncssh.connect(
            "127.0.0.1",
            group.group.ssh_port,
            config=[],
            known_hosts=None,
            client_keys=None,
            agent_path=None,
            username="grpadmin",
            client_factory=lambda: guesser,
        )
    assert guesser.tries == 5


async def test_public_key(group):
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key("openssh").decode().strip()
    assert await group.cli(f"account select grpadmin publickey create '{public}'") == []
    async with group.connect(password=None, client_keys=[key]) as connection:
        assert (await connection.run("whoami")).stdout == "grpadmin\r\n"
    assert await group.cli("account select grpadmin publickey delete 1") == []
    with pytest.raises(asyncssh.PermissionDenied):
        async with group.connect(password=None, client_keys=[key]):
            pass


async def test_disabled_account_neither_logs_in_nor_goes_on(group):
    await group.cli("account create night password night-shift")
    async with group.connect(username="night", password="night-shift") as connection:
        assert (await connection.run("whoami")).stdout == "night\r\n"
        await group.cli("account select night disable")
        done = await connection.run("volume show")
        assert done.stdout == "% Error - Account night is disabled.\r\n"
        assert done.exit_status == 1
    with pytest.raises(asyncssh.PermissionDenied):
        async with group.connect(username="night", password="night-shift"):
            pass


async def test_read_only_account_changes_nothing(group):
    await group.cli("account create viewer password look-only read-only", "volume create v 1GB", "chapuser create c")
    async with group.connect(username="viewer", password="look-only") as connection:
        for command in ("volume create w 1GB", "volume select v offline", "grpparams name x", "chapuser show c"):
            done = await connection.run(command)
            assert "read-only" in done.stdout, command
        assert (await connection.run("volume show")).exit_status == 0
        assert (await connection.run("cli-settings paging off")).exit_status == 0


async def test_host_keys_of_three_kinds_kept_and_private(group):
    kinds = set()
    for algorithm in ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256", "ssh-rsa"):
        async with group.connect(server_host_key_algs=[algorithm]) as connection:
            kinds.add(connection.get_server_host_key().get_algorithm())
    assert len(kinds) == 3
    for path in group.data_dir.glob("ssh_host_*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = sorted(path.read_bytes() for path in group.data_dir.glob("ssh_host_*"))
    await group.restart()
    assert sorted(path.read_bytes() for path in group.data_dir.glob("ssh_host_*")) == before


async def test_many_sessions_at_a_time_and_no_more_than_the_limit(tmp_path):
    group = await start_with(tmp_path, sessions=8)
    try:
        async with group.connect() as first:
            screens = [await open_screen(first, pty=False) for _ in range(7)]
            for screen in screens:
                await screen.until(lambda text: text.endswith(PROMPT))
            assert await group.cli("whoami") == ["grpadmin"]  # the eighth
            async with group.connect() as other:
                eighth = await open_screen(other, pty=False)
                await eighth.until(lambda text: text.endswith(PROMPT))
                async with group.connect() as late:
                    ninth = await open_screen(late, pty=False)
                    await ninth.rest()
                    assert ninth.text == "% Error - The maximum number of CLI sessions is reached.\n"
                    await asyncio.wait_for(late.wait_closed(), 120)
            for number, screen in enumerate(screens):
                screen.type(f"volume create v{number} 1GB\r")
            for screen in screens:
                await screen.until(lambda text: "creation succeeded" in text and text.endswith(PROMPT))
        assert len(group.control.volumes.all()) == 7
    finally:
        await group.stop()


async def test_channels_one_after_the_other_on_one_connection(group):
    async with group.connect() as connection:
        for number in range(30):
            screen = await open_screen(connection, pty=False)
            await screen.until(lambda text: text.endswith(PROMPT))
            screen.type(f"volume create v{number} 1GB\r")
            await screen.until(lambda text: "creation succeeded" in text and text.endswith(PROMPT))
            screen.process.close()
            await screen.process.wait_closed()


async def test_settings_outlive_the_session_and_stty_does_not(group):
    async with group.connect() as connection:
        for command in ("cli-settings confirmation off", "cli-settings displayinMB on", "stty columns 132"):
            assert (await connection.run(command)).stdout == ""
    await group.restart()
    lines = await group.cli("cli-settings formatoutput off", "cli-settings show")
    assert "confirmation: off" in lines
    assert "displayinMB: on" in lines
    assert "columns: 80" in await group.cli("stty show")


async def test_exec_answers_with_a_status_and_without_prompt(group):
    async with group.connect() as connection:
        good = await connection.run("volume create v 1GB")
        bad = await connection.run("volume delete nosuch")
        several = await connection.run("cli-settings confirmation off\nvolume select v offline\nvolume delete v")
    assert good.stdout.startswith("Volume creation succeeded.\r\niSCSI target name is ")
    assert (good.exit_status, bad.exit_status, several.exit_status) == (0, 1, 0)
    assert bad.stdout == "% Error - Volume nosuch does not exist.\r\n"
    assert several.stdout == "Volume deletion succeeded.\r\n"


async def test_exec_question_can_be_answered_and_defaults_to_no(group):
    await group.cli("volume create v 1GB offline")
    async with group.connect() as connection:
        unanswered = await connection.run("volume delete v", stdin=asyncssh.DEVNULL)
        assert "(y/n) [n] " in unanswered.stdout
        assert [volume.name for volume in group.control.volumes.all()] == ["v"]
        answered = await connection.run("volume delete v", input="y\n")
    assert answered.stdout.endswith("Volume deletion succeeded.\r\n")


@pytest.mark.parametrize("enter", ["\r", "\n", "\r\n", "\n\r", "\r\0"])
@pytest.mark.parametrize("pty", [True, False])
async def test_each_enter_is_one(group, enter, pty):
    async with group.connect() as connection:
        screen = await open_screen(connection, pty)
        screen.type(f"whoami{enter}whoami{enter}")
        await screen.until(lambda text: text.count("grpadmin\n") == 2 and text.endswith(PROMPT))
        assert screen.text.count(PROMPT) == 3


async def test_several_lines_at_once_and_end_of_input(group):
    async with group.connect() as connection:
        done = await connection.run(input="whoami\rvolume show\rwhoami without enter", term_type=None)
    assert done.stdout.count("grpadmin") == 1
    assert done.stdout.count(PROMPT) == 3
    assert done.exit_status == 0


async def test_pager_stops_and_goes_on(group):
    async with group.connect() as connection:
        screen = await open_screen(connection, pty=True)
        screen.type("stty rows 5\rhelp\r")
        await screen.until(lambda text: text.endswith("Press any key to continue (Q to quit)"))
        assert screen.text.count("\n") > 4
        screen.type(" ")
        await screen.until(lambda text: text.count("Press any key") == 2 and text.endswith("quit)"))
        screen.type("q")
        await screen.until(lambda text: text.endswith(PROMPT))
        assert "whoami" not in screen.text


async def test_terminal_edits_completes_and_remembers(group):
    await group.cli("volume create alpha 1GB")
    async with group.connect() as connection:
        screen = await open_screen(connection, pty=True)
        screen.type("cli-settings events off\rwhoamx\x7fi\r")
        await screen.until(lambda text: "grpadmin\n" in text and text.endswith(PROMPT))
        screen.type("vol\tsel\tal\tsho\tcon\t\r")
        await screen.until(lambda text: "ConnTime" in text and text.endswith(PROMPT))
        assert "volume select alpha show connections" in screen.text
        screen.type("\x1b[A\x1b[A\r")
        await screen.until(lambda text: text.count("grpadmin\n") == 2)
        screen.type("garbage\x03")
        await screen.until(lambda text: text.endswith(f"garbage^C\n{PROMPT}"))
        screen.type("\x04")
        await screen.rest()


async def test_bad_input_comes_back_for_editing(group):
    async with group.connect() as connection:
        screen = await open_screen(connection, pty=True)
        screen.type("volume shov\r")
        await screen.until(lambda text: text.endswith(f"{PROMPT}volume shov"))
        screen.type("\x7fw\r")
        await screen.until(lambda text: "Connections TP" in text)
        plain = await open_screen(connection, pty=False)
        plain.type("bogus\r")
        await plain.until(lambda text: text.endswith(f"{PROMPT}bogus"))
        plain.type("whoami\r")  # without a terminal it is only shown
        await plain.until(lambda text: "grpadmin" in text)
        await group.cli("cli-settings reprintBadInput off")
        plain.type("bogus\r")
        await plain.until(lambda text: text.endswith(f"there.\n{PROMPT}"))


async def test_events_are_printed_at_the_prompt_of_others(group):
    async with group.connect() as connection:
        screen = await open_screen(connection, pty=True)
        screen.type("half a li")
        await screen.until(lambda text: text.endswith("half a li"))
        await group.cli("volume create v 1GB")
        await screen.until(lambda text: "Volume v created" in text and text.endswith(f"{PROMPT}half a li"))


async def test_idle_session_ends_when_asked(group):
    async with group.connect() as connection:
        idle = await open_screen(connection, pty=False)
        idle.type("cli-settings idlelogout on\r")
        await idle.until(lambda text: text.count(PROMPT) == 2)
        async with asyncio.timeout(120):
            while group.clock.sleepers < 2:  # noqa: ASYNC110 - one of them looks at thin volumes
                await asyncio.sleep(0)
        group.clock.advance(29 * 60)
        idle.type("whoami\r")
        await idle.until(lambda text: text.endswith(f"grpadmin\n{PROMPT}"))
        async with asyncio.timeout(120):
            while group.clock.sleepers < 2:  # noqa: ASYNC110 - one of them looks at thin volumes
                await asyncio.sleep(0)
        group.clock.advance(31 * 60)
        await idle.rest()
        assert idle.text.endswith("Session ended: idle for too long.\n")


HOSTILE = [
    b"\xff\xfe\x00\x01\x02\r",
    bytes(range(256)) + b"\r",
    b"\x1b[" * 1000 + b"\r",
    b"\x1b]0;title\x07\r",
    b"x" * 200_000 + b"\r",
    b"volume create '" + b"a" * 4000 + b"' 1GB\r",
    b"volume create v 1GB; rm -rf /\r",
    b"volume create ../../etc/passwd 1GB\r",
    b"volume create v 1GB bogus '\x07\x1b[2J'\r",
    b"volume select \xc3\xa4 show\r",
    b"chapuser create '; DROP TABLE volume; --' password x\r",
    b"\"'\"'\"'\r",
    b"\t\t\t\t\t\x1b[A\x1b[B\x7f\x7f\x15\x17\x0b\r",
    "‮𝕧𝕠𝕝\r".encode(),
]


@pytest.mark.parametrize("pty", [True, False], ids=["pty", "no-pty"])
@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_bytes_change_nothing_and_break_nothing(group, data, pty):
    async with group.connect() as connection:
        screen = await open_screen(connection, pty)
        screen.process.stdin.write(data)
        screen.process.stdin.write(b"\x03\r\rwhoami\r" if pty else b"\rwhoami\r")
        await screen.until(lambda text: "grpadmin\n" in text)
    assert group.control.volumes.rows() == []
    assert await group.cli("whoami") == ["grpadmin"]


async def test_hostile_connections(group):
    for data in (b"", b"\x00" * 5000, b"SSH-2.0-x\r\n" + b"\xff" * 100_000, b"GET / HTTP/1.1\r\n\r\n" * 1000):
        reader, writer = await asyncio.open_connection("127.0.0.1", group.group.ssh_port)
        try:
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 120)
        except ConnectionError:
            pass
        writer.close()
    assert await group.cli("whoami") == ["grpadmin"]


async def test_nothing_but_sessions_is_opened(group):
    async with group.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", group.group.ssh_port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
        with pytest.raises((asyncssh.ChannelOpenError, asyncssh.SFTPError)):
            await connection.start_sftp_client()


async def test_connection_lost_in_the_middle_of_a_command_does_not_stop_it(group):
    fault = group.engine.fail("volume.create", hang=True)
    async with group.connect() as connection:
        screen = await open_screen(connection, pty=False)
        screen.type("volume create v 1GB\r")
        await fault.reached.wait()
    assert group.control.volumes.intents() != []  # it is still under way, and nobody cancelled it
    assert [task for task in group.group.ssh.tasks if not task.done()]
