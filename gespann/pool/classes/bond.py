"""XenAPI class Bond: several cards of a host that act as one interface."""

from collections.abc import Callable

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import work_of
from gespann.pool.plan import bond_plans
from gespann.pool.plan.shapes import Plan
from gespann.pool.reconcile.host_facts import refresh_host


@implements("Bond.create")
async def create(call: Call, network: str, members: list[str], mac: str, mode: str, properties: dict[str, str]) -> str:
    """The bond is plugged, in the bridge of the network."""
    db = call.pool.db

    def plan() -> Plan:
        return bond_plans.plan_create(db, network, members, mac, mode, properties)

    return str(await _change(call, plan, lambda: db.get("PIF", members[0])["host"]))


@implements("Bond.destroy")
async def destroy(call: Call, bond: str) -> None:
    db = call.pool.db
    host = _host_of(call, bond)
    await _change(call, lambda: bond_plans.plan_destroy(db, bond), lambda: host)


@implements("Bond.set_mode")
async def set_mode(call: Call, bond: str, mode: str) -> None:
    """Another mode begins with its own defaults. As it is already: nothing to do."""
    db = call.pool.db
    if db.get("Bond", bond)["mode"] != mode:
        await _change(call, lambda: bond_plans.plan_set(db, bond, mode, {}), lambda: _host_of(call, bond))


@implements("Bond.set_property")
async def set_property(call: Call, bond: str, name: str, value: str) -> None:
    db = call.pool.db
    await _change(call, lambda: bond_plans.plan_set_property(db, bond, name, value), lambda: _host_of(call, bond))


def _host_of(call: Call, bond: str) -> str:
    return str(call.pool.db.get("PIF", call.pool.db.get("Bond", bond)["master"])["host"])


async def _change(call: Call, planner: Callable[[], Plan], host: Callable[[], str]) -> object:
    result = await work_of(call.pool).run(planner)
    await refresh_host(call.pool, host())
    return result
