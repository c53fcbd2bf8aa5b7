"""Looks at what thin volumes occupy: warns at their limits, stops those that pass their maximum, and lets those go on
whose maximum or size has been raised.

The engine stops writes that need space at the maximum (``data_plane.policy.limit_of``). What is left to do is to set
the volume offline, if that is its mode, and to say so: every LOOK_CLOSELY_S while a volume is online that has a
maximum, else every LOOK_S. A maximum of 100% needs no watching: a volume cannot occupy more than its size.
"""

import logging

from gespann.array.model.events import Events
from gespann.array.model.records import Volume
from gespann.array.model.refusals import Refusal
from gespann.array.model.volumes import Volumes
from gespann.array.operations.volume_lifecycle import VolumeLifecycle
from gespann.seams.engine_socket import VolumeInfo
from gespann.seams.json_lines import SeamError, SeamLost

log = logging.getLogger(__name__)

LOOK_S = 10.0
LOOK_CLOSELY_S = 1.0
STEP_PERCENT = 5  # a warning at the limit, and again after each further step


class ThinWatch:
    def __init__(self, volumes: Volumes, lifecycle: VolumeLifecycle, events: Events) -> None:
        self._volumes = volumes
        self._lifecycle = lifecycle
        self._events = events
        self._warned: dict[int, int] = {}  # volume id -> steps past its limit that have been told

    async def look(self, inventory: dict[str, VolumeInfo]) -> None:
        volumes = self._volumes.all()
        self._warned = {volume.id: self._warned[volume.id] for volume in volumes if volume.id in self._warned}
        for volume in volumes:
            info = inventory.get(volume.naa)
            if info is None:
                continue
            if volume.thin:
                await self._look_at(volume, info.allocated_bytes)
            if volume.thin_stopped and not volume.online and not _is_past(volume, info.allocated_bytes):
                await self._go_on(volume)

    async def _look_at(self, volume: Volume, used_bytes: int) -> None:
        used_percent = used_bytes * 100 // volume.size_bytes
        if volume.online and _is_past(volume, used_bytes):
            await self._stop(volume, used_percent)
        if used_percent < volume.thin_growth_warn:
            self._warned.pop(volume.id, None)
            return
        steps = (used_percent - volume.thin_growth_warn) // STEP_PERCENT
        if steps > self._warned.get(volume.id, -1):
            self._warned[volume.id] = steps
            text = f"Volume {volume.name} uses {used_percent}% of its size, warning limit {volume.thin_growth_warn}%."
            self._events.add("WARNING", "8.6.1", text)

    async def _stop(self, volume: Volume, used_percent: int) -> None:
        text = f"Volume {volume.name} uses {used_percent}% of its size, maximum {volume.thin_growth_max}%: set offline."
        self._events.add("ERROR", "8.6.2", text)
        try:
            await self._lifecycle.set_online(volume, False, thin_stopped=True, by_itself=True)
        except (Refusal, SeamError, SeamLost) as error:
            log.warning("%s: %s", text, error)

    async def _go_on(self, volume: Volume) -> None:
        """Unless it has become something meanwhile that is offline for another reason."""
        if volume.template:
            return
        try:
            await self._lifecycle.set_online(volume, True, by_itself=True)
            self._events.add("INFO", "8.6.3", f"Volume {volume.name} is below its maximum again: set online.")
        except (Refusal, SeamError, SeamLost) as error:
            log.warning("volume %s stays offline: %s", volume.name, error)


def _is_past(volume: Volume, used_bytes: int) -> bool:
    """Whether it is a volume that goes offline for what it occupies."""
    stops = volume.thin and volume.thin_growth_max < 100 and volume.thin_warn_mode == "offline"
    return stops and used_bytes * 100 >= volume.size_bytes * volume.thin_growth_max
