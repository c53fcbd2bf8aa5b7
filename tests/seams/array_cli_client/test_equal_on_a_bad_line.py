"""The driver's connection to a group: who is let in, what the group's mood does to it, what it never tells."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncssh
import pytest

from gespann.seams.sr_driver import Opening, Sr, SrError, VolumeSpec
from gespann.sr.equal import EqualDriver, Timing
from gespann.system.clock import ManualClock
from tests.seams.array_cli_client.fake_array import FakeArray, Fault, pass_time
from tests.seams.array_cli_client.fake_state import Record

SR_UUID = "0ff867ef-3121-0e7c-5497-f5c34916727d"
DISK = "22267eb7-23c0-4479-a063-f5c34916727d"
TIMING = Timing(
    connect_timeout_s=60.0,
    session_timeout_s=60.0,
    command_timeout_s=60.0,
    read_timeout_s=60.0,
    alive_every_s=0.0,  # the clock is put forward: SSH would take that for silence
    drain_poll_s=0.001,
    keep_alive_s=20.0,
    idle_close_s=60.0,
)


@pytest.fixture
async def array() -> AsyncIterator[FakeArray]:
    async with FakeArray().serve() as served:
        yield served


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def driver(clock: ManualClock) -> AsyncIterator[EqualDriver]:
    made = EqualDriver(clock=clock, timing=TIMING)
    yield made
    await made.shut_down()


async def refused(call: object) -> SrError:
    with pytest.raises(SrError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def until(condition: object) -> None:
    async with asyncio.timeout(120):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - nothing there tells when it changes
            await asyncio.sleep(0.005)


# Getting in


async def test_nobody_listens(driver: EqualDriver, array: FakeArray) -> None:
    config = {**array.device_config(), "port": "1"}
    assert (await refused(driver.probe(config, {}))).number == 171


async def test_a_group_that_answers_nobody_is_waited_for_once_by_all(array: FakeArray) -> None:
    """Many things wait for a silent group; each is told when the attempt is over that was under way as it came."""
    callers: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer)
        await reader.read()

    patient = EqualDriver(timing=Timing(connect_timeout_s=2.0))
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        config = {**array.device_config(), "port": str(server.sockets[0].getsockname()[1])}
        errors = await asyncio.gather(*(refused(patient.probe(config, {})) for _ in range(20)))
        assert {(error.number, error.detail) for error in errors} == {(171, "127.0.0.1: no answer within 2 s")}
        assert len(callers) == 1
        assert (await refused(patient.probe(config, {}))).number == 171  # who comes later finds out anew
        assert len(callers) == 2
        await patient.shut_down()
        for caller in callers:
            caller.close()


class Cable:
    """Between driver and array: what goes in comes out, until it is ``frozen``; nobody hears anything of that."""

    def __init__(self, port: int) -> None:
        self.port, self.frozen = port, False
        self.ends: list[asyncio.StreamWriter] = []
        self.carried = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.ends += [writer, far_writer]
        await asyncio.gather(self._way(reader, far_writer), self._way(far_reader, writer))

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if not self.frozen:
                self.carried += 1
                writer.write(piece)
        writer.close()


@pytest.fixture
async def cable(array: FakeArray) -> AsyncIterator[Cable]:
    made = Cable(array.port)
    async with await asyncio.start_server(made.carry, "127.0.0.1", 0) as server:
        array.port = server.sockets[0].getsockname()[1]
        yield made
        for end in made.ends:
            end.close()


#: long enough for a slow machine to answer, and for the commands of a group that is there, however slow
WATCHFUL = Timing(connect_timeout_s=60.0, command_timeout_s=3600.0, read_timeout_s=3600.0, alive_every_s=0.5)


async def test_a_group_that_freezes_is_noticed_in_the_middle_of_a_command(array: FakeArray, cable: Cable) -> None:
    """However long the command could take: all who wait hear of it, with the array's name, and soon."""
    driver, sr = EqualDriver(timing=WATCHFUL), Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    array.commands.clear()
    array.faults = [Fault("hang-before", 0, times=100)]
    scanning = [asyncio.create_task(refused(driver.scan(sr))) for _ in range(6)]  # three sessions, three who wait
    await until(lambda: len(array.commands) == 3)
    cable.frozen = True
    before = len(cable.ends)
    await until(lambda: len(cable.ends) > before)  # what is there is given up, and all wait for something new
    pass_time(WATCHFUL.connect_timeout_s)
    errors = await asyncio.gather(*scanning)
    assert {(error.number, error.detail) for error in errors} == {(171, "127.0.0.1: no answer within 60 s")}
    await driver.shut_down()


