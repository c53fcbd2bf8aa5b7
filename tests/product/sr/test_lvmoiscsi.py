"""Several disks on one LUN: our engine with one volume, that two initiators may use."""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gespann.array.data_plane.link import HELLO
from gespann.host.nbd_export import image_words
from gespann.seams.engine_socket import Access, ChapUser, Configure, Target, VolumeCreate
from gespann.seams.host_agent import IscsiSource
from gespann.seams.sr_driver import Opening, Sr, SrError, VolumeSpec
from gespann.sr.lvmoiscsi import LvmoiscsiDriver
from gespann.sr.lvmoiscsi.lun import Lun
from gespann.system.json_lines import JsonLinesClient
from tests.own_nets import free_port
from tests.product.sr.arrays import running_engine

pytestmark = pytest.mark.engine

MIB = 1 << 20
IQN, NAA = "iqn.2001-05.com.equallogic:0-8a0906-5df4aea12-49ea7b6e20507a6f-lun", "6090a028a1aef45d6f7a50206e7bea49"
NAME, USER, SECRET = "iqn.2026-11.org.example:pool", "pool", "s3cretS3cret16ch"
SR_UUID = "0ff867ef-3121-0e7c-5497-f5c34916727d"
DISK, OTHER, THIRD = (f"{n}2267eb7-23c0-4479-a063-f5c34916727d" for n in (1, 2, 3))
SPEC = VolumeSpec(DISK, 40 * MIB, "web1 0", 'Größe: 5 % „x“ #1 "q" \\', vdi_type="system", sharable=True)


@dataclass
class OneLun:
    port: int
    driver: LvmoiscsiDriver

    def config(self, **changed: str) -> dict[str, str]:
        config = {"target": "127.0.0.1", "port": str(self.port), "targetIQN": IQN, "SCSIid": f"3{NAA}"}
        config |= {"localIQN": NAME, "chapuser": USER, "chappassword": SECRET}
        return {key: value for key, value in {**config, **changed}.items() if value}

    def sr(self, **changed: str) -> Sr:
        return Sr(SR_UUID, self.config(**changed), {}, "heartbeat", "one LUN")

    def opening(self, name: str, mode: str = "RW") -> Opening:
        return Opening(name, "RO" if mode == "RO" else "RW", "iqn.2026-11.org.example:start", "", "secret0000000000")

    async def image(self, path: Path) -> Path:
        """The whole LUN as a file."""
        source = await self.source_of_all()
        secret = path.with_suffix(".secret")
        secret.write_text(SECRET)
        words = ["qemu-img", "convert", *image_words(source, secret), "-O", "raw", str(path)]
        await asyncio.to_thread(subprocess.run, words, check=True)
        return path

    async def source_of_all(self) -> IscsiSource:
        names = {"host": "127.0.0.1", "port": self.port, "target": IQN}
        return IscsiSource(**names, initiator=NAME, chap_user=USER, chap_secret=SECRET)


@pytest.fixture
async def lun(tmp_path: Path) -> AsyncIterator[OneLun]:
    port = free_port()
    async with running_engine(tmp_path, port):
        client = JsonLinesClient(tmp_path / "engine.sock", hello=HELLO)
        async with asyncio.timeout(120):
            while not (tmp_path / "engine.sock").exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.01)
        await client.call(VolumeCreate(volume=NAA, size_bytes=255 * MIB, thick=False))
        target = Target(
            volume=NAA, name=IQN, alias="", online=True, read_only=False, multihost=True, generation=1,
            access=[Access(initiator=NAME, chap_user=USER, address="*.*.*.*")], vendor="EQLOGIC", product="100E-00",
            block_size=512,
        )  # fmt: skip
        users = [ChapUser(user=USER, secret=SECRET)]
        await client.call(Configure(targets=[target], chap_users=users, mutual=None, portal_address=""))
        await client.close()
        yield OneLun(port, LvmoiscsiDriver())


@pytest.fixture
async def sr(lun: OneLun) -> Sr:
    made = lun.sr()
    await lun.driver.create(made, 0)
    return made


async def refusal(call: object) -> SrError:
    with pytest.raises(SrError) as caught:
        await call  # type: ignore[misc]
    assert SECRET not in f"{caught.value} {caught.value.detail}"
    return caught.value


async def qemu_io(source: IscsiSource, folder: Path, command: str) -> str:
    secret = folder / "qemu.secret"
    secret.write_text(source.chap_secret)
    words = ["qemu-io", *image_words(source, secret), "-c", command]
    return (await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True)).stdout


# The dialogue


