"""Where the VMs of a host can go, all together: each is given a place with the others' places already taken."""

from gespann.pool.model.database import Database
from gespann.pool.plan.migrate_plans import migration_obstacle
from gespann.pool.plan.placement import free_memory_bytes
from gespann.pool.plan.vm_limits import reserved_bytes
from gespann.seams.xenapi.errors import XenApiError


def residents(db: Database, host: str) -> list[str]:
    """The largest first, as they are the hardest to place."""
    vms = [vm for vm in db.get("host", host)["resident_VMs"] if not db.get("VM", vm)["is_control_domain"]]
    return sorted(vms, key=lambda vm: (-_need_bytes(db, vm), vm))


def _need_bytes(db: Database, vm: str) -> int:
    return reserved_bytes(db.get("VM", vm), None)


def plan_places(db: Database, host: str) -> tuple[dict[str, str], dict[str, XenApiError]]:
    """(VM -> host, VM -> why there is none)."""
    places: dict[str, str] = {}
    obstacles: dict[str, XenApiError] = {}
    free = {other: free_memory_bytes(db, other) for other in db.all("host") if other != host}
    for vm in residents(db, host):
        why: XenApiError | None = XenApiError("NO_HOSTS_AVAILABLE", [])
        need = _need_bytes(db, vm)
        for other in sorted(free, key=lambda other: (-free[other], other)):
            why = migration_obstacle(db, vm, other)
            if why is None and need > free[other]:
                why = XenApiError("HOST_NOT_ENOUGH_FREE_MEMORY", [str(need), str(max(free[other], 0))])
            if why is None:
                places[vm] = other
                free[other] -= need
                break
        if why is not None:
            obstacles[vm] = why
    return places, obstacles


def assert_can_evacuate(db: Database, host: str) -> None:
    """CANNOT_EVACUATE_HOST with all the reasons, ``|`` between them, as it is published."""
    _, obstacles = plan_places(db, host)
    if obstacles:
        reasons = [",".join([error.code, *error.params]) for error in obstacles.values()]
        raise XenApiError("CANNOT_EVACUATE_HOST", ["|".join(reasons)])
