"""Disks read over NBD: who may, for how long, and what else can be done meanwhile."""

import asyncio
import base64
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gespann.pool.api.certificate import ServerCertificate
from gespann.pool.nbd import handshake as nbd
from gespann.pool.nbd.front import NbdFront
from gespann.pool.steps import runner
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import processes
from gespann.system.clock import SystemClock
from gespann.system.processes import CommandFailed
from tests.unit.pool.nbd.nbd_reader import Place
from tests.unit.pool.world import MIB, World, until

KIB = 1024


@pytest_asyncio.fixture
async def served(world: World, tmp_path: Path) -> AsyncIterator[World]:
    """Its one host's card is on a network for NBD, at 127.0.0.1."""
    front = NbdFront(world.pool, ServerCertificate(tmp_path, ["127.0.0.1"], SystemClock()), port=0)
    front.start()
    await world.call("network.add_purpose", network_of(world), "nbd")
    yield world
    await front.stop()


def network_of(world: World) -> str:
    (pif,) = world.db.all("PIF").values()
    return str(pif["network"])


async def place_of(world: World, vdi: str, session: str | None = None) -> Place:
    (info,) = await world.api.call("VDI.get_nbd_info", session or world.session, vdi)
    return Place(info, Path(tempfile.mkdtemp(dir=world.path)))


async def make_disk(world: World) -> str:
    return await world.make_vdi(await world.make_sr())


async def refused(world: World, method: str, *params: object) -> list[str]:
    with pytest.raises(XenApiError) as caught:
        await world.call(method, *params)
    return [caught.value.code, *caught.value.params]


async def test_a_disk_is_read_whole_by_nbdcopy(served: World) -> None:
    vdi = await make_disk(served)
    chance = random.Random(3)
    for at in (0, 5 * MIB - 7, 30 * MIB - 4096):
        served.medium(vdi).write(at, chance.randbytes(4096))
    place = await place_of(served, vdi)
    assert place.info["port"] > 0
    assert place.info["exportname"] == f"/{served.get('VDI', vdi)['uuid']}?session_id={served.session}"
    assert await place.copy() == served.medium(vdi).read(0, 30 * MIB)
    await served.call("VDI.destroy", vdi)  # whoever has read it may take it away at once
    assert served.openings() == []
    served.assert_nothing_orphaned()


async def test_a_backup_reads_what_has_changed(served: World) -> None:
    """As backup programs do: all of the first snapshot, and then of each next one the blocks that changed."""
    vdi = await make_disk(served)
    chance = random.Random(4)
    await served.call("VDI.enable_cbt", vdi)
    served.medium(vdi).write(0, chance.randbytes(3 * MIB))
    older = await served.call("VDI.snapshot", vdi, {})
    backup = bytearray(await (await place_of(served, older)).copy())
    assert bytes(backup[: 3 * MIB]) == served.medium(vdi).read(0, 3 * MIB)
    for at in (64 * KIB - 1, 2 * MIB, 29 * MIB + 1000 * KIB):
        served.medium(vdi).write(at, chance.randbytes(100))
    newer = await served.call("VDI.snapshot", vdi, {})
    served.medium(vdi).write(0, bytes(MIB))  # later than the snapshot
    place = await place_of(served, newer)
    async with place.client() as client:
        await client.secure()
        assert (await client.go(place.name))[0] == nbd.REP_ACK  # open while it is compared
        bitmap = await served.call("VDI.list_changed_blocks", older, newer)
        bits = "".join(f"{byte:08b}" for byte in base64.b64decode(bitmap))
        changed = [number for number, bit in enumerate(bits) if bit == "1"]
        assert changed == [0, 1, 32, 479]
        for number in changed:
            at = number * 64 * KIB
            backup[at : at + 64 * KIB] = await place.piece(at, 64 * KIB)
        assert await client.read(2 * MIB, 4096) == bytes(backup[2 * MIB : 2 * MIB + 4096])
    assert bytes(backup) == served.medium(newer).read(0, 30 * MIB)
    await served.call("VDI.data_destroy", older)
    assert await refused(served, "VDI.get_nbd_info", older) == ["VDI_INCOMPATIBLE_TYPE", older, "cbt_metadata"]


async def test_where_no_network_is_for_it(served: World) -> None:
    vdi = await make_disk(served)
    place = await place_of(served, vdi)
    await served.call("network.remove_purpose", network_of(served), "nbd")
    assert await served.call("VDI.get_nbd_info", vdi) == []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(place.info["address"], place.info["port"])


async def test_who_reads_when_the_purpose_ends_is_shown_out(served: World) -> None:
    place = await place_of(served, await make_disk(served))
    async with place.client() as client:
        await client.secure()
        await client.go(place.name)
        await served.call("network.remove_purpose", network_of(served), "nbd")
        assert await client.is_shown_out()
    await until(lambda: served.openings() == [])


