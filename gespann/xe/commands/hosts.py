"""Hosts, and what can be measured on hosts, VMs and SRs."""

from functools import partial

from gespann.xe.api import NULL_REF
from gespann.xe.call import Call, Handler
from gespann.xe.selectors import HOSTS, SRS, VMS, Selected, Selection, for_each, select_one


async def host_disable(call: Call) -> None:
    more = [call.arguments.boolean("auto-enable")] if "auto-enable" in call.arguments else []

    async def disable(host: Selected) -> None:
        await call.request("host.disable", host.ref, *more)

    await for_each(call, HOSTS, disable)


async def host_evacuate(call: Call) -> None:
    """Moves all VMs to other hosts; whether the host may keep taking VMs is `host-disable`."""
    network_uuid = call.arguments.text("network-uuid")
    more: list[str | int] = [await call.ref_of("network", network_uuid)] if network_uuid else []
    if "batch-size" in call.arguments:
        more = [*(more or [NULL_REF]), call.arguments.integer("batch-size")]

    async def evacuate(host: Selected) -> None:
        await call.run_task("host.evacuate", host.ref, *more)

    await for_each(call, HOSTS, evacuate)


async def host_or_coordinator(call: Call, key: str = "uuid") -> str:
    uuid = call.arguments.text(key)
    if uuid:
        return await call.ref_of("host", uuid)
    return str(await call.request("pool.get_master", await call.only_pool()))


async def host_cpu_info(call: Call) -> None:
    info = await call.request("host.get_cpu_info", await host_or_coordinator(call))
    await call.printer.table([[(str(key), str(value)) for key, value in info.items()]])


async def host_get_cpu_features(call: Call) -> None:
    info = await call.request("host.get_cpu_info", await host_or_coordinator(call))
    await call.printer.values([str(info.get("features", ""))])


async def pool_get_cpu_features(call: Call) -> None:
    uuid = call.arguments.text("uuid")
    pool = await call.ref_of("pool", uuid) if uuid else await call.only_pool()
    info = await call.request("pool.get_cpu_info", pool)
    await call.printer.values([str(info.get("features", ""))])


async def host_get_vms_which_prevent_evacuation(call: Call) -> None:
    host = await call.ref_of("host", call.arguments.required("uuid"))
    found = await call.request("host.get_vms_which_prevent_evacuation", host)
    await call.tables.fetch(["VM"])
    await call.printer.table(
        [[("uuid", call.tables.uuid("VM", vm)), ("reason", ": ".join(reason))] for vm, reason in found.items()]
    )


async def list_data_sources(selection: Selection, class_name: str, call: Call) -> None:
    chosen = await select_one(call, selection)
    found = await call.request(f"{class_name}.get_data_sources", chosen.ref)
    await call.printer.table(
        [
            [
                (key, str(source[key]).lower() if isinstance(source[key], bool) else str(source[key]))
                for key in ("name_label", "name_description", "enabled", "standard", "min", "max", "units")
                if key in source
            ]
            for source in found
        ]
    )


COMMANDS: dict[str, Handler] = {
    "host-disable": host_disable,
    "host-evacuate": host_evacuate,
    "host-cpu-info": host_cpu_info,
    "host-get-cpu-features": host_get_cpu_features,
    "host-get-vms-which-prevent-evacuation": host_get_vms_which_prevent_evacuation,
    "pool-get-cpu-features": pool_get_cpu_features,
    "host-data-source-list": partial(list_data_sources, HOSTS, "host"),
    "vm-data-source-list": partial(list_data_sources, VMS, "VM"),
    "sr-data-source-list": partial(list_data_sources, SRS, "SR"),
}
