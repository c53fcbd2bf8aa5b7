"""A command that is one XenAPI call, as a declaration."""

from dataclasses import dataclass
from typing import Any

from gespann.xe.call import Call
from gespann.xe.commands.parameters import Parameter, by_uuid
from gespann.xe.selectors import VMS, Selected, Selection, for_each, for_each_vm

VOID, TEXT, LINES, MAP = "void", "text", "lines", "map"


@dataclass(frozen=True)
class PlainCall:
    """``shows``: VOID nothing, TEXT the answer on a line, LINES a set a line each, MAP a table, or a class name: the
    answer is a reference to such an object and its uuid is shown. ``task``: run as Async and waited for.
    ``selects``: the first parameter is each object selected, not one of ``parameters``."""

    message: str
    parameters: tuple[Parameter, ...] = ()
    shows: str = VOID
    task: bool = False
    selects: Selection | None = None
    forced: bool = False

    async def run(self, call: Call) -> None:
        if self.forced:
            call.must_be_forced()

        async def once(row: Selected) -> None:
            await self._once(call, row.ref)

        if self.selects is VMS:
            await for_each_vm(call, once)
        elif self.selects is not None:
            await for_each(call, self.selects, once)
        else:
            await self._once(call)

    async def _once(self, call: Call, *first: Any) -> None:
        params = [*first, *[await read(call) for read in self.parameters]]
        if self.task:
            await self._show(call, await call.run_task(self.message, *params))
        else:
            await self._show(call, await call.request(self.message, *params))

    async def _show(self, call: Call, answer: Any) -> None:
        match self.shows:
            case "void":
                return
            case "text":
                await call.printer.values([_text(answer)])
            case "lines":
                await call.printer.values([str(item) for item in answer])
            case "map":
                await call.printer.table([[(str(key), _text(value)) for key, value in answer.items()]])
            case class_name:
                await call.printer.values([await call.uuid_of(class_name, str(answer))])


def _text(answer: Any) -> str:
    if isinstance(answer, bool):
        return "true" if answer else "false"
    return f"{answer:.3f}" if isinstance(answer, float) else str(answer)


def own(class_name: str, message: str, *more: Parameter, shows: str = VOID, task: bool = False) -> PlainCall:
    """A call whose first parameter is the object named by ``uuid=``."""
    return PlainCall(f"{class_name}.{message}", (by_uuid(class_name), *more), shows=shows, task=task)
