"""SR type ``equal``: see ``driver``."""

from gespann.sr.equal.connection import Timing
from gespann.sr.equal.driver import EqualDriver
from gespann.sr.equal.info import INFO

__all__ = ["INFO", "EqualDriver", "Timing"]
