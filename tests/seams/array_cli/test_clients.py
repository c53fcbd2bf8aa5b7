"""How clients of a PS group talk to it, re-enacted: what they send, and what they look for in the answer."""

import re
from contextlib import asynccontextmanager

from gespann.array.model.sizes import MB
from tests.seams.array_cli.transcript import open_screen

INITIATOR = "iqn.1993-08.org.debian:01:6c4e2c5f1f2"


class CinderLike:
    """A channel without terminal per command; the prompt is waited for anywhere in the output; the first command of
    each channel is ``stty columns 255``; lines are told apart by their index."""

    def __init__(self, connection) -> None:
        self.connection = connection

    async def run(self, *words: str) -> list[str]:
        screen = await open_screen(self.connection, pty=False)
        await screen.until(lambda text: "group1> " in text)
        out = ""
        for command in ("stty columns 255", " ".join(words)):
            start = len(screen.text)
            screen.type(f"{command}\r")
            await screen.until(lambda text, start=start: "group1> " in text[start:])
            out = screen.text[start:]
        screen.process.close()
        await screen.process.wait_closed()
        lines = out.splitlines()
        assert not any(line.startswith(("% Error", "Error:")) for line in lines), lines
        return lines[:-1]

    async def set_up(self) -> None:
        for setting in ("confirmation off", "paging off", "events off", "formatoutput off"):
            await self.run("cli-settings", setting)

    async def record_of(self, volume: str, initiator: str) -> str | None:
        """Records are taken to fill two lines each, the first of which begins with the number."""
        lines = [line for line in await self.run("volume", "select", volume, "access", "show") if line]
        for at in range(0, len(lines) - 1, 2):
            if not lines[at][:1].isdigit():
                continue
            number, first = lines[at].split()[:2]
            if first + lines[at + 1].split()[0] == initiator:
                return number
        return None


@asynccontextmanager
async def cinder_like(group):
    async with group.connect() as connection:
        yield CinderLike(connection)


async def test_cinder_like_attach_and_detach(group):
    async with cinder_like(group) as client:
        await client.set_up()
        created = await client.run("volume", "create", "volume-1", "1G", "pool", "default", "thin-provision")
        assert created[0] == "Volume creation succeeded."
        target = next(line for line in created if line.startswith("iSCSI target name is "))[21:-1]
        await client.run("volume", "select", "volume-1", "description", '"OpenStack Managed"')
        await client.run("volume", "select", "volume-1", "multihost-access", "enable")
        assert await client.record_of("volume-1", INITIATOR) is None
        for initiator in ("iqn.1993-08.org.debian:01:aaaaaaaaaaaa", INITIATOR):
            words = ("access", "create", "initiator", initiator, "authmethod", "chap", "username", "chapadmin")
            await client.run("volume", "select", "volume-1", *words)
        number = await client.record_of("volume-1", INITIATOR)
        assert number == "2"
        await client.run("volume", "select", "volume-1", "access", "delete", number)
        assert await client.record_of("volume-1", INITIATOR) is None
        await client.run("volume", "select", "volume-1", "size", "2G", "no-snap")
        await client.run("volume", "select", "volume-1", "offline")
        await client.run("volume", "delete", "volume-1")
        assert target.endswith("-volume-1")


async def test_cinder_like_statistics(group):
    async with cinder_like(group) as client:
        await client.set_up()
        await client.run("volume", "create", "v", "10G")
        lines = await client.run("pool", "select", "default", "show")
        said = dict(line.split(": ", 1) for line in lines if ": " in line)
        assert said["TotalCapacity"] == "1TB"
        assert said["FreeSpace"] == "1013.99GB"
        assert said["TotalVolumes"] == "1"
        assert said["VolumeReportedSpace"] == "10GB"
        lines = await client.run("grpparams", "show")
        assert "Group-Ipaddress: 192.0.2.10" in lines


