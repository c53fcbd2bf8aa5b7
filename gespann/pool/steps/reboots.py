"""Which reboots the pool has asked for. Their events come after the operation has ended, so the asking is remembered
for as long as a guest may take; a coordinator that starts anew has no events of before."""

from gespann.pool.pool import Pool

ASKED_FOR_S = 200.0  # as long as a guest is waited for, and a little more
SAME_REBOOT_S = 5.0  # firmware may reset the machine once more


def _asked(pool: Pool) -> dict[str, float]:
    """VM uuid -> until when its reboots are the pool's."""
    asked: dict[str, float] = pool.services.setdefault("reboots_asked", {})
    return asked


def ask_for_reboot(pool: Pool, vm_uuid: str) -> None:
    """Before the machine is told."""
    _asked(pool)[vm_uuid] = pool.clock.monotonic_s() + ASKED_FOR_S


def was_asked_for(pool: Pool, vm_uuid: str) -> bool:
    """Of a reboot that has just happened."""
    asked, now_s = _asked(pool), pool.clock.monotonic_s()
    until_s = asked.pop(vm_uuid, 0.0)
    if now_s >= until_s:
        return False
    asked[vm_uuid] = min(until_s, now_s + SAME_REBOOT_S)
    return True