async def test_the_probe_dialogue(lun: OneLun) -> None:
    probe = lun.driver.probe
    assert (await refusal(probe(lun.config(target=""), {}))).number == 95
    asked = await refusal(probe(lun.config(targetIQN="", SCSIid=""), {}))
    assert (asked.number, asked.description) == (96, "The request is missing or has an incorrect target IQN parameter")
    assert re.findall(r"<TargetIQN>(.*?)</TargetIQN>", asked.detail) == [IQN, "*"]
    assert f"\t\t<Port>{lun.port}</Port>" in asked.detail
    asked = await refusal(probe(lun.config(SCSIid=""), {}))
    assert (asked.number, asked.description) == (107, "The SCSIid parameter is missing or incorrect")
    assert f"\t\t<SCSIid>3{NAA}</SCSIid>" in asked.detail
    assert f"\t\t<size>{255 * MIB}</size>" in asked.detail
    assert "<SR>" not in await probe(lun.config(), {})
    await lun.driver.create(lun.sr(), 0)
    found = await probe(lun.config(), {})
    assert f"<UUID>{SR_UUID}</UUID>" in found
    assert "<name_label>heartbeat</name_label>" in found


async def test_what_cannot_be_reached_or_logged_in_to(lun: OneLun) -> None:
    probe = lun.driver.probe
    assert (await refusal(probe(lun.config(port="1"), {}))).number == 141
    assert (await refusal(probe(lun.config(port="1", targetIQN=""), {}))).number == 141
    assert (await refusal(probe(lun.config(target="no-such-host.invalid", targetIQN=""), {}))).number == 140
    for wrong in ({"chappassword": "wr0ngS3cret16chr"}, {"localIQN": "iqn.2026-11.org.example:other"}):
        assert (await refusal(probe(lun.config(**wrong), {}))).number == 68
    assert (await refusal(probe(lun.config(SCSIid="36090"), {}))).number == 107


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "a,b=c"},
        {"port": "70000"},
        {"targetIQN": "iqn.x:y,file.filename=/etc/passwd"},
        {"localIQN": "nobody"},
        {"SCSIid": "a b"},
        {"chapuser": ""},
        {"chapuser": "a,b"},
        {"unknown": "key"},
    ],
)
async def test_impossible_values(lun: OneLun, wrong: dict[str, str]) -> None:
    assert (await refusal(lun.driver.create(replace(lun.sr(), device_config=lun.config(**wrong)), 0))).number == 143


# The repository


async def test_a_lun_that_holds_something_is_left_alone(lun: OneLun) -> None:
    source = await lun.source_of_all()
    on = Lun((await _portal(lun)), IQN, 0)
    await on.write(512 * 1024, b"somebody's data".ljust(512))
    assert (await refusal(lun.driver.create(lun.sr(), 0))).number == 56
    assert b"somebody's data" in await on.read(512 * 1024, 512)
    await on.zero(512 * 1024, 512)
    await lun.driver.create(lun.sr(), 0)
    other = replace(lun.sr(), uuid=OTHER)
    assert (await refusal(lun.driver.create(other, 0))).number == 16
    await lun.driver.destroy(other)
    await lun.driver.create(lun.sr(), 0)  # once more is no harm
    assert source.size_bytes == 0


async def _portal(lun: OneLun):
    from gespann.sr.lvmoiscsi.settings import read

    return read(lun.config()).portal


async def test_lvm2_itself_reads_what_is_written(lun: OneLun, sr: Sr, tmp_path: Path) -> None:
    """Debian's pvck checks label, headers and checksums, and prints the text in force."""
    await lun.driver.volume_create(sr, SPEC)
    await lun.driver.volume_create(sr, replace(SPEC, vdi_uuid=OTHER))
    await lun.driver.volume_destroy(sr, DISK)
    image = await lun.image(tmp_path / "lun.raw")
    dump = ["pvck", "--dump"]
    heads = await asyncio.to_thread(subprocess.run, [*dump, "headers", image], capture_output=True, text=True)
    assert heads.returncode == 0
    assert "label_header.id LABELONE" in heads.stdout
    assert f"vgname VG_XenStorage-{SR_UUID}" in heads.stdout
    assert "CHECK:" not in heads.stdout + heads.stderr
    text = await asyncio.to_thread(subprocess.run, [*dump, "metadata", image], capture_output=True, text=True)
    assert f"LV-{OTHER} {{" in text.stdout
    assert f"LV-{DISK} {{" not in text.stdout