async def test_a_change_that_a_frozen_group_may_have_made(array: FakeArray, cable: Cable) -> None:
    driver, sr = EqualDriver(timing=WATCHFUL), Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    array.commands.clear()
    await driver.volume_create(sr, VolumeSpec(str(uuid.UUID(int=7)), 15 * 2**20))
    at = next(n for n, command in enumerate(array.commands) if command.startswith("volume create"))
    array.commands.clear()
    array.faults = [Fault("hang-before", at)]
    creating = asyncio.create_task(refused(driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))))
    await until(lambda: len(array.commands) == at + 1)
    cable.frozen = True
    error = await creating
    assert (error.number, "127.0.0.1: it has stopped answering" in error.detail) == (176, True), error
    cable.frozen = False
    array.faults.clear()
    await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))
    await driver.shut_down()


async def test_a_group_that_is_slow_is_not_taken_for_frozen(array: FakeArray, cable: Cable) -> None:
    driver = EqualDriver(timing=replace(WATCHFUL, alive_every_s=0.02, alive_misses=500))
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    array.commands.clear()
    array.faults = [Fault("slow", 0)]
    scanning = asyncio.create_task(driver.scan(sr))
    await until(lambda: array.commands)
    carried = cable.carried
    await until(lambda: cable.carried > carried + 20)
    array.go_on.set()
    assert await scanning == []
    await driver.shut_down()


async def test_no_such_host(driver: EqualDriver, array: FakeArray) -> None:
    error = await refused(driver.probe({**array.device_config(), "target": "no-such-host.invalid"}, {}))
    assert error.number == 140


