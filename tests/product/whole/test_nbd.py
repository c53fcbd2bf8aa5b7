"""Disks on the real array, read by real clients of NBD over TLS: a full backup and the next one, which reads only what
has changed."""

import base64
from pathlib import Path

import pytest
import XenAPI

from tests.product.whole.test_copies import MIB, contents, make_vm
from tests.product.whole.whole import AGENT, COORDINATOR, Whole
from tests.unit.pool.nbd.nbd_reader import Place

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
BLOCK = 64 * 1024


def logged_in(whole: Whole) -> XenAPI.Session:
    session = XenAPI.Session(f"https://127.0.0.1:{whole.tls_port}/", ignore_ssl=True)
    session.xenapi.login_with_password("root", (whole.base / "cd/root.password").read_text().strip())
    return session


def place_of(session: XenAPI.Session, vdi: str, directory: Path) -> Place:
    (info,) = session.xenapi.VDI.get_nbd_info(session.xenapi.VDI.get_by_uuid(vdi))
    return Place(info | {"port": int(info["port"])}, directory)


async def test_a_backup_and_the_next_one_whoever_dies(whole: Whole, tmp_path: Path) -> None:
    vdi, image = await make_vm(whole, tmp_path)
    network = await whole.xe("pif-list params=network-uuid --minimal")
    await whole.xe(f"network-param-add uuid={network} param-name=purpose param-key=nbd")
    await whole.xe(f"vdi-enable-cbt uuid={vdi}")
    older = await whole.xe(f"vdi-snapshot uuid={vdi}")
    session = logged_in(whole)
    place = place_of(session, older, tmp_path)
    backup = bytearray(await place.copy())
    assert bytes(backup) == image

    (tmp_path / "more").write_bytes(bytes(range(256)) * (3 * MIB // 2048))
    await whole.xe(f"vdi-import uuid={vdi} filename={tmp_path}/more")
    newer = await whole.xe(f"vdi-snapshot uuid={vdi}")
    bitmap = await whole.xe(f"vdi-list-changed-blocks vdi-from-uuid={older} vdi-to-uuid={newer}")
    bits = "".join(f"{byte:08b}" for byte in base64.b64decode(bitmap))
    changed = [number for number, bit in enumerate(bits) if bit == "1"]
    assert changed == list(range(6))
    place = place_of(session, newer, tmp_path)
    for number in changed:
        backup[number * BLOCK : (number + 1) * BLOCK] = await place.piece(number * BLOCK, BLOCK)
    assert bytes(backup) == await contents(whole, newer, tmp_path / "out")
    assert bytes(backup) != image

    async with place.client() as client:
        await client.secure()
        await client.go(place.name)
        assert await client.read(MIB, BLOCK) == bytes(backup[MIB : MIB + BLOCK])
        session.xenapi.session.logout()
        assert await client.is_shown_out()

    whole.state.loose = {"root"}  # the snapshots
    for name in (COORDINATOR, AGENT):  # who dies under a reader leaves nothing open, and the next try works
        place = place_of(logged_in(whole), newer, tmp_path)
        async with place.client() as client:
            await client.secure()
            await client.go(place.name)
            await whole.kill_and_start(name)
            assert await client.is_shown_out()
        await whole.settled(f"the death of the {name} under a reader")
    for snapshot in (older, newer):
        await whole.xe(f"vdi-destroy uuid={snapshot}")
    await whole.settled()
