"""What the storage itself warns of, as messages: about an SR, or about one of its VDIs. How far each SR's warnings have
been told is written down with the messages, so each is told once, also those of a time when no coordinator ran."""

import logging
from typing import TYPE_CHECKING

from gespann.pool.api.values import datetime_text
from gespann.pool.model.messages import leave
from gespann.pool.plan.storage_view import attached_hosts
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.seams.sr_driver import StorageWarning
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
ABOUT_SR, ABOUT_VDI, PRIORITY = "SR_STORAGE_WARNING", "VDI_STORAGE_WARNING", 3
MARK = "storage_warnings:"  # of the table meta, with the uuid of the SR


async def tell_warnings(pool: "Pool") -> None:
    for sr in list(pool.db.all("SR")):
        if pool.db.find("SR", sr) is None or not attached_hosts(pool.db, sr):
            continue
        try:
            await _tell(pool, sr)
        except XenApiError as error:
            log.info("SR %s does not tell its warnings: %s", sr, error)


async def _tell(pool: "Pool", sr: str) -> None:
    """Those from before the SR was first looked at are old news."""
    key = MARK + pool.db.get("SR", sr)["uuid"]
    row = pool.db.sqlite.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    told = int(row[0]) if row else None
    with storage_words(sr):
        found = await driver_of(pool, sr).warnings(sr_as_driver_sees_it(pool.db, sr), told)
    if found is None or pool.db.find("SR", sr) is None:
        return
    newest = max((one.number for one in found), default=told or 0)
    if told == newest:
        return
    with pool.db.transaction() as tx:
        tx.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, str(newest))
        for warning in found if told is not None else []:
            cls, uuid = _about(pool, sr, warning)
            leave(
                pool.db,
                tx,
                name=ABOUT_VDI if cls == "VDI" else ABOUT_SR,
                priority=PRIORITY,
                cls=cls,
                obj_uuid=uuid,
                body=warning.text,
                timestamp=datetime_text(pool.clock.now()),
            )


def _about(pool: "Pool", sr: str, warning: StorageWarning) -> tuple[str, str]:
    record = pool.db.get("SR", sr)
    if warning.vdi_uuid_begins:
        for vdi in record["VDIs"]:
            uuid = pool.db.get("VDI", vdi)["uuid"]
            if uuid.startswith(warning.vdi_uuid_begins):
                return "VDI", uuid
    return "SR", record["uuid"]
