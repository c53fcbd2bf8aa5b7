"""What happened, kept in order and told to whoever listens. An event's text never holds a secret."""

import logging
from collections.abc import Callable
from datetime import datetime

import msgspec

from gespann.array.model.database import Database
from gespann.array.model.records import Event
from gespann.system.clock import Clock

log = logging.getLogger(__name__)

KEPT = 10_000
_LOG_LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "FATAL": logging.CRITICAL}

Listener = Callable[[Event], None]


class Events:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._listeners: list[Listener] = []

    def add(self, level: str, code: str, text: str) -> Event:
        at = self._clock.now()
        with self._database.transaction():
            self._database.run(
                "INSERT INTO event (at, level, code, text) VALUES (?, ?, ?, ?)", at.isoformat(), level, code, text
            )
            number = int(self._database.rows("SELECT max(number) AS number FROM event")[0]["number"])
            if number % 100 == 0:
                self._database.run("DELETE FROM event WHERE number <= ?", number - KEPT)
        log.log(_LOG_LEVELS.get(level, logging.INFO), "%s: %s", code, text)
        event = Event(number=number, at=at, level=level, code=code, text=text)
        for listener in list(self._listeners):
            listener(event)
        return event

    def recent(self, count: int) -> list[Event]:
        """The last ``count``, oldest first."""
        rows = self._database.rows("SELECT * FROM event ORDER BY number DESC LIMIT ?", count)
        return [
            msgspec.structs.replace(
                Event(number=row["number"], at=datetime.fromisoformat(row["at"]), level="", code="", text=""),
                level=row["level"],
                code=row["code"],
                text=row["text"],
            )
            for row in reversed(rows)
        ]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` for each new event until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