async def test_line_counting_client_with_a_terminal(group):
    """The echo is line 0; at 80 columns the target name takes two lines; connections are at line 19."""
    await group.cli("cli-settings events off", "cli-settings formatoutput off", "cli-settings paging off")
    name = "volume-74cf9c04-4543-47ae-a937-a9b7c6c921e7"
    await group.cli(f"volume create {name} 1GB")
    async with group.connect() as connection:
        screen = await open_screen(connection, pty=True)
        await screen.until(lambda text: text.endswith("group1> "))
        start = len(screen.text)
        screen.type(f"volume select {name} show\r")
        await screen.until(lambda text: text[start:].endswith("group1> "))
    lines = screen.text[start:].split("\n")
    assert lines[0] == f"volume select {name} show"
    assert re.fullmatch("_+ Volume Information _+", lines[1])
    assert lines[2] == f"Name: {name}"
    assert lines[3] == "Size: 1GB"
    assert (lines[8] + lines[9]).endswith(name)
    assert lines[19] == "Connections: 0"


async def test_show_volume_and_rejoin_of_long_names(group):
    name = "XenStorage0ff867ef31210e7c5497f5c34916727d22267eb723c04479a063"
    lines = await group.cli(f"volume create {name} 1GB", "show volume")
    rows = lines[2:]
    assert rows[0].split()[0] + "".join(row.strip() for row in rows[1:]) == name
    assert all(row.startswith("  ") for row in rows[1:])


async def test_usage_follows_writes_and_trims(group):
    await group.cli("cli-settings formatoutput off", "volume create v 10GB thin-provision")
    naa = group.control.volumes.get("v").naa

    async def usage() -> tuple[str, str]:
        said = dict(line.split(": ", 1) for line in await group.cli("volume select v show") if ": " in line)
        return said["VolReserveInUse"], said["VolReserve"]

    assert await usage() == ("0MB", "1.01GB")
    group.engine.write(naa, 0, 2000 * MB)
    assert await usage() == ("1.95GB", "1.96GB")
    group.engine.unmap(naa, 0, 1900 * MB)
    assert await usage() == ("100MB", "1.01GB")


async def test_connections_and_offline(group):
    await group.cli("cli-settings formatoutput off", "volume create v 1GB unrestricted")
    target = group.control.volumes.get("v").target_name
    group.engine.login(target, INITIATOR, address="192.0.2.77")
    assert "Connections: 1" in await group.cli("volume select v show")
    lines = await group.cli("volume select v show connections")
    assert len(INITIATOR) > 29
    assert len(lines) == 3  # head, dashes, and one line for one connection, which is how one client counts them
    assert lines[2].split()[0] == "192.0.2.77"
    assert lines[2].split()[-1] == INITIATOR
    assert await group.cli("volume select v access delete 1") == ["Access control record deletion succeeded."]
    assert len(group.engine.sessions) == 1  # deleting a record drops nobody
    assert await group.cli("volume select v offline") == []
    assert group.engine.sessions == {}


async def test_seventeenth_record_is_refused(group):
    await group.cli("volume create v 1GB")
    for number in range(1, 17):
        lines = await group.cli(f"volume select v access create initiator iqn.2000-01.a:{number}")
        assert lines[1] == f"Access control record ID is {number}."
    refused = await group.cli("volume select v access create initiator iqn.2000-01.a:17")
    assert refused == ["% Error - A volume can have 16 access control records at most."]
    await group.cli("volume select v access delete 5")
    lines = await group.cli("volume select v access create initiator iqn.2000-01.a:17")
    assert lines[1] == "Access control record ID is 5."


async def test_generated_chap_password(group):
    lines = await group.cli("chapuser create eve")
    assert lines[0] == "CHAP user creation succeeded."
    assert re.fullmatch(r"Password is [A-Za-z0-9]{16}", lines[1])
    assert group.engine.chap_users["eve"] == lines[1].split()[-1]


async def test_secrets_are_in_no_file_and_no_event(group):
    await group.cli("chapuser create eve password a-chap-secret-1", "account create bob password a-login-password-2")
    await group.cli("grpparams target-auth-username x", "grpparams target-auth-password a-mutual-secret-3")
    assert group.engine.mutual.secret == "a-mutual-secret-3"
    kept = b"".join(path.read_bytes() for path in group.data_dir.rglob("*") if path.is_file())
    for secret in (b"a-chap-secret-1", b"a-login-password-2", b"a-mutual-secret-3"):
        assert secret not in kept
    texts = " ".join(event.text for event in group.control.events.recent(100))
    assert "secret" not in texts
    assert all(path.stat().st_mode & 0o077 == 0 for path in group.data_dir.glob("*") if "sqlite" in path.name)
