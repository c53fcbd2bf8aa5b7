"""The messages of host, VM and SR about figures: which there are, what they are now, which are recorded."""

import math
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


@implements("VM.get_data_sources")
async def vm_get_data_sources(call: Call, self: str) -> list[dict[str, Any]]:
    return _listed(_vm(call, self))


@implements("VM.query_data_source")
async def vm_query_data_source(call: Call, self: str, data_source: str) -> float:
    return _value(_vm(call, self), data_source)


@implements("VM.record_data_source")
async def vm_record_data_source(call: Call, self: str, data_source: str) -> None:
    _known(_vm(call, self).record(data_source), data_source)


@implements("VM.forget_data_source_archives")
async def vm_forget_data_source_archives(call: Call, self: str, data_source: str) -> None:
    _known(_vm(call, self).forget(data_source), data_source)


@implements("host.get_data_sources")
async def host_get_data_sources(call: Call, host: str) -> list[dict[str, Any]]:
    return _listed(_host(call, host))


@implements("host.query_data_source")
async def host_query_data_source(call: Call, host: str, data_source: str) -> float:
    return _value(_host(call, host), data_source)


@implements("host.record_data_source")
async def host_record_data_source(call: Call, host: str, data_source: str) -> None:
    _known(_host(call, host).record(data_source), data_source)


@implements("host.forget_data_source_archives")
async def host_forget_data_source_archives(call: Call, host: str, data_source: str) -> None:
    _known(_host(call, host).forget(data_source), data_source)


@implements("SR.get_data_sources")
async def sr_get_data_sources(call: Call, sr: str) -> list[dict[str, Any]]:
    return _listed(_sr(call, sr))


@implements("SR.query_data_source")
async def sr_query_data_source(call: Call, sr: str, data_source: str) -> float:
    return _value(_sr(call, sr), data_source)


@implements("SR.record_data_source")
async def sr_record_data_source(call: Call, sr: str, data_source: str) -> None:
    _known(_sr(call, sr).record(data_source), data_source)


@implements("SR.forget_data_source_archives")
async def sr_forget_data_source_archives(call: Call, sr: str, data_source: str) -> None:
    _known(_sr(call, sr).forget(data_source), data_source)
