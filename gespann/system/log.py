"""The door to the log: one line per message on stderr, where systemd or whoever started us keeps it.

Modules log through ``logging.getLogger(__name__)``. A secret is never an argument of a log call; as a second fence,
``hide`` registers a secret of this process, and its text is then blotted out wherever it would appear in a line.
"""

import logging
import sys
import time

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
BLOT = "(hidden)"
SHORTEST_HIDDEN = 6  # blotting shorter texts would eat ordinary words

_hidden: set[str] = set()


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


def start_logging(level: str = "INFO") -> None:
    """Once per process, from ``gespann.main``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
