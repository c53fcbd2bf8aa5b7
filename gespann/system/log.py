"""The door to the log: one line per message on stderr, where systemd or whoever started us keeps it.

Modules log through ``logging.getLogger(__name__)``. A secret is never an argument of a log call; as a second fence,
``hide`` registers a secret of this process, and its text is then blotted out wherever it would appear in a line.
"""

import logging
import sys
import time
from collections import deque

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
BLOT = "(hidden)"
SHORTEST_HIDDEN = 6  # blotting shorter texts would eat ordinary words
#: kept in memory, for an administrator who asks the product itself
RECENT_LINES, RECENT_LINE_CHARS = 4000, 1000

_hidden: set[str] = set()
_recent: deque[str] = deque(maxlen=RECENT_LINES)


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in _hidden:
            line = line.replace(secret, BLOT)
        return line


def hide(secret: str) -> None:
    """From now on this text does not reach the log of this process."""
    if len(secret) >= SHORTEST_HIDDEN:
        _hidden.add(secret)


class _Recent(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _recent.append(self.format(record)[:RECENT_LINE_CHARS])


def recent_lines() -> str:
    """The newest lines of this process's log, as they went out: without secrets."""
    return "".join(f"{line}\n" for line in _recent)


def start_logging(level: str = "INFO") -> None:
    """Once per process, from ``gespann.main``."""
    handlers = [logging.StreamHandler(sys.stderr), _Recent()]
    for handler in handlers:
        handler.setFormatter(_Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(level)
