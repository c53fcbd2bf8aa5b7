"""Sizes as the group CLI writes them: binary units glued to the number, two decimals at most.

A volume really has the next multiple of 15 MB, while ``Size:`` shows what was asked for (MIB, eqliscsiVolumeSize).
"""

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal

from gespann.array.model.refusals import Mistake

MB = 1024 * 1024
GB = 1024 * MB
TB = 1024 * GB
GRANULE_BYTES = 15 * MB
VOLUME_LIMIT_BYTES = 15 * TB

_SIZE = re.compile(r"(\d{1,15})(?:\.(\d{1,6}))?(?:([MGT])B?)?", re.IGNORECASE | re.ASCII)
_UNIT_BYTES = {"M": MB, "G": GB, "T": TB}
_ROUNDING = {"nearest": ROUND_HALF_UP, "up": ROUND_CEILING, "down": ROUND_FLOOR}


def parse_size(untrusted: str) -> int:
    """``<n>[MB|GB|TB|M|G|T]`` in bytes, rounded up to whole MB; a bare number is MB. Mistake if it is anything else."""
    match = _SIZE.fullmatch(untrusted)
    if match is None:
        raise Mistake(f'"{untrusted[:40]}" is not a size. Write a number and MB, GB or TB, such as 10GB.')
    whole, fraction, unit = match.groups()
    amount = Decimal(f"{whole}.{fraction or 0}") * _UNIT_BYTES[(unit or "M").upper()]
    return int((amount / MB).to_integral_value(ROUND_CEILING)) * MB


def parse_volume_size(untrusted: str) -> int:
    """A size that a volume can have."""
    size_bytes = parse_size(untrusted)
    if size_bytes == 0:
        raise Mistake("A volume cannot have size zero.")
    if size_bytes > VOLUME_LIMIT_BYTES:
        raise Mistake(f"A volume can have {format_size(VOLUME_LIMIT_BYTES)} at most.")
    return size_bytes


def real_size(asked_bytes: int) -> int:
    """What a volume of ``asked_bytes`` really has."""
    return -(-asked_bytes // GRANULE_BYTES) * GRANULE_BYTES


def format_size(size_bytes: int, in_mb: bool = False, rounding: str = "nearest") -> str:
    """``1GB``, ``1.01GB``, ``0MB``; with ``in_mb`` whole MB. Used space rounds ``up``, free space ``down``."""
    mode = _ROUNDING[rounding]
    mb = (Decimal(size_bytes) / MB).to_integral_value(mode)
    if in_mb or mb < 1024:
        return f"{mb}MB"
    unit, divisor = ("GB", 1024) if mb < 1024 * 1024 else ("TB", 1024 * 1024)
    number = (mb / divisor).quantize(Decimal("0.01"), ROUND_FLOOR if rounding == "down" else ROUND_HALF_UP)
    return f"{number.normalize():f}{unit}"
