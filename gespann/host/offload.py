"""What network cards, or the kernel in their place, do for the processor: by the ioctl that `ethtool` would use."""

import array
import fcntl
import socket
import struct

from gespann.seams.json_lines import SeamError

SIOCETHTOOL = 0x8946  # linux/sockios.h
ETHTOOL_GGRO, ETHTOOL_SGRO = 0x2B, 0x2C  # linux/ethtool.h


def gro(device: str) -> bool | None:
    """None: it has no such switch."""
    try:
        return bool(_ask(device, ETHTOOL_GGRO, 0))
    except OSError:
        return None


def gro_set(device: str, *, on: bool) -> None:
    try:
        _ask(device, ETHTOOL_SGRO, int(on))
    except OSError as error:
        code = "NOT_FOUND" if device not in (name for _, name in socket.if_nameindex()) else "HYPERVISOR"
        raise SeamError(code, f"{device}: {error.strerror}") from error


def _ask(device: str, command: int, value: int) -> int:
    """struct ethtool_value {u32 cmd; u32 data;}, which a struct ifreq points at."""
    data = array.array("I", [command, value])
    address, _ = data.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, SIOCETHTOOL, struct.pack("16sP", device.encode(), address))
    return data[1]
