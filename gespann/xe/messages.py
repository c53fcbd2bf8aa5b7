"""Messages that the pool raises about a VM while a command works on it, shown on stderr afterwards."""

from dataclasses import dataclass

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.call import Call
from gespann.xe.records.columns import Row

DEFAULT_PRIORITY = 5  # messages more urgent than this, by a smaller number, are shown


@dataclass(frozen=True)
class MessageWatch:
    """``before``: references of the messages that were there already, None where the server has no messages."""

    call: Call
    vm: Row
    before: frozenset[str] | None

    @classmethod
    async def start(cls, call: Call, vm: Row) -> "MessageWatch":
        try:
            before = frozenset(await call.request("message.get_all"))
        except XenApiError:
            before = None
        return cls(call, vm, before)

    async def show(self) -> None:
        if self.before is None or self.call.printer.minimal or self.call.client.gone:
            return
        limit = self.call.arguments.integer("message-priority", DEFAULT_PRIORITY)
        try:
            now = await self.call.request("message.get_all")
            new = [await self.call.request("message.get_record", ref) for ref in now if ref not in self.before]
        except XenApiError:  # a message that was destroyed meanwhile, or a session that ended: nothing to show
            return
        for message in sorted(new, key=lambda record: str(record["timestamp"])):
            if message["obj_uuid"] == self.vm.record["uuid"] and int(message["priority"]) < limit:
                await self.call.printer.remark_on_stderr(
                    f"Message: time={message['timestamp']} priority={message['priority']} name='{message['name']}'"
                )