async def test_destroy_takes_the_label_away_and_only_when_it_is_empty(lun: OneLun, sr: Sr) -> None:
    await lun.driver.volume_create(sr, SPEC)
    assert (await refusal(lun.driver.destroy(sr))).number == 39
    await lun.driver.volume_destroy(sr, DISK)
    await lun.driver.volume_destroy(sr, DISK)
    await lun.driver.destroy(sr)
    await lun.driver.destroy(sr)
    assert (await refusal(lun.driver.attach(sr))).number == 47
    await lun.driver.create(sr, 0)
    assert await lun.driver.scan(sr) == []


async def test_damage_is_seen(lun: OneLun, sr: Sr) -> None:
    await lun.driver.volume_create(sr, SPEC)
    on = Lun(await _portal(lun), IQN, 0)
    for offset in (512, 4096, 8192, 4096 + (10 * MIB - 4096) // 2 // 4096 * 4096):
        good = await on.read(offset, 512)
        await on.write(offset, bytes([good[40] ^ 1]).join((good[:40], good[41:])))
        with contextlib.suppress(SrError):  # the place of a text that is no longer in force may be anything
            assert len(await lun.driver.scan(sr)) == 1
        await on.write(offset, good)
        assert len(await lun.driver.scan(sr)) == 1
    good = await on.read(4096, 512)
    await on.write(4096, good[:100] + b"x" + good[101:])
    assert (await refusal(lun.driver.scan(sr))).number == 47
    assert (await refusal(lun.driver.volume_create(sr, replace(SPEC, vdi_uuid=OTHER)))).number == 47


# Its disks


async def test_everything_is_found_again_from_the_lun_alone(lun: OneLun, sr: Sr) -> None:
    made = await lun.driver.volume_create(sr, SPEC)
    assert await lun.driver.volume_create(sr, SPEC) == made
    other = LvmoiscsiDriver()
    assert await other.scan(sr) == [made]
    assert (made.name_label, made.name_description, made.sharable) == (SPEC.name_label, SPEC.name_description, True)
    assert (made.vdi_type, made.virtual_size_bytes) == ("system", 40 * MIB)
    renamed = await other.volume_update(sr, replace(SPEC, name_label="x" * 3000))
    assert await lun.driver.scan(sr) == [renamed]
    await other.update(replace(sr, name_label="Ärger"))
    assert "<name_label>Ärger</name_label>" in await other.probe(lun.config(), {})
    stat = await other.stat(sr)
    assert (stat.physical_size_bytes, stat.physical_utilisation_bytes) == (244 * MIB, 40 * MIB)


async def test_sizes_room_and_growth(lun: OneLun, sr: Sr) -> None:
    first = await lun.driver.volume_create(sr, replace(SPEC, size_bytes=1))
    assert first.virtual_size_bytes == 4 * MIB
    await lun.driver.volume_create(sr, replace(SPEC, vdi_uuid=OTHER, size_bytes=100 * MIB))
    await lun.driver.volume_create(sr, replace(SPEC, vdi_uuid=THIRD, size_bytes=136 * MIB))
    full = replace(SPEC, vdi_uuid=SR_UUID, size_bytes=8 * MIB)
    assert (await refusal(lun.driver.volume_create(sr, full))).number == 44
    assert (await refusal(lun.driver.volume_create(sr, replace(full, size_bytes=0)))).number == 79
    assert (await refusal(lun.driver.volume_create(sr, replace(full, size_bytes=1 << 70)))).number == 79
    assert (await refusal(lun.driver.volume_create(sr, SPEC))).number == 43
    assert (await refusal(lun.driver.volume_resize(sr, DISK, 8 * MIB))).number == 44
    assert (await refusal(lun.driver.volume_resize(sr, OTHER, 50 * MIB))).number == 79
    await lun.driver.volume_destroy(sr, OTHER)
    assert (await lun.driver.volume_resize(sr, DISK, 100 * MIB + 1)).virtual_size_bytes == 104 * MIB
    assert (await refusal(lun.driver.volume_resize(sr, OTHER, 8 * MIB))).number == 144


async def test_disks_do_not_touch_and_new_ones_read_as_zeroes(lun: OneLun, sr: Sr, tmp_path: Path) -> None:
    sources = {}
    for uuid, pattern in ((DISK, 0x11), (OTHER, 0x22)):
        await lun.driver.volume_create(sr, replace(SPEC, vdi_uuid=uuid))
        sources[uuid] = await lun.driver.open(sr, uuid, lun.opening(uuid[:8]))
        assert "wrote" in await qemu_io(sources[uuid], tmp_path, f"write -P {pattern} 0 40M")
    for uuid, pattern in ((DISK, 0x11), (OTHER, 0x22)):
        said = await qemu_io(sources[uuid], tmp_path, f"read -P {pattern} 0 40M")
        assert "verification failed" not in said
        assert "read 41943040" in said
    assert len(await lun.driver.scan(sr)) == 2
    await lun.driver.volume_destroy(sr, DISK)
    await lun.driver.volume_create(sr, replace(SPEC, vdi_uuid=THIRD))
    fresh = await lun.driver.open(sr, THIRD, lun.opening("fresh"))
    assert fresh.offset_bytes == sources[DISK].offset_bytes
    said = await qemu_io(fresh, tmp_path, "read -P 0 0 40M")
    assert "verification failed" not in said
    assert "read 41943040" in said


async def test_openings_are_kept_on_the_lun(lun: OneLun, sr: Sr) -> None:
    await lun.driver.volume_create(sr, SPEC)
    source = await lun.driver.open(sr, DISK, lun.opening("a"))
    assert (source.size_bytes, source.initiator, source.chap_user) == (40 * MIB, NAME, USER)
    assert await lun.driver.open(sr, DISK, lun.opening("a")) == source
    other = LvmoiscsiDriver()
    assert await other.openings(sr, DISK) == ["a"]
    for mode in ("RW", "RO"):
        assert (await refusal(other.open(sr, DISK, lun.opening("b", mode)))).number == 24
    assert (await refusal(other.volume_resize(sr, DISK, 80 * MIB))).number == 24
    await other.close(sr, DISK, "a")
    await other.close(sr, DISK, "a")
    for name in ("c", "d"):
        await lun.driver.open(sr, DISK, lun.opening(name, "RO"))
    assert await other.openings(sr, DISK) == ["c", "d"]
    assert (await refusal(other.open(sr, OTHER, lun.opening("e")))).number == 144


async def test_a_machine_on_its_way_to_another_host(lun: OneLun, sr: Sr) -> None:
    await lun.driver.volume_create(sr, SPEC)
    await lun.driver.open(sr, DISK, lun.opening("here"))
    there = replace(lun.opening("there"), beside="here")
    await lun.driver.open(sr, DISK, there)
    await lun.driver.open(sr, DISK, there)
    assert await lun.driver.openings(sr, DISK) == ["here", "there"]
    assert (await refusal(lun.driver.open(sr, DISK, replace(lun.opening("third"), beside="here")))).number == 24
    assert (await refusal(lun.driver.hand_over(sr, DISK, "here", "nobody"))).number == 24
    for _ in range(2):
        await lun.driver.hand_over(sr, DISK, "here", "there")
    await lun.driver.close(sr, DISK, "here")
    assert await lun.driver.openings(sr, DISK) == ["there"]


async def test_many_at_once(lun: OneLun, sr: Sr) -> None:
    specs = [replace(SPEC, vdi_uuid=f"{n:08x}-23c0-4479-a063-f5c34916727d", size_bytes=4 * MIB) for n in range(4)]
    made = await asyncio.gather(*(lun.driver.volume_create(sr, spec) for spec in specs))
    assert {one.location for one in await lun.driver.scan(sr)} == {one.location for one in made}
    assert len({one.location.partition("@")[2] for one in made}) == 4


async def test_a_write_that_fails_leaves_what_was(lun: OneLun, sr: Sr, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write and clearing of a new disk's making fails in turn; the repeat ends as if nothing had happened."""
    made = await lun.driver.volume_create(sr, SPEC)
    spec, write, zero, turn, fails = replace(SPEC, vdi_uuid=OTHER, size_bytes=4 * MIB), Lun.write, Lun.zero, 0, -1

    async def failing(real, *args) -> None:
        nonlocal turn
        turn += 1
        if turn - 1 == fails:
            raise SrError(202, "injected")
        await real(*args)

    monkeypatch.setattr(Lun, "write", lambda *args: failing(write, *args))
    monkeypatch.setattr(Lun, "zero", lambda *args: failing(zero, *args))
    for fails in range(5):
        turn = 0
        assert (await refusal(lun.driver.volume_create(sr, spec))).description == "injected"
        assert await LvmoiscsiDriver().scan(sr) == [made]
        if fails % 2:  # the pool gives up, or tries again
            turn = 100
            await lun.driver.volume_destroy(sr, OTHER)
        else:
            turn = 100
            await lun.driver.volume_create(sr, spec)
            assert len(await lun.driver.scan(sr)) == 2
            await lun.driver.volume_destroy(sr, OTHER)
