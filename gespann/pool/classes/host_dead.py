"""XenAPI class host: one of which the administrator says that it is dead."""

from functools import partial

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import work_of
from gespann.pool.plan.power_plans import plan_power_state_reset
from gespann.pool.steps.host_door import silent_hosts
from gespann.pool.steps.openings import all_starts
from gespann.seams.xenapi.errors import XenApiError


@implements("host.declare_dead")
async def declare_dead(call: Call, host: str) -> None:
    """Its VMs are halted, each when the array has shut out what may still run of it there: a wrong word costs a crash,
    never data. HOST_IS_LIVE while its agent answers. What cannot be halted now (the array is away) is told
    after all others have been."""
    db = call.pool.db
    db.get("host", host)
    if host not in silent_hosts(db):
        raise XenApiError("HOST_IS_LIVE", [host])
    await work_of(call.pool).end_without(frozenset({host}))
    places = {vm: start.host for vm, start in all_starts(db).items()} | work_of(call.pool).arrivals()
    vms = [vm for vm, place in places.items() if place == host]
    failures: list[XenApiError] = []
    for number, vm in enumerate(vms):
        try:
            await work_of(call.pool).run(partial(plan_power_state_reset, db, vm))
        except XenApiError as error:
            failures.append(error)
        call.task.set_progress((number + 1) / len(vms))
    if failures:
        raise failures[0]
