"""Messages about storage: an SR that cannot be reached, one that runs full, a VM that waits for space.

Told once for each time it happens. What was told is found again in the messages themselves, so a coordinator that
starts anew does not tell it twice; who has read a message and removed it is told again if it still holds then.
"""

from typing import TYPE_CHECKING

from gespann.pool.api.classes.message import post
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

#: the original's alert of figures, and its default for this one (perfmon's alarm_trigger_level)
FULL, FULL_PRIORITY, FULL_LEVEL = "ALARM", 3, 0.8
AGAIN_BELOW = FULL_LEVEL - 0.05  # told again only after it had been well below
UNREACHABLE, REACHABLE = "SR_UNREACHABLE", "SR_REACHABLE"
UNREACHABLE_PRIORITY, REACHABLE_PRIORITY = 2, 5
WAITS, WAITS_PRIORITY = "VM_WAITS_FOR_STORAGE", 2


class StorageAlerts:
    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._unreachable: set[str] = set()
        self._full: set[str] = set()
        self._reached: set[str] = set()  # looked at since the start of this coordinator

    def lost(self, sr: str, error: XenApiError) -> None:
        """``sr`` did not answer, or refused to."""
        self._begin(sr)
        if sr not in self._unreachable:
            self._unreachable.add(sr)
            why = ": ".join(part for part in (error.code, *error.params[1:3]) if part)
            self._post(UNREACHABLE, UNREACHABLE_PRIORITY, sr, f"The storage repository cannot be used now. {why}")

    def measured(self, sr: str) -> None:
        """Its sizes have just been asked for, and are in its record."""
        self._begin(sr)
        if sr in self._unreachable:
            self._unreachable.discard(sr)
            self._post(REACHABLE, REACHABLE_PRIORITY, sr, "The storage repository can be used again.")
        record = self._pool.db.get("SR", sr)
        if record["physical_size"] <= 0:
            return
        used = record["physical_utilisation"] / record["physical_size"]
        if used < AGAIN_BELOW:
            self._full.discard(sr)
        elif used >= FULL_LEVEL and sr not in self._full and record["content_type"] != "iso":
            self._full.add(sr)
            self._post(FULL, FULL_PRIORITY, sr, _alarm(used))

    def _begin(self, sr: str) -> None:
        """What an earlier coordinator has told of it and nobody has removed."""
        if sr in self._reached:
            return
        self._reached.add(sr)
        uuid = self._pool.db.get("SR", sr)["uuid"]
        told = [m["name"] for m in self._pool.db.all("message").values() if m["cls"] == "SR" and m["obj_uuid"] == uuid]
        states = [name for name in told if name in (UNREACHABLE, REACHABLE)]
        if states and states[-1] == UNREACHABLE:
            self._unreachable.add(sr)
        if FULL in told:
            self._full.add(sr)

    def _post(self, name: str, priority: int, sr: str, body: str) -> None:
        post(self._pool.db, self._pool.clock, name, priority, "SR", self._pool.db.get("SR", sr)["uuid"], body)


def _alarm(used: float) -> str:
    """The body by which clients know what an ALARM is about."""
    variable = '<variable>\n<name value="physical_utilisation"/>\n'
    variable += f'<alarm_trigger_level value="{FULL_LEVEL}"/>\n<alarm_trigger_period value="60"/>\n</variable>'
    return f"value: {used:.6f}\nconfig:\n{variable}"


def tell_that_it_waits(pool: "Pool", vm: str) -> None:
    text = (
        "The machine is paused: its storage refused a write or read, probably for lack of space. It goes on by itself."
    )
    post(pool.db, pool.clock, WAITS, WAITS_PRIORITY, "VM", pool.db.get("VM", vm)["uuid"], text)
