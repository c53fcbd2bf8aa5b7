"""XenAPI messages about who leads the pool, as its coordinator answers them. What a member answers: ``pool.member``."""

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import work_of
from gespann.pool.plan.host_plans import coordinator_of
from gespann.pool.plan.succession_plans import plan_designate
from gespann.pool.succession.succession import answering, succession_of
from gespann.pool.succession.terms import term_of
from gespann.seams.host_succession import next_epoch
from gespann.seams.xenapi.errors import XenApiError

RECOVER_WITHIN_S = 10.0


@implements("pool.designate_new_master")
async def designate_new_master(call: Call, host: str) -> None:
    """The other host leads when this answers. OTHER_OPERATION_IN_PROGRESS while anything is being done."""
    db, work = call.pool.db, work_of(call.pool)
    succession_of(call.pool)
    if host == coordinator_of(db):
        return
    work.assert_idle()
    await work.run(lambda: plan_designate(db, host, next_epoch(term_of(db).epoch)), task=call.task)


@implements("pool.sync_database")
async def sync_database(call: Call) -> None:
    """Every change is durable here before it is answered; when this answers, every other host has a copy, too."""
    db = call.pool.db
    if len(db.all("host")) == 1:
        return
    failed = await succession_of(call.pool).spread()
    for error in failed.values():
        raise error


@implements("pool.recover_slaves")
async def recover_slaves(call: Call) -> list[str]:
    """The other hosts that obey this coordinator now. They are told by themselves whenever they are reached."""
    others = [host for host in call.pool.db.all("host") if host != coordinator_of(call.pool.db)]
    return await answering(call.pool, others, RECOVER_WITHIN_S)


@implements("pool.emergency_transition_to_master")
async def emergency_transition_to_master(call: Call) -> None:
    """This host leads already."""


@implements("pool.emergency_reset_master")
async def emergency_reset_master(call: Call, master_address: str) -> None:
    text = "This host is the pool's coordinator: pool.designate_new_master gives the pool to another one"
    raise XenApiError("OPERATION_NOT_ALLOWED", [text])
