"""The commands as declared: what each requires, what it takes, and how it is flagged."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FACTS = Path(__file__).parent / "facts" / "commands.json"

# What commands take beyond the declared table: ours, and keys that the original reads without declaring them.
_ALSO_TAKEN: dict[str, tuple[str, ...]] = {
    "vm-disk-add": ("sm-config:",),
    "vm-install": ("sm-config:", "template-name", "template-name-label", "template-uuid"),
    "vm-migrate": ("vgpu:",),
    "vm-export": ("task-uuid",),
    "vm-import": ("task-uuid",),
    "vm-vif-list": ("params",),
}
_TAKEN_BY_ALL = ("progress",)


@dataclass(frozen=True)
class CommandSpec:
    """Names ending in ``:`` are maps. ``flags``: standard, hidden, vm-selectors, host-selectors, sr-selectors, ..."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    flags: frozenset[str]

    @property
    def hidden(self) -> bool:
        return "hidden" in self.flags or any(flag.startswith("deprecated:") for flag in self.flags)


@cache
def declared_commands() -> dict[str, CommandSpec]:
    rows = json.loads(_FACTS.read_text(encoding="utf-8"))
    return {
        row["cmd"]: CommandSpec(
            row["cmd"],
            tuple(row["reqd"]),
            (*row["optn"], *(key for key in _ALSO_TAKEN.get(row["cmd"], ()) if key.endswith(":"))),
            frozenset(row["flags"]),
        )
        for row in rows
    }


def own_keys(command: str) -> tuple[str, ...]:
    """The keys that mean something to the command itself and so do not select objects."""
    spec = declared_commands()[command]
    return (*spec.required, *spec.optional, *_ALSO_TAKEN.get(command, ()), *_TAKEN_BY_ALL)
