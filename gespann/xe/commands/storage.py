"""Virtual disks, block devices and storage repositories."""

import asyncio

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF
from gespann.xe.call import Call, Handler
from gespann.xe.commands.parameters import enum_value
from gespann.xe.commands.vm_devices import vbd_record
from gespann.xe.failures import CommandFailure, ParameterMissing

_FROM_FILE = "filename:"  # device-config-filename:key=path, seen as this key of device-config
_RETRY_S = 1.0


async def vdi_create(call: Call) -> None:
    arguments = call.arguments
    record = {
        "name_label": arguments.required("name-label"),
        "name_description": "",
        "SR": await call.ref_of("SR", arguments.required("sr-uuid")),
        "virtual_size": arguments.size("virtual-size"),
        "type": enum_value("vdi_type", "type", arguments.text("type", "user")),
        "sharable": arguments.boolean("sharable"),
        "read_only": False,
        "xenstore_data": {},
        "other_config": {},
        "sm_config": arguments.mapping("sm-config"),
        "tags": list(arguments.mapping("tags")),
    }
    vdi = await call.run_task("VDI.create", record)
    await call.printer.values([await call.uuid_of("VDI", vdi)])


async def vdi_resize(call: Call) -> None:
    vdi = await call.ref_of("VDI", call.arguments.required("uuid"))
    size_bytes = call.arguments.size("disk-size")
    message = "VDI.resize_online" if call.arguments.boolean("online") else "VDI.resize"
    await call.run_task(message, vdi, size_bytes)


async def vdi_copy(call: Call) -> None:
    arguments = call.arguments
    if ("sr-uuid" in arguments) == ("into-vdi-uuid" in arguments):
        raise CommandFailure("Please specify one but not both of: a destination sr-uuid, a destination into-vdi-uuid")
    vdi = await call.ref_of("VDI", arguments.required("uuid"))
    targets = []
    for class_name, key in (("SR", "sr-uuid"), ("VDI", "base-vdi-uuid"), ("VDI", "into-vdi-uuid")):
        uuid = arguments.text(key)
        targets.append(await call.ref_of(class_name, uuid) if uuid else NULL_REF)
    copy = await call.run_task("VDI.copy", vdi, *targets)
    await call.printer.values([await call.uuid_of("VDI", copy)])


async def vdi_introduce(call: Call) -> None:
    arguments = call.arguments
    uuid = arguments.required("uuid")
    vdi = await call.request(
        "VDI.introduce",
        uuid,
        arguments.text("name-label"),
        arguments.text("name-description"),
        await call.ref_of("SR", arguments.required("sr-uuid")),
        enum_value("vdi_type", "type", arguments.required("type")),
        arguments.boolean("sharable"),
        arguments.boolean("read-only"),
        arguments.mapping("other-config"),
        arguments.required("location"),
        arguments.mapping("xenstore-data"),
        arguments.mapping("sm-config"),
        arguments.boolean("managed", True),
    )
    await call.printer.values([await call.uuid_of("VDI", str(vdi))])


async def vdi_unlock(call: Call) -> None:
    call.must_be_forced()
    await call.request("VDI.force_unlock", await call.ref_of("VDI", call.arguments.required("uuid")))


async def vbd_create(call: Call) -> None:
    arguments = call.arguments
    vm = await call.ref_of("VM", arguments.required("vm-uuid"))
    device = arguments.required("device")
    kind = enum_value("vbd_type", "type", arguments.text("type", "Disk"))
    mode = enum_value("vbd_mode", "mode", arguments.text("mode", "RO" if kind == "CD" else "RW"))
    vdi_uuid = arguments.text("vdi-uuid")
    if not vdi_uuid and kind != "CD":
        raise CommandFailure("Empty VBDs can only be made for type=CD")
    vdi = await call.ref_of("VDI", vdi_uuid) if vdi_uuid else NULL_REF
    record = vbd_record(vm, vdi, device, kind=kind, mode=mode, bootable=arguments.boolean("bootable"))
    record["unpluggable"] = arguments.boolean("unpluggable", True)
    vbd = str(await call.request("VBD.create", record))
    await call.printer.values([await call.uuid_of("VBD", vbd)])


