"""A volume group on one LUN, as records: from LVM2's text and back, and what may be done to it. Pure.

A VDI is a linear logical volume ``LV-<uuid>``, the name that the original gives to raw disks, in one piece: QEMU opens
a range of the LUN. Its name, its type and who has it open are tags, which LVM2 keeps and ignores. What is not as we
make it (other volumes, several pieces) is left as it is, counted as taken, and not offered.
"""

import base64
import json
import re
from dataclasses import dataclass, field, replace
from itertools import pairwise

from gespann.seams.uuids import UUID
from gespann.sr.lvmoiscsi.text import BadText, Section, Value

EXTENT_BYTES = 4 * 1024 * 1024
VG_PREFIX, LV_PREFIX = "VG_XenStorage-", "LV-"
_META, _OPEN = "gespann.meta.", "gespann.open="
_TAG_CHARS = 900  # a tag has 1024 at most
_UUID = re.compile(UUID)


class NoRoom(Exception):
    """No piece of the LUN is free that is large enough."""


@dataclass(frozen=True)
class Disk:
    """A VDI. ``openings``: opening id -> RO or RW."""

    vdi_uuid: str
    first_extent: int
    extents: int
    meta: dict[str, object] = field(default_factory=dict)
    openings: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return self.extents * EXTENT_BYTES


@dataclass(frozen=True)
class Group:
    sr_uuid: str
    seqno: int
    extents: int  # of the LUN
    disks: dict[str, Disk] = field(default_factory=dict)
    meta: dict[str, object] = field(default_factory=dict)
    foreign: Section = field(default_factory=dict)  # logical volumes that are none of ours
    foreign_taken: tuple[tuple[int, int], ...] = ()  # their pieces: first extent, extents
    around: Section = field(default_factory=dict)  # the rest of the volume group's section, kept as it is

    @property
    def used_extents(self) -> int:
        return sum(size for _, size in self.taken())

    def taken(self) -> list[tuple[int, int]]:
        return sorted([(disk.first_extent, disk.extents) for disk in self.disks.values()] + [*self.foreign_taken])

    def place(self, extents: int) -> int:
        """The first extent of a free piece: the smallest that is large enough, so that large ones stay whole."""
        fitting = [(size, first) for first, size in self.free() if size >= extents]
        if not fitting:
            largest = max((size for _, size in self.free()), default=0)
            raise NoRoom(
                f"{extents * EXTENT_BYTES} bytes needed in one piece, the largest has {largest * EXTENT_BYTES}"
            )
        return min(fitting)[1]

    def free(self) -> list[tuple[int, int]]:
        found, at = [], 0
        for first, size in self.taken():
            if first > at:
                found.append((at, first - at))
            at = max(at, first + size)
        if at < self.extents:
            found.append((at, self.extents - at))
        return found

    def may_grow(self, disk: Disk, extents: int) -> bool:
        """Whether what lies behind it is free."""
        end, wanted = disk.first_extent + disk.extents, disk.first_extent + extents
        if wanted > self.extents:
            return False
        return all(first >= wanted or first + size <= end for first, size in self.taken())

    def with_disk(self, disk: Disk) -> "Group":
        return replace(self, disks={**self.disks, disk.vdi_uuid: disk})

    def without(self, vdi_uuid: str) -> "Group":
        return replace(self, disks={uuid: disk for uuid, disk in self.disks.items() if uuid != vdi_uuid})


def lvm_id(text: str) -> str:
    """32 letters and digits as LVM2 writes them: 6-4-4-4-4-4-6."""
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(text[a:b] for a, b in pairwise(cuts))


def new_group(sr_uuid: str, pv_id: str, device_bytes: int, data_start_bytes: int) -> Group:
    sectors, start = device_bytes // 512, data_start_bytes // 512
    extents = (device_bytes - data_start_bytes) // EXTENT_BYTES
    pv: Section = {
        "id": lvm_id(pv_id),
        "device": "/dev/disk/by-id",  # a hint for people; LVM2 finds it by its id
        "status": ["ALLOCATABLE"],
        "flags": [],
        "dev_size": sectors,
        "pe_start": start,
        "pe_count": extents,
    }
    around: Section = {
        "id": lvm_id(sr_uuid.replace("-", "")),
        "format": "lvm2",
        "status": ["RESIZEABLE", "READ", "WRITE"],
        "flags": [],
        "extent_size": EXTENT_BYTES // 512,
        "max_lv": 0,
        "max_pv": 0,
        "metadata_copies": 0,
        "physical_volumes": {"pv0": pv},
    }
    return Group(sr_uuid, 0, extents, around=around)


# -- to and from the text


