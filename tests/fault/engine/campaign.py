"""Kills the engine again and again while it is written to, and checks each time that nothing acknowledged is missing.

SIGKILL leaves the page cache as it is: what was acknowledged must be there, flushed or not. The moments: any time, just
after a control request, just when a file in the data directory appears, moves or goes, while the engine is stopped, and
while the next engine starts. The seed gives the choices; the rest is the machine's timing.
"""

import contextlib
import json
import random
import re
import selectors
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gespann.seams.engine_socket import (
    Configure,
    Request,
    TargetPut,
    VolumeCreate,
    VolumeInfo,
    VolumeList,
)
from tests.fault.engine.disks import SECTOR, Clock, Disk, Lost
from tests.fault.engine.file_events import FileEvents
from tests.fault.engine.operations import Clone, Delete, Operation, Resize, Rollback, Snapshot, Steps, target_of
from tests.fault.engine.wire import Session
from tests.fault.engine.writer import Writer, read_whole
from tests.product.engine.engine_process import Control, EngineProcess

MIB = 1 << 20
FIRST_SIZES = (2 * MIB, 3 * MIB, 4 * MIB)
MOST_DISKS = 9
CHECKPOINT_KIB = 8  # so that lives have checkpoints to die in
LONGEST_LIFE_S = 0.6  # a plan that waits for what does not come ends so
STARTING_S = 0.03  # an engine that is killed while it starts lives this long at most
DEATHS = {"any time": 6, "request": 8, "file": 5, "stopped": 1, "term": 1}


@dataclass
class Plan:
    """How this life ends."""

    kind: str
    after_s: float  # any time, stopped, term: since the writers began
    request: int  # request: the so many-th one of this life
    delay_s: float  # after that request
    event: int  # file: the so many-th since the first request

    @staticmethod
    def draw(chance: random.Random) -> "Plan":
        kind = chance.choices(list(DEATHS), list(DEATHS.values()))[0]
        delay_s = 10 ** chance.uniform(-5, -1.7)
        return Plan(kind, chance.uniform(0.02, 0.3), chance.randint(1, 5), delay_s, chance.randint(1, 8))


