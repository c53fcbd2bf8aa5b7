"""Steps on the networks of a host."""

from gespann.pool.model.database import Transaction
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.registry import Run, Step, step
from gespann.seams.host_network import VlanEnsure, VlanRemove


async def _ensure(run: Run) -> None:
    args = run.args
    request = VlanEnsure(device=args["device"], tag=args["tag"], bridge=args["bridge"], mtu=args["mtu"])
    await ask(run.pool, args["host"], request)


async def _remove(run: Run) -> None:
    await ask(run.pool, run.args["host"], VlanRemove(device=run.args["device"], tag=run.args["tag"]))


def _show(run: Run, tx: Transaction, *, attached: bool) -> None:
    if tx.exists("PIF", run.args["pif"]):
        tx.set("PIF", run.args["pif"], currently_attached=attached)


@step
class VlanPlug(Step):
    """args: host, device, tag, bridge, mtu, pif"""

    name = "vlan-plug"

    async def do(self, run: Run) -> None:
        await _ensure(run)

    async def undo(self, run: Run) -> None:
        await _remove(run)

    def commit(self, run: Run, tx: Transaction) -> None:
        _show(run, tx, attached=True)

    def revert(self, run: Run, tx: Transaction) -> None:
        _show(run, tx, attached=False)


@step
class VlanUnplug(Step):
    """args: as ``vlan-plug``"""

    name = "vlan-unplug"

    async def do(self, run: Run) -> None:
        await _remove(run)

    async def undo(self, run: Run) -> None:
        await _ensure(run)

    def commit(self, run: Run, tx: Transaction) -> None:
        _show(run, tx, attached=False)

    def revert(self, run: Run, tx: Transaction) -> None:
        _show(run, tx, attached=True)


@step
class VlanForget(Step):
    """args: as ``vlan-plug``. What addresses the VLAN had on its host; it is unplugged."""

    name = "vlan-forget"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        await ask(run.pool, run.args["host"], VlanRemove(device=run.args["device"], tag=run.args["tag"], forget=True))