def from_text(parsed: Section) -> Group:
    """BadText when it is no volume group of this SR type, or not on one LUN."""
    names = [name for name, value in parsed.items() if isinstance(value, dict)]
    if len(names) != 1 or not names[0].startswith(VG_PREFIX) or not _UUID.fullmatch(names[0].removeprefix(VG_PREFIX)):
        raise BadText("the volume group is not of a storage repository")
    vg = _child(parsed, names[0])
    volumes = _child(vg, "physical_volumes")
    if len(volumes) != 1 or vg.get("extent_size") != EXTENT_BYTES // 512:
        raise BadText("the volume group is not on one LUN in extents of 4 MiB")
    (pv,) = (_child(volumes, name) for name in volumes)
    group = Group(
        names[0].removeprefix(VG_PREFIX),
        _number(vg, "seqno"),
        _number(pv, "pe_count"),
        meta=_meta(vg),
        around={k: v for k, v in vg.items() if k not in ("seqno", "tags", "logical_volumes")},
    )
    logical = vg.get("logical_volumes", {})
    if not isinstance(logical, dict):
        raise BadText("logical_volumes")
    for name in logical:
        group = _with_volume(group, name, _child(logical, name))
    return group


def _with_volume(group: Group, name: str, lv: Section) -> Group:
    pieces = [_piece(value) for key, value in lv.items() if key.startswith("segment") and isinstance(value, dict)]
    uuid = name.removeprefix(LV_PREFIX)
    known = [piece for found in pieces for piece in found]
    if name.startswith(LV_PREFIX) and _UUID.fullmatch(uuid) and len(pieces) == 1 and len(known) == 1:
        first, extents = known[0]
        return group.with_disk(Disk(uuid, first, extents, _meta(lv), _openings(lv)))
    return replace(group, foreign={**group.foreign, name: lv}, foreign_taken=(*group.foreign_taken, *known))


def _piece(segment: Section) -> list[tuple[int, int]]:
    """The extents of the LUN that a segment takes; only those of plain stripes are known by looking."""
    stripes = segment.get("stripes", [])
    if not isinstance(stripes, list) or segment.get("type") != "striped":
        return []
    extents, count = _number(segment, "extent_count"), max(1, len(stripes) // 2)
    return [(first, extents // count) for first in stripes[1::2] if isinstance(first, int)]


def to_text(group: Group, host: str, seconds: int) -> Section:
    logical: Section = dict(group.foreign)
    for disk in group.disks.values():
        logical[LV_PREFIX + disk.vdi_uuid] = _volume(group, disk)
    around = dict(group.around)
    vg: Section = {"id": around.pop("id", ""), "seqno": group.seqno, **around}
    vg["tags"] = _tags(group.meta)
    if logical:
        vg["logical_volumes"] = logical
    head: Section = {
        "contents": "Text Format Volume Group",
        "version": 1,
        "description": "Gespann",
        "creation_host": host,
        "creation_time": seconds,
    }
    return {VG_PREFIX + group.sr_uuid: vg, **head}


def _volume(group: Group, disk: Disk) -> Section:
    (pv,) = _child(group.around, "physical_volumes")
    tags: list[int | str] = [*_tags(disk.meta), *(f"{_OPEN}{name}:{mode}" for name, mode in disk.openings.items())]
    segment: Section = {
        "start_extent": 0,
        "extent_count": disk.extents,
        "type": "striped",
        "stripe_count": 1,
        "stripes": [pv, disk.first_extent],
    }
    return {
        "id": lvm_id(disk.vdi_uuid.replace("-", "")),
        "status": ["READ", "WRITE", "VISIBLE"],
        "flags": [],
        "tags": tags,
        "segment_count": 1,
        "segment1": segment,
    }


def _tags(meta: dict[str, object]) -> list[int | str]:
    """JSON in base64, in as many tags as it needs: a tag may hold letters, digits and a few signs."""
    packed = base64.b64encode(json.dumps(meta, separators=(",", ":")).encode()).decode()
    pieces = [packed[at : at + _TAG_CHARS] for at in range(0, len(packed), _TAG_CHARS)]
    return [f"{_META}{number}={piece}" for number, piece in enumerate(pieces)]


def _meta(section: Section) -> dict[str, object]:
    found: dict[int, str] = {}
    for tag in _tag_list(section):
        number, _, piece = tag.removeprefix(_META).partition("=")
        if tag.startswith(_META) and number.isdigit():
            found[int(number)] = piece
    try:
        meta = json.loads(base64.b64decode("".join(found[number] for number in sorted(found)), validate=True) or b"{}")
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}


def _openings(section: Section) -> dict[str, str]:
    pairs = [tag.removeprefix(_OPEN).rpartition(":") for tag in _tag_list(section) if tag.startswith(_OPEN)]
    return {name: mode for name, _, mode in pairs if name and mode in ("RO", "RW")}


def _tag_list(section: Section) -> list[str]:
    tags = section.get("tags", [])
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _child(section: Section, name: str) -> Section:
    value: Value | None = section.get(name)
    if not isinstance(value, dict):
        raise BadText(f"no section {name}")
    return value


def _number(section: Section, name: str) -> int:
    value = section.get(name)
    if not isinstance(value, int) or value < 0:
        raise BadText(f"no number {name}")
    return value
