"""SR type ``lvmoiscsi``: see ``driver``."""

from gespann.sr.lvmoiscsi.driver import LvmoiscsiDriver

__all__ = ["LvmoiscsiDriver"]
