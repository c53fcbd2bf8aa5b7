"""What a decision is made of: a ``Plan`` names its steps, and the objects it holds while it runs.

    @operation("VDI.destroy")
    def plan_destroy(db: Database, vdi: str) -> Plan: ...

A plan is data: its acts go into the journal as JSON, so nothing secret may be in them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gespann.pool.model.database import Transaction

Planner = TypeVar("Planner", bound=Callable[..., "Plan"])

#: every operation that can be in a journal; the generic tests have a scene for each
OPERATIONS: set[str] = set()


@dataclass(frozen=True)
class Act:
    """One step to take: the step's registered name and its arguments (JSON)."""

    step: str
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lock:
    """An object held by an operation. ``operation`` is shown in the object's current_operations ("": not shown).
    Two shared locks go together, anything else does not."""

    class_name: str
    ref: str
    operation: str = ""
    shared: bool = False


@dataclass(frozen=True)
class Plan:
    """``prepare`` changes records in the transaction that journals the intent; the first act is then one whose
    ``revert`` takes that back. ``interrupts`` names operations that this one may cut short (a hard shutdown does not
    wait for a clean one). ``supersedes``: operations whose place it takes if they can be neither finished nor undone,
    each with what takes up what it may have left: its acts in, acts for the end of this one out. ``result`` is what the
    message answers: a reference chosen before the work begins."""

    operation: str
    acts: tuple[Act, ...]
    locks: tuple[Lock, ...] = ()
    prepare: Callable[[Transaction], None] | None = None
    interrupts: frozenset[str] = frozenset()
    supersedes: Mapping[str, Callable[[list[Act]], list[Act]]] = field(default_factory=dict)
    result: Any = None


def operation(name: str) -> Callable[[Planner], Planner]:
    """Marks the planner of a journalled operation."""
    OPERATIONS.add(name)
    return lambda planner: planner