async def test_a_repository_that_no_host_has_plugged(served: World) -> None:
    vdi = await make_disk(served)
    await served.call("PBD.unplug", next(iter(served.db.all("PBD"))))
    assert await served.call("VDI.get_nbd_info", vdi) == []


async def test_insecure_reading_goes_with_secure_on_no_network(served: World) -> None:
    other = await served.call("network.create", {"name_label": "other", "other_config": {}})
    for network in (network_of(served), other):
        told = await refused(served, "network.add_purpose", network, "insecure_nbd")
        assert told == ["NETWORK_INCOMPATIBLE_PURPOSES", "insecure_nbd", "nbd"]
    await served.call("network.remove_purpose", network_of(served), "nbd")
    await served.call("network.add_purpose", other, "insecure_nbd")
    told = await refused(served, "network.add_purpose", network_of(served), "nbd")
    assert told == ["NETWORK_INCOMPATIBLE_PURPOSES", "nbd", "insecure_nbd"]


async def test_several_connections_share_one_opening(served: World) -> None:
    vdi = await make_disk(served)
    served.medium(vdi).write(0, b"contents")
    place = await place_of(served, vdi)
    async with place.client() as one:
        async with place.client() as other:
            for client in (one, other):
                await client.secure()
                assert (await client.go(place.name))[0] == nbd.REP_ACK
            assert len(served.openings()) == 1
        assert await one.read(0, 8) == b"contents"
    await until(lambda: served.openings() == [])


async def test_a_session_that_ends_takes_its_readers_along(served: World) -> None:
    vdi = await make_disk(served)
    session = served.api.sessions.begin("backup", "vm-admin").ref
    place, others = await place_of(served, vdi, session), await place_of(served, vdi)
    async with place.client() as client, others.client() as other:
        for reader, name in ((client, place.name), (other, others.name)):
            await reader.secure()
            assert (await reader.go(name))[0] == nbd.REP_ACK
        await served.api.call("session.logout", session)
        assert await client.is_shown_out()
        assert await other.read(0, 16) == bytes(16)
        served.api.sessions.end(served.session)
        assert await other.is_shown_out()
    await until(lambda: served.openings() == [])
    served.assert_nothing_orphaned()
    served.session = served.api.sessions.begin("root", "pool-admin").ref
    with pytest.raises(CommandFailed):
        await place.copy()


async def test_names_that_open_nothing(served: World) -> None:
    vdi = await make_disk(served)
    uuid = served.get("VDI", vdi)["uuid"]
    reader = served.api.sessions.begin("reader", "vm-operator").ref
    place = await place_of(served, vdi)
    names = {
        f"/{uuid}?session_id=OpaqueRef:none": (nbd.ERR_POLICY, b"SESSION_INVALID"),
        f"/{uuid}?session_id=": (nbd.ERR_POLICY, b"SESSION_INVALID"),
        f"/{uuid}?session_id={reader}": (nbd.ERR_POLICY, b"RBAC_PERMISSION_DENIED"),
        f"/{uuid}": (nbd.ERR_UNKNOWN, b"UUID_INVALID"),
        f"{uuid}?session_id={served.session}": (nbd.ERR_UNKNOWN, b"UUID_INVALID"),
        f"/{vdi}?session_id={served.session}": (nbd.ERR_UNKNOWN, b"UUID_INVALID"),
        f"/?session_id={served.session}": (nbd.ERR_UNKNOWN, b"UUID_INVALID"),
        "": (nbd.ERR_UNKNOWN, b"UUID_INVALID"),
    }
    async with place.client() as client:
        await client.secure()
        for name, (kind, begins) in names.items():
            told = await client.go(name)
            assert told[0] == kind, name
            assert told[1].startswith(begins), name
        assert served.openings() == []
        assert (await client.go(place.name))[0] == nbd.REP_ACK  # the right one opens all the same
    told = [line.decode().partition(" (")[2] for line in served.api.audit.lines() if b"nbd.read" in line]
    assert [line.split("'")[5:8:2] for line in told] == [["reader", "DENIED"], ["root", "ALLOWED"]]
    assert uuid in told[1]
    assert not any(secret in "".join(told) for secret in (served.session, reader))


async def test_a_connection_is_for_one_disk(served: World) -> None:
    vdi = await make_disk(served)
    other = await served.make_vdi(served.get("VDI", vdi)["SR"], "other")
    place, second = await place_of(served, vdi), await place_of(served, other)
    async with place.client() as client:
        await client.secure()
        raw = place.name.encode()
        kind, _ = await client.ask(nbd.OPT_INFO, len(raw).to_bytes(4, "big") + raw + b"\0\0")
        assert kind == 3  # NBD_REP_INFO
        assert await client.reader.readexactly(20) == nbd.reply(nbd.OPT_INFO, nbd.REP_ACK)
        assert (await client.go(second.name))[0] == nbd.ERR_UNKNOWN
        assert (await client.go(place.name))[0] == nbd.REP_ACK


