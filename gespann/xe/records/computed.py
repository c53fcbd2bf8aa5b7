"""Columns that are more than one field of their own record: where they come from. One table per class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.call import Call
from gespann.xe.records.columns import Fetcher, Reader, Row, Value
from gespann.xe.tables import NOT_IN_DATABASE

UNKNOWN = "<unknown>"
UNKNOWN_TIME = "<unknown time>"


@dataclass(frozen=True)
class Related:
    """A field of the object that ``via`` points at: ``Related("metrics", "VM_metrics", "start_time", "<unknown>")``."""

    via: str
    related: str
    attribute: str
    missing: str = NOT_IN_DATABASE


@dataclass(frozen=True)
class Computed:
    """Anything else that needs no further call."""

    read: Reader
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """What takes a call of its own, shown only for single objects."""

    fetch: Fetcher


def _metrics(attribute: str, missing: str = NOT_IN_DATABASE) -> Related:
    return Related("metrics", "VM_metrics", attribute, missing)


def _guest(attribute: str) -> Related:
    return Related("guest_metrics", "VM_guest_metrics", attribute)


def _list_from(method: str) -> Fetched:
    """A set of strings; empty where the server refuses, as it does for control domains."""

    async def fetch(call: Call, row: Row) -> Value:
        try:
            return [str(item) for item in await call.request(method, row.ref)]
        except XenApiError:
            return []

    return Fetched(fetch)


async def _possible_hosts(call: Call, row: Row) -> Value:
    hosts = await call.request("VM.get_possible_hosts", row.ref)
    await call.tables.fetch(["host"])
    return [call.tables.uuid("host", str(host)) for host in hosts]


async def _cooperative(call: Call, row: Row) -> Value:
    try:
        return "true" if await call.request("VM.get_cooperative", row.ref) else "false"
    except XenApiError:
        return "true"


async def _attachable(call: Call, row: Row) -> Value:
    try:
        await call.request("VBD.assert_attachable", row.ref)
    except XenApiError as error:
        return f"false (error: {': '.join([error.code, *error.params])})"
    return "true"


def _throughput_kbs(owner: str, message: str, source: Callable[[dict[str, Any]], str]) -> Fetched:
    """A rate that the server measures in bytes a second."""

    async def fetch(call: Call, row: Row) -> Value:
        try:
            rate = await call.request(message, str(row.record[owner]), source(row.record))
        except XenApiError:
            return UNKNOWN
        return f"{float(rate) / 1024:.3f}"

    return Fetched(fetch)


def _disk(vbd: dict[str, Any]) -> str:
    """As figures of disks are called, whatever the guest calls them: 0 is xvda, 26 is xvdaa."""
    letters, number = "", int(vbd["userdevice"]) + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"xvd{letters}"


async def _host_free_memory(call: Call, row: Row) -> Value:
    return str(await call.request("host.compute_free_memory", row.ref))


async def _cpu_utilisation(call: Call, row: Row) -> Value:
    try:
        share = await call.request("host.query_data_source", str(row.record["host"]), f"cpu{row.record['number']}")
    except XenApiError:
        return UNKNOWN
    return f"{float(share):.3f}"


async def _sr_types(call: Call, row: Row) -> Value:
    return sorted(str(name) for name in await call.request("SR.get_supported_types"))


def _sr_host(row: Row) -> Value:
    pbds = row.attribute("PBDs")
    if len(pbds) > 1:
        return "<shared>"
    hosts = [pbd["host"] for ref in pbds if (pbd := row.tables.record("PBD", ref))]
    return row.tables.name_label("host", hosts[0]) if hosts else NOT_IN_DATABASE


def _vdi_name(row: Row) -> Value:
    return "<EMPTY>" if row.attribute("empty") else row.tables.name_label("VDI", row.attribute("VDI"))


def _pif_speed(row: Row) -> Value:
    metrics = row.tables.record("PIF_metrics", row.attribute("metrics"))
    if metrics is None:
        return NOT_IN_DATABASE
    return f"{int(metrics['speed'])} Mbit/s" if int(metrics["speed"]) else "unknown"


def _pif_duplex(row: Row) -> Value:
    metrics = row.tables.record("PIF_metrics", row.attribute("metrics"))
    if metrics is None:
        return NOT_IN_DATABASE
    return "full" if metrics["duplex"] else "half" if metrics["carrier"] else "unknown"


def _host_software(side: str, other: str, final: str) -> Reader:
    """Uuids of what was applied to a host, through the records that say so."""

    def read(row: Row) -> Value:
        links = [row.tables.record(other, ref) for ref in row.attribute(side)]
        return [row.tables.uuid(final, str(link["pool_patch"])) for link in links if link]

    return read


async def _vcpus_utilisation(call: Call, row: Row) -> Value:
    await call.tables.fetch(["VM_metrics"])
    metrics = call.tables.record("VM_metrics", str(row.record["metrics"]))
    shares = metrics["VCPUs_utilisation"] if metrics else {}
    return {str(vcpu): f"{float(share):.3f}" for vcpu, share in shares.items()}


def _uuids(attribute: str, related: str) -> Computed:
    def read(row: Row) -> Value:
        return [row.tables.uuid(related, str(ref)) for ref in row.attribute(attribute)]

    return Computed(read, (related,))


def _role_names(row: Row) -> Value:
    return [row.tables.name_label("role", str(ref)) for ref in row.attribute("roles")]


def _quoted(attribute: str) -> Fetched:
    async def fetch(call: Call, row: Row) -> Value:
        return f"'{row.attribute(attribute)}'"

    return Fetched(fetch)


_VM: dict[str, str | Related | Computed | Fetched] = {
    "dom-id": "domid",
    "console-uuids": "consoles",
    "memory-actual": _metrics("memory_actual"),
    "hvm": _metrics("hvm", "false"),
    "nomigrate": _metrics("nomigrate", "false"),
    "nested-virt": _metrics("nested_virt", "false"),
    "numa-optimised": _metrics("numa_optimised"),
    "numa-nodes": _metrics("numa_nodes"),
    "numa-node-memory": _metrics("numa_node_memory"),
    "current-domain-type": _metrics("current_domain_type"),
    "start-time": _metrics("start_time", UNKNOWN_TIME),
    "install-time": _metrics("install_time", UNKNOWN_TIME),
    "VCPUs-number": _metrics("VCPUs_number"),
    "VCPUs-utilisation": Fetched(_vcpus_utilisation),
    "guest-metrics-last-updated": _guest("last_updated"),
    **{
        name: _guest(name.replace("-", "_"))
        for name in (
            *("os-version", "netbios-name", "PV-drivers-version", "PV-drivers-up-to-date", "memory", "disks"),
            *("networks", "services", "PV-drivers-detected", "other", "live"),
            *("can-use-hotplug-vbd", "can-use-hotplug-vif"),
        )
    },
    "allowed-VBD-devices": _list_from("VM.get_allowed_VBD_devices"),
    "allowed-VIF-devices": _list_from("VM.get_allowed_VIF_devices"),
    "possible-hosts": Fetched(_possible_hosts),
    "cooperative": Fetched(_cooperative),
    "last-boot-record": _quoted("last_booted_record"),
}

# A string names the XenAPI field. What neither stands here nor follows from its name is not offered at all.
TABLES: dict[str, dict[str, str | Related | Computed | Fetched]] = {
    "vm": _VM,
    "template": _VM,
    "snapshot": _VM,
    "vbd": {
        "vdi-name-label": Computed(_vdi_name, ("VDI",)),
        "attachable": Fetched(_attachable),
        "io_read_kbs": _throughput_kbs("VM", "VM.query_data_source", lambda vbd: f"vbd_{_disk(vbd)}_read"),
        "io_write_kbs": _throughput_kbs("VM", "VM.query_data_source", lambda vbd: f"vbd_{_disk(vbd)}_write"),
    },
    "vif": {
        "io_read_kbs": _throughput_kbs("VM", "VM.query_data_source", lambda vif: f"vif_{vif['device']}_rx"),
        "io_write_kbs": _throughput_kbs("VM", "VM.query_data_source", lambda vif: f"vif_{vif['device']}_tx"),
    },
    "vdi": {"crashdump-uuids": "crash_dumps"},
    "sr": {"host": Computed(_sr_host, ("PBD", "host"))},
    "pif": {
        "speed": Computed(_pif_speed, ("PIF_metrics",)),
        "duplex": Computed(_pif_duplex, ("PIF_metrics",)),
        "io_read_kbs": _throughput_kbs("host", "host.query_data_source", lambda pif: f"pif_{pif['device']}_rx"),
        "io_write_kbs": _throughput_kbs("host", "host.query_data_source", lambda pif: f"pif_{pif['device']}_tx"),
        **{
            name: Related("metrics", "PIF_metrics", name.replace("-", "_"))
            for name in ("carrier", "vendor-id", "vendor-name", "device-id", "device-name", "pci-bus-path")
        },
    },
    "host": {
        "memory-total": Related("metrics", "host_metrics", "memory_total"),
        "memory-free": Related("metrics", "host_metrics", "memory_free"),
        "host-metrics-live": Related("metrics", "host_metrics", "live"),
        "memory-free-computed": Fetched(_host_free_memory),
        "patches": Computed(_host_software("patches", "host_patch", "pool_patch"), ("host_patch", "pool_patch")),
    },
    "host-cpu": {"utilisation": Fetched(_cpu_utilisation)},
    "pool": {"supported-sr-types": Fetched(_sr_types)},
    "message": {"class": "cls"},
    "subject": {"roles": Computed(_role_names, ("role",))},
    "role": {"name": "name_label", "description": "name_description"},
    "hostdriver": {"variants-uuid": _uuids("variants", "Driver_variant")},
}

DEPRECATED = {
    *(("vm", name) for name in ("ha-always-run", "PV-drivers-up-to-date", "cooperative")),
    ("host", "patches"),
    ("vdi", "parent"),
    ("sm", "capabilities"),
}
# Lists that have always been printed with ", " where all others have "; ".
COMMA_SEPARATED = frozenset(["tags", "after-apply-guidance", "patches", "updates", "required-cluster-stack", "purpose"])

__all__ = ["COMMA_SEPARATED", "DEPRECATED", "TABLES", "Computed", "Fetched", "Related"]