async def test_not_ssh_at_all(driver: EqualDriver, array: FakeArray) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000)
        writer.close()

    async with await asyncio.start_server(web, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refused(driver.probe({**array.device_config(), "port": str(port)}, {}))
        assert error.number in (164, 173)


async def test_ssh_of_something_else(driver: EqualDriver) -> None:
    """A host that accepts the password and shows another prompt."""

    async def shell(process: "asyncssh.SSHServerProcess[str]") -> None:
        process.stdout.write("Last login: never\r\nroot@web1:~# ")
        await process.stdin.read()

    class AnyServer(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    impatient = EqualDriver(timing=Timing(session_timeout_s=2.0))  # for a session, and then for a prompt
    key = asyncssh.generate_private_key("ssh-ed25519")
    async with asyncssh.listen(
        "127.0.0.1", 0, server_factory=AnyServer, server_host_keys=[key], process_factory=shell
    ) as server:
        config = {"target": "127.0.0.1", "port": str(server.get_port()), "username": "root", "password": "x"}
        error = await refused(impatient.probe(config, {}))
    assert error.number == 173
    await impatient.shut_down()


@pytest.mark.parametrize("port", ["0", "65536", "22x", "-1", "٢٢"])
async def test_ports_that_are_none(driver: EqualDriver, array: FakeArray, port: str) -> None:
    assert (await refused(driver.probe({**array.device_config(), "port": port}, {}))).number == 173


async def test_unknown_key(driver: EqualDriver, array: FakeArray) -> None:
    error = await refused(driver.create(Sr(SR_UUID, {**array.device_config(), "pasword": "top-s3cret"}), 0))
    assert error.number == 143
    assert "pasword" in error.detail
    assert "top-s3cret" not in error.detail
    assert array.commands == []


async def test_old_firmware(driver: EqualDriver, array: FakeArray) -> None:
    array.state.firmware = "V3.3.1 (R57347)"
    error = await refused(driver.create(Sr(SR_UUID, array.device_config()), 0))
    assert error.number == 170
    assert "3.3" in error.detail


async def test_all_sessions_taken(driver: EqualDriver, array: FakeArray) -> None:
    array.sessions = array.sessions_most
    assert (await refused(driver.probe(array.device_config(), {}))).number == 164
    array.sessions = 0
    assert "StoragePool" in await driver.probe(array.device_config(), {})


async def test_one_session_is_enough(driver: EqualDriver, array: FakeArray) -> None:
    """Others hold six of the seven: what is asked at once goes one after the other."""
    array.sessions = array.sessions_most - 1
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    specs = [VolumeSpec(f"{n:08x}-23c0-4479-a063-f5c34916727d", 15 * 2**20) for n in range(8)]
    await asyncio.gather(*(driver.volume_create(sr, spec) for spec in specs))
    assert len(await driver.scan(sr)) == len(specs)
    assert array.sessions == array.sessions_most


async def test_a_few_sessions_at_most(driver: EqualDriver, array: FakeArray) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    specs = [VolumeSpec(f"{n:08x}-23c0-4479-a063-f5c34916727d", 15 * 2**20) for n in range(20)]
    await asyncio.gather(*(driver.volume_create(sr, spec) for spec in specs))
    assert array.sessions_ever <= 3


async def test_another_password_is_another_connection(driver: EqualDriver, array: FakeArray) -> None:
    """A wrong password must be felt although a right one is connected, and must not disturb it."""
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    ever = array.sessions_ever
    wrong = {**array.device_config(), "password": "wr0ng-secret"}
    assert (await refused(driver.scan(Sr(SR_UUID, wrong)))).number == 169
    assert await driver.scan(sr) == []
    assert array.sessions_ever == ever


# Whose key it is


async def test_host_key_is_pinned(driver: EqualDriver, array: FakeArray) -> None:
    sr = Sr(SR_UUID, array.device_config())
    kept = await driver.create(sr, 0)
    assert kept["host-key"].startswith("SHA256:")
    other_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    async with FakeArray(state=array.state, host_key=other_key).serve() as impostor:
        pinned = Sr(SR_UUID, impostor.device_config(), kept)
        elsewhere = EqualDriver(timing=TIMING)
        error = await refused(elsewhere.scan(pinned))
        assert error.number == 173
        assert "host key" in error.description
        assert impostor.sessions_ever == 0
        await elsewhere.shut_down()


async def test_host_key_changes_while_we_run(driver: EqualDriver) -> None:
    first = FakeArray()
    async with first.serve():
        await driver.create(Sr(SR_UUID, first.device_config()), 0)
    other_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    async with FakeArray(state=first.state, port=first.port, host_key=other_key).serve() as second:
        assert (await refused(driver.scan(Sr(SR_UUID, second.device_config())))).number == 173


# Staying in


async def test_lost_connection_is_made_again(driver: EqualDriver, array: FakeArray) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    array.cut()
    assert await driver.scan(sr) == []
    array.cut()
    await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))


async def test_keep_alive_asks_and_idle_connections_are_closed(
    driver: EqualDriver, array: FakeArray, clock: ManualClock
) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    await driver.attach(sr)
    for _ in range(10):
        await until(lambda: clock.sleepers)
        clock.advance(20)
    assert array.sessions == 1
    await driver.detach(sr)
    await until(lambda: array.sessions == 0)
    await driver.probe(array.device_config(), {})
    assert array.sessions == 1
    for _ in range(3):
        await until(lambda: clock.sleepers)
        clock.advance(20)
    await until(lambda: array.sessions == 0)


async def test_a_command_that_is_never_answered(driver: EqualDriver, array: FakeArray) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    array.commands.clear()
    array.faults = [Fault("hang-before", 0, times=100)]
    array.silence_s = TIMING.command_timeout_s
    error = await refused(driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20)))
    assert error.number == 176
    array.faults.clear()
    await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))


async def test_cancelled_in_the_middle(driver: EqualDriver, array: FakeArray) -> None:
    """The answer that was no longer waited for is not taken for that of the next command."""
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    array.commands.clear()
    array.faults = [Fault("hang-after", 3)]  # the second way of asking, which a PS group knows
    creation = asyncio.create_task(driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20)))
    await until(lambda: len(array.commands) == 4)
    creation.cancel()
    await asyncio.gather(creation, return_exceptions=True)
    array.faults.clear()
    assert creation.cancelled()
    assert [one.vdi_uuid for one in await driver.scan(sr)] == [DISK]


# The group's moods


