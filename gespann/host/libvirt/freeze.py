"""A guest's file systems frozen and thawed by its agent. Each function runs in a worker.

libvirt waits ``AGENT_TIMEOUT_S`` for an answer. A freeze that was not answered by then may still happen later, so only
the guest's own word counts for thawed (guest-fsfreeze-status of the QEMU guest agent's protocol).
"""

import json

import libvirt
import libvirt_qemu

from gespann.host.libvirt.domain_xml import DomainView
from gespann.host.libvirt.guest import AGENT_TIMEOUT_S, set_agent_timeout
from gespann.seams.json_lines import SeamError


def freeze(domain: libvirt.virDomain, view: DomainView) -> None:
    """GUEST_AGENT: there is none; TIMEOUT: it did not answer; BAD_STATE: it would not."""
    if not view.agent_connected:
        raise SeamError("GUEST_AGENT", "no guest agent is connected")
    set_agent_timeout(domain)
    try:
        domain.fsFreeze(None, 0)
    except libvirt.libvirtError as error:
        silent = error.get_error_code() in (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED)
        code = "TIMEOUT" if silent else "BAD_STATE"
        raise SeamError(code, (error.get_error_message() or str(error))[:500]) from error


def thaw(domain: libvirt.virDomain) -> bool:
    """True: it was frozen, and says that it is not any more."""
    if not _frozen(domain):
        return False
    domain.fsThaw(None, 0)
    if _frozen(domain):
        raise SeamError("BAD_STATE", "the guest says that it is still frozen")
    return True


def _frozen(domain: libvirt.virDomain) -> bool:
    answer = libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-fsfreeze-status"}', AGENT_TIMEOUT_S, 0)
    try:
        said = json.loads(answer)["return"]
    except (ValueError, KeyError, TypeError):
        said = ""
    if said not in ("frozen", "thawed"):
        raise SeamError("GUEST_AGENT", "the guest's agent does not say whether it is frozen")
    return bool(said == "frozen")
