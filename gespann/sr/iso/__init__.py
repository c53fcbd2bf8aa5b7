"""SR type ``iso``: see ``driver``."""

from gespann.sr.iso.driver import INFO, IsoDriver

__all__ = ["INFO", "IsoDriver"]
