"""XenAPI classes PIF and host: the addresses of hosts, by which of them a host is managed, and its name."""

from functools import partial

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, set_fields, work_of
from gespann.pool.plan import address_plans
from gespann.pool.reconcile.host_facts import refresh_host
from gespann.seams.host_addresses import InterfaceAddresses
from gespann.seams.xenapi.errors import XenApiError


@implements("PIF.reconfigure_ip")
async def reconfigure_ip(call: Call, pif: str, mode: str, ip: str, netmask: str, gateway: str, dns: str) -> None:
    """With DHCP the lease is had before anything is changed."""
    await _reconfigure(call, pif, address_plans.ipv4_wanted(call.pool.db, pif, mode, ip, netmask, gateway, dns))


@implements("PIF.reconfigure_ipv6")
async def reconfigure_ipv6(call: Call, pif: str, mode: str, ipv6: str, gateway: str, dns: str) -> None:
    await _reconfigure(call, pif, address_plans.ipv6_wanted(call.pool.db, pif, mode, ipv6, gateway, dns))


async def _reconfigure(call: Call, pif: str, wanted: InterfaceAddresses) -> None:
    db = call.pool.db
    await work_of(call.pool).run(lambda: address_plans.plan_reconfigure(db, pif, wanted))
    await refresh_host(call.pool, db.get("PIF", pif)["host"])


@implements("host.management_reconfigure")
async def management_reconfigure(call: Call, pif: str) -> None:
    """Managed by it already: nothing to do."""
    await _manage_by(call, pif)


async def _manage_by(call: Call, pif: str) -> None:
    db = call.pool.db
    if not db.get("PIF", pif)["management"]:
        await work_of(call.pool).run(lambda: address_plans.plan_management(db, pif))


@implements("PIF.set_primary_address_type")
async def set_primary_address_type(call: Call, pif: str, kind: str) -> None:
    """By which of its addresses the host is reached once it is managed by this interface."""
    address_plans.assert_may_be_primary(call.pool.db, pif)
    assert_free(call.pool, "PIF", pif)
    set_fields(call, "PIF", pif, primary_address_type=kind)


@implements("pool.management_reconfigure")
async def pool_management_reconfigure(call: Call, network: str) -> None:
    """One host after the other, the coordinator's last. Those that have moved stay so if another one cannot."""
    db = call.pool.db
    pifs = {db.get("PIF", pif)["host"]: pif for pif in db.get("network", network)["PIFs"]}
    own = address_plans.coordinator_of(db)
    for host in sorted(db.all("host"), key=lambda host: host == own):
        if host not in pifs:
            raise XenApiError("PIF_NOT_PRESENT", [host, network])
        address_plans.plan_management(db, pifs[host])  # refuses before anything is changed
    for host in sorted(pifs, key=lambda host: host == own):
        await _manage_by(call, pifs[host])


@implements("host.set_hostname_live")
async def set_hostname_live(call: Call, host: str, hostname: str) -> None:
    """``name_label`` stays: it is the pool's name for the host."""
    plan = partial(address_plans.plan_hostname, call.pool.db, host, hostname)
    await work_of(call.pool).run(plan, task=call.task)
