"""A host of the pool: its agent, and the doors in front of it."""

import contextlib
import json
from pathlib import Path

from tests.own_nets import free_port
from tests.product.whole.agent_process import SEEN, HeldSessions
from tests.product.whole.doors import Door, LineDoor
from tests.product.whole.messages import AGENT_OPS
from tests.product.whole.moving import LANDING_OPS, SEEN_BY_OTHERS, SERVED


class Host:
    """``folder``: its directory below ``base``. ``member``: its coordinator is on another host, and comes by TLS."""

    def __init__(self, base: Path, folder: str, hostname: str, address: str, *, member: bool) -> None:
        self.run, self.data = base / folder, base / f"{folder}d"
        for path in (self.run, self.data):
            path.mkdir(mode=0o700)
        self.hostname, self.address, self.port = hostname, address, free_port()
        self.socket = self.run / "agent.sock"
        self.door = LineDoor(self.run / SEEN if member else base / "agent", self.socket, AGENT_OPS)
        self.landing = LineDoor(self.run / SEEN_BY_OTHERS, self.run / SERVED, LANDING_OPS)

    @property
    def doors(self) -> list[Door]:
        return [self.door, self.landing]

    @property
    def words(self) -> list[str]:
        words = ["tests.product.whole.agent_process", "--run", self.run, "--data", self.data, "--fake"]
        return [*map(str, words), "--fake-hostname", self.hostname, "--door", f"{self.address}:{self.port}"]

    def end_sessions(self) -> None:
        HeldSessions.end_all(self.run)

    def held(self) -> list[str]:
        """Who has a session from here."""
        found = []
        for path in (self.run / "held").glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                found.append(json.loads(path.read_text())["holder"])
        return found
