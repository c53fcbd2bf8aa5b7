"""What a volume's description holds: all that the XenAPI knows of a VDI and the array does not
(docs/decisions/equal-metadata.md).

    22267eb7-23c0-4479-a063-f5c34916727d:u0:web1 0:Root disk of web1
    └ uuid                               ││  └ name-label  └ name-description
                                         │└ flags, one hex digit: 1 read-only, 2 sharable, 4 texts cut short,
                                         │  8 destroyed: the volume is only there for its snapshots
                                         └ type, one letter

The array keeps 128 bytes. Only letters, digits, ``-``, ``.`` and single inner blanks stand for themselves; any other
byte of the UTF-8 text is ``_`` and two hex digits. 87 bytes are left for both texts; the name goes first.
Two older forms are read as well: the bare uuid, and ``UUID-<uuid>:DELETED-<True|False>``.
"""

import re
from dataclasses import dataclass, replace

from gespann.seams.uuids import UUID

LIMIT_BYTES = 128

VDI_TYPES = {
    **{"user": "u", "system": "s", "suspend": "p", "crashdump": "c", "ephemeral": "e", "ha_statefile": "h"},
    **{"metadata": "m", "redo_log": "r", "rrd": "d", "pvs_cache": "v", "cbt_metadata": "b"},
}
SR_KIND = "S"
_TYPE_OF_LETTER = {letter: name for name, letter in VDI_TYPES.items()}
_FORM = re.compile(rf"(?P<uuid>{UUID}):(?P<kind>[a-zS])(?P<flags>[0-9a-f])(?::(?P<name>[^:]*))?(?::(?P<text>[^:]*))?\Z")
_OLD_FORM = re.compile(rf"(?:UUID-)?(?P<uuid>{UUID})(?::DELETED-(?P<deleted>True|False))?\Z")
_ESCAPE = re.compile(r"_([0-9A-F]{2})")

READ_ONLY, SHARABLE, CUT, DELETED = 1, 2, 4, 8
THIN = 1  # of an SR: what its volumes are when nothing is said


class BadMetadata(ValueError):
    pass


@dataclass(frozen=True)
class Metadata:
    uuid: str
    kind: str = VDI_TYPES["user"]
    flags: int = 0
    name_label: str = ""
    name_description: str = ""
    deleted: bool = False  # hidden until its last snapshot goes

    @property
    def vdi_type(self) -> str:
        return _TYPE_OF_LETTER.get(self.kind, "user")

    @property
    def cut(self) -> bool:
        return bool(self.flags & CUT)


def encode(metadata: Metadata) -> str:
    """At most 128 characters, all of them safe between double quotes. What does not fit is cut at a whole character
    and the flag says so."""
    name, text = _escaped(metadata.name_label), _escaped(metadata.name_description)
    room = LIMIT_BYTES - len(f"{metadata.uuid}:u0:") - len(":")
    cut_name = _cut(name, room)
    cut_text = _cut(text, room - len(cut_name))
    flags = metadata.flags & ~CUT | (CUT if (cut_name, cut_text) != (name, text) else 0)
    flags |= DELETED if metadata.deleted else 0
    return f"{metadata.uuid}:{metadata.kind}{flags:x}:{cut_name}:{cut_text}".rstrip(":")


def decode(description: str) -> Metadata:
    found = _FORM.match(description)
    if found:
        flags = int(found["flags"], 16)
        kept = Metadata(found["uuid"], found["kind"], flags & ~DELETED, deleted=bool(flags & DELETED))
        return replace(kept, name_label=_plain(found["name"] or ""), name_description=_plain(found["text"] or ""))
    old = _OLD_FORM.match(description)
    if old:
        return Metadata(old["uuid"], deleted=old["deleted"] == "True")
    raise BadMetadata(description)


def _escaped(text: str) -> str:
    out: list[str] = []
    for index, char in enumerate(text):
        inner = 0 < index < len(text) - 1 and text[index - 1] != " "
        if (char.isascii() and char.isalnum()) or char in "-." or (char == " " and inner):
            out.append(char)
        else:
            out += [f"_{byte:02X}" for byte in char.encode("utf-8", "replace")]
    return "".join(out)


def _plain(text: str) -> str:
    if not text.isascii():
        return text  # not written by us: shown as it is
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1").decode("utf-8", "replace")


def _cut(escaped: str, room: int) -> str:
    """Shortened to ``room`` without leaving half an escape, half a character or a blank at its end."""
    if len(escaped) <= room:
        return escaped
    kept = escaped[:room]
    while kept:
        tail = kept.rfind("_", len(kept) - 2)
        if tail >= 0:
            kept = kept[:tail]
        elif kept[-1] == " ":
            kept = kept[:-1]
        elif _ends_inside_character(kept, escaped):
            kept = kept[:-3]
        else:
            break
    return kept


def _ends_inside_character(kept: str, escaped: str) -> bool:
    """True when the next byte goes on with the UTF-8 character that ``kept`` began."""
    following = _ESCAPE.match(escaped, len(kept))
    return following is not None and int(following[1], 16) & 0xC0 == 0x80
