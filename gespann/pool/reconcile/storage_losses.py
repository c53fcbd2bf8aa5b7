"""What a storage has lost without being told to by this pool: marked as missing, and told by a message, once.

A snapshot that the array has deleted for lack of space, a volume that its administrator has deleted.
"""

import logging
from typing import TYPE_CHECKING

from gespann.pool.api.values import datetime_text
from gespann.pool.model.database import Transaction
from gespann.pool.model.kept_changes import dataless
from gespann.pool.model.messages import leave
from gespann.pool.plan.storage_view import attached_hosts
from gespann.pool.steps.runner import Work
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
LOST, LOST_PRIORITY = "VDI_LOST_BY_STORAGE", 2


async def note_losses(pool: "Pool") -> None:
    for sr in list(pool.db.all("SR")):
        if pool.db.find("SR", sr) is None or not attached_hosts(pool.db, sr):
            continue
        try:
            await _note(pool, sr)
        except XenApiError as error:
            log.info("SR %s does not tell what it has lost: %s", sr, error)


async def _note(pool: "Pool", sr: str) -> None:
    """What an operation makes or takes away just now is its own affair."""
    work: Work = pool.services["work"]
    records = [pool.db.get("VDI", vdi) for vdi in pool.db.get("SR", sr)["VDIs"]]
    with work.volumes_in_motion() as moving:
        asked = {one["uuid"] for one in records if not one["missing"]} - moving - dataless(pool.db)
        with storage_words(sr):
            gone = await driver_of(pool, sr).volumes_gone(sr_as_driver_sees_it(pool.db, sr), sorted(asked))
        gone_for_good = set(gone) - moving - dataless(pool.db)
    if not gone_for_good or pool.db.find("SR", sr) is None:
        return
    with pool.db.transaction() as tx:
        for vdi in tx.get("SR", sr)["VDIs"]:
            record = tx.get("VDI", vdi)
            if record["uuid"] in gone_for_good and not work.locks.is_held("VDI", vdi):
                mark_lost(pool, tx, vdi)


def mark_lost(pool: "Pool", tx: Transaction, vdi: str) -> None:
    """The record stays, so that whoever looks for the disk finds what became of it; ``VDI.destroy`` takes it away."""
    record = tx.get("VDI", vdi)
    if record["missing"]:
        return
    log.warning("VDI %s is no longer on its storage", record["uuid"])
    tx.set("VDI", vdi, missing=True)
    leave(
        pool.db,
        tx,
        name=LOST,
        priority=LOST_PRIORITY,
        cls="VDI",
        obj_uuid=record["uuid"],
        body=_what_happened(tx, record["name_label"], record["is_a_snapshot"], record["snapshot_of"]),
        timestamp=datetime_text(pool.clock.now()),
    )


def _what_happened(tx: Transaction, name: str, is_a_snapshot: bool, source: str) -> str:
    of = tx.get("VDI", source) if is_a_snapshot and tx.exists("VDI", source) else None
    whose = f" of disk {of['name_label']} ({of['uuid']})" if of is not None else ""
    what = f"Snapshot {name}{whose}" if is_a_snapshot else f"Disk {name}"
    why = (
        " The array may have deleted it for lack of snapshot space, or its administrator has." if is_a_snapshot else ""
    )
    return f"{what} is not found on its storage any more; this pool has not deleted it.{why}"
