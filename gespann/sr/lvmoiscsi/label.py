"""What LVM2 writes at the head of a physical volume, byte for byte: label, header, and where its metadata is. Pure.

    sector 1      label_header, pv_header                     who this is, where metadata and data lie
    byte 4096     mda_header, 512 bytes: written last         where in the area the text in force is, with its checksum
    behind it     the metadata area: the text in force, and room for the next
    10 MiB        the first extent

As lib/format_text/layout.h and lib/label/label.h of LVM2 declare it; all numbers little-endian. A change writes the new
text beside the old one, and then the one sector that points at it, so a crash leaves the one or the other.
"""

import struct
import zlib
from dataclasses import dataclass

SECTOR = 512
MDA_START = 4096
DATA_START = 10 * 1024 * 1024
MDA_SIZE = DATA_START - MDA_START
MDA_MAGIC = b" LVM2 x[5A%r0N*>"
HEAD_BYTES = MDA_START + SECTOR
ALIGNMENT = 4096  # of texts: a LUN may have sectors of that size
_INITIAL_CRC = 0xF597A6CF
_LABEL = struct.Struct("<8sQII8s")
_PV_HEADER = struct.Struct("<32sQ")
_AREA = struct.Struct("<QQ")
_MDA = struct.Struct("<16sIQQ")
_LOCATION = struct.Struct("<QQII")
_IGNORED = 1  # flag of a location: the area is not in use


class NotLvm(Exception):
    """There is no label of LVM2 here."""


class Damaged(Exception):
    """There is one, and it cannot be right."""


@dataclass(frozen=True)
class Head:
    pv_id: str  # 32 letters and digits
    device_bytes: int
    data_start_bytes: int
    mda_start_bytes: int
    mda_bytes: int
    text_start_bytes: int = 0  # in the area; 0: no volume group
    text_bytes: int = 0
    text_crc: int = 0


def crc(data: bytes) -> int:
    """LVM2's own: the usual polynomial, another start, not inverted at the end."""
    return zlib.crc32(data, _INITIAL_CRC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def label_sector(pv_id: str, device_bytes: int) -> bytes:
    body = _PV_HEADER.pack(pv_id.encode(), device_bytes)
    body += _AREA.pack(DATA_START, 0) + _AREA.pack(0, 0)
    body += _AREA.pack(MDA_START, MDA_SIZE) + _AREA.pack(0, 0)
    body += struct.pack("<II", 2, 1) + _AREA.pack(0, 0)  # extension: version 2, in use by a volume group
    rest = struct.pack("<I8s", 32, b"LVM2 001") + body
    rest = rest.ljust(SECTOR - 20, b"\0")
    return struct.pack("<8sQI", b"LABELONE", 1, crc(rest)) + rest


def mda_sector(text_start_bytes: int, text: bytes, mda_bytes: int = MDA_SIZE) -> bytes:
    rest = _MDA.pack(MDA_MAGIC, 1, MDA_START, mda_bytes)
    rest += _LOCATION.pack(text_start_bytes, len(text), crc(text), 0)
    rest = rest.ljust(SECTOR - 4, b"\0")
    return struct.pack("<I", crc(rest)) + rest


def read_head(data: bytes) -> Head:
    """``data``: the first bytes of the LUN, ``HEAD_BYTES`` at least. The label may stand in any of four sectors; the
    one metadata area must be where ours is, as `pvcreate` puts it too."""
    if len(data) < HEAD_BYTES:
        raise NotLvm
    for sector in range(4):
        at = data[sector * SECTOR : (sector + 1) * SECTOR]
        if at[:8] == b"LABELONE" and at[24:32] == b"LVM2 001":
            return _with_text(_label(at, sector), data[MDA_START:HEAD_BYTES])
    raise NotLvm


def _label(at: bytes, sector: int) -> Head:
    _, number, checksum, offset, _ = _LABEL.unpack_from(at)
    if number != sector or checksum != crc(at[20:]) or not 32 <= offset <= 256:
        raise Damaged("the label's checksum is wrong")
    pv_id, device_bytes = _PV_HEADER.unpack_from(at, offset)
    areas, at_area = [], offset + _PV_HEADER.size
    for _ in range(2):
        here = []
        while at_area + _AREA.size <= SECTOR:
            area = _AREA.unpack_from(at, at_area)
            at_area += _AREA.size
            if area == (0, 0):
                break
            here.append(area)
        areas.append(here)
    if len(areas[0]) != 1 or len(areas[1]) != 1:
        raise Damaged("it has not one data area and one metadata area")
    (data_start, _), (mda_start, mda_bytes) = areas[0][0], areas[1][0]
    if mda_start != MDA_START or not SECTOR < mda_bytes <= data_start - mda_start or not pv_id.isascii():
        raise Damaged("the metadata area is not where it can be used")
    return Head(pv_id.decode(), device_bytes, data_start, mda_start, mda_bytes)


def _with_text(head: Head, at: bytes) -> Head:
    checksum, magic, version, start, size = struct.unpack_from("<I16sIQQ", at)
    right = checksum == crc(at[4:]) and magic == MDA_MAGIC and version == 1
    if not right or (start, size) != (head.mda_start_bytes, head.mda_bytes):
        raise Damaged("the header of the metadata area is wrong")
    text_start, text_bytes, text_crc, flags = _LOCATION.unpack_from(at, 40)
    if text_start == 0 or flags & _IGNORED:
        return head
    if text_start < SECTOR or text_bytes > size - SECTOR or text_start >= size:
        raise Damaged("the text lies outside the metadata area")
    return Head(head.pv_id, head.device_bytes, head.data_start_bytes, start, size, text_start, text_bytes, text_crc)


def next_start(head: Head, text_bytes: int) -> int:
    """Where in the area a new text may be written without touching the one in force; 0: it is too large."""
    half = head.mda_bytes // 2 // ALIGNMENT * ALIGNMENT
    first, second = (ALIGNMENT, half), (half, head.mda_bytes)
    here = (head.text_start_bytes, head.text_start_bytes + head.text_bytes)
    for low, high in (first, second):
        end = low + -(-text_bytes // ALIGNMENT) * ALIGNMENT
        apart = here[1] <= low or here[0] >= end
        if end <= high and apart and here[1] <= head.mda_bytes:
            return low
    return 0
