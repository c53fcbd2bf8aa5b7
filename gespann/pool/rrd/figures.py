"""The messages of host, VM and SR about figures: which there are, what they are now, which are recorded."""

import math
from collections.abc import Callable
from typing import Any, cast

from gespann.pool.api.messages import Call, implements
from gespann.pool.pool import Pool
from gespann.pool.rrd.archive import Rrd
from gespann.pool.rrd.collector import Collector
from gespann.seams.xenapi.errors import XenApiError


def collector_of(pool: Pool) -> Collector:
    if "rrd" not in pool.services:
        Collector(pool)
    return cast(Collector, pool.services["rrd"])


def _host(call: Call, host: str) -> Rrd:
    return collector_of(call.pool).hosts.get(call.pool.db.get("host", host)["uuid"]) or Rrd()


def _vm(call: Call, vm: str) -> Rrd:
    """VM_BAD_POWER_STATE unless it runs: figures are of machines that do."""
    record = call.pool.db.get("VM", vm)
    if record["power_state"] != "Running":
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "running", record["power_state"].lower()])
    return collector_of(call.pool).vms.get(record["uuid"]) or Rrd()


def _sr(call: Call, sr: str) -> Rrd:
    return collector_of(call.pool).srs.get(call.pool.db.get("SR", sr)["uuid"]) or Rrd()


def _known(found: bool, name: str) -> None:
    if not found:
        raise XenApiError("INVALID_VALUE", ["data_source", name[:128]])


def _listed(rrd: Rrd) -> list[dict[str, Any]]:
    """As records of class data_source."""
    return [
        {
            "name_label": source.name,
            "name_description": source.description,
            "enabled": name in rrd.series,
            "standard": source.standard,
            "units": source.units,
            "min": source.least,
            "max": source.most,
            "value": value,
        }
        for name, (source, value) in rrd.offered.items()
    ]


def _value(rrd: Rrd, name: str) -> float:
    _known(name in rrd.offered, name)
    value = rrd.offered[name][1]
    return 0.0 if math.isnan(value) else value  # of a rate, before its second count


def _publish(class_name: str, rrd_of: Callable[[Call, str], Rrd]) -> None:
    """The four messages about data sources, which three classes have alike."""

    @implements(f"{class_name}.get_data_sources")
    async def get_data_sources(call: Call, ref: str) -> list[dict[str, Any]]:
        return _listed(rrd_of(call, ref))

    @implements(f"{class_name}.query_data_source")
    async def query_data_source(call: Call, ref: str, data_source: str) -> float:
        return _value(rrd_of(call, ref), data_source)

    @implements(f"{class_name}.record_data_source")
    async def record_data_source(call: Call, ref: str, data_source: str) -> None:
        _known(rrd_of(call, ref).record(data_source), data_source)

    @implements(f"{class_name}.forget_data_source_archives")
    async def forget_data_source_archives(call: Call, ref: str, data_source: str) -> None:
        _known(rrd_of(call, ref).forget(data_source), data_source)


_publish("VM", _vm)
_publish("host", _host)
_publish("SR", _sr)
