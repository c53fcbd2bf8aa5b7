"""A repository without storage, for tests of the pool: see ``driver``."""

from gespann.sr.memory.driver import INFO, MemoryDriver
from gespann.sr.memory.faults import Crash, Faults
from gespann.sr.memory.storage import MemoryStorage

__all__ = ["INFO", "Crash", "Faults", "MemoryDriver", "MemoryStorage"]
