"""SIGKILL of a process at a message of an operation (``trials``), start, and judgement: what there is afterwards is
what was there before or what the finished operation leaves, nothing is half made, and the same command works then.

    make kills [SECONDS=600] [SEED=n] [TRIAL="full copy"]

tries all points of all operations, in an order that the seed decides, until one is wrong or the time is over.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gespann.array.shell.host_keys import host_keys
from tests.conftest import ENGINE as ENGINE_PATH
from tests.product.whole import picture
from tests.product.whole.doors import Door
from tests.product.whole.picture import Picture
from tests.product.whole.trials import TRIALS, Stage, Trial
from tests.product.whole.whole import AGENT, COORDINATOR, ENGINE, GROUP, OTHER_AGENT, Whole, is_clear, running

NEVER = -1
IN_A_ROW = 6  # kills of one operation, in an open-ended search
KILLS_EACH = 4  # in a test
#: (who dies, at whose messages, after the effect?, how often this is chosen). Where the effect has happened and the
#: answer has not, most can go wrong. At the array's command line "after" is: before an answer of its comes through.
POINTS: list[tuple[str, str, bool, int]] = [
    (COORDINATOR, "engine", True, 3),
    (COORDINATOR, "agent", True, 4),
    (COORDINATOR, "agent", False, 1),
    (COORDINATOR, "shell", False, 1),
    (COORDINATOR, "shell", True, 2),
    (GROUP, "engine", True, 4),
    (GROUP, "engine", False, 1),
    (GROUP, "agent", True, 1),
    (GROUP, "shell", False, 2),
    (GROUP, "shell", True, 2),
    (AGENT, "agent", True, 4),
    (AGENT, "agent", False, 2),
    (AGENT, "engine", True, 1),
    (ENGINE, "engine", True, 3),
    (ENGINE, "engine", False, 2),
    (ENGINE, "agent", True, 1),
    (ENGINE, "shell", False, 1),
    # of migrations alone, which come from ``agent``: the destination's agent, and the way from one to the other
    (COORDINATOR, "other agent", True, 4),
    (COORDINATOR, "other agent", False, 1),
    (COORDINATOR, "landing", True, 3),
    (GROUP, "other agent", True, 1),
    (GROUP, "landing", True, 1),
    (ENGINE, "other agent", True, 1),
    (ENGINE, "landing", True, 2),
    (AGENT, "landing", True, 4),
    (AGENT, "landing", False, 2),
    (AGENT, "other agent", True, 1),
    (OTHER_AGENT, "other agent", True, 4),
    (OTHER_AGENT, "other agent", False, 2),
    (OTHER_AGENT, "landing", True, 4),
    (OTHER_AGENT, "landing", False, 2),
    (OTHER_AGENT, "engine", True, 2),
]


@dataclass(frozen=True)
class Point:
    victim: str
    at: str
    number: int
    after: bool

    def __str__(self) -> str:
        return f"{self.victim} killed {'after' if self.after else 'before'} message {self.number} of the {self.at}"


@dataclass
class Campaign:
    stage: Stage

    @property
    def whole(self) -> Whole:
        return self.stage.whole

    def door(self, at: str) -> Door:
        return self.doors()[at]

    def doors(self) -> dict[str, Door]:
        whole = self.whole
        found: dict[str, Door] = {"engine": whole.engine_door, "agent": whole.agent_door, "shell": whole.ssh_door}
        if OTHER_AGENT in whole.hosts:
            found |= {"other agent": whole.hosts[OTHER_AGENT].door, "landing": whole.hosts[OTHER_AGENT].landing}
        return found

    async def begin(self, trial: Trial) -> tuple[Picture, Picture]:
        """Before and after."""
        await self.stage.bring(trial.needs)
        await trial.prepare(self.stage)
        await self.whole.settled("preparing")
        before = await picture.take(self.whole)
        return before, trial.becomes(before)

    async def messages(self, trial: Trial, after: Picture) -> dict[tuple[str, bool], int]:
        """Of one try that nobody disturbs: how many there are at each door, of requests and of answers."""
        for door in self.doors().values():
            door.arm(NEVER, self._never)
        ended = await self.whole.try_xe(await trial.request_line(self.stage))
        counts = {}
        for at, door in self.doors().items():
            await door.disarm()
            counts[at, False], counts[at, True] = len(door.passed), door.answers
        assert ended.status == 0, ended
        await self.whole.settled("undisturbed")
        now = await picture.take(self.whole)
        assert now == after, f"undisturbed\n{difference([], after, now)}"
        await self._back(trial)
        return counts

    async def _never(self) -> None:
        raise AssertionError("it was armed not to strike")

    async def _back(self, trial: Trial) -> None:
        await trial.undo(self.stage)
        await self.stage.bring(trial.needs)
        await self.whole.settled("going back")

    async def kill(self, name: str, point: Point, before: Picture, after: Picture) -> bool:
        """False: it did not come to that."""
        trial, door = TRIALS[name], self.door(point.at)
        line = await trial.request_line(self.stage)
        door.arm(point.number, lambda: self.whole.kill_and_start(point.victim), after=point.after)
        ended = await self.whole.try_xe(line)
        struck = await door.disarm()
        where = f"{name}, {point} ({door.passed}): {ended}"
        assert ended.status == 0 or (ended.status == 1 and is_clear(ended.stderr)), where
        await self.whole.settled(where)
        now = await picture.take(self.whole)
        half = without(now, trial.half) == without(before, trial.half)
        assert now == after or (ended.status and (now == before or half)), f"{where}\n" + difference(before, after, now)
        if (ended.status and now != after) or before == after:
            self._no_half_file(ended.status, where)
            again = await self.whole.try_xe(await trial.request_line(self.stage))
            assert (again.status, again.stderr) == (0, ""), f"again after {where}: {again}"
            await self.whole.settled(f"the next try after {where}")
            now = await picture.take(self.whole)
            assert now == after, f"the next try after {where}\n" + difference(before, after, now)
        await self._back(trial)
        return struck

    def _no_half_file(self, status: int, where: str) -> None:
        """What could not be exported whole is not there at all."""
        out = self.stage.folder / "out"
        assert not (status and out.exists()), f"half a file is left: {where}"
        out.unlink(missing_ok=True)


def without(now: Picture, prefix: str) -> Picture:
    return [line for line in now if not (prefix and line.startswith(prefix))]


def difference(before: Picture, after: Picture, now: Picture) -> str:
    return "\n".join([f"before  {before}", f"after   {after}", f"now     {now}"])


def all_points(counts: dict[tuple[str, bool], int]) -> list[tuple[Point, float]]:
    """Each with how often it is to be chosen: the weight of its kind is shared by the kind's messages."""
    return [
        (Point(victim, at, number, after), weight / counts[at, after])
        for victim, at, after, weight in POINTS
        if victim != OTHER_AGENT or counts.get(("landing", True))
        for number in range(counts.get((at, after), 0))
    ]


