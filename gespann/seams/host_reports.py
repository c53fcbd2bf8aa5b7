"""Seam 5, what an administrator reads of a host, and its agent started anew."""

from typing import ClassVar, Literal

import msgspec

from gespann.seams.engine_socket import Empty, Request

#: no report is longer: of longer ones the end counts
REPORT_LIMIT_BYTES = 2 * 1024 * 1024


class HostReportReply(msgspec.Struct, frozen=True, kw_only=True):
    text: str


class HostReport(Request, frozen=True):
    """``kernel``: the kernel's messages. ``agent``: what the agent has logged lately."""

    op: ClassVar[str] = "host.report"
    reply: ClassVar[type] = HostReportReply
    what: Literal["kernel", "agent"]


class HostKernelClear(Request, frozen=True):
    """Gives the kernel's messages a last time and forgets them."""

    op: ClassVar[str] = "host.kernel_clear"
    reply: ClassVar[type] = HostReportReply


class AgentRestart(Request, frozen=True):
    """The agent's process begins anew a moment after it has answered. Machines run on."""

    op: ClassVar[str] = "agent.restart"
    reply: ClassVar[type] = Empty
