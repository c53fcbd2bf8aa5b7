"""Seam 5, about what is done to a machine while it runs: its memory's target, its part of the processors,
keys and buttons."""

from typing import ClassVar, Literal

from gespann.seams.engine_socket import Empty, Request
from gespann.seams.host_agent import CpuTuning

Trigger = Literal["nmi", "power", "reset"]


class DomainMemory(Request, frozen=True):
    """How much memory the guest is to have. Answers when its balloon has been told; that it gives memory back, or takes
    it, is told as ``domain.changed``: a guest without driver never does. BAD_STATE: more than ``memory_bytes`` of its
    start."""

    op: ClassVar[str] = "domain.memory"
    reply: ClassVar[type] = Empty
    uuid: str
    target_bytes: int


class DomainTune(Request, frozen=True):
    """From now on it has this much of the processors. REFUSED: the host cannot do that (``before`` holds, or a part of
    the new). ``before``: what it has; only what differs is touched."""

    op: ClassVar[str] = "domain.tune"
    reply: ClassVar[type] = Empty
    uuid: str
    tuning: CpuTuning
    before: CpuTuning


class DomainTrigger(Request, frozen=True):
    """A button of the machine: the non-maskable interrupt, the power button, the reset button."""

    op: ClassVar[str] = "domain.trigger"
    reply: ClassVar[type] = Empty
    uuid: str
    trigger: Trigger


class DomainSysrq(Request, frozen=True):
    """Alt and SysRq and a key (a letter or a digit) of the machine's keyboard."""

    op: ClassVar[str] = "domain.sysrq"
    reply: ClassVar[type] = Empty
    uuid: str
    key: str
