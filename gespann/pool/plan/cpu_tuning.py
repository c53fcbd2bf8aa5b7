"""A VM's ``VCPUs_params``: how much of the processors it has beside others, and which of them. Keys as in the original:

* ``weight``: 1 to 65535, 256 if not given: who has twice as much gets twice the time when processors are short;
* ``cap``: the most it gets, in hundredths of one processor; 0: no limit;
* ``mask``: the host's processors that it may run on, as ``0,2`` or ``4-7``; empty: all.

Other keys are kept, and mean nothing here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gespann.seams.host_agent import CAP_MOST_PERCENT, CPUS_MOST, WEIGHT_MOST
from gespann.seams.xenapi.errors import XenApiError

MASK_MOST_CHARS = 4096


def _weight(text: str) -> int:
    return _number(text, 1, WEIGHT_MOST)


def _cap(text: str) -> int:
    return _number(text, 0, CAP_MOST_PERCENT)


def _mask(text: str) -> list[int]:
    cpus: set[int] = set()
    for part in text[:MASK_MOST_CHARS].split(",") if text else ():
        first, dash, last = part.strip().partition("-")
        low = _number(first, 0, CPUS_MOST - 1)
        cpus |= set(range(low, (_number(last, low, CPUS_MOST - 1) if dash else low) + 1))
    return sorted(cpus)


#: key -> (field of the seam's CpuTuning, how it is read)
_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "weight": ("weight", _weight),
    "cap": ("cap_percent", _cap),
    "mask": ("cpus", _mask),
}


def _number(text: str, least: int, most: int) -> int:
    """ValueError."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not least <= int(text) <= most:
        raise ValueError(text)
    return int(text)


def assert_known(key: str) -> None:
    if key not in _KEYS:
        raise XenApiError("INVALID_VALUE", ["VCPUs_params", key[:128]])


def assert_params(params: Mapping[str, str]) -> None:
    """INVALID_VALUE [VCPUs_params:key, value]."""
    for key, (_, read) in _KEYS.items():
        try:
            read(params.get(key, "") or ("1" if key == "weight" else "0" if key == "cap" else ""))
        except ValueError:
            raise XenApiError("INVALID_VALUE", [f"VCPUs_params:{key}", params[key][:128]]) from None


def tuning_of(params: Mapping[str, str]) -> dict[str, Any]:
    """CpuTuning as JSON. What cannot be read counts as not said: an imported record may hold anything."""
    tuning = {}
    for key, (field, read) in _KEYS.items():
        try:
            tuning[field] = read(params[key])
        except (KeyError, ValueError):
            continue
    return tuning
