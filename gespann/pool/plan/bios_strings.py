"""What a VM's firmware tells its guest of the machine."""

from collections.abc import Mapping

from gespann.seams.xenapi.errors import XenApiError

#: the keys that may be given, as published
SETTABLE = frozenset(
    {
        *("bios-vendor", "bios-version", "system-manufacturer", "system-product-name", "system-version"),
        *("system-serial-number", "enclosure-asset-tag", "baseboard-manufacturer", "baseboard-product-name"),
        *("baseboard-version", "baseboard-serial-number", "baseboard-asset-tag", "baseboard-location-in-chassis"),
    }
)
LONGEST = 512


def assert_bios_strings(there: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """They are given once. VM_BIOS_STRINGS_ALREADY_SET; INVALID_VALUE with the key and what is wrong with its text."""
    if there:
        raise XenApiError("VM_BIOS_STRINGS_ALREADY_SET", [])
    for key, text in wanted.items():
        if key not in SETTABLE:
            raise XenApiError("INVALID_VALUE", [key[:100], "Unknown key"])
        if not text or len(text) > LONGEST:
            raise XenApiError("INVALID_VALUE", [key, f"It has 1 to {LONGEST} characters"])
        if any(not " " <= letter <= "~" for letter in text):
            raise XenApiError("INVALID_VALUE", [key, "It has a character that is not printable ASCII"])
