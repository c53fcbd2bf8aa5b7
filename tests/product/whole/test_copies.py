"""Bytes of disks on the real array: copied, exported, imported. What comes back is what went in, and a thin disk stays
thin on the way."""

import asyncio
import base64
import random
from pathlib import Path

import pytest

from tests.product.whole.whole import COORDINATOR, POLL_S, Whole

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
MIB = 1024 * 1024
SIZE = 105 * MIB


def make_image(path: Path) -> bytes:
    """Mostly nothing; something at the beginning, at the end, and across the borders of blocks."""
    chance = random.Random(7)
    image = bytearray(SIZE)
    for at in (0, 3 * MIB - 1000, 60 * MIB, SIZE - 5000):
        image[at : at + 5000] = chance.randbytes(5000)
    path.write_bytes(image)
    return bytes(image)


async def make_vm(whole: Whole, tmp_path: Path) -> tuple[str, bytes]:
    """The disk of a VM, and what is on it."""
    image = make_image(tmp_path / "disk")
    whole.state.machines["db1"] = 1
    vm = await whole.xe("vm-create name-label=db1")
    sizes = " ".join(f"{limit}=128MiB" for limit in ("static-min", "static-max", "dynamic-min", "dynamic-max"))
    await whole.xe(f"vm-memory-limits-set uuid={vm} {sizes}")
    vdi = await whole.xe(f"vdi-create sr-uuid={whole.sr} name-label=root virtual-size={SIZE} sm-config:allocation=thin")
    await whole.xe(f"vbd-create vm-uuid={vm} vdi-uuid={vdi} device=0 bootable=true type=Disk mode=RW")
    await whole.xe(f"vdi-import uuid={vdi} filename={tmp_path}/disk")
    return vdi, image


async def contents(whole: Whole, vdi: str, path: Path) -> bytes:
    await whole.xe(f"vdi-export uuid={vdi} filename={path}.{vdi}")
    return await asyncio.to_thread(Path(f"{path}.{vdi}").read_bytes)


async def disk_of(whole: Whole, vm: str) -> str:
    return await whole.xe(f"vbd-list vm-uuid={vm} type=Disk params=vdi-uuid --minimal")


async def used_bytes(whole: Whole, vdi: str) -> int:
    await whole.xe(f"sr-scan uuid={whole.sr}")
    return int(await whole.xe(f"vdi-param-get uuid={vdi} param-name=physical-utilisation"))


async def test_a_vm_goes_out_and_comes_in_again(whole: Whole, tmp_path: Path) -> None:
    vdi, image = await make_vm(whole, tmp_path)
    await whole.xe(f"vm-export vm=db1 filename={tmp_path}/a.xva compress=zstd")
    made = await whole.xe(f"vm-import filename={tmp_path}/a.xva sr-uuid={whole.sr}")
    disk = await disk_of(whole, made)
    assert await contents(whole, disk, tmp_path / "out") == image
    assert await used_bytes(whole, disk) < SIZE / 2

    base = await whole.xe(f"vdi-copy uuid={vdi} sr-uuid={whole.sr}")
    await whole.xe(f"vdi-enable-cbt uuid={vdi}")
    before = await whole.xe(f"vdi-snapshot uuid={vdi}")
    (tmp_path / "more").write_bytes(b"other words")
    await whole.xe(f"vdi-import uuid={vdi} filename={tmp_path}/more")
    after = await whole.xe(f"vdi-snapshot uuid={vdi}")
    changed = await whole.xe(f"vdi-list-changed-blocks vdi-from-uuid={before} vdi-to-uuid={after}")
    assert base64.b64decode(changed) == b"\x80" + bytes(SIZE // MIB * 2 - 1)
    target = await whole.xe(f"vdi-copy uuid={base} sr-uuid={whole.sr}")
    assert await whole.xe(f"vdi-copy uuid={vdi} base-vdi-uuid={base} into-vdi-uuid={target}") == target
    assert await contents(whole, target, tmp_path / "out") == b"other words" + image[11:]
    await whole.xe(f"vdi-data-destroy uuid={before}")
    assert await whole.xe(f"vdi-param-get uuid={before} param-name=type") == "CBT metadata"
    assert await whole.xe(f"vdi-list-changed-blocks vdi-from-uuid={before} vdi-to-uuid={after}") == changed
    for loose in (before, after, base, target):
        await whole.xe(f"vdi-destroy uuid={loose}")
    await whole.settled()


async def test_a_coordinator_that_dies_while_a_vm_comes_in(whole: Whole, tmp_path: Path) -> None:
    await make_vm(whole, tmp_path)
    await whole.xe(f"vm-export vm=db1 filename={tmp_path}/a.xva")
    disks = await whole.xe("vdi-list --minimal")
    data = await asyncio.to_thread((tmp_path / "a.xva").read_bytes)
    _, writer = await asyncio.open_unix_connection(whole.base / "c/xapi")
    writer.write(f"PUT /import?sr_uuid={whole.sr} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n".encode())
    writer.write(data[: 3 * MIB])  # the rest never comes
    async with asyncio.timeout(120):
        while not whole.state.access():  # noqa: ASYNC110 - until the volume is open to be filled: nobody tells it
            await asyncio.sleep(POLL_S)
    await whole.kill_and_start(COORDINATOR)
    writer.close()
    await whole.settled()
    assert await whole.xe("vdi-list --minimal") == disks
    await whole.xe(f"vm-import filename={tmp_path}/a.xva sr-uuid={whole.sr}")
