"""How large the frames of networks and of interfaces on them may be (MTU)."""

from gespann.seams.xenapi.errors import XenApiError

MTU_LOWEST, MTU_HIGHEST = 68, 65535


def assert_mtu(mtu: int) -> int:
    """Of a bridge, or of an interface that does not have its network's. INVALID_VALUE."""
    if not MTU_LOWEST <= mtu <= MTU_HIGHEST:
        raise XenApiError("INVALID_VALUE", ["MTU", str(mtu)])
    return mtu
