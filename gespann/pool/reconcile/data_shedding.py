"""Lets go of the volumes of snapshots whose data has been destroyed, as soon as that can be done without forgetting
what has changed since (``plan.data_plans``)."""

import logging
from typing import TYPE_CHECKING

from gespann.pool.plan.data_plans import is_shedding_due, plan_shed_data
from gespann.pool.plan.legal_moves import METADATA_TYPE
from gespann.pool.steps.runner import Work
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
#: the storage cannot tell what has changed: the volume stays until the VDI is destroyed
CANNOT = "SR_OPERATION_NOT_SUPPORTED"


async def shed_when_possible(pool: "Pool", vdi: str) -> bool:
    """False: never, on this storage."""
    work: Work = pool.services["work"]
    if not is_shedding_due(pool.db, vdi) or work.locks.is_held("VDI", vdi):
        return True
    try:
        await work.run(lambda: plan_shed_data(pool.db, vdi))
    except XenApiError as error:
        log.info("the volume of VDI %s stays for now: %s", pool.db.get("VDI", vdi)["uuid"], error)
        return error.code != CANNOT
    return True


class Shedding:
    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._never: set[str] = set()

    async def round(self) -> None:
        for vdi, _ in self._pool.db.where("VDI", type=METADATA_TYPE):
            if vdi in self._never or self._pool.db.find("VDI", vdi) is None:
                continue
            if not await shed_when_possible(self._pool, vdi):
                self._never.add(vdi)