class Channel:
    """A control connection with one operation at a time."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.operation: Operation | None = None
        self.steps: Steps | None = None
        self.asked: Request | None = None

    def fileno(self) -> int:
        return self.control.socket.fileno()

    def begin(self, operation: Operation) -> None:
        self.operation, self.steps = operation, operation.steps()
        for disk in operation.claimed:
            disk.claimed = True

    def advance(self, answer: Any = None) -> Request | None:
        """The request to send next, if there is one now."""
        assert self.operation is not None
        assert self.steps is not None
        try:
            self.asked = self.steps.send(answer)
        except StopIteration:
            for disk in self.operation.claimed:
                disk.claimed = False
            self.operation = self.steps = self.asked = None
        return self.asked

    def answer(self) -> Any:
        """Of what was asked; EOFError if the engine died before it gave one."""
        assert self.asked is not None
        try:
            return self.control.receive(self.asked)
        except (json.JSONDecodeError, ConnectionResetError) as broken:
            raise EOFError from broken


def blocks_of(path: Path) -> int:
    """Nothing, if the engine has just removed it."""
    try:
        return path.stat().st_blocks
    except FileNotFoundError:
        return 0


class Campaign:
    def __init__(self, engine: EngineProcess, seed: int) -> None:
        self.engine = engine
        self.engine.options = ["--checkpoint-after", str(CHECKPOINT_KIB)]
        self.seed = seed
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.disks: dict[str, Disk] = {}
        self.numbers = 0
        self.tally: Counter[str] = Counter()
        self.unsettled: list[Operation] = []
        self.doubtful: set[str] = set()  # volumes to read before they are used

    def new_disk(self, size_bytes: int) -> Disk:
        self.numbers += 1
        return Disk(self.numbers, size_bytes)

    # --- a campaign
    def run(self, kills: int, progress: Any = None) -> None:
        """Raises Lost, with the seed, at the first thing that is wrong."""
        try:
            self.create()
            while self.tally["kills"] < kills:
                self.life()
                if progress is not None:
                    progress(self)
            self.check_all()
        except Exception as error:
            log = self.engine.log.read_text(errors="replace")[-3000:] if self.engine.log.exists() else ""
            raise Lost(f"{error}\nseed {self.seed}, after {self.tally['kills']} kills; engine:\n{log}") from error

    def create(self) -> None:
        control = self.engine.start()
        for size_bytes in FIRST_SIZES:
            disk = self.new_disk(size_bytes)
            disk.written = True
            control.call(VolumeCreate(volume=disk.volume, size_bytes=size_bytes))
            self.disks[disk.volume] = disk
        control.close()
        self.kill(signal.SIGKILL)

    def life(self) -> None:
        control = self.start()
        self.settle(control)
        if self.chance.random() < 0.05:
            self.doubtful.update(self.disks)
        else:
            self.doubtful.update(self.chance.sample(sorted(self.disks), 1))
        self.read_doubtful()
        self.repeat_requests(control)
        Life(self, control).run(Plan.draw(self.chance))

    def check_all(self) -> None:
        """The end: everything is read once more, then deleted, and its space comes back."""
        control = self.start()
        self.settle(control)
        self.doubtful.update(self.disks)
        self.read_doubtful()
        control.call(Configure(targets=[], chap_users=[]))
        for disk in list(self.disks.values()):
            Life.call_all(control, Delete(self, disk))
        self.wait_for_space()
        control.close()
        if self.engine.end(signal.SIGTERM) != 0:
            raise Lost("the engine did not end in order")
        if "panicked" in self.engine.log.read_text(errors="replace"):
            raise Lost("the engine panicked")

    def wait_for_space(self) -> None:
        """What is deleted is given back in the background; the log of the maps keeps its space."""
        volumes = self.engine.data / "volumes"
        deadline = time.monotonic() + 120
        while used := sum(blocks_of(path) for path in volumes.iterdir()) * SECTOR:
            if time.monotonic() > deadline:
                raise Lost(f"no volume is left, but {used} bytes are still used: {sorted(volumes.iterdir())}")
            time.sleep(0.02)

    # --- death and birth
    def kill(self, number: int) -> int:
        status = self.engine.end(number)
        self.tally["kills"] += number == signal.SIGKILL
        return status

    def start(self) -> Control:
        """Starts the engine; now and then kills it while it starts, and starts it again."""
        while self.chance.random() < 0.15:
            with self.engine.log.open("ab") as log:
                self.engine.process = subprocess.Popen(self.engine.command(), stderr=log)
            time.sleep(self.chance.uniform(0, STARTING_S))
            self.kill(signal.SIGKILL)
            self.tally["while starting"] += 1
        return self.engine.start()

    def settle(self, control: Control) -> None:
        """Compares the volumes that are there with those that must be."""
        listed: dict[str, VolumeInfo] = {info.volume: info for info in control.call(VolumeList()).volumes}
        for operation in self.unsettled:
            done = operation.after_crash(listed)
            self.tally[f"{type(operation).__name__.lower()} cut short, {'done' if done else 'not done'}"] += 1
            for disk in operation.claimed:
                disk.claimed = False
                self.doubtful.add(disk.volume)
        if set(listed) != set(self.disks):
            missing = sorted(disk.name for volume, disk in self.disks.items() if volume not in listed)
            raise Lost(f"missing: {missing}; nobody's: {sorted(set(listed) - set(self.disks))}")
        for volume, disk in self.disks.items():
            if listed[volume].size_bytes != disk.size_bytes:
                raise Lost(f"{disk.name} has {listed[volume].size_bytes} bytes, not {disk.size_bytes}")
        control.call(Configure(targets=[target_of(disk) for disk in self.disks.values()], chap_users=[]))

    def read_doubtful(self) -> None:
        for volume in sorted(self.doubtful & set(self.disks)):
            disk = self.disks[volume]
            disk.adopt(read_whole(Session(self.engine.port, disk.iqn), disk.size_bytes), self.clock)
            self.tally["disks read"] += 1
            self.tally["torn blocks of unanswered writes"] += disk.torn
            disk.torn = 0
        self.doubtful.clear()

    def repeat_requests(self, control: Control) -> None:
        for operation in self.unsettled:
            request = operation.repeated() if self.chance.random() < 0.5 else None
            if request is None:
                continue
            control.call(request)
            self.tally["requests repeated"] += 1
            for disk in operation.claimed:
                if disk.volume in self.disks:
                    control.call(TargetPut(target=target_of(disk)))
                    self.doubtful.add(disk.volume)
        self.unsettled.clear()
        self.read_doubtful()

    def choose(self, active: list[Disk]) -> Operation | None:
        """Something to ask for; none if all disks are taken."""
        idle = [disk for disk in self.disks.values() if not disk.claimed and disk.window is None]
        resting = [disk for disk in idle if disk not in active]
        busy = [disk for disk in idle if disk in active]
        few = len(self.disks) < MOST_DISKS
        weights = {
            "clone": 2 if few and idle else 0,
            "snapshot": 5 if few and idle else 0,
            "delete": (2 if few else 8) if len(resting) > 2 else 0,
            "resize": 2 if busy else 0,
            "rollback": 2 if resting and len(idle) > 1 else 0,
        }
        if not any(weights.values()):
            return None
        match self.chance.choices(list(weights), list(weights.values()))[0]:
            case "clone":
                return Clone(self, [self.chance.choice(busy or idle)])
            case "snapshot":
                return Snapshot(self, self.chance.sample(idle, self.chance.randint(1, min(3, len(idle)))))
            case "delete":
                return Delete(self, self.chance.choice(resting))
            case "resize":
                return Resize(self.chance.choice(busy), self.chance)
            case _:
                disk = self.chance.choice(resting)
                return Rollback(self, disk, self.chance.choice([other for other in idle if other is not disk]))


class Life:
    """One engine from the first write to its death."""

    def __init__(self, campaign: Campaign, control: Control) -> None:
        self.campaign = campaign
        self.chance = campaign.chance
        self.engine = campaign.engine
        self.selector = selectors.DefaultSelector()
        self.channels = [Channel(control), Channel(Control(self.engine.socket_path))]
        self.events = FileEvents(self.engine.data)
        self.active = self._choose_active()
        self.writers = [self._writer(disk) for disk in self.active for _ in range(self.chance.randint(1, 2))]
        for item in [*self.channels, self.events, *(writer.session for writer in self.writers)]:
            self.selector.register(item, selectors.EVENT_READ, item)
        self.requests = 0
        self.doomed = False
        self.event_count = 0
        self.event_name = ""

    def _choose_active(self) -> list[Disk]:
        copies = [disk for disk in self.campaign.disks.values() if not disk.written]
        if copies and self.chance.random() < 0.3:
            self.chance.choice(copies).written = True
        return [disk for disk in self.campaign.disks.values() if disk.written and self.chance.random() < 0.75]

    def _writer(self, disk: Disk) -> Writer:
        campaign = self.campaign
        return Writer(Session(self.engine.port, disk.iqn), disk, campaign.clock, self.chance, campaign.tally)

    @staticmethod
    def call_all(control: Control, operation: Operation) -> None:
        """One operation from its beginning to its end, with nothing beside it."""
        channel = Channel(control)
        channel.begin(operation)
        request = channel.advance()
        while request is not None:
            request = channel.advance(control.call(request))

    def run(self, plan: Plan) -> None:
        self.plan = plan
        self.began = time.monotonic()
        while not self._due():
            for writer in self.writers:
                writer.fill()
            if self._operate():
                break
            for key, _ in self.selector.select(0.001):
                self._ready(key.data)
            if self.engine.process is None or self.engine.process.poll() is not None:
                raise Lost("the engine ended by itself")
        self._die()
        self._afterwards()

    def _due(self) -> bool:
        lived_s = time.monotonic() - self.began
        if self.doomed:
            return True
        if self.plan.kind == "file" and self.event_count >= self.plan.event:
            return True
        return lived_s > (self.plan.after_s if self.plan.kind in {"any time", "stopped", "term"} else LONGEST_LIFE_S)

    def _operate(self) -> bool:
        """Begins and goes on with operations. True: now is the moment to die."""
        for channel in self.channels:
            if channel.operation is None and self.chance.random() < 0.05:
                operation = self.campaign.choose(self.active)
                if operation is not None:
                    channel.begin(operation)
                    if self._send(channel, channel.advance()):
                        return True
            elif channel.operation is not None and channel.asked is None and self._send(channel, channel.advance()):
                return True
        return False

    def _send(self, channel: Channel, request: Request | None) -> bool:
        if request is None:
            return False
        channel.control.send(request)
        self.requests += 1
        if self.plan.kind == "request" and self.requests >= self.plan.request:
            time.sleep(self.plan.delay_s)
            return True
        return False

    def _ready(self, item: object) -> None:
        if isinstance(item, Session):
            item.pull()
            if item.ended:
                raise Lost("the engine closed a session")
        elif isinstance(item, Channel):
            try:
                request = item.advance(item.answer())
            except EOFError as ended:
                raise Lost("the engine closed a control connection") from ended
            self.campaign.tally["requests answered"] += 1
            self.doomed = self._send(item, request)
        elif isinstance(item, FileEvents):
            names = item.take()
            if self.requests and names:
                self.event_count += len(names)
                self.event_name = re.sub(r"[0-9a-f]{32}|\d+", "*", names[-1])

    def _die(self) -> None:
        kind = self.plan.kind
        self.campaign.tally[f"killed: {kind} {self.event_name if kind == 'file' else ''}".rstrip()] += 1
        if kind == "stopped":
            assert self.engine.process is not None
            self.engine.process.send_signal(signal.SIGSTOP)
            for writer in self.writers:
                writer.fill()
        if kind == "term":
            if self.campaign.kill(signal.SIGTERM) != 0:
                raise Lost("the engine did not end in order")
        else:
            self.campaign.kill(signal.SIGKILL)

    def _afterwards(self) -> None:
        """Takes the answers that the engine gave before it died."""
        for writer in self.writers:
            writer.session.pull()
            writer.session.close()
        for channel in self.channels:
            with contextlib.suppress(EOFError):
                if channel.asked is not None:
                    channel.advance(channel.answer())
            if channel.operation is not None:
                self.campaign.unsettled.append(channel.operation)
            channel.control.close()
        self.events.close()
        self.selector.close()
        self.campaign.doubtful.update(disk.volume for disk in self.active)
        self.campaign.doubtful.update(v for v, disk in self.campaign.disks.items() if disk.window is not None)
