"""device-config and sm-config, checked and read. Pure."""

import re

from gespann.seams.sr_driver import Sr, SrError
from gespann.sr.equal import errors
from gespann.sr.equal.connection import Address
from gespann.sr.equal.info import INFO
from gespann.sr.equal.words import DELETE_OLDEST, STOP_SNAPSHOTS, SnapPolicy

# Put there by the pool itself or by older clients; they say nothing to us.
_FOREIGN_KEYS = {"SRmaster", "multihomed"}
_MOST_RESERVE_PERCENT = 100_000
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:%_-]{0,253})\Z")
_USERNAME = re.compile(r"[\x21-\x7e]{1,64}\Z")


def refuse_unknown_keys(device_config: dict[str, str]) -> None:
    known = INFO.configuration.keys() | _FOREIGN_KEYS
    unknown = sorted(key for key in device_config.keys() - known if not key.endswith("_secret"))
    if unknown:
        raise SrError(
            errors.BAD_REQUEST,
            "The device-config has a key that SR type equal does not know",
            f"{', '.join(unknown)}; it knows {', '.join(INFO.configuration)}",
        )


def address(device_config: dict[str, str], sm_config: dict[str, str]) -> Address:
    for key in ("target", "username", "password"):
        if not device_config.get(key):
            raise errors.missing_key(key)
    host = device_config.get("control") or device_config["target"]
    port = device_config.get("port") or "22"
    if not _HOST.match(host):
        raise SrError(errors.INVALID_TARGET, "Not an address or host name", host[:80])
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise SrError(errors.INVALID_TARGET, "The port is a number from 1 to 65535", port[:80])
    if not _USERNAME.match(device_config["username"]):
        raise SrError(errors.PERMISSION_DENIED, "Not a possible account name")
    return Address(
        host=host,
        port=int(port),
        username=device_config["username"],
        password=device_config["password"],
        host_key=sm_config.get("host-key", ""),
    )


def allocation(config: dict[str, str]) -> str | None:
    """thick, thin or not said."""
    value = config.get("allocation")
    if value not in (None, "", "thick", "thin"):
        raise SrError(errors.BAD_ARGUMENT, "allocation is thick or thin", str(value)[:80])
    return value or None


def sr_allocation(sr: Sr) -> str | None:
    """``sm-config`` is where the pool keeps it; XenCenter says it in the device-config."""
    return allocation(sr.sm_config) or allocation(sr.device_config)


def snap_policy(config: dict[str, str]) -> SnapPolicy:
    reserve, depletion = config.get("snap-reserve-percentage"), config.get("snap-depletion")
    if reserve is not None and (not re.fullmatch(r"[0-9]{1,6}", reserve) or int(reserve) > _MOST_RESERVE_PERCENT):
        raise SrError(
            errors.SNAP_RESERVE,
            "Invalid snap-reserve-percentage value, must be an integer",
            f"{reserve[:80]}; from 0 to {_MOST_RESERVE_PERCENT}",
        )
    if depletion is not None and depletion not in (STOP_SNAPSHOTS, DELETE_OLDEST, "volume-offline"):
        raise SrError(
            errors.SNAP_DEPLETION,
            "Invalid snap-depletion value, must be one of 'stop-snapshots', 'delete-oldest' or 'volume-offline'",
            depletion[:80],
        )
    return SnapPolicy(None if reserve is None else int(reserve), depletion)


def new_volume_snap_policy(volume_config: dict[str, str], sr_config: dict[str, str]) -> SnapPolicy:
    """The volume's word, else the repository's, else full reserve whatever the group's default is. No word about
    depletion: no snapshot is to be deleted, if the group can do that (``Volumes.create``)."""
    own, shared = snap_policy(volume_config), snap_policy(sr_config)
    reserve = own.reserve_percent if own.reserve_percent is not None else shared.reserve_percent
    return SnapPolicy(100 if reserve is None else reserve, own.depletion or shared.depletion)
