"""What an administrator reads of this host, and the agent started anew: ``seams.host_reports``."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gespann.host.hypervisor import Hypervisor
from gespann.seams.engine_socket import Empty
from gespann.seams.host_reports import (
    REPORT_LIMIT_BYTES,
    AgentRestart,
    HostKernelClear,
    HostReport,
    HostReportReply,
)
from gespann.system.log import recent_lines

log = logging.getLogger(__name__)


class Reports:
    """``restart`` is set when the process is to begin anew."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self.restart = asyncio.Event()

    def handlers(self) -> dict[type[Any], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {HostReport: self._report, HostKernelClear: self._kernel_clear, AgentRestart: self._restart}

    async def _report(self, request: HostReport) -> HostReportReply:
        return _reply(await self._hypervisor.kernel_log(clear=False) if request.what == "kernel" else recent_lines())

    async def _kernel_clear(self, request: HostKernelClear) -> HostReportReply:
        return _reply(await self._hypervisor.kernel_log(clear=True))

    async def _restart(self, request: AgentRestart) -> Empty:
        log.warning("told to begin anew")
        self.restart.set()
        return Empty()


def _reply(text: str) -> HostReportReply:
    """Its end, in whole lines."""
    data = text.encode("utf-8", "replace")
    if len(data) > REPORT_LIMIT_BYTES:
        data = data[-REPORT_LIMIT_BYTES:].partition(b"\n")[2]
    return HostReportReply(text=data.decode("utf-8", "replace"))
