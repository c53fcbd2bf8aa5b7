"""XenAPI messages by which hosts join and leave, and the door where the two coordinators meet.

    joiner's coordinator                       the pool's coordinator
      pool.join ── GET /pool_member ─────────►  its certificate towards agents, its address
        tells its own agent: JoinOffer
      ──────────── PUT /pool_member ─────────►  pool.add_host: connects to that agent, attaches storage, JoinAdopt
        its agent says "member": it retires

If it ends in between, the agent decides: adopted, the joiner's coordinator retires whenever it looks; not adopted, it
takes the offer back, and the other's adoption is refused and undone.
"""

import json
import logging
from typing import Any

import msgspec

from gespann.pool.api.http_handlers import HttpRequest, http
from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import coordinator, work_of
from gespann.pool.model.database import Database
from gespann.pool.plan import host_plans
from gespann.pool.plan.storage_view import is_live
from gespann.pool.pool import Pool
from gespann.pool.reconcile.first_start import known_before_facts
from gespann.pool.remote_pool import RemotePool
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.host_steps import links_of
from gespann.pool.succession.terms import term_of
from gespann.seams.host_membership import Allegiance, AllegianceReply, JoinOffer, JoinWithdraw
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.mutual_tls import checked_certificate

log = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 64 * 1024
ADDRESS_LIMIT_CHARS = 255


class Newcomer(msgspec.Struct, frozen=True, kw_only=True):
    """What PUT /pool_member is told."""

    host_uuid: str
    hostname: str
    address: str
    door_port: int
    certificate: str
    product_version: str
    cpu_vendor: str
    force: bool = False


def _the_pool(db: Database) -> Any:
    return next(iter(db.all("pool").values()))


# -- on the host that joins


@implements("pool.join")
async def join(call: Call, master_address: str, master_username: str, master_password: str) -> None:
    await _join(call, master_address, master_username, master_password, force=False)


@implements("pool.join_force")
async def join_force(call: Call, master_address: str, master_username: str, master_password: str) -> None:
    """Also where processors differ: VMs may then not be able to move."""
    await _join(call, master_address, master_username, master_password, force=True)


async def _join(call: Call, address: str, user: str, password: str, *, force: bool) -> None:
    pool = call.pool
    assert_may_join(pool.db)
    host = coordinator(pool)
    mine: AllegianceReply = await ask(pool, host, Allegiance())
    if not mine.door_port:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["The agent of this host has no door: start it with --door"])
    record = pool.db.get("host", host)
    newcomer = Newcomer(
        host_uuid=record["uuid"],
        hostname=record["hostname"],
        address=record["address"],
        door_port=mine.door_port,
        certificate=mine.certificate,
        product_version=record["software_version"]["product_version_text"],
        cpu_vendor=record["cpu_info"].get("vendor", ""),
        force=force,
    )
    async with RemotePool(address, user, password) as remote:
        known = await remote.member_door("GET")
        offer = JoinOffer(
            pool_uuid=str(known["pool_uuid"]),
            coordinator_certificate=str(known["certificate"]),
            coordinator_address=str(known["address"]),
            epoch=int(known.get("epoch", 0)),
        )
        if offer.pool_uuid == _the_pool(pool.db)["uuid"]:
            raise XenApiError("OPERATION_NOT_ALLOWED", ["The host is a member of this pool already"])
        await ask(pool, host, offer)
        try:
            await remote.member_door("PUT", msgspec.to_builtins(newcomer))
        except BaseException:
            left: AllegianceReply = await ask(pool, host, JoinWithdraw())
            if left.state != "member":
                raise
    log.warning("this host is now a member of the pool at %s", address)