async def test_settings_that_others_switch_on_again(driver: EqualDriver, array: FakeArray) -> None:
    """The account's settings belong to all its sessions; an administrator at the same account may like paging."""
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20, "web1 0"))
    array.account_settings("grpadmin").update(paging=True, confirmation=True, events=True, reprintBadInput=True)
    assert [one.name_label for one in await driver.scan(sr)] == ["web1 0"]
    await driver.volume_destroy(sr, DISK)
    assert await driver.scan(sr) == []


@pytest.mark.parametrize("name", ["reprintBadInput", "displayinMB", "idlelogout", "hardwrap"])
async def test_settings_that_a_firmware_lacks(driver: EqualDriver, array: FakeArray, name: str) -> None:
    array.unknown_words = {name}
    if name == "reprintBadInput":  # then it is also not on
        array.account_settings("grpadmin")["reprintBadInput"] = False
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    made = await driver.volume_create(sr, VolumeSpec(DISK, 40 * 2**30 + 1, "web1 0"))
    assert made.virtual_size_bytes == 2731 * 15 * 2**20
    assert await driver.scan(sr) == [made]


async def test_prelude_is_sent_in_each_session(driver: EqualDriver, array: FakeArray) -> None:
    await driver.probe(array.device_config(), {})
    assert "stty hardwrap off" in array.prelude
    assert array.account_settings("grpadmin") == {
        **dict.fromkeys(("events", "paging", "confirmation", "formatoutput", "reprintBadInput", "idlelogout"), False),
        "displayinMB": True,
    }


async def test_an_edited_description(driver: EqualDriver, array: FakeArray, caplog: pytest.LogCaptureFixture) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    made = await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))
    other = await driver.volume_create(sr, VolumeSpec(str(uuid.UUID(int=7)), 15 * 2**20))
    array.state.volumes[made.location].description = "Bob's disk, do not touch"
    assert await driver.scan(sr) == [other]
    assert [made.location in line for line in caplog.messages if "left out of the scan" in line] == [True]
    for call in (driver.volume_resize(sr, DISK, 2**30), driver.volume_destroy(sr, DISK)):
        error = await refused(call)
        assert error.number == 175
        assert made.location in error.detail
    array.state.volumes[made.location].description = DISK  # as the message says, and as other drivers write it
    assert {one.vdi_uuid for one in await driver.scan(sr)} == {DISK, other.vdi_uuid}


async def test_setting_the_name_mends_an_edited_description(driver: EqualDriver, array: FakeArray) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    made = await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20, "web1"))
    array.state.volumes[made.location].description = ""
    assert await driver.volume_update(sr, VolumeSpec(DISK, 15 * 2**20, "web1")) == made
    assert await driver.scan(sr) == [made]
    array.state.volumes[made.location].description = str(uuid.UUID(int=7))  # readable, and another VDI's
    assert (await refused(driver.volume_update(sr, VolumeSpec(DISK, 15 * 2**20, "web1")))).number == 144


async def test_an_edited_description_of_the_repository(driver: EqualDriver, array: FakeArray) -> None:
    sr = Sr(SR_UUID, array.device_config(), name_label="fast")
    await driver.create(sr, 0)
    made = await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))
    (management,) = [one for one in array.state.volumes.values() if one.name != made.location]
    before, management.description = management.description, "do not delete"
    await driver.attach(sr)
    assert await driver.scan(sr) == [made]
    await driver.update(sr)
    assert management.description == before


async def test_foreign_volumes_are_left_alone(driver: EqualDriver, array: FakeArray) -> None:
    sr, other = Sr(SR_UUID, array.device_config()), Sr(DISK, array.device_config())
    await driver.create(sr, 0)
    await driver.create(other, 0)
    made = await driver.volume_create(other, VolumeSpec(DISK, 15 * 2**20))
    assert await driver.scan(sr) == []
    assert await driver.scan(other) == [made]
    array.state.volumes["MBX02-DBPF"] = array.state.volumes[made.location]
    await driver.destroy(sr)
    assert made.location in array.state.volumes


async def test_a_record_made_by_hand_keeps_us_out(driver: EqualDriver, array: FakeArray) -> None:
    """Somebody else may write to this volume: nothing that we could revoke."""
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    made = await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))
    before = array.state.shown()
    array.state.volumes[made.location].records[1] = Record("iqn.b:c", "", "both")
    error = await refused(driver.open(sr, DISK, Opening("a", "RW", "iqn.x:y", "", "s3cretS3cret16ch")))
    assert error.number == 24
    assert "iqn.b:c" in error.detail
    array.state.volumes[made.location].records.clear()
    assert array.state.shown() == before


