"""Takes away what an install or an uninstall left when the coordinator died between two of its calls."""

import logging
from functools import partial
from typing import TYPE_CHECKING

from gespann.pool.classes.context import capabilities_of, work_of
from gespann.pool.model.database import Database
from gespann.pool.plan import disk_plans, machine_plans
from gespann.seams.xenapi.errors import XenApiError
from gespann.seams.xenapi.unfinished import is_unfinished

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)


def unfinished_vms(db: Database) -> set[str]:
    """At the start of a coordinator nobody works on these any more."""
    return {
        vm
        for vm, record in db.all("VM").items()
        if is_unfinished(record["name_label"]) and (record["power_state"] == "Halted" or record["is_a_snapshot"])
    }


async def discard(pool: "Pool", vm: str) -> bool:
    """Its own disks first, so that a repeat still finds them, then the VM. False: not all of it could be done now."""
    record = pool.db.find("VM", vm)
    if record is None:
        return True
    log.warning("VM %s (%s) was not finished: it is taken away", record["uuid"], record["name_label"])
    try:
        for vdi in _own_disks(pool.db, vm):
            await work_of(pool).run(partial(disk_plans.plan_destroy, pool.db, vdi, capabilities_of(pool)))
        await work_of(pool).run(partial(machine_plans.plan_destroy, pool.db, vm))
    except XenApiError as error:
        log.warning("it cannot be taken away now: %s", error)
        return False
    return True


def _own_disks(db: Database, vm: str) -> list[str]:
    """Disks that carry the owner's mark and are in nobody else's use."""
    vbds = [db.get("VBD", vbd) for vbd in db.get("VM", vm)["VBDs"]]
    marked = [vbd["VDI"] for vbd in vbds if vbd["type"] == "Disk" and machine_plans.OWNER in vbd["other_config"]]
    return [vdi for vdi in marked if (disk := db.find("VDI", vdi)) is not None and len(disk["VBDs"]) == 1]
