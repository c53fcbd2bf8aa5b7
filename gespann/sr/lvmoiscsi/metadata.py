"""The volume group of a LUN, read and written as a whole. Two writers are found out by the sequence number."""

import asyncio
import platform
import time
from dataclasses import replace

from gespann.seams.sr_driver import SrError
from gespann.sr.lvmoiscsi import errors, label, text
from gespann.sr.lvmoiscsi.group import Group, from_text, new_group, to_text
from gespann.sr.lvmoiscsi.lun import Lun

LOOKED_AT_BYTES = 1024 * 1024  # where partition tables, file systems and boot loaders begin


async def read(lun: Lun) -> Group | None:
    """None: there is no repository on it (no label of LVM2, or one without a volume group). SrError 47: there is
    something of LVM2 that is damaged, or not ours to use."""
    try:
        head = label.read_head(await lun.read(0, label.HEAD_BYTES))
        return await _group(lun, head)
    except label.NotLvm:
        return None
    except (label.Damaged, text.BadText) as why:
        raise SrError(errors.SR_UNAVAILABLE, "The LUN's metadata cannot be used", str(why)) from None


async def _group(lun: Lun, head: label.Head) -> Group | None:
    if not head.text_start_bytes:
        return None
    if head.text_bytes > text.LIMIT_BYTES:
        raise label.Damaged("the text is too long")
    data = await _area(lun, head)
    if label.crc(data) != head.text_crc:
        raise label.Damaged("the text's checksum is wrong")
    return await asyncio.to_thread(lambda: from_text(text.parse(data.rstrip(b"\0").decode("utf-8", "replace"))))


async def _area(lun: Lun, head: label.Head) -> bytes:
    """LVM2's own texts may run over the end of the area, and go on behind its header."""
    start, end = head.text_start_bytes, head.text_start_bytes + head.text_bytes
    last = min(end, head.mda_bytes)
    data = await _read_around(lun, head.mda_start_bytes + start, last - start)
    if end > last:
        data += await _read_around(lun, head.mda_start_bytes + label.SECTOR, end - last)
    return data


async def _read_around(lun: Lun, offset: int, size_bytes: int) -> bytes:
    """Whole sectors, and of them what was asked for."""
    first = offset // label.SECTOR * label.SECTOR
    last = -(-(offset + size_bytes) // label.SECTOR) * label.SECTOR
    data = await lun.read(first, last - first)
    return data[offset - first : offset - first + size_bytes]


async def make(lun: Lun, sr_uuid: str, size_bytes: int, meta: dict[str, object]) -> Group:
    """Label and volume group on a LUN that has nothing at its head: a file system, or a disk that another repository
    keeps there, is not for us to take. The label comes last: without it there is nothing."""
    if any(await lun.read(0, LOOKED_AT_BYTES)):
        text = "The LUN is not empty: if nobody needs what is on it, write zeroes over its first MiB"
        raise SrError(errors.NOT_EMPTY, text, lun.target)
    pv_id = sr_uuid.replace("-", "")
    group = replace(new_group(sr_uuid, pv_id, size_bytes, label.DATA_START), meta=meta, seqno=1)
    if group.extents < 1:
        raise SrError(errors.NO_SPACE, "The LUN is too small for a repository", f"{size_bytes} bytes")
    written = _encoded(group)
    await lun.write(label.MDA_START, b"\0" * label.ALIGNMENT + _padded(written))
    await lun.write(label.MDA_START, label.mda_sector(label.ALIGNMENT, written))
    await lun.write(label.SECTOR, label.label_sector(pv_id, size_bytes))
    return group


async def change(lun: Lun, before: Group, after: Group) -> Group:
    """The new text, and when that is on the disk, the sector that points at it. SrError 24 if somebody else has changed
    the group meanwhile."""
    try:
        head = label.read_head(await lun.read(0, label.HEAD_BYTES))
        now = await _group(lun, head)
    except (label.NotLvm, label.Damaged, text.BadText) as why:
        raise SrError(errors.SR_UNAVAILABLE, "The LUN's metadata cannot be used", str(why)) from None
    if now is None or now.seqno != before.seqno:
        raise SrError(errors.VDI_IN_USE, "Somebody else has changed the LUN's metadata", "try again")
    after = replace(after, seqno=before.seqno + 1)
    written = _encoded(after)
    start = label.next_start(head, len(written))
    if not start:
        raise SrError(errors.NO_SPACE, "The metadata area of the LUN is full", f"{len(written)} bytes needed")
    await lun.write(head.mda_start_bytes + start, _padded(written))
    await lun.write(head.mda_start_bytes, label.mda_sector(start, written, head.mda_bytes))
    return after


async def erase(lun: Lun) -> None:
    """What was a physical volume is none any more; what was in its disks stays where it is."""
    await lun.write(label.SECTOR, b"\0" * label.SECTOR)
    await lun.write(0, b"\0" * LOOKED_AT_BYTES)


def _encoded(group: Group) -> bytes:
    return text.write(to_text(group, platform.node() or "gespann", int(time.time()))).encode() + b"\0"


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // label.ALIGNMENT) * label.ALIGNMENT, b"\0")
