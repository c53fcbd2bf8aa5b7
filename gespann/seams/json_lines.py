"""The line format that seam 4 (engine socket) and seam 5 (host agent) share.

One JSON object a line, UTF-8, at most ``LINE_LIMIT_BYTES`` with its newline. Three shapes:

    {"id": 7, "op": "volume.create", "args": {...}}          a request
    {"id": 7, "ok": {...}}                                    its answer ...
    {"id": 7, "error": {"code": "NO_SPACE", "message": "..."}}  ... or its refusal
    {"event": "domain.stopped", "args": {...}}                told without being asked (seam 5)

Answers may come in another order than their requests. Every request is idempotent: who gets no answer asks again.
"""

LINE_LIMIT_BYTES = 16 * 1024 * 1024


class SeamError(Exception):
    """The other side refused. ``code`` is from the closed list of the seam; ``message`` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class SeamLost(Exception):
    """Nobody answered: not there, gone in the middle, or later than the deadline. The effect may have happened."""
