"""A volume's identity: its NAA-6 identifier and the target name derived from it.

The 32 digits of a PS group's target name are the NAA identifier, each half byte-reversed and regrouped:
``R = hex(reverse(naa[0:8]))``; ``R[15]-R[9:15]-R[0:9]-hex(reverse(naa[8:16]))-volume``. Host tools compute one from the
other, so VPD page 0x83 and the name must agree. ``6090a0`` is the head that such tools look for.
"""

import re
from collections.abc import Callable

TARGET_PREFIX = "iqn.2001-05.com.equallogic:"
_NAA = re.compile(r"6[0-9a-f]{31}")
_TARGET = re.compile(r"([0-9a-f])-([0-9a-f]{6})-([0-9a-f]{9})-([0-9a-f]{16})-(.+)")


def new_naa(random_bytes: Callable[[int], bytes]) -> str:
    """NAA 6, company 0090a0, then 100 bits by chance: target names of the form ``0-8a0906-...``."""
    head, tail = random_bytes(5), random_bytes(8)
    return f"6090a0{head[0] >> 4:x}8{head[1:].hex()}{tail.hex()}"


def target_name(naa: str, volume_name: str) -> str:
    """iSCSI names have no capitals (RFC 7143 4.2.7.2)."""
    if _NAA.fullmatch(naa) is None:
        raise ValueError(f"not a NAA-6 identifier: {naa!r}")
    raw = bytes.fromhex(naa)
    head = raw[:8][::-1].hex()
    return f"{TARGET_PREFIX}{head[15]}-{head[9:15]}-{head[:9]}-{raw[8:][::-1].hex()}-{volume_name.lower()}"


def naa_of_target(name: str) -> str:
    """The way back. ValueError for a name of another make."""
    match = _TARGET.fullmatch(name.removeprefix(TARGET_PREFIX))
    if not name.startswith(TARGET_PREFIX) or match is None:
        raise ValueError(f"not a target name of a group: {name!r}")
    last, middle, first, tail, _ = match.groups()
    return bytes.fromhex(first + middle + last)[::-1].hex() + bytes.fromhex(tail)[::-1].hex()
