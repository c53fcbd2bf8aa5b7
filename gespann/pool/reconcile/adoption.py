"""What runs on hosts counts for more than a database that came from a copy: machines that it does not know to run are
shown as running where they are, with the disks that they have, before anything is compared or tidied up.
"""

import logging
from typing import TYPE_CHECKING

from gespann.pool.plan.device_numbers import disk_number
from gespann.pool.plan.storage_view import peek
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.openings import (
    OpenVolume,
    Start,
    forget_opening,
    openings_of_vm,
    record_opening,
    record_start,
    start_of,
)
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.pool.steps.vm_records import show_running
from gespann.pool.succession.terms import adopted
from gespann.seams.host_agent import Domain, DomainList, DomainListReply
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)


async def adopt(pool: "Pool", host: str) -> None:
    """XenApiError, and the host is still to be adopted, if it or a disk's storage cannot be asked."""
    reply: DomainListReply = await ask(pool, host, DomainList())
    work = pool.services["work"]
    by_uuid = {record["uuid"]: vm for vm, record in pool.db.all("VM").items()}
    for domain in reply.domains:
        vm = by_uuid.get(domain.uuid)
        if domain.state == "stopped" or vm is None:
            continue
        if work.locks.is_held("VM", vm):  # an operation that was under way in the copy, and resists
            raise XenApiError("OTHER_OPERATION_IN_PROGRESS", ["VM", vm, "", ""])
        await _adopt_machine(pool, host, vm, domain)
    with pool.db.transaction() as tx:
        adopted(tx, host)


async def _adopt_machine(pool: "Pool", host: str, vm: str, domain: Domain) -> None:
    disks = await _openings(pool, vm, domain)
    there = {opening.opening_id for opening in disks}
    start = Start(vm, domain.start_id, host)
    if start != start_of(pool.db, vm):
        log.warning("VM %s runs, which the copy of the database did not know: adopted", domain.uuid)
    with pool.db.transaction() as tx:
        if start != start_of(pool.db, vm):
            record_start(tx, start)
            show_running(tx, vm, host, domain, pool.clock.now(), pool.tls_port)
        for known in openings_of_vm(pool.db, vm):
            if known.opening_id not in there:
                forget_opening(tx, known.opening_id)  # of the place from which it has moved
        for opening in disks:
            record_opening(tx, opening)
            tx.set("VBD", opening.vbd, currently_attached=True)
        for vif in tx.get("VM", vm)["VIFs"]:
            tx.set("VIF", vif, currently_attached=int(tx.get("VIF", vif)["device"]) in domain.nics)


async def _openings(pool: "Pool", vm: str, domain: Domain) -> list[OpenVolume]:
    """Of the disks that the machine has, as the storage tells them: an opening is named after machine and device."""
    found = []
    for vbd in pool.db.get("VM", vm)["VBDs"]:
        record = pool.db.get("VBD", vbd)
        device, vdi = disk_number(record["userdevice"]), peek(pool.db, "VDI", record["VDI"])
        if vdi is None or device not in domain.disks:
            continue
        driver, seen = driver_of(pool, vdi["SR"]), sr_as_driver_sees_it(pool.db, vdi["SR"])
        with storage_words(vdi["SR"], record["VDI"]):
            in_force = await driver.openings(seen, vdi["uuid"])
        found += [
            OpenVolume(opening_id, vdi["SR"], vdi["uuid"], vm, vbd)
            for opening_id in in_force
            if opening_id.startswith(f"{domain.uuid[:8]}-") and opening_id.endswith(f"-{device}")
        ]
    return found
