"""Messages, the pool's notices to people."""

from gespann.xe.call import Call, Handler
from gespann.xe.commands.parameters import enum_value
from gespann.xe.failures import CommandFailure, ParameterMissing

_ABOUT = {"vm-uuid": "VM", "host-uuid": "Host", "sr-uuid": "SR", "pool-uuid": "Pool"}


async def message_create(call: Call) -> None:
    arguments = call.arguments
    key = next((key for key in _ABOUT if key in arguments), None)
    if key is None:
        raise CommandFailure("Need to specify one of: vm-uuid, host-uuid, sr-uuid or pool-uuid")
    await call.request(
        "message.create",
        arguments.required("name"),
        arguments.integer("priority"),
        enum_value("cls", "class", _ABOUT[key]),
        arguments.required(key),
        arguments.required("body"),
    )


async def message_destroy(call: Call) -> None:
    uuids = call.arguments.words("uuids") or call.arguments.words("uuid")
    if not uuids:
        raise ParameterMissing("uuid")
    refs = [await call.ref_of("message", uuid) for uuid in uuids]
    for ref in refs:
        await call.request("message.destroy", ref)


async def message_destroy_all(call: Call) -> None:
    """``before``, ``after``: dates; ``priority``: a number. All that are given must hold."""
    filters = {key: value for key in ("before", "after", "priority") if (value := call.arguments.get(key, None))}
    await call.run_task("message.destroy_all", filters)


COMMANDS: dict[str, Handler] = {
    "message-create": message_create,
    "message-destroy": message_destroy,
    "message-destroy-all": message_destroy_all,
}
