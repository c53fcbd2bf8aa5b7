"""Steps of a live migration. ``from`` is the host that the machine leaves, ``host`` the one that it goes to."""

from typing import Any

import msgspec

from gespann.pool.model.database import Transaction
from gespann.pool.steps.domain_steps import disk_with_source
from gespann.pool.steps.host_door import HostOffline, HostRefused, ask
from gespann.pool.steps.openings import Start, record_start
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.pool.steps.vm_records import show_moved
from gespann.seams.host_agent import Domain, DomainDestroy, DomainList, DomainSpec, DomainUnpause, IscsiSource
from gespann.seams.host_membership import Allegiance, AllegianceReply
from gespann.seams.host_migration import Landing, MigrateEnd, MigrateReceive, MigrateSend, MovedDisk
from gespann.seams.xenapi.errors import XenApiError

SEND_WITHIN_S = 4 * 3600.0 + 60.0


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
        """What has arrived in part, or stands there whole and was not let go on, goes."""
        await ask(run.pool, run.args["host"], _end(run))
        spec = run.args["spec"]
        await ask(run.pool, run.args["host"], DomainDestroy(uuid=spec["uuid"], start_id=spec["start_id"]))


@step
class DomainSend(Step):
    """args: as ``domain-receive``, and start_id (the one that runs)"""

    name = "domain-send"
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
        await ask(run.pool, args["from"], request, timeout_s=SEND_WITHIN_S)

    async def _settle(self, run: Run, error: XenApiError) -> None:
        """Where is it? Once nothing is under way any more, the two hosts know. The destination alone can say that it
        has nothing; that it has the machine is believed only if the source says that it has it no longer. Till then
        this step is tried again."""
        args, new = run.args, run.args["spec"]["start_id"]
        await ask(run.pool, args["host"], _end(run))
        try:
            await ask(run.pool, args["from"], _end(run))
            here = await _start_on(run, args["from"])
        except HostOffline:
            if await _start_on(run, args["host"]) == new:
                raise
            here = args["start_id"]  # as far as anybody knows; it is not there, and can not get there any more
        if here != args["start_id"] and await _start_on(run, args["host"]) == new:
            return
        names = [run.pool.db.get("host", args[end])["name_label"] for end in ("from", "host")]
        raise Refused("VM_MIGRATE_FAILED", [args["vm"], *names, str(error.params[-1] if error.params else error.code)])


async def _start_on(run: Run, host: str) -> str:
    reply = await ask(run.pool, host, DomainList())
    return next((found.start_id for found in reply.domains if found.uuid == run.args["vm_uuid"]), "")


@step
class DomainGoOn(Step):
    """args: vm, vm_uuid, host, from, ticket, new_start_id. The openings of the source are closed by now."""

    name = "domain-go-on"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        args: dict[str, Any] = run.args
        await ask(run.pool, args["host"], _end(run))
        try:
            await ask(run.pool, args["host"], DomainUnpause(uuid=args["vm_uuid"]))
        except HostRefused as error:
            if error.seam_code != "NOT_FOUND":  # it has stopped since: the reconciler sees to that
                raise
        reply = await ask(run.pool, args["host"], DomainList())
        domain = next((found for found in reply.domains if found.uuid == args["vm_uuid"]), None)
        run.notes["domain"] = None if domain is None else msgspec.to_builtins(domain)

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        record_start(tx, Start(args["vm"], args["new_start_id"], args["host"]))
        if run.notes["domain"] is not None:
            domain = msgspec.convert(run.notes["domain"], Domain)
            show_moved(tx, args["vm"], args["host"], domain, run.pool.tls_port)
