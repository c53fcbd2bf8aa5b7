"""What happened, kept in order and told to whoever listens. An event's text never holds a secret."""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from gespann.array.model.database import Database
from gespann.array.model.records import Event
from gespann.system.clock import Clock

log = logging.getLogger(__name__)

KEPT = 10_000
LEVELS = ("INFO", "WARNING", "ERROR", "FATAL")  # the least first
_LOG_LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "FATAL": logging.CRITICAL}

Listener = Callable[[Event], None]


class Events:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._listeners: list[Listener] = []

    def add(self, level: str, code: str, text: str) -> None:
        """Never fails, because what it tells of has happened: without room in the database the event is in the log
        alone, as number 0. It does not wait for the disk either, so that nobody can make the group do that by trying
        to log in; the next change takes it along."""
        log.log(_LOG_LEVELS.get(level, logging.INFO), "%s: %s", code, text)
        event = Event(number=0, at=self._clock.now(), level=level, code=code, text=text)
        try:
            event = msgspec.structs.replace(event, number=self._keep(event))
        except sqlite3.Error as error:
            log.error("event not kept: %s", error)
        for listener in list(self._listeners):
            listener(event)

    def _keep(self, event: Event) -> int:
        with self._database.transaction(durable=False):
            self._database.run(
                "INSERT INTO event (at, level, code, text) VALUES (?, ?, ?, ?)",
                *(event.at.isoformat(), event.level, event.code, event.text),
            )
            number = int(self._database.rows("SELECT max(number) AS number FROM event")[0]["number"])
            if number % 100 == 0:
                self._database.run("DELETE FROM event WHERE number <= ?", number - KEPT)
        return number

    def recent(self, count: int, levels: Sequence[str] = LEVELS) -> list[Event]:
        """The last ``count`` of these levels, oldest first."""
        rows = self._database.rows(f"{_of(levels)} ORDER BY number DESC LIMIT ?", *levels, count)
        return [_event(row) for row in reversed(rows)]

    def after(self, number: int, count: int, levels: Sequence[str]) -> list[Event]:
        """The first ``count`` of these levels that came after that one, oldest first."""
        rows = self._database.rows(f"{_of(levels)} AND number > ? ORDER BY number LIMIT ?", *levels, number, count)
        return [_event(row) for row in rows]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` for each new event until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def _of(levels: Sequence[str]) -> str:
    places = ", ".join("?" * len(levels))
    return f"SELECT * FROM event WHERE level IN ({places})"  # noqa: S608 question marks only


def _event(row: sqlite3.Row) -> Event:
    at = datetime.fromisoformat(row["at"])
    return Event(number=row["number"], at=at, level=row["level"], code=row["code"], text=row["text"])
