"""What the engine is told about a volume: from the group's rows to the messages of seam 4. Pure."""

from collections.abc import Collection, Iterable

from gespann.array.model.records import AccessRecord, Snapshot, StoragePool, Volume
from gespann.seams.engine_socket import Access, SpacePool, SpacePools, Target, VolumeLimit

VENDOR, PRODUCT = "EQLOGIC", "100E-00"  # what the multipath rules of existing hosts match


def target_of(volume: Volume, records: Iterable[AccessRecord]) -> Target:
    """Records that apply to snapshots only open nothing here, and the other way round. One for a CHAP user who is
    disabled or unknown opens nothing either, because the engine then has no secret by that name."""
    return _target(volume, volume.block_size, _access(records, "volume"), volume.lease_holder)


def target_of_snapshot(snapshot: Snapshot, volume: Volume, records: Iterable[AccessRecord]) -> Target:
    """``volume`` and ``records``: whose snapshot it is. Only a snapshot that is online has a target."""
    return _target(snapshot, volume.block_size, _access(records, "snapshot"))


def _target(served: Volume | Snapshot, block_size: int, access: list[Access], writer: str = "") -> Target:
    return Target(
        volume=served.naa,
        name=served.target_name,
        alias=served.alias,
        online=served.online,
        read_only=served.read_only,
        multihost=served.multihost,
        generation=served.generation,
        access=access,
        writer=writer,
        vendor=VENDOR,
        product=PRODUCT,
        block_size=block_size,
    )


def limit_of(volume: Volume) -> VolumeLimit:
    """How much a volume may have in use: beyond it, writes that need space fail. None for what may be full, and for
    ``soft-only``, which only warns."""
    limited = volume.thin and volume.thin_growth_max < 100 and volume.thin_warn_mode != "soft-only"
    most = volume.size_bytes * volume.thin_growth_max // 100 if limited else None
    return VolumeLimit(volume=volume.naa, max_in_use_bytes=most)


def pools_of(
    pools: Iterable[StoragePool], members: Iterable[tuple[str, int]], wanted: Collection[str] | None
) -> SpacePools:
    """``members``: volumes and snapshots by NAA, with the number of their pool. ``wanted``: those named; none: all."""
    naas: dict[int, list[str]] = {}
    for naa, pool_id in members:
        if wanted is None or naa in wanted:
            naas.setdefault(pool_id, []).append(naa)
    return SpacePools(
        pools=[
            SpacePool(pool=pool.name, capacity_bytes=pool.capacity_bytes, volumes=naas.get(pool.id, []))
            for pool in pools
        ]
    )


def _access(records: Iterable[AccessRecord], kind: str) -> list[Access]:
    return [
        Access(initiator=record.initiator, chap_user=record.chap_user, address=record.address)
        for record in records
        if record.apply_to in (kind, "both")
    ]
