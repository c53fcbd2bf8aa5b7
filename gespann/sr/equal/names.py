"""Names on the array, as XenServer's driver gave them (found in its published test driver), so that either can read
the other's volumes:

    XenStorage<SR uuid, 32 hex digits><first 20 hex digits of the VDI uuid>     a VDI, 62 characters of at most 63
    the same with the snapshot VDI's uuid                                       a snapshot, under its source's volume
    XenStorage<SR uuid, 32 hex digits>-management                                the SR management volume (name ours)
    XenSnapshots<first 20 hex digits of the first snapshot's uuid>               a collection, for a moment (ours)
"""

import re
import uuid

from gespann.seams.sr_driver import SrError
from gespann.sr.equal import errors

PREFIX = "XenStorage"
_VDI = re.compile(PREFIX + r"([0-9a-f]{32})([0-9a-f]{20})\Z")
_MENTIONED = re.compile(PREFIX + r"([0-9a-f]{32})(?:-management|([0-9a-f]{20}))?(?![0-9a-f])")
_MANAGEMENT = re.compile(PREFIX + r"([0-9a-f]{32})-management\Z")


def canonical_uuid(text: str) -> str:
    """Lower case with dashes; SrError 1 for anything else."""
    try:
        if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
            raise ValueError(text)
        return str(uuid.UUID(text))
    except ValueError:
        raise SrError(errors.BAD_ARGUMENT, "Not a uuid", text[:64]) from None


def _hex(text: str) -> str:
    return canonical_uuid(text).replace("-", "")


def vdi_volume(sr_uuid: str, vdi_uuid: str) -> str:
    return f"{PREFIX}{_hex(sr_uuid)}{_hex(vdi_uuid)[:20]}"


def snapshot_collection(vdi_uuid: str) -> str:
    return f"XenSnapshots{_hex(vdi_uuid)[:20]}"


def management_volume(sr_uuid: str) -> str:
    return f"{PREFIX}{_hex(sr_uuid)}-management"


def sr_of_management_volume(name: str) -> str | None:
    found = _MANAGEMENT.match(name)
    return str(uuid.UUID(found[1])) if found else None


def is_vdi_name(name: str) -> bool:
    """Of any repository."""
    return _VDI.match(name) is not None


def is_vdi_volume(name: str, sr_uuid: str) -> bool:
    found = _VDI.match(name)
    return found is not None and found[1] == _hex(sr_uuid)


def mentioned(text: str) -> list[tuple[str, str]]:
    """(uuid of the SR, with what the uuid of the VDI begins) of each of our volumes and snapshots that a text names; ""
    for a management volume."""
    return [(str(uuid.UUID(found[1])), _uuid_begins(found[2] or "")) for found in _MENTIONED.finditer(text)]


def _uuid_begins(digits: str) -> str:
    return "-".join(filter(None, (digits[:8], digits[8:12], digits[12:16], digits[16:20])))
