"""Steps on hosts as members of the pool, and the table that says where the agents of other hosts are."""

from typing import TYPE_CHECKING, Any, cast

import msgspec

from gespann.pool.model.database import Database, Transaction
from gespann.pool.pool import HostDoor, Links
from gespann.pool.reconcile.host_facts import networks_by_bridge, show_facts
from gespann.pool.steps.host_door import HostOffline, HostRefused, ask
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.steps.vm_records import wire_time
from gespann.pool.succession.terms import adopted
from gespann.seams.host_agent import Facts, FactsReply
from gespann.seams.host_membership import JoinAdopt, JoinRelease
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

_SCHEMA = """
CREATE TABLE IF NOT EXISTS host_door (
    host TEXT PRIMARY KEY, address TEXT NOT NULL, port INTEGER NOT NULL, certificate TEXT NOT NULL);
"""


def prepare_tables(db: Database) -> None:
    db.sqlite.executescript(_SCHEMA)


def all_doors(db: Database) -> dict[str, HostDoor]:
    """host -> where its agent is; without the host that this process runs on."""
    return {row[0]: HostDoor(*row[1:]) for row in db.sqlite.execute("SELECT * FROM host_door")}


def links_of(pool: "Pool") -> Links:
    """OPERATION_NOT_ALLOWED where there are none (a coordinator without sockets, in a test)."""
    links = pool.services.get("links")
    if links is None:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["This coordinator cannot reach other hosts"])
    return cast(Links, links)


@step
class HostLink(Step):
    """args: host, door {address, port, certificate}"""

    name = "host-link"

    async def do(self, run: Run) -> None:
        await links_of(run.pool).open(run.args["host"], HostDoor(**run.args["door"]))

    async def undo(self, run: Run) -> None:
        await links_of(run.pool).close(run.args["host"])

    def commit(self, run: Run, tx: Transaction) -> None:
        door = HostDoor(**run.args["door"])
        row = (run.args["host"], door.address, door.port, door.certificate)
        tx.execute("INSERT OR REPLACE INTO host_door VALUES (?, ?, ?, ?)", *row)

    def revert(self, run: Run, tx: Transaction) -> None:
        tx.execute("DELETE FROM host_door WHERE host = ?", run.args["host"])


@step
class HostGreet(Step):
    """args: host, host_uuid. Asks the newcomer what it is."""

    name = "host-greet"

    async def do(self, run: Run) -> None:
        try:
            facts: FactsReply = await ask(run.pool, run.args["host"], Facts(), timeout_s=30.0)
        except HostOffline as error:
            raise XenApiError("HOST_MASTER_CANNOT_TALK_BACK", [_address(run)]) from error
        if facts.host_uuid != run.args["host_uuid"]:
            raise Refused("HOST_MASTER_CANNOT_TALK_BACK", [_address(run)])
        run.notes["facts"] = msgspec.to_builtins(facts)

    def commit(self, run: Run, tx: Transaction) -> None:
        facts = msgspec.convert(run.notes["facts"], FactsReply)
        # what the machine needs for itself, as measured before any VM runs
        used = max(0, facts.memory_total_bytes - facts.memory_free_bytes)
        tx.set("host", run.args["host"], memory_overhead=used)
        show_facts(tx, run.args["host"], facts, wire_time(run.pool.clock.now()), networks_by_bridge(run.pool.db))

    def revert(self, run: Run, tx: Transaction) -> None:
        destroy_machine_records(tx, run.args["host"])


def _address(run: Run) -> str:
    return str(run.pool.db.get("host", run.args["host"])["address"])


def destroy_machine_records(tx: Transaction, host: str) -> None:
    """Interfaces and processors. Networks stay: they may have been there before."""
    if not tx.exists("host", host):
        return
    record = tx.get("host", host)
    for pif in list(record["PIFs"]):
        tx.destroy("PIF_metrics", tx.get("PIF", pif)["metrics"])
        tx.destroy("PIF", pif)
    for cpu in list(record["host_CPUs"]):
        tx.destroy("host_cpu", cpu)


@step
class HostAdopt(Step):
    """args: host, pool_uuid. From here on the host obeys this coordinator; the one on its own machine retires."""

    name = "host-adopt"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        try:
            await ask(run.pool, run.args["host"], JoinAdopt(pool_uuid=run.args["pool_uuid"]))
        except HostRefused as error:
            if error.seam_code == "BAD_STATE":  # its own coordinator has taken the offer back
                raise Refused("JOINING_HOST_SERVICE_FAILED", []) from error
            raise
        except HostOffline as error:
            if links_of(run.pool).shut_out(run.args["host"]):  # likewise
                raise Refused("JOINING_HOST_SERVICE_FAILED", []) from error
            raise

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("host", run.args["host"], enabled=True)


@step
class HostRelease(Step):
    """args: host, pool_uuid. The host begins a pool of its own."""

    name = "host-release"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        try:
            await ask(run.pool, run.args["host"], JoinRelease(pool_uuid=run.args["pool_uuid"]), timeout_s=20.0)
        except HostOffline:
            if not links_of(run.pool).shut_out(run.args["host"]):
                raise


@step
class HostForget(Step):
    """args: host, set [(class, ref, fields)], destroy [(class, ref)]"""

    name = "host-forget"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        await links_of(run.pool).close(run.args["host"])

    def commit(self, run: Run, tx: Transaction) -> None:
        args: dict[str, Any] = run.args
        for class_name, ref, fields in args["set"]:
            if tx.exists(class_name, ref):
                tx.set(class_name, ref, **fields)
        for class_name, ref in args["destroy"]:
            tx.destroy(class_name, ref)
        tx.execute("DELETE FROM host_door WHERE host = ?", args["host"])
        adopted(tx, args["host"])
