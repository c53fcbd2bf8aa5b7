"""Where a call comes from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """The far end of a connection. ``local_root``: root of this machine, through the Unix socket."""

    address: str = ""
    local_root: bool = False
    originator: str = ""
