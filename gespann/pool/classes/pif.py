"""XenAPI class PIF: the network interfaces that a host has."""

from gespann.pool.api.messages import Call, implements
from gespann.pool.reconcile.host_facts import refresh_host


@implements("PIF.scan")
async def scan(call: Call, host: str) -> None:
    await refresh_host(call.pool, host)
