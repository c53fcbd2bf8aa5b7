"""Schedules of snapshots."""

from gespann.xe.call import Call, Handler
from gespann.xe.commands.parameters import enum_value


async def vmss_create(call: Call) -> None:
    arguments = call.arguments
    record = {
        "name_label": arguments.required("name-label"),
        "name_description": arguments.text("name-description"),
        "enabled": arguments.boolean("enabled", default=True),
        "type": enum_value("vmss_type", "type", arguments.required("type")),
        "retained_snapshots": arguments.integer("retained-snapshots", default=7),
        "frequency": enum_value("vmss_frequency", "frequency", arguments.required("frequency")),
        "schedule": arguments.mapping("schedule"),
    }
    ref = await call.request("VMSS.create", record)
    await call.printer.values([await call.uuid_of("VMSS", str(ref))])


COMMANDS: dict[str, Handler] = {"vmss-create": vmss_create}
