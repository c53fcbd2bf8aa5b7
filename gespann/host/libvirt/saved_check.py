"""The XML beside a machine's memory comes from a volume, and who may write there could have written anything. So it is
held to what ``domain_xml`` makes and libvirt adds to it: nothing else of this host is opened, run or listened at.

What libvirt finds again by itself (the emulator, labels, the agent's socket) is taken out; anything unknown is refused.
"""

import xml.etree.ElementTree as ET

from gespann.host.libvirt.domain_xml import AGENT_CHANNEL
from gespann.seams.json_lines import SeamError

_TOP = frozenset(
    {
        *("name", "uuid", "title", "metadata", "memory", "currentMemory", "vcpu", "vcpus", "os", "sysinfo", "features"),
        *("cpu", "clock", "on_poweroff", "on_reboot", "on_crash", "pm", "devices", "resource"),
    }
)
_OS = frozenset({"type", "boot", "bootmenu", "smbios"})
#: device -> what may be in it
_DEVICES: dict[str, frozenset[str]] = {
    "disk": frozenset(
        {
            "driver",
            "source",
            "auth",
            "target",
            "readonly",
            "serial",
            "boot",
            "alias",
            "address",
            "backingStore",
            "mirror",
        }
    ),
    "interface": frozenset({"mac", "source", "target", "model", "mtu", "boot", "rom", "alias", "address"}),
    "controller": frozenset({"alias", "address", "model", "target", "driver"}),
    "serial": frozenset({"source", "log", "target", "alias", "address"}),
    "console": frozenset({"source", "log", "target", "alias", "address"}),
    "channel": frozenset({"target", "alias", "address"}),
    "input": frozenset({"alias", "address"}),
    "graphics": frozenset({"listen"}),
    "audio": frozenset(),
    "video": frozenset({"model", "alias", "address"}),
    "memballoon": frozenset({"stats", "alias", "address"}),
    "rng": frozenset({"backend", "alias", "address"}),
    "panic": frozenset({"alias", "address"}),
}
#: device -> attributes that it must have
_KINDS = {
    "interface": "bridge",
    "serial": "unix",
    "console": "unix",
    "channel": "unix",
    "graphics": "vnc",
    "audio": "none",
}


def hold_to_ours(root: ET.Element) -> None:
    """BAD_STATE for what no machine of ours has. Changes ``root``."""
    for element in (*root.findall("seclabel"), *root.findall("cputune")):  # its part of the processors is told anew
        root.remove(element)
    _only(root, _TOP, "the machine")
    for element in root.findall("os"):
        _only(element, _OS, "os")
    for devices in root.findall("devices"):
        for element in devices.findall("emulator"):
            devices.remove(element)
        _only(devices, frozenset(_DEVICES), "devices")
        for element in devices:
            _check(element)


def _only(parent: ET.Element, known: frozenset[str], where: str) -> None:
    for element in parent:
        if element.tag not in known:
            raise _refusal(f"{element.tag} in {where}")


def _check(element: ET.Element) -> None:
    kind = element.tag
    if kind == "channel":
        for source in element.findall("source"):
            element.remove(source)
    _only(element, _DEVICES[kind], kind)
    if kind in _KINDS and element.get("type") != _KINDS[kind]:
        raise _refusal(f"{kind} of type {element.get('type')}")
    target, rom, backend = element.find("target"), element.find("rom"), element.find("backend")
    if kind == "channel" and (target is None or target.get("name") != AGENT_CHANNEL):
        raise _refusal("a channel that is not the agent's")
    if kind == "disk" and element.find("address") is None:
        raise _refusal("a disk without address")
    if rom is not None and set(rom.attrib) - {"enabled", "bar"}:
        raise _refusal("a ROM of its own")
    if kind == "rng" and (backend is None or (backend.get("model"), backend.text) != ("random", "/dev/urandom")):
        raise _refusal("another source of randomness")


def _refusal(what: str) -> SeamError:
    return SeamError("BAD_STATE", f"the memory is of no machine of ours: {what}")
