"""Makes the records of an SR agree with its storage. What the storage has lost is marked as missing, never dropped."""

import logging
from typing import TYPE_CHECKING, Any

from gespann.pool.model.database import Transaction
from gespann.pool.model.kept_changes import dataless
from gespann.pool.plan.shapes import Lock
from gespann.pool.plan.storage_view import attached_hosts
from gespann.pool.reconcile.storage_losses import mark_lost
from gespann.pool.steps.openings import all_openings
from gespann.pool.steps.runner import Work
from gespann.pool.steps.storage_door import driver_of, sr_as_driver_sees_it, storage_words
from gespann.pool.succession.terms import hosts_to_adopt
from gespann.seams.sr_driver import SrStat, Volume
from gespann.seams.xenapi.datamodel import EPOCH, NULL_REF
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)


async def scan_sr(pool: "Pool", sr: str) -> None:
    """XenApiError if the storage refuses; nothing has changed then."""
    work: Work = pool.services["work"]
    driver, seen = driver_of(pool, sr), sr_as_driver_sees_it(pool.db, sr)
    with work.holding(Lock("SR", sr, "scan", shared=True)), work.volumes_in_motion() as moving:
        known = {pool.db.get("VDI", vdi)["uuid"] for vdi in pool.db.get("SR", sr)["VDIs"]}
        with storage_words(sr):
            volumes = await driver.scan(seen)
            stat = await driver.stat(seen)
        gone = dataless(pool.db)
        found = {volume.vdi_uuid: volume for volume in volumes if volume.vdi_uuid not in moving}
        with pool.db.transaction() as tx:
            here = {tx.get("VDI", vdi)["uuid"]: vdi for vdi in tx.get("SR", sr)["VDIs"]}
            for uuid, volume in found.items():
                if uuid in here:
                    _show(tx, here[uuid], volume)
                elif uuid not in known:
                    _introduce(tx, sr, volume)
            for uuid, vdi in here.items():
                if uuid in known and uuid not in found and uuid not in moving and uuid not in gone:
                    mark_lost(pool, tx, vdi)
            _relate(tx, sr, [volume for uuid, volume in found.items() if uuid not in known])
            _show_stat(tx, sr, stat)


async def scan_when_possible(pool: "Pool", sr: str) -> None:
    """For those who have done what they were asked for, and only want to show more."""
    try:
        await scan_sr(pool, sr)
    except XenApiError as error:
        log.warning("SR %s cannot be scanned now: %s", pool.db.get("SR", sr)["uuid"], error)


def _fields(volume: Volume) -> dict[str, Any]:
    return {
        "virtual_size": volume.virtual_size_bytes,
        "physical_utilisation": volume.utilisation_bytes,
        "location": volume.location,
        "sm_config": volume.sm_config,
        "missing": False,
    }


def _show(tx: Transaction, vdi: str, volume: Volume) -> None:
    tx.set("VDI", vdi, **_fields(volume))


def _introduce(tx: Transaction, sr: str, volume: Volume) -> None:
    tx.create(
        "VDI",
        {
            **_fields(volume),
            "uuid": volume.vdi_uuid,
            "SR": sr,
            "name_label": volume.name_label,
            "name_description": volume.name_description,
            "type": volume.vdi_type,
            "read_only": volume.read_only,
            "sharable": volume.sharable,
            "managed": True,
            "is_a_snapshot": volume.is_a_snapshot,
            "snapshot_time": volume.snapshot_time or EPOCH,
            "snapshot_of": NULL_REF,
        },
    )


def _relate(tx: Transaction, sr: str, introduced: list[Volume]) -> None:
    """Snapshots that are new here point at what they are of, if that is here too."""
    here = {tx.get("VDI", vdi)["uuid"]: vdi for vdi in tx.get("SR", sr)["VDIs"]}
    for volume in introduced:
        if volume.snapshot_of in here:
            tx.set("VDI", here[volume.vdi_uuid], snapshot_of=here[volume.snapshot_of])


def _show_stat(tx: Transaction, sr: str, stat: SrStat) -> None:
    tx.set(
        "SR",
        sr,
        physical_size=stat.physical_size_bytes,
        physical_utilisation=stat.physical_utilisation_bytes,
        virtual_allocation=stat.virtual_allocation_bytes,
    )


async def refresh_stat(pool: "Pool", sr: str) -> None:
    """The sizes only: quick, and in nobody's way."""
    driver, seen = driver_of(pool, sr), sr_as_driver_sees_it(pool.db, sr)
    with storage_words(sr):
        stat = await driver.stat(seen)
    if pool.db.find("SR", sr) is not None:
        with pool.db.transaction() as tx:
            _show_stat(tx, sr, stat)


async def close_strays(pool: "Pool", sr: str) -> int:
    """Closes openings that the storage has in force and nobody here knows of. Gives how many there were."""
    work: Work = pool.services["work"]
    driver, closed, gone = driver_of(pool, sr), 0, dataless(pool.db)
    if not attached_hosts(pool.db, sr):
        return 0
    for vdi in list(pool.db.get("SR", sr)["VDIs"]):
        record = pool.db.find("VDI", vdi)
        if record is None or record["missing"] or record["uuid"] in gone or work.locks.is_held("VDI", vdi):
            continue
        seen = sr_as_driver_sees_it(pool.db, sr)
        with storage_words(sr, vdi):
            in_force = await driver.openings(seen, record["uuid"])
        if work.locks.is_held("VDI", vdi):
            continue  # its opening may be so new that it is not written down yet
        known = {opening.opening_id for opening in all_openings(pool.db)}
        for opening_id in in_force:
            if opening_id not in known and not _may_be_in_use(pool, opening_id):
                log.warning("VDI %s was open for nobody (%s): closed", record["uuid"], opening_id)
                with storage_words(sr, vdi):
                    await driver.close(seen, record["uuid"], opening_id)
                closed += 1
    return closed


def _may_be_in_use(pool: "Pool", opening_id: str) -> bool:
    """While a database that came from a copy does not know yet what all hosts have running: by any VM."""
    return bool(hosts_to_adopt(pool.db)) and not opening_id.startswith("pool-")
