"""Positions of disks and network interfaces. A ``userdevice`` is a decimal number; names of disks are taken too."""

import re

from gespann.pool.plan.storage_view import Records
from gespann.seams.xenapi.errors import XenApiError

VBD_DEVICES = 255  # 0 to 254, as the XenAPI counts; each is a SCSI target of its own
VIF_DEVICES = 7


def disk_number(userdevice: str) -> int:
    """``0`` or ``xvda``, ``sda``, ``hda`` -> 0. INVALID_DEVICE for what is no position."""
    if re.fullmatch(r"[0-9]{1,3}", userdevice) and int(userdevice) < VBD_DEVICES:
        return int(userdevice)
    if match := re.fullmatch(r"(?:xvd|sd|hd)([a-z]{1,2})", userdevice):
        number = 0
        for letter in match[1]:
            number = number * 26 + ord(letter) - ord("a") + 1
        if number <= VBD_DEVICES:
            return number - 1
    raise XenApiError("INVALID_DEVICE", [userdevice])


def disk_name(number: int) -> str:
    """0 -> ``sda``, 26 -> ``sdaa``: as the guest calls it if it finds its disks in order."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"sd{letters}"


def nic_number(device: str) -> int:
    if re.fullmatch(r"[0-9]", device) and int(device) < VIF_DEVICES:
        return int(device)
    raise XenApiError("INVALID_DEVICE", [device])


def free_disk_numbers(records: Records, vm: str) -> list[int]:
    taken = {records.get("VBD", vbd)["userdevice"] for vbd in records.get("VM", vm)["VBDs"]}
    return [number for number in range(VBD_DEVICES) if str(number) not in taken]


def free_nic_numbers(records: Records, vm: str) -> list[int]:
    taken = {records.get("VIF", vif)["device"] for vif in records.get("VM", vm)["VIFs"]}
    return [number for number in range(VIF_DEVICES) if str(number) not in taken]
