"""Buttons and keys of a machine. All of it in a worker."""

from collections.abc import Callable

import libvirt

HELD_MS = 100
#: Linux' input-event-codes.h: the keys of a keyboard, row by row
ALT, SYSRQ = 56, 99
_ROWS = {2: "1234567890", 16: "qwertyuiop", 30: "asdfghjkl", 44: "zxcvbnm"}
KEYS = {letter: first + at for first, row in _ROWS.items() for at, letter in enumerate(row)}

TRIGGERS: dict[str, Callable[[libvirt.virDomain], object]] = {
    "nmi": lambda domain: domain.injectNMI(),
    "power": lambda domain: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN),
    "reset": lambda domain: domain.reset(0),
}


def press_sysrq(key: str, domain: libvirt.virDomain) -> None:
    codes = [ALT, SYSRQ, KEYS[key.lower()]]
    domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, HELD_MS, codes, len(codes), 0)
