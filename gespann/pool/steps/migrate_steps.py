"""Steps of a live migration. ``from`` is the host that the machine leaves, ``host`` the one that it goes to."""

import asyncio
import contextlib
import logging
from typing import Any

import msgspec

from gespann.pool.model.database import Transaction
from gespann.pool.steps.domain_steps import disk_with_source
from gespann.pool.steps.host_door import HostOffline, HostRefused, ask
from gespann.pool.steps.openings import Start, record_start
from gespann.pool.steps.record_steps import show_downtime
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.steps.vm_records import show_moved
from gespann.seams.host_agent import Domain, DomainDestroy, DomainList, DomainSpec, DomainUnpause, IscsiSource
from gespann.seams.host_membership import Allegiance, AllegianceReply
from gespann.seams.host_migration import (
    Landing,
    MigrateEnd,
    MigrateProgress,
    MigrateReceive,
    MigrateSend,
    MovedDisk,
    Sent,
)
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

log = logging.getLogger(__name__)

SEND_WITHIN_S = 4 * 3600.0 + 60.0
PROGRESS_EVERY_S = 1.0


def _end(run: Run) -> MigrateEnd:
    return MigrateEnd(uuid=run.args["vm_uuid"], ticket=run.args["ticket"])


@step
class DomainReceive(Step):
    """args: vm, vm_uuid, host, from, ticket, spec (its disks shapes as ``disk_with_source`` takes them)"""

    name = "domain-receive"

    async def do(self, run: Run) -> None:
        shape = dict(run.args["spec"])
        disks = [disk_with_source(run, disk) for disk in shape.pop("disks")]
        spec = msgspec.structs.replace(msgspec.convert({**shape, "disks": []}, DomainSpec), disks=disks)
        source: AllegianceReply = await ask(run.pool, run.args["from"], Allegiance())
        request = MigrateReceive(spec=spec, ticket=run.args["ticket"], certificate=source.certificate)
        landing: Landing = await ask(run.pool, run.args["host"], request)
        moved = [
            MovedDisk(
                device=disk.device,
                host=disk.source.host,
                port=disk.source.port,
                initiator=disk.source.initiator,
                chap_user=disk.source.chap_user,
            )
            for disk in disks
            if isinstance(disk.source, IscsiSource)
        ]
        run.notes["landing"] = msgspec.to_builtins(landing)
        run.notes["moved"] = msgspec.to_builtins(moved)

    async def undo(self, run: Run) -> None:
        """What has arrived in part, or stands there whole and was not let go on, goes. A host that does not answer is
        not waited for: nobody but the coordinator lets the machine go on there, the array refuses its writes, and it is
        destroyed when the host is back and shows it."""
        spec = run.args["spec"]
        for request in (_end(run), DomainDestroy(uuid=spec["uuid"], start_id=spec["start_id"])):
            with contextlib.suppress(HostOffline):
                await ask(run.pool, run.args["host"], request)


@step
class DomainSend(Step):
    """args: as ``domain-receive``, and start_id (the one that runs)"""

    name = "domain-send"
    weight = 20
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        try:
            await self._send(run)
        except XenApiError as error:
            await self._settle(run, error)

    async def _send(self, run: Run) -> None:
        args = run.args
        there: AllegianceReply = await ask(run.pool, args["host"], Allegiance())
        request = MigrateSend(
            uuid=args["vm_uuid"],
            start_id=args["start_id"],
            new_start_id=args["spec"]["start_id"],
            disks=msgspec.convert(run.notes["moved"], list[MovedDisk]),
            landing=msgspec.convert(run.notes["landing"], Landing),
            ticket=args["ticket"],
            address=run.pool.db.get("host", args["host"])["address"],
            port=there.door_port,
            certificate=there.certificate,
        )
        watching = asyncio.create_task(_show_progress(run))
        try:
            sent: Sent = await run.unless_cut_short(ask(run.pool, args["from"], request, timeout_s=SEND_WITHIN_S))
        finally:
            watching.cancel()
        if sent.stood_still_s is not None:
            run.memory["stopped_s"] = run.pool.clock.monotonic_s() - sent.stood_still_s

    async def _settle(self, run: Run, error: XenApiError) -> None:
        """Where is it? Once nothing is under way any more, the two hosts know. The source alone can say that it has it
        still, and the destination alone that it has nothing; that the destination has the machine is believed only if
        the source says that it has it no longer. Till then this step is tried again."""
        args, new = run.args, run.args["spec"]["start_id"]
        there_silent: HostOffline | None = None
        try:
            await ask(run.pool, args["host"], _end(run))
        except HostOffline as silent:
            there_silent = silent
        try:
            await ask(run.pool, args["from"], _end(run))
            here = await _start_on(run, args["from"])
        except HostOffline:
            if there_silent is not None or await _start_on(run, args["host"]) == new:
                raise
            here = args["start_id"]  # as far as anybody knows; it is not there, and can not get there any more
        if here != args["start_id"] and await _start_on(run, args["host"]) == new:
            return
        if error.code == "TASK_CANCELLED":
            raise Refused("TASK_CANCELLED", [run.task.ref if run.task is not None else run.operation_id])
        names = [run.pool.db.get("host", args[end])["name_label"] for end in ("from", "host")]
        raise Refused("VM_MIGRATE_FAILED", [args["vm"], *names, _words(run, error)])