@pytest.mark.parametrize(
    ("opening_id", "initiator", "secret"),
    [
        ("a b", "iqn.x:y", "s3cretS3cret16ch"),
        ("a", 'iqn.x:y" unrestricted', "s3cretS3cret16ch"),
        ("a", "iqn.x:y", "short"),
        ("a", "iqn.x:y", "s3cret S3cret16ch"),
        ("a\rvolume", "iqn.x:y", "s3cretS3cret16ch"),
    ],
)
async def test_hostile_openings(
    driver: EqualDriver, array: FakeArray, opening_id: str, initiator: str, secret: str
) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))
    before = array.state.shown()
    error = await refused(driver.open(sr, DISK, Opening(opening_id, "RW", initiator, "", secret)))
    assert error.number == 1
    assert secret not in str(error)
    assert array.state.shown() == before


@pytest.mark.parametrize(
    ("sm_config", "number"),
    [
        ({"snap-reserve-percentage": "ten"}, 165),
        ({"snap-reserve-percentage": "-1"}, 165),
        ({"snap-reserve-percentage": "10000000"}, 165),
        ({"snap-depletion": "delete-newest"}, 166),
        ({"allocation": "medium"}, 1),
    ],
)
async def test_bad_sm_config(driver: EqualDriver, array: FakeArray, sm_config: dict[str, str], number: int) -> None:
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    before = array.state.shown()
    spec = VolumeSpec(DISK, 15 * 2**20, sm_config=sm_config)
    assert (await refused(driver.volume_create(sr, spec))).number == number
    assert array.state.shown() == before


async def test_sm_config_takes_effect(driver: EqualDriver, array: FakeArray) -> None:
    sr = Sr(SR_UUID, array.device_config(allocation="thin"))
    assert (await driver.create(sr, 0))["allocation"] == "thin"
    chosen = {"snap-reserve-percentage": "10000", "snap-depletion": "volume-offline"}
    made = await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20, sm_config=chosen))
    volume = array.state.volumes[made.location]
    assert (volume.thin, volume.snap_reserve, volume.snap_depletion) == (True, 10000, "volume-offline")
    changed = await driver.volume_update(sr, VolumeSpec(DISK, 0, sm_config={"snap-reserve-percentage": "20"}))
    assert changed.sm_config["snap-reserve-percentage"] == "20"
    assert volume.snap_reserve == 20


async def test_secrets_are_not_told(driver: EqualDriver, array: FakeArray, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sr = Sr(SR_UUID, array.device_config())
    secret = "s3cretS3cret16ch"
    await driver.create(sr, 0)
    await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))
    wanted = Opening("a", "RW", "iqn.x:y", "", secret)
    source = await driver.open(sr, DISK, wanted)
    await driver.close(sr, DISK, "a")
    array.commands.clear()
    array.faults = [Fault("refuse", 3)]
    error = await refused(driver.open(sr, DISK, wanted))
    assert "chapuser create gespann-rw-a password (hidden)" in error.detail
    told = caplog.text + str(error) + repr(error.__cause__) + repr(error.__context__) + repr(source) + repr(wanted)
    assert secret not in told
    assert array.accounts["grpadmin"] not in told


async def test_a_session_without_a_record_is_dropped_first(array: FakeArray) -> None:
    """Somebody took the record away by hand; on such arrays the session lives on, and could still write."""
    driver = EqualDriver(timing=TIMING)
    sr = Sr(SR_UUID, array.device_config())
    await driver.create(sr, 0)
    made = await driver.volume_create(sr, VolumeSpec(DISK, 15 * 2**20))
    volume = array.state.volumes[made.location]
    volume.online, volume.connections, array.state.slow_drain = True, 1, 3
    array.commands.clear()
    await driver.open(sr, DISK, Opening("a", "RW", "iqn.x:y", "", "s3cretS3cret16ch"))
    asked = [command.split(" ", 3)[-1] for command in array.commands if made.location in command]
    granted = next(n for n, words in enumerate(asked) if words.startswith("access create"))
    assert "offline" in asked[:granted]
    assert asked[asked.index("offline") + 1 : granted].count("show") == 4  # three looks with a connection, one without
    assert volume.connections == 0
    await driver.shut_down()