async def test_an_old_client(served: World) -> None:
    """By OPT_EXPORT_NAME, and with its 124 zeroes."""
    vdi = await make_disk(served)
    served.medium(vdi).write(0, b"contents")
    place = await place_of(served, vdi)
    async with place.client() as client:
        await client.greet(flags=1)
        client.writer.write(nbd.option_bytes(nbd.OPT_EXPORT_NAME, place.name.encode()))
        assert await client.is_shown_out()  # not in the clear
    async with place.client() as client:
        await client.secure()
        client.writer.write(nbd.option_bytes(nbd.OPT_EXPORT_NAME, place.name.encode()))
        answer = await client.reader.readexactly(10)
        assert int.from_bytes(answer[:8], "big") == 30 * MIB
        assert await client.read(0, 8) == b"contents"
    async with place.client() as client:
        await client.secure()
        client.writer.write(nbd.option_bytes(nbd.OPT_EXPORT_NAME, b"/nothing"))
        assert await client.is_shown_out()


async def test_nothing_is_written(served: World) -> None:
    vdi = await make_disk(served)
    place = await place_of(served, vdi)
    (place.directory / "new").write_bytes(b"x" * 4096)
    with pytest.raises(CommandFailed):
        await processes.run_async(["nbdcopy", str(place.directory / "new"), place.uri()])
    assert served.medium(vdi).read(0, 4096) == bytes(4096)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\0\0",
        b"\0\0\0\x03" + b"x" * 16,
        b"\x16\x03\x01\x02\x00\x01\x00" * 40,
    ],
)
async def test_strangers_are_shown_out(served: World, said: bytes) -> None:
    place = await place_of(served, await make_disk(served))
    async with place.client() as client:
        assert await client.reader.readexactly(18) == nbd.GREETING
        client.writer.write(said)
        assert await client.is_shown_out()


async def test_what_is_sent_in_the_clear_does_not_pass_for_tls(served: World) -> None:
    """An option behind STARTTLS, put there by somebody on the way, must never be taken for the client's own."""
    place = await place_of(served, await make_disk(served))
    async with place.client() as client:
        await client.greet()
        raw = place.name.encode()
        injected = nbd.option_bytes(nbd.OPT_GO, len(raw).to_bytes(4, "big") + raw + b"\0\0")
        client.writer.write(nbd.option_bytes(nbd.OPT_STARTTLS) + injected)
        assert await client.reader.readexactly(20) == nbd.reply(nbd.OPT_STARTTLS, nbd.REP_ACK)
        rest = await client.reader.read()
        assert rest[:1] in (b"", b"\x15")  # a TLS alert at most
    assert served.openings() == []


async def test_a_disk_that_is_read_is_not_taken_away(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LEAVE_WITHIN_S", 0.05)
    vdi = await make_disk(served)
    place = await place_of(served, vdi)
    async with place.client() as client:
        await client.secure()
        await client.go(place.name)
        assert (await refused(served, "VDI.destroy", vdi))[:3] == ["OTHER_OPERATION_IN_PROGRESS", "VDI", vdi]
        assert await served.call("VDI.snapshot", vdi, {})  # reading goes beside
        assert await client.read(0, 16) == bytes(16)


async def test_a_disk_in_use_is_not_read(served: World) -> None:
    vm = await served.make_vm_with_disk(await served.make_sr())
    vdi = served.get("VBD", served.get("VM", vm)["VBDs"][0])["VDI"]
    await served.call("VM.start", vm, False, False)
    place = await place_of(served, vdi)
    async with place.client() as client:
        await client.secure()
        kind, text = await client.go(place.name)
        assert (kind, text) == (nbd.ERR_UNKNOWN, b"VDI_IN_USE serve")


async def test_too_many_readers_of_one_disk(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gespann.pool.nbd.exports.READERS_LIMIT", 1)
    place = await place_of(served, await make_disk(served))
    async with place.client() as one, place.client() as other:
        for client in (one, other):
            await client.secure()
        assert (await one.go(place.name))[0] == nbd.REP_ACK
        assert (await other.go(place.name))[1].startswith(b"VDI_IN_USE")


async def test_storage_that_does_not_open(served: World) -> None:
    """The reader is told why, and the next try works."""
    vdi = await make_disk(served)
    place = await place_of(served, vdi)
    served.moments.fail_at = len(served.moments.passed)
    async with place.client() as client:
        await client.secure()
        kind, text = await client.go(place.name)
        assert (kind, text.split()[0]) == (nbd.ERR_UNKNOWN, b"SR_BACKEND_FAILURE_202")
        assert (await client.go(place.name))[0] == nbd.REP_ACK


async def test_a_coordinator_that_dies_lets_go_of_what_is_read(served: World) -> None:
    place = await place_of(served, await make_disk(served))
    async with place.client() as client:
        await client.secure()
        await client.go(place.name)
        assert len(served.openings()) == 1
        await served.power_cut()
        await served.boot()
        assert served.openings() == []
        served.assert_nothing_orphaned()
