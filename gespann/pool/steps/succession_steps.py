"""Steps by which a pool gets another coordinator.

handover-copy      nothing durable is done any more; the other host has the pool as it is now, checked and durable
handover-decide    (point of no return) a note that it may happen; then that host's agent decides, durably
handover-follow    this machine's agent obeys the other one: its coordinator ends here
"""

from typing import TYPE_CHECKING

from gespann.pool.steps.host_door import HostOffline, HostRefused, ask
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.succession import doubt
from gespann.pool.succession.terms import term_of
from gespann.seams.host_membership import AllegianceReply
from gespann.seams.host_succession import PoolFollow, PoolTake, PoolTakeWithdraw
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.succession.succession import Succession


def _succession(run: Run) -> "Succession":
    found: Succession = run.pool.services["succession"]
    return found


@step
class HandoverCopy(Step):
    """args: host"""

    name = "handover-copy"
    weight = 4

    async def do(self, run: Run) -> None:
        db, work = run.pool.db, run.pool.services["work"]
        pool = next(iter(db.all("pool")))
        busy = ["pool", pool, "designate_new_master", run.operation_id]
        db.hold_still(run.operation_id, XenApiError("OTHER_OPERATION_IN_PROGRESS", busy))
        work.assert_idle(but=run.operation_id)
        about = await _succession(run).copy_to(run.args["host"], without=run.operation_id)
        run.notes["copy_id"] = about.copy_id

    async def undo(self, run: Run) -> None:
        run.pool.db.go_on()


@step
class HandoverDecide(Step):
    """args: host, pool_uuid, epoch, address; notes: copy_id"""

    name = "handover-decide"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        args, db, succession = run.args, run.pool.db, _succession(run)
        if not db.still:  # after a restart the copy is not the pool as it is any more
            raise Refused("TASK_CANCELLED", [run.operation_id])
        links = run.pool.services["links"]
        door = links.door(args["host"])
        handing = doubt.Handing(
            pool_uuid=args["pool_uuid"],
            own_epoch=term_of(db).epoch,
            epoch=args["epoch"],
            copy_id=run.notes["copy_id"],
            address=args["address"],
            door_address=door.address,
            door_port=door.port,
            door_certificate=door.certificate,
        )
        doubt.note(succession.data, handing)
        take = PoolTake(pool_uuid=args["pool_uuid"], epoch=args["epoch"], copy_id=run.notes["copy_id"])
        try:
            await ask(run.pool, args["host"], take)
        except HostRefused as error:
            if error.seam_code in ("BAD_STATE", "BAD_REQUEST"):
                raise Refused("OPERATION_NOT_ALLOWED", [str(error)]) from error
            raise
        except HostOffline:
            if links.leader_seen(args["host"])[0] < args["epoch"]:
                succession.in_doubt()
                raise
        db.hold_still(run.operation_id, XenApiError("HOST_IS_SLAVE", [args["address"]]))

    async def undo(self, run: Run) -> None:
        succession = _succession(run)
        handing = doubt.noted(succession.data)
        if handing is None:
            return
        try:
            said: AllegianceReply = await ask(
                run.pool, run.args["host"], PoolTakeWithdraw(copy_id=handing.copy_id), timeout_s=doubt.ASK_WITHIN_S
            )
        except HostOffline:
            succession.in_doubt()
            raise
        if doubt.judge(handing, said) is not None:
            succession.in_doubt()
            raise XenApiError("HOST_IS_SLAVE", [handing.address])
        doubt.take_away(succession.data)


@step
class HandoverFollow(Step):
    """args: pool_uuid, epoch, address"""

    name = "handover-follow"

    async def do(self, run: Run) -> None:
        succession = _succession(run)
        follow = PoolFollow(
            pool_uuid=run.args["pool_uuid"],
            epoch=run.args["epoch"],
            certificate=run.pool.services["links"].certificate,
            coordinator_address=run.args["address"],
        )
        try:
            await ask(run.pool, succession.own_host, follow)
        except XenApiError:
            succession.in_doubt()
            raise
        doubt.take_away(succession.data)
