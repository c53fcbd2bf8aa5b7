"""XenAPI class host: what an administrator reads of a host and does to its software. Machines run on meanwhile."""

import asyncio
import ssl
from typing import cast

from gespann.pool.api.certificate import ServerCertificate
from gespann.pool.api.certificate_check import checked_pem
from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import coordinator, set_fields
from gespann.pool.pool import Pool
from gespann.pool.rrd.figures import collector_of
from gespann.pool.steps.host_door import HostOffline, ask
from gespann.seams.host_reports import AgentRestart, HostKernelClear, HostReport
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.log import recent_lines

ANSWER_WITHIN_S = 20.0
#: RFC 3720, 3.2.6.3: two kinds of names, and what they are made of
IQN_STARTS = ("iqn.", "eui.", "naa.")
IQN_MOST_BYTES = 223
IQN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.:-")


# -- what it tells


@implements("host.dmesg")
async def dmesg(call: Call, host: str) -> str:
    return str((await ask(call.pool, host, HostReport(what="kernel"))).text)


@implements("host.dmesg_clear")
async def dmesg_clear(call: Call, host: str) -> str:
    return str((await ask(call.pool, host, HostKernelClear())).text)


@implements("host.get_log")
async def get_log(call: Call, host: str) -> str:
    return await log_of(call.pool, host)


async def log_of(pool: Pool, host: str) -> str:
    """What its agent, and on the coordinator's host the coordinator too, have logged lately."""
    text = str((await ask(pool, host, HostReport(what="agent"))).text)
    return text + recent_lines() if host == coordinator(pool) else text


@implements("host.is_in_emergency_mode")
async def is_in_emergency_mode(call: Call) -> bool:
    """Never where a coordinator answers; what a member says, is in ``pool.member``."""
    return False


@implements("host.backup_rrds")
async def backup_rrds(call: Call, host: str, delay: float) -> None:
    """The figures of all hosts are kept on the coordinator; they are on its disk when this ends."""
    if not 0 <= delay <= 3600:
        raise XenApiError("INVALID_VALUE", ["delay", str(delay)])
    await call.pool.clock.sleep(delay)
    await asyncio.to_thread(collector_of(call.pool).keep)


# -- what it is called towards arrays


@implements("host.set_iscsi_iqn")
async def set_iscsi_iqn(call: Call, host: str, value: str) -> None:
    """The name by which repositories that are made from now on are opened, where their type uses a host's name."""
    name = value.lower()
    if not name.startswith(IQN_STARTS) or len(name) > IQN_MOST_BYTES or not set(name) <= IQN_CHARACTERS:
        raise XenApiError("INVALID_VALUE", ["value", value])
    set_fields(call, "host", host, iscsi_iqn=name)


# -- its certificate


@implements("host.get_server_certificate")
async def get_server_certificate(call: Call, host: str) -> str:
    """Of another host, what that shows to whoever connects."""
    if host == coordinator(call.pool):
        return _certificate(call).text()
    address = (str(call.pool.db.get("host", host)["address"]), call.pool.tls_port)
    try:
        return await asyncio.to_thread(ssl.get_server_certificate, address, timeout=ANSWER_WITHIN_S)
    except OSError:
        raise HostOffline(host) from None


@implements("host.install_server_certificate")
async def install_server_certificate(
    call: Call, host: str, certificate: str, private_key: str, certificate_chain: str
) -> None:
    _assert_coordinator(call, host)
    pem = checked_pem(certificate, private_key, certificate_chain, call.pool.clock.now())
    _certificate(call).install(pem)


@implements("host.reset_server_certificate")
async def reset_server_certificate(call: Call, host: str) -> None:
    _assert_coordinator(call, host)
    _certificate(call).reset()


def _certificate(call: Call) -> ServerCertificate:
    if "certificate" not in call.pool.services:
        raise XenApiError("OPERATION_NOT_ALLOWED", ["This coordinator is reached without TLS and has no certificate"])
    return cast(ServerCertificate, call.pool.services["certificate"])


def _assert_coordinator(call: Call, host: str) -> None:
    if host != coordinator(call.pool):
        text = "Clients of the pool meet the coordinator's certificate; a member only tells them where that is"
        raise XenApiError("OPERATION_NOT_ALLOWED", [text])


# -- its software


@implements("host.restart_agent")
async def restart_agent(call: Call, host: str) -> None:
    """The agent of the host begins anew, and on the coordinator's host the coordinator too; shortly after this."""
    await ask(call.pool, host, AgentRestart())
    if host == coordinator(call.pool):
        call.pool.services["restart"]()
