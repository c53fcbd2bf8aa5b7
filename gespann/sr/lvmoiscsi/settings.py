"""device-config, checked and read. Pure."""

import re
from dataclasses import dataclass

from gespann.seams.sr_driver import DriverInfo, SrError
from gespann.sr.lvmoiscsi import errors
from gespann.sr.lvmoiscsi.lun import Portal

INFO = DriverInfo(
    type="lvmoiscsi",
    name_label="LVM over iSCSI",
    name_description="Several virtual disks on one iSCSI LUN, in the on-disk format of LVM2",
    capabilities=(
        *("SR_PROBE", "SR_UPDATE"),
        *("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_RESIZE", "VDI_UPDATE"),
    ),
    configuration={
        "target": "IP address or host name of the iSCSI portal",
        "targetIQN": "Name of the target; sr-probe lists them",
        "SCSIid": "Identifier of the LUN; sr-probe lists them",
        "port": "Port of the portal (optional, 3260 if not given)",
        "chapuser": "The username to be used during CHAP authentication (optional)",
        "chappassword": "The password to be used during CHAP authentication (optional)",
        "localIQN": "Name by which all hosts log in (optional, that of the first host if not given)",
    },
    secret_keys=frozenset({"chappassword"}),
)

_FOREIGN_KEYS = {"SRmaster", "multihomed", "multihomelist", "multiSession", "LUNid"}
_DEFAULT_IQN = "iqn.2001-05.com.example:gespann"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:%_-]{0,253})\Z")
_NAME = re.compile(r"(iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,219}\Z")
_SCSI_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_CHAP_USER = re.compile(r"[A-Za-z0-9._:@-]{1,63}\Z")
_CHAP_SECRET = re.compile(r"[\x21-\x7e]{1,255}\Z")


@dataclass(frozen=True)
class Wanted:
    """What a device-config names; empty where it says nothing yet."""

    portal: Portal
    target: str
    scsi_id: str


def read(config: dict[str, str]) -> Wanted:
    known = INFO.configuration.keys() | _FOREIGN_KEYS
    unknown = sorted(key for key in config.keys() - known if not key.endswith("_secret"))
    if unknown:
        text = "The device-config has a key that SR type lvmoiscsi does not know"
        raise SrError(errors.BAD_REQUEST, text, f"{', '.join(unknown)}; it knows {', '.join(INFO.configuration)}")
    if not config.get("target"):
        raise SrError(errors.NO_TARGET, "The request is missing the target parameter")
    target = "" if config.get("targetIQN") == "*" else config.get("targetIQN", "")
    portal = Portal(
        host=_checked(config["target"], _HOST, "target"),
        port=_port(config.get("port") or "3260"),
        initiator=_checked(config.get("localIQN") or _DEFAULT_IQN, _NAME, "localIQN"),
        chap_user=_checked(config.get("chapuser", ""), _CHAP_USER, "chapuser", empty=True),
        chap_secret=_checked(config.get("chappassword", ""), _CHAP_SECRET, "chappassword", empty=True),
    )
    if bool(portal.chap_user) != bool(portal.chap_secret):
        raise SrError(errors.BAD_REQUEST, "chapuser and chappassword are given together")
    return Wanted(
        portal,
        _checked(target, _NAME, "targetIQN", empty=True),
        _checked(config.get("SCSIid", ""), _SCSI_ID, "SCSIid", empty=True),
    )


def _checked(value: str, pattern: re.Pattern[str], key: str, *, empty: bool = False) -> str:
    if (empty and not value) or pattern.match(value):
        return value
    shown = "" if key == "chappassword" else value[:80]
    raise SrError(errors.BAD_REQUEST, f"The device-config key {key} has an impossible value", shown)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise SrError(errors.BAD_REQUEST, "The port is a number from 1 to 65535", text[:80])
    return int(text)
