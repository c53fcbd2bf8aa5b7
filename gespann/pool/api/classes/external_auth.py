"""Which directory the pool trusts: messages of host and pool. Without one only the pool's own root can log in."""

from gespann.pool.api.directory import AUTH_TYPE
from gespann.pool.api.messages import Call, implements
from gespann.pool.api.parts import api_of
from gespann.seams.xenapi.errors import XenApiError


def _enable(call: Call, hosts: list[str], service_name: str, auth_type: str, unknown: XenApiError) -> None:
    if auth_type != AUTH_TYPE:
        raise unknown
    with call.pool.db.transaction() as tx:
        for host in hosts:
            tx.set("host", host, external_auth_type=auth_type, external_auth_service_name=service_name)


def _disable(call: Call, hosts: list[str]) -> None:
    nothing = {"external_auth_type": "", "external_auth_service_name": "", "external_auth_configuration": {}}
    with call.pool.db.transaction() as tx:
        for host in hosts:
            tx.set("host", host, **nothing)
    api_of(call).sessions.end_subjects()


@implements("host.enable_external_auth")
async def host_enable(call: Call, host: str, config: dict[str, str], service_name: str, auth_type: str) -> None:
    """``auth_type`` PAM: the accounts of the coordinator's machine. AUTH_UNKNOWN_TYPE; AUTH_ALREADY_ENABLED."""
    record = call.pool.db.get("host", host)
    if record["external_auth_type"]:
        known = [record["external_auth_type"], record["external_auth_service_name"]]
        raise XenApiError("AUTH_ALREADY_ENABLED", known)
    _enable(call, [host], service_name, auth_type, XenApiError("AUTH_UNKNOWN_TYPE", [auth_type]))


@implements("host.disable_external_auth")
async def host_disable(call: Call, host: str, config: dict[str, str], force: bool) -> None:
    """Who came in by the directory is logged out. Off already: nothing happens."""
    _disable(call, [host])


@implements("pool.enable_external_auth")
async def pool_enable(call: Call, pool: str, config: dict[str, str], service_name: str, auth_type: str) -> None:
    """On every host. POOL_AUTH_ALREADY_ENABLED [host]; POOL_AUTH_ENABLE_FAILED [host, why]."""
    hosts = call.pool.db.all("host")
    for ref, record in hosts.items():
        if record["external_auth_type"]:
            raise XenApiError("POOL_AUTH_ALREADY_ENABLED", [ref])
    coordinator = call.pool.db.get("pool", pool)["master"]
    unknown = XenApiError("POOL_AUTH_ENABLE_FAILED", [coordinator, f"unknown type {auth_type[:64]}"])
    _enable(call, list(hosts), service_name, auth_type, unknown)


@implements("pool.disable_external_auth")
async def pool_disable(call: Call, pool: str, config: dict[str, str]) -> None:
    _disable(call, list(call.pool.db.all("host")))