def assert_may_join(db: Database) -> None:
    """What this pool of one has must not be lost by joining another."""
    if len(db.all("host")) > 1:
        raise XenApiError("JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS", [])
    vms = [vm for vm in db.all("VM").values() if not vm["is_control_domain"] and not vm["is_default_template"]]
    if any(vm["power_state"] == "Suspended" for vm in vms):
        raise XenApiError("JOINING_HOST_CANNOT_HAVE_RUNNING_OR_SUSPENDED_VMS", [])
    if any(vm["power_state"] != "Halted" for vm in vms):
        raise XenApiError("JOINING_HOST_CANNOT_HAVE_RUNNING_VMS", [])
    if any(vm["current_operations"] for vm in vms):
        raise XenApiError("JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS", [])
    if any(sr["shared"] for sr in db.all("SR").values()):
        raise XenApiError("JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", [])
    if db.all("Bond"):
        raise XenApiError("POOL_JOINING_HOST_HAS_BONDS", [])
    if db.all("VLAN"):
        raise XenApiError("POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS", [])
    if vms or db.all("SR"):
        text = (
            "The host has VMs, templates or SRs of its own, which the other pool does not take over: remove them first"
        )
        raise XenApiError("OPERATION_NOT_ALLOWED", [text])


# -- on the coordinator of the pool


@http("GET", "/pool_member", role="pool-admin")
async def tell_newcomer(request: HttpRequest) -> None:
    pool = request.pool
    known = {
        "pool_uuid": _the_pool(pool.db)["uuid"],
        "certificate": links_of(pool).certificate,
        "address": pool.db.get("host", coordinator(pool))["address"],
        "epoch": term_of(pool.db).epoch,
    }
    await request.respond(200, json.dumps(known).encode(), {"Content-Type": "application/json"})


@http("PUT", "/pool_member", role="pool-admin")
async def take_newcomer(request: HttpRequest) -> None:
    body = b""
    async for piece in request.body():
        body += piece
        if len(body) > BODY_LIMIT_BYTES:
            raise XenApiError("INVALID_VALUE", ["body", "too long"])
    try:
        newcomer = msgspec.json.decode(body, type=Newcomer)
        certificate = checked_certificate(newcomer.certificate)
    except ValueError:  # msgspec's own errors are such, too
        raise XenApiError("INVALID_VALUE", ["body", "not what a host says that joins"]) from None
    host = await add_host(request.pool, newcomer, certificate)
    uuid = request.pool.db.get("host", host)["uuid"]
    await request.respond(200, json.dumps({"host": uuid}).encode(), {"Content-Type": "application/json"})


async def add_host(pool: Pool, newcomer: Newcomer, certificate: str) -> str:
    """The new host's reference, once its agent obeys this coordinator and shared storage is attached."""
    assert_takes(pool.db, newcomer)
    fields = known_before_facts(pool, newcomer.host_uuid, newcomer.hostname, newcomer.address)
    door = {"address": newcomer.address, "port": newcomer.door_port, "certificate": certificate}
    pool_uuid = _the_pool(pool.db)["uuid"]
    return str(await work_of(pool).run(lambda: host_plans.plan_add_host(pool.db, pool_uuid, door, fields)))


def assert_takes(db: Database, newcomer: Newcomer) -> None:
    ours = db.get("host", host_plans.coordinator_of(db))
    if not 0 < newcomer.door_port < 65536 or not 0 < len(newcomer.address) <= ADDRESS_LIMIT_CHARS:
        raise XenApiError("INVALID_VALUE", ["address", f"{newcomer.address[:64]}:{newcomer.door_port}"])
    if newcomer.product_version != ours["software_version"]["product_version_text"]:
        raise XenApiError("POOL_JOINING_HOST_MUST_HAVE_SAME_PRODUCT_VERSION", [])
    if newcomer.cpu_vendor != ours["cpu_info"].get("vendor", "") and not newcomer.force:
        raise XenApiError("HOSTS_NOT_HOMOGENEOUS", ["the processors' vendors differ"])


# -- leaving


@implements("pool.eject")
async def eject(call: Call, host: str) -> None:
    """The host begins a pool of its own; SRs that only it has, are forgotten."""
    pool = call.pool
    pool_uuid = _the_pool(pool.db)["uuid"]
    pool.db.get("host", host)
    if not is_live(pool.db, host):
        raise XenApiError("HOST_OFFLINE", [host])
    await work_of(pool).run(lambda: host_plans.plan_eject(pool.db, host, pool_uuid), task=call.task)


@implements("host.destroy")
async def destroy(call: Call, host: str) -> None:
    """Forgets a host that is gone for good."""
    await work_of(call.pool).run(lambda: host_plans.plan_destroy(call.pool.db, host), task=call.task)
