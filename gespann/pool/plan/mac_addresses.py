"""Hardware addresses of virtual network interfaces."""

import re
import secrets

from gespann.seams.xenapi.errors import XenApiError


def random_mac() -> str:
    """Locally administered, unicast (IEEE 802 sections 8.2, 9.2)."""
    first = (secrets.randbits(8) & 0b11111100) | 0b10
    return ":".join(f"{octet:02x}" for octet in (first, *secrets.token_bytes(5)))


def checked_mac(mac: str) -> str:
    """Lower case. MAC_INVALID for what is none, or is a multicast address."""
    low = mac.lower()
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", low) or int(low[:2], 16) & 1:
        raise XenApiError("MAC_INVALID", [mac])
    return low
