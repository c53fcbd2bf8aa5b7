"""``event-wait``: returns once an object is as wished."""

from gespann.xe.api import Record
from gespann.xe.call import EVENT_TIMEOUT_S, Call, Handler
from gespann.xe.failures import CommandFailure, ExitWith, UnknownField
from gespann.xe.filters import Filter, needed_classes, parse_filter
from gespann.xe.records.catalog import ObjectClass, object_classes
from gespann.xe.records.columns import Row

WAITED_FOR = (
    *("vm", "vdi", "sr", "host", "network", "vif", "pif", "vbd", "pbd"),
    *("pool", "task", "subject", "role", "secret", "vmss"),
)
DIFFERENT = "/="  # event-wait status=/=pending: anything but pending


async def event_wait(call: Call) -> None:
    name = call.arguments.required("class")
    if name not in WAITED_FOR:
        raise CommandFailure(f"Cli listening for class '{name}' not currently implemented")
    object_class = object_classes()[name]
    wishes = [_wish(object_class, key, value) for key, value in call.arguments.filters("class")]
    token = ""
    while True:
        batch = await call.request("event.from", [object_class.api_class], token, EVENT_TIMEOUT_S)
        token = batch["token"]
        snapshots = {e["ref"]: e["snapshot"] for e in batch["events"] if e["operation"] != "del"}
        if await _any_as_wished(call, wishes, snapshots):
            return
        if call.client.gone:
            raise ExitWith(1)


def _wish(object_class: ObjectClass, name: str, value: str) -> tuple[Filter, bool]:
    """A filter, and whether it should match."""
    same = not value.startswith(DIFFERENT)
    try:
        return parse_filter(object_class, name, value.removeprefix(DIFFERENT)), same
    except UnknownField:
        raise CommandFailure(f"Class '{object_class.name}' has no field '{name}' to wait for") from None


async def _any_as_wished(call: Call, wishes: list[tuple[Filter, bool]], snapshots: dict[str, Record]) -> bool:
    needs = needed_classes([wish.column for wish, _ in wishes])
    if snapshots:
        for name in needs:
            call.tables.forget(name)
        await call.tables.fetch(needs)
    rows = [Row(ref, record, call.tables) for ref, record in snapshots.items()]
    return any(all(wish.matches(row) == same for wish, same in wishes) for row in rows)


COMMANDS: dict[str, Handler] = {"event-wait": event_wait}
