"""Wakes a machine that is switched off: what its network card waits for, as UDP to everybody on the network."""

import socket
from collections.abc import Iterable

PORT = 9  # discard: nobody else takes offence
EVERYBODY = "255.255.255.255"
MAC_BYTES = 6


def magic_packet(mac: str) -> bytes:
    """Six bytes of ones, then the card's address sixteen times. ValueError: no address of a card."""
    address = bytes.fromhex(mac.replace(":", ""))
    if len(address) != MAC_BYTES:
        raise ValueError(f"{mac} is no MAC address")
    return b"\xff" * 6 + address * 16


def wake(macs: Iterable[str], address: str = EVERYBODY, port: int = PORT) -> None:
    """OSError: nothing could be sent. Whether anybody wakes up is not told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for mac in macs:
            sender.sendto(magic_packet(mac), (address, port))
