"""What an administrator is told of a migration that somebody's silence has stopped: where the machine is, and what ends
the waiting."""

from gespann.pool.plan.shapes import Act

GIVE_UP = "If it never will: host-declare-dead for that host, or vm-reset-powerstate --force for this VM"
MEMORY_LOST = "which halts it and loses its memory"


def where_it_is(rest: list[Act], *, undoing: bool, silent: str, source: str, destination: str) -> str:
    """A sentence or three. ``rest``: the acts that are not done yet, the one that waits first. ``silent``: the host
    that does not answer, "" if it is the storage."""
    if undoing:
        return f"the machine runs on at {source}; what was made ready for it is taken away when there is an answer"
    steps = [act.step for act in rest]
    end = f". {GIVE_UP}, {MEMORY_LOST}" if silent else ""
    if steps[0] == "domain-send" and silent != destination:
        return (
            f"it may run the machine still, and {destination} may have it whole, standing still. The move is finished"
            f" or undone when it answers{end}"
        )
    if "domain-go-on" in steps:
        return (
            f"the machine has left {source}, and stands still on {destination} with its memory; it goes on there when"
            f" there is an answer{end}"
        )
    return f"the machine runs on {destination}; what {source} had open for it is closed when there is an answer"
