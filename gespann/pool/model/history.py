"""What changed in which generation: the memory behind ``event.from``.

Each commit is one generation. The newest changes are a list that a reader who was here a moment ago reads from his
place on; who is further behind is answered from the generation kept with each record. Only deletions can be lost:
they are remembered for the last ``DELETIONS_KEPT``; who asks from before them must list everything again.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

CHANGES_KEPT = 50_000
DELETIONS_KEPT = 50_000


class HistoryLost(Exception):
    """The generation asked from is older than what is remembered, or of another run."""


@dataclass(frozen=True)
class Change:
    generation: int  # of the last change
    class_name: str
    ref: str
    operation: str  # add, mod, del: as seen by who knows everything up to the generation asked from


class History:
    def __init__(self, start: int) -> None:
        self.generation = start
        self.start = start  # nothing is known of what was before
        self._lives: dict[tuple[str, str], tuple[int, int]] = {}  # live record -> created, last changed
        self._recent: deque[tuple[int, str, str]] = deque(maxlen=CHANGES_KEPT)  # generation, class, ref
        self._deleted: deque[tuple[int, int, str, str]] = deque()  # deleted, created, class, ref
        self._deletions_forgotten = start  # deletions up to this generation may be forgotten

    def write(self, entries: list[tuple[str, str, str]]) -> None:
        """One commit: (class, ref, "add" | "mod" | "del")."""
        self.generation += 1
        now = self.generation
        for class_name, ref, operation in entries:
            self._recent.append((now, class_name, ref))
            created = self._lives.get((class_name, ref), (now if operation == "add" else self.start, now))[0]
            if operation == "del":
                self._lives.pop((class_name, ref), None)
                self._deleted.append((now, created, class_name, ref))
            else:
                self._lives[class_name, ref] = (created, now)
        while len(self._deleted) > DELETIONS_KEPT:
            self._deletions_forgotten = self._deleted.popleft()[0]

    def check(self, generation: int) -> None:
        """HistoryLost unless ``since`` can answer from there."""
        if not self._deletions_forgotten <= generation <= self.generation:
            raise HistoryLost

    def touched_since(self, generation: int) -> Iterator[tuple[str, str]]:
        """(class, ref) of everything that changed later, some more than once."""
        if len(self._recent) == CHANGES_KEPT and self._recent[0][0] > generation:
            yield from (key for key, (_, changed) in self._lives.items() if changed > generation)
            yield from ((c, r) for deleted, _, c, r in self._deletions_since(generation))
            return
        for changed, class_name, ref in reversed(self._recent):
            if changed <= generation:
                return
            yield class_name, ref

    def since(self, generation: int) -> list[Change]:
        """What changed later, each record once, oldest change first. What came and went in between is left out."""
        self.check(generation)
        known_then = {
            (class_name, ref): deleted
            for deleted, created, class_name, ref in self._deletions_since(generation)
            if created <= generation
        }
        changes = []
        for key in dict.fromkeys(self.touched_since(generation)):
            life = self._lives.get(key)
            if life is not None:
                created, changed = life
                is_new = created > generation and key not in known_then  # else it was deleted and made again
                changes.append(Change(changed, *key, "add" if is_new else "mod"))
        changes += [Change(deleted, *key, "del") for key, deleted in known_then.items() if key not in self._lives]
        return sorted(changes, key=lambda change: change.generation)

    def _deletions_since(self, generation: int) -> Iterator[tuple[int, int, str, str]]:
        for entry in reversed(self._deleted):
            if entry[0] <= generation:
                return
            yield entry
