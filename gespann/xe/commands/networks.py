"""Networks and the network interfaces of VMs."""

from gespann.xe.call import Call, Handler

DEFAULT_MTU = 1500


async def network_create(call: Call) -> None:
    arguments = call.arguments
    record = {
        "name_label": arguments.required("name-label"),
        "name_description": arguments.text("name-description"),
        "MTU": arguments.integer("MTU", DEFAULT_MTU),
        "other_config": {},
        "bridge": arguments.text("bridge"),
        "managed": arguments.boolean("managed", True),
        "tags": [],
    }
    network = str(await call.request("network.create", record))
    await call.printer.values([await call.uuid_of("network", network)])


async def vif_create(call: Call) -> None:
    """``mac=random``, or no mac, lets the pool choose one."""
    arguments = call.arguments
    vm = await call.ref_of("VM", arguments.required("vm-uuid"))
    network = await call.ref_of("network", arguments.required("network-uuid"))
    mac = arguments.text("mac", "random")
    record = {
        "device": arguments.required("device"),
        "network": network,
        "VM": vm,
        "MAC": "" if mac == "random" else mac,
        "MTU": DEFAULT_MTU,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    vif = str(await call.request("VIF.create", record))
    await call.printer.values([await call.uuid_of("VIF", vif)])


async def vif_unplug(call: Call) -> None:
    message = "VIF.unplug_force" if call.arguments.boolean("force") else "VIF.unplug"
    await call.request(message, await call.ref_of("VIF", call.arguments.required("uuid")))


COMMANDS: dict[str, Handler] = {
    "network-create": network_create,
    "vif-create": vif_create,
    "vif-unplug": vif_unplug,
}