async def vbd_unplug(call: Call) -> None:
    """With ``timeout`` a guest that holds on to the disk is asked again until the seconds are over."""
    vbd = await call.ref_of("VBD", call.arguments.required("uuid"))
    timeout_s = call.arguments.integer("timeout", 0)
    message = "VBD.unplug_force" if call.arguments.boolean("force") else "VBD.unplug"
    refusal: XenApiError | None = None
    try:
        async with asyncio.timeout(timeout_s or None):
            while True:
                try:
                    await call.request(message, vbd)
                    return
                except XenApiError as error:
                    if error.code != "DEVICE_DETACH_REJECTED" or not timeout_s:
                        raise
                    refusal = error
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise refusal or XenApiError("DEVICE_DETACH_TIMEOUT", ["VBD", vbd]) from None


async def _device_config(call: Call) -> dict[str, str]:
    """``device-config:key=value``; ``device-config-filename:key=path`` takes the value from a file of the client,
    without the newline that ends a file of one line (the original keeps it, and a password so written never fits)."""
    config = {}
    for key, value in call.arguments.mapping("device-config").items():
        if key.startswith(_FROM_FILE):
            config[key.removeprefix(_FROM_FILE)] = (
                (await call.client.load(value)).decode("utf-8", "replace").removesuffix("\n")
            )
        else:
            config[key] = value
    return config


async def _coordinator(call: Call) -> str:
    return str(await call.request("pool.get_master", await call.only_pool()))


async def _sr_host(call: Call, shared: bool) -> str:
    """The host that makes the SR: the one named, or for a shared SR the coordinator, or the only one there is."""
    uuid = call.arguments.text("host-uuid")
    if uuid:
        return await call.ref_of("host", uuid)
    if shared:
        return await _coordinator(call)
    hosts = [str(ref) for ref in await call.request("host.get_all")]
    if len(hosts) != 1:
        raise ParameterMissing("host-uuid")
    return hosts[0]


async def sr_create(call: Call) -> None:
    arguments = call.arguments
    shared = arguments.boolean("shared")
    sr = await call.run_task(
        "SR.create",
        await _sr_host(call, shared),
        await _device_config(call),
        arguments.size("physical-size", 0),
        arguments.required("name-label"),
        arguments.text("name-description"),
        arguments.required("type"),
        arguments.text("content-type"),
        shared,
        arguments.mapping("sm-config"),
    )
    await call.printer.values([await call.uuid_of("SR", sr)])


async def sr_introduce(call: Call) -> None:
    arguments = call.arguments
    sr = await call.request(
        "SR.introduce",
        arguments.required("uuid"),
        arguments.required("name-label"),
        arguments.text("name-description"),
        arguments.required("type"),
        arguments.text("content-type"),
        arguments.boolean("shared"),
        arguments.mapping("sm-config"),
    )
    await call.printer.values([await call.uuid_of("SR", str(sr))])


async def _probe_parameters(call: Call) -> tuple[str, dict[str, str], str, dict[str, str]]:
    uuid = call.arguments.text("host-uuid")
    host = await call.ref_of("host", uuid) if uuid else await _coordinator(call)
    kind, sm_config = call.arguments.required("type"), call.arguments.mapping("sm-config")
    return host, await _device_config(call), kind, sm_config


async def sr_probe(call: Call) -> None:
    """The driver's XML as it is."""
    await call.printer.values([await call.run_task("SR.probe", *await _probe_parameters(call))])


async def sr_probe_ext(call: Call) -> None:
    found = await call.request("SR.probe_ext", *await _probe_parameters(call))
    await call.printer.table([_probe_record(result) for result in found])


def _probe_record(result: dict[str, object]) -> list[tuple[str, str]]:
    def shown(value: object) -> str:
        if isinstance(value, dict):
            return "; ".join(f"{key}: {shown(item)}" for key, item in value.items())
        return str(value).lower() if isinstance(value, bool) else str(value)

    return [(key.replace("_", "-"), shown(value)) for key, value in result.items()]


async def pbd_create(call: Call) -> None:
    record = {
        "host": await call.ref_of("host", call.arguments.required("host-uuid")),
        "SR": await call.ref_of("SR", call.arguments.required("sr-uuid")),
        "device_config": await _device_config(call),
        "other_config": {},
    }
    pbd = str(await call.request("PBD.create", record))
    await call.printer.values([await call.uuid_of("PBD", pbd)])


COMMANDS: dict[str, Handler] = {
    "vdi-create": vdi_create,
    "vdi-resize": vdi_resize,
    "vdi-copy": vdi_copy,
    "vdi-introduce": vdi_introduce,
    "vdi-unlock": vdi_unlock,
    "vbd-create": vbd_create,
    "vbd-unplug": vbd_unplug,
    "sr-create": sr_create,
    "sr-introduce": sr_introduce,
    "sr-probe": sr_probe,
    "sr-probe-ext": sr_probe_ext,
    "pbd-create": pbd_create,
}
