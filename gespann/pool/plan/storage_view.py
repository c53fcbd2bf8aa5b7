"""What plans read of storage: which hosts see an SR, what its driver can do, which VDIs a VM needs."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

#: device-config keys that hold a secret are replaced by <key>_secret, the uuid of a secret object
SECRET_SUFFIX = "_secret"  # noqa: S105 the ending of a key
SECRET_ENDING = "password"  # noqa: S105 the ending of a key


class Records(Protocol):
    """A Database, or a Transaction with what it has changed so far."""

    def get(self, class_name: str, ref: str) -> Mapping[str, Any]: ...

    def where(self, class_name: str, **equals: Any) -> Sequence[tuple[str, Mapping[str, Any]]]: ...


def peek(records: Records, class_name: str, ref: str) -> Mapping[str, Any] | None:
    """The record, or None for a reference to nothing."""
    if ref == NULL_REF or not ref:
        return None
    try:
        return records.get(class_name, ref)
    except XenApiError:
        return None


def attached_hosts(records: Records, sr: str) -> list[str]:
    """The hosts whose connection to the SR is up, those first that answer: work on volumes goes to the first."""
    pbds = [records.get("PBD", ref) for ref in records.get("SR", sr)["PBDs"]]
    hosts = [pbd["host"] for pbd in pbds if pbd["currently_attached"]]
    return sorted(hosts, key=lambda host: not is_live(records, host)) if len(hosts) > 1 else hosts


def is_live(records: Records, host: str) -> bool:
    """Its agent answered when it was asked last."""
    record = peek(records, "host", host)
    metrics = peek(records, "host_metrics", record["metrics"]) if record else None
    return metrics is not None and bool(metrics["live"])


def assert_attached(records: Records, sr: str) -> None:
    record = records.get("SR", sr)
    if not record["PBDs"]:
        raise XenApiError("SR_HAS_NO_PBDS", [sr])
    if not attached_hosts(records, sr):
        raise XenApiError("SR_NOT_ATTACHED", [sr])


def disks_of(records: Records, vm: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The VM's VBDs (ref, record) in the order of their devices."""
    vbds = [(ref, records.get("VBD", ref)) for ref in records.get("VM", vm)["VBDs"]]
    return sorted(
        vbds, key=lambda item: (not item[1]["userdevice"].isdigit(), len(item[1]["userdevice"]), item[1]["userdevice"])
    )