async def _show_progress(run: Run) -> None:
    while True:
        await run.pool.clock.sleep(PROGRESS_EVERY_S)
        with contextlib.suppress(XenApiError):
            reply = await ask(run.pool, run.args["from"], MigrateProgress(uuid=run.args["vm_uuid"]))
            run.progress(reply.fraction)


def _words(run: Run, error: XenApiError) -> str:
    """For VM_MIGRATE_FAILED, which has room for one text."""
    if isinstance(error, HostOffline):
        return f"host {run.pool.db.get('host', error.params[0])['name_label']} did not answer"
    return str(error.params[-1] if error.params else error.code)


async def _start_on(run: Run, host: str) -> str:
    reply = await ask(run.pool, host, DomainList())
    return next((found.start_id for found in reply.domains if found.uuid == run.args["vm_uuid"]), "")


@step
class DomainGoOn(Step):
    """args: vm, vm_uuid, host, from, ticket, new_start_id. The right to write is the destination's by now, and the
    machine is nowhere else. If it has ended there, or its hypervisor does not let it go on, that is how it has moved;
    ``memory["failed"]`` tells whoever asked for the move."""

    name = "domain-go-on"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        args: dict[str, Any] = run.args
        await ask(run.pool, args["host"], _end(run))
        refused = await self._let_go_on(run)
        reply = await ask(run.pool, args["host"], DomainList())
        there = [found for found in reply.domains if found.uuid == args["vm_uuid"] and found.state != "stopped"]
        domain = there[0] if there else None
        run.notes["domain"] = None if domain is None else msgspec.to_builtins(domain)
        if domain is None:
            run.memory["failed"] = run.notes["failed"] = "it arrived, and its machine ended there before it could go on"
        elif refused and domain.state == "paused":
            run.memory["failed"] = run.notes["failed"] = f"it arrived, and stands still there: {refused}"
        elif "stopped_s" in run.memory:  # not of one that a crash interrupted
            run.notes["stood_still_ms"] = round(1000 * (run.pool.clock.monotonic_s() - run.memory["stopped_s"]))
            log.info("VM %s stood still for %d ms", args["vm_uuid"], run.notes["stood_still_ms"])

    async def _let_go_on(self, run: Run) -> str:
        """Why it is refused, "" if it is not. Asked twice: the first answer may have been of something that passes."""
        refused = ""
        for _ in range(2):
            try:
                await ask(run.pool, run.args["host"], DomainUnpause(uuid=run.args["vm_uuid"]))
                return ""
            except HostRefused as error:
                refused = str(error.params[-1] if error.params else error.code)
        return refused

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        record_start(tx, Start(args["vm"], args["new_start_id"], args["host"]))
        if run.notes["domain"] is not None:
            domain = msgspec.convert(run.notes["domain"], Domain)
            show_moved(tx, args["vm"], args["host"], domain, run.pool.tls_port)
        else:  # till the reconciler sees that it has ended
            tx.set("VM", args["vm"], resident_on=args["host"], scheduled_to_be_resident_on=NULL_REF)
        show_downtime(run, tx)


@step
class MigrationForget(Step):
    """args: as ``domain-receive``. For one that was given up: what a host that answers still has of it goes. Nothing
    depends on it: the openings are closed."""

    name = "migration-forget"

    async def do(self, run: Run) -> None:
        spec = run.args["spec"]
        destroy = DomainDestroy(uuid=spec["uuid"], start_id=spec["start_id"])
        for host, request in (("from", _end(run)), ("host", _end(run)), ("host", destroy)):
            try:
                await ask(run.pool, run.args[host], request)
            except XenApiError as error:
                log.info("VM %s, given up: %s", run.args["vm_uuid"], error)
