"""Whether somebody takes connections at a Unix socket: its name is there a moment before."""

from pathlib import Path

LISTENS = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix, proc_net_unix(5)


def listens(path: Path) -> bool:
    """Without a connection: some servers take one client, and that is for the test."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        if words[7:] == [str(path)] and int(words[3], 16) & LISTENS:
            return True
    return False
