"""Moments at which the engine dies under somebody who writes, and who notices no more of it than a lost session.

Every death is followed by a new engine. What was being made or taken away is there whole or not at all, and what is
there does not change any more, whatever the writer goes on with.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from gespann.seams.engine_socket import (
    SharePair,
    VolumeClone,
    VolumeDelete,
    VolumeList,
    VolumeSnapshot,
)
from tests.fault.engine.file_events import FileEvents
from tests.product.engine.engine_process import Control, EngineProcess

MOMENTS = ("any time", "clone", "deletion", "checkpoint", "snapshot")
CHECKPOINT_KIB = 8  # so that there are checkpoints to die in
DEADLINE_S = 120.0
LONGEST_REQUEST_S = 0.02


class Deaths:
    """Of ``engine``, while ``source`` is written; ``copy`` is the name of the volume that comes and goes meanwhile.

    ``serve`` pushes the policy that a new engine needs: the writer's volumes, and those that it is told besides.
    ``read`` gives the contents of a volume that is served. ``judge`` looks at those of a copy of the source.
    """

    def __init__(
        self,
        engine: EngineProcess,
        serve: Callable[..., None],
        read: Callable[[str], bytes],
        volumes: tuple[str, str],
        chance: random.Random,
    ) -> None:
        self.engine = engine
        self.serve = serve
        self.read = read
        self.source, self.copy = volumes
        self.chance = chance
        self.tally: Counter[str] = Counter()
        engine.options = ["--checkpoint-after", str(CHECKPOINT_KIB)]

    def one(self, moment: str, judge: Callable[[bytes], None], goes_on: Callable[[], None]) -> None:
        """The running engine dies at this moment, and another one serves. ``goes_on`` waits until more was written."""
        control = Control(self.engine.socket_path)
        match moment:
            case "any time":
                time.sleep(self.chance.uniform(0, LONGEST_REQUEST_S))
            case "clone":
                control.send(VolumeClone(source=self.source, volume=self.copy))
            case "snapshot":
                control.send(self._snapshot())
            case "deletion":
                control.call(self._snapshot())
                goes_on()  # so that the copy has something of its own
                control.send(VolumeDelete(volume=self.copy))
            case "checkpoint":
                self._wait_for_a_checkpoint(control)
        if moment in {"clone", "snapshot", "deletion"}:
            time.sleep(self.chance.uniform(0, LONGEST_REQUEST_S))
        self.kill()
        control.close()
        self._settle(moment, judge)

    def kill(self) -> None:
        self.engine.end(signal.SIGKILL)
        self.tally["kills"] += 1

    def start(self, *besides: str) -> Control:
        control = self.engine.start()
        self.serve(control, *besides)
        return control

    def _snapshot(self) -> VolumeSnapshot:
        return VolumeSnapshot(pairs=[SharePair(source=self.source, volume=self.copy)])

    def _wait_for_a_checkpoint(self, control: Control) -> None:
        """Returns when one has just begun, or is a moment old."""
        events = FileEvents(self.engine.data)
        deadline = time.monotonic() + DEADLINE_S
        while not any(name.startswith("new-") for name in events.take()):
            assert time.monotonic() < deadline, "the engine makes no checkpoint"
            control.call(self._snapshot())
            control.call(VolumeDelete(volume=self.copy))
        events.close()

    def _settle(self, moment: str, judge: Callable[[bytes], None]) -> None:
        control = self.start()
        there = self.copy in {info.volume for info in control.call(VolumeList()).volumes}
        self.tally[f"{moment}, {'a copy is there' if there else 'no copy is there'}"] += 1
        if there:
            self.serve(control, self.copy)
            contents = self.read(self.copy)
            judge(contents)
            self.kill()
            control.close()
            control = self.start(self.copy)
            assert self.read(self.copy) == contents, f"the copy has changed by itself, after a death in a {moment}"
            self.serve(control)
            control.call(VolumeDelete(volume=self.copy))
        control.close()
