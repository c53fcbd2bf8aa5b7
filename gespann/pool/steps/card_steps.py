"""Steps on what network cards do for the processor."""

from gespann.pool.model.database import Transaction
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.registry import Run, Step, step
from gespann.seams.host_bonds import CardProperty


@step
class CardPropertyIsSet(Step):
    """args: host, device, pifs (that show it), before, after (all properties)"""

    name = "card-property"

    async def do(self, run: Run) -> None:
        await self._set(run, "after")

    async def undo(self, run: Run) -> None:
        await self._set(run, "before")

    async def _set(self, run: Run, which: str) -> None:
        gro = run.args[which].get("gro", "on") == "on"
        await ask(run.pool, run.args["host"], CardProperty(device=run.args["device"], gro=gro))

    def commit(self, run: Run, tx: Transaction) -> None:
        self._show(run, tx, "after")

    def revert(self, run: Run, tx: Transaction) -> None:
        self._show(run, tx, "before")

    def _show(self, run: Run, tx: Transaction, which: str) -> None:
        for pif in run.args["pifs"]:
            if tx.exists("PIF", pif):
                tx.set("PIF", pif, properties=run.args[which])