def choose(points: list[tuple[Point, float]], chance: random.Random, how_many: int) -> list[Point]:
    """Takes them out."""
    found = []
    while points and len(found) < how_many:
        (at,) = chance.choices(range(len(points)), [weight for _, weight in points])
        found.append(points.pop(at)[0])
    return found


async def some_of_each(
    whole: Whole, folder: Path, names: Sequence[str], seed: int, *, at: str = "", each: int = KILLS_EACH
) -> dict[str, int]:
    """So many kills it came to in each operation. ``at``: at the messages of this door only, of operations that need
    one SR."""
    chance, struck = random.Random(seed), dict.fromkeys(names, 0)
    stage = Stage(whole, folder)
    await (stage.build_web1() if at else stage.build())
    campaign = Campaign(stage)
    for name in names:
        before, after = await campaign.begin(TRIALS[name])
        counted = all_points(await campaign.messages(TRIALS[name], after))
        points = [one for one in counted if at in ("", one[0].at)]
        for point in choose(points, chance, each):
            print(f"{name}: {point}", flush=True)
            struck[name] += await campaign.kill(name, point, before, after)
        await TRIALS[name].end(stage)
    return struck


async def search(seconds: float, seed: int, wanted: str) -> None:
    chance, until_s, done = random.Random(seed), time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as keys, tempfile.TemporaryDirectory() as folder:
        host_keys(Path(keys))
        async with running(ENGINE_PATH, Path(keys)) as whole:
            whole.sr = await whole.make_sr()
            stage = Stage(whole, Path(folder))
            await stage.build()
            campaign = Campaign(stage)
            names = [name for name in TRIALS if wanted in ("", name)]
            left: dict[str, list[tuple[Point, float]]] = {}
            while time.monotonic() < until_s:
                name = chance.choice(names)
                before, after = await campaign.begin(TRIALS[name])
                if not left.get(name):
                    left[name] = all_points(await campaign.messages(TRIALS[name], after))
                for point in choose(left[name], chance, IN_A_ROW):
                    print(f"{time.strftime('%T')} {name}: {point}", flush=True)
                    done += await campaign.kill(name, point, before, after)
                await TRIALS[name].end(stage)
    print(f"{done} kills, nothing wrong")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--trial", default="", choices=["", *TRIALS])
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    asyncio.run(search(options.seconds, seed, options.trial))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
