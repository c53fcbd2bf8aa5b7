"""Looks at the space that all volumes share: says so when it runs short, when it is full, and when it is well again.

A full group refuses nothing but writes that need new space: hypervisors pause their guests and go on when there is
space again. That is the engine's part (``space.limit``, or a full file system); this only tells.
"""

from gespann.array.model.events import Events
from gespann.array.model.member_space import MemberSpaces
from gespann.array.model.sizes import format_size
from gespann.seams.engine_socket import SpaceReply

STEP_PERCENT = 5  # a warning at the limit, and again after each further step


class SpaceWatch:
    def __init__(self, spaces: MemberSpaces, events: Events) -> None:
        self._spaces = spaces
        self._events = events
        self._warned = -1  # steps past the limit that have been told
        self._full = False

    def look(self, said: SpaceReply) -> None:
        member = self._spaces.get()
        left = member.left_of(said)
        used_percent = 100 if left.total_bytes <= 0 else (left.total_bytes - left.free_bytes) * 100 // left.total_bytes
        self._tell_full(left.free_bytes <= 0)
        if used_percent < member.warn_percent:
            if self._warned >= 0:
                self._events.add("INFO", "8.9.3", f"The group's space is used to {used_percent}% again.")
            self._warned = -1
            return
        steps = (used_percent - member.warn_percent) // STEP_PERCENT
        if steps > self._warned:
            self._warned = steps
            free = format_size(left.free_bytes, rounding="down")
            text = f"The group's space is used to {used_percent}%, warning limit {member.warn_percent}%: {free} left."
            self._events.add("WARNING", "8.9.1", text)

    def _tell_full(self, full: bool) -> None:
        if full and not self._full:
            text = "The group has no free space: writes that need new space wait until there is some."
            self._events.add("ERROR", "8.9.2", text)
        self._full = full
