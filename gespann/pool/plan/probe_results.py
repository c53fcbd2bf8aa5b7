"""What a driver's probe says in XML, for the records of SR.probe_ext: where a repository is, or could be made, and what
of the device-config is still to be chosen. The elements are those that ``SR.probe`` shows."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

#: element -> (its child that names the choice, the device-config key that it is for, whether that is the last one)
_CHOICES = {
    "StoragePool": ("Name", "storagepool", True),
    "TGT": ("TargetIQN", "targetIQN", False),
    "LUN": ("SCSIid", "SCSIid", True),
}
#: stands for all targets together, which no repository here can be on
_ALL_TARGETS = "*"


@dataclass(frozen=True)
class Found:
    """``leads``: what is to be added to the device-config. ``sr_uuid``: of a repository that is there."""

    leads: dict[str, str]
    complete: bool
    extra_info: dict[str, str] = field(default_factory=dict)
    sr_uuid: str = ""
    name_label: str = ""
    name_description: str = ""


def found_in(text: str) -> list[Found] | None:
    """None: that is no answer of a probe. One that names nothing says that a repository can be made right there."""
    try:
        root = fromstring(text.strip())
    except (ET.ParseError, DefusedXmlException):
        return None
    found = [_repository(element) for element in root.iter("SR")]
    for kind, (name, key, last) in _CHOICES.items():
        found += [one for element in root.iter(kind) if (one := _choice(element, name, key, last)) is not None]
    return found or [Found({}, True)]


def _texts(element: ET.Element) -> dict[str, str]:
    return {child.tag: (child.text or "").strip() for child in element}


def _repository(element: ET.Element) -> Found:
    said = _texts(element)
    leads = {"storagepool": said["Aggregate"]} if said.get("Aggregate") else {}
    return Found(leads, True, {}, said.get("UUID", ""), said.get("name_label", ""), said.get("name_description", ""))


def _choice(element: ET.Element, name: str, key: str, last: bool) -> Found | None:
    said = _texts(element)
    chosen = said.pop(name, "")
    return Found({key: chosen}, last, said) if chosen and chosen != _ALL_TARGETS else None


def without_secrets(device_config: Mapping[str, str], is_secret: frozenset[str]) -> dict[str, str]:
    return {key: value for key, value in device_config.items() if key not in is_secret}
