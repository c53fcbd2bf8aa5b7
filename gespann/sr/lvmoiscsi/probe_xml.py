"""The XML of the probe dialogue, as the original prints it: tabs, and each text with its element on one line. Pure."""

from collections.abc import Iterable
from xml.sax.saxutils import escape

from gespann.sr.lvmoiscsi.lun import FoundLun, FoundTarget

ISCSI_PORT = 3260
_HEAD = '<?xml version="1.0" ?>\n'


def _element(name: str, text: object, depth: int = 2) -> str:
    return "\t" * depth + f"<{name}>{escape(str(text))}</{name}>\n"


def targets(found: Iterable[FoundTarget], address: str) -> str:
    """The last entry, ``*``, stands for all of them."""
    entries = [(one.address, one.port, one.iqn) for one in found]
    entries.append((address, ISCSI_PORT, "*"))
    text = ""
    for index, (ip, port, iqn) in enumerate(entries):
        text += "\t<TGT>\n" + _element("Index", index) + _element("IPAddress", ip)
        text += (_element("Port", port) if port != ISCSI_PORT else "") + _element("TargetIQN", iqn) + "\t</TGT>\n"
    return f"{_HEAD}<iscsi-target-iqns>\n{text}</iscsi-target-iqns>\n"


def luns(found: Iterable[FoundLun]) -> str:
    text = ""
    for one in found:
        text += "\t<LUN>\n" + _element("vendor", one.vendor) + _element("serial", one.serial)
        text += _element("LUNid", one.number) + _element("size", one.size_bytes) + _element("SCSIid", one.scsi_id)
        text += "\t</LUN>\n"
    return f"{_HEAD}<iscsi-target>\n{text}</iscsi-target>\n"


def repositories(found: Iterable[tuple[str, str, int, str, str]]) -> str:
    """(uuid, SCSIid, size, name, description)"""
    text = ""
    for uuid, scsi_id, size_bytes, name, description in found:
        text += "\t<SR>\n" + _element("UUID", uuid) + _element("Devlist", f"/dev/disk/by-id/scsi-{scsi_id}")
        text += _element("size", size_bytes) + _element("name_label", name)
        text += _element("name_description", description) + "\t</SR>\n"
    return f"{_HEAD}<SRlist>\n{text}</SRlist>\n"
