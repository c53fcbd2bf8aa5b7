"""Why a group says no. The text is what the person who asked reads; it ends with a full stop."""


class Refusal(Exception):
    """Base: nothing was changed, unless the text says so."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Mistake(Refusal):
    """The caller's turn: a value out of range, a name that cannot be, something that is not there."""


class Conflict(Refusal):
    """Refused in this state: taken, online, full. The same request may succeed later."""


class Failed(Refusal):
    """Ours: the data plane does not answer or said no. The text says what holds now."""


def not_there(kind: str, name: str) -> Mistake:
    """Clients look for ``does not exist.`` at the end of the line."""
    return Mistake(f"{kind} {name} does not exist.")
