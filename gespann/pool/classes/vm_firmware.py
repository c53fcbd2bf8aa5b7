"""XenAPI class VM: buttons and keys of the machine, and what its firmware tells of it."""

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, set_fields
from gespann.pool.plan import legal_moves
from gespann.pool.plan.bios_strings import SETTABLE, assert_bios_strings
from gespann.pool.plan.suspend_plans import running_start
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.reboots import ask_for_reboot
from gespann.seams.host_machine import DomainSysrq, DomainTrigger, Trigger
from gespann.seams.xenapi.errors import XenApiError

TRIGGERS: dict[str, Trigger] = {"nmi": "nmi", "power": "power", "reset": "reset"}


@implements("VM.send_sysrq")
async def send_sysrq(call: Call, vm: str, key: str) -> None:
    """Alt, SysRq and a key, which a Linux kernel may be told to listen to."""
    legal_moves.assert_vm(call.pool.db, vm, "send_sysrq")
    if len(key) != 1 or not key.isascii() or not key.isalnum():
        raise XenApiError("INVALID_VALUE", ["key", key[:100]])
    host, uuid = running_start(call.pool.db, vm).host, call.pool.db.get("VM", vm)["uuid"]
    await ask(call.pool, host, DomainSysrq(uuid=uuid, key=key))


@implements("VM.send_trigger")
async def send_trigger(call: Call, vm: str, trigger: str) -> None:
    legal_moves.assert_vm(call.pool.db, vm, "send_trigger")
    if trigger not in TRIGGERS:
        raise XenApiError("INVALID_VALUE", ["trigger", trigger[:100]])
    host, uuid = running_start(call.pool.db, vm).host, call.pool.db.get("VM", vm)["uuid"]
    if trigger == "reset":
        ask_for_reboot(call.pool, uuid)
    await ask(call.pool, host, DomainTrigger(uuid=uuid, trigger=TRIGGERS[trigger]))


@implements("VM.set_bios_strings")
async def set_bios_strings(call: Call, vm: str, value: dict[str, str]) -> None:
    """Once, of a VM that is halted: a guest does not expect its machine to change."""
    _assert_changeable(call, vm)
    assert_bios_strings(call.pool.db.get("VM", vm)["bios_strings"], value)
    set_fields(call, "VM", vm, bios_strings=value)


@implements("VM.copy_bios_strings")
async def copy_bios_strings(call: Call, vm: str, host: str) -> None:
    """Those of that host, for software that is licensed for it."""
    _assert_changeable(call, vm)
    told = call.pool.db.get("host", host)["bios_strings"]
    strings = {key: text for key, text in told.items() if key in SETTABLE}
    assert_bios_strings(call.pool.db.get("VM", vm)["bios_strings"], strings)
    set_fields(call, "VM", vm, bios_strings=strings)


@implements("VM.get_secureboot_readiness")
async def get_secureboot_readiness(call: Call, vm: str) -> str:
    """Every machine here has a BIOS, which starts whatever it finds."""
    return "not_supported"


def _assert_changeable(call: Call, vm: str) -> None:
    record = call.pool.db.get("VM", vm)
    assert_free(call.pool, "VM", vm)
    if record["is_a_snapshot"]:
        raise XenApiError("VM_IS_SNAPSHOT", [vm, "set_bios_strings"])
    if record["power_state"] != legal_moves.HALTED:
        raise XenApiError("VM_BAD_POWER_STATE", [vm, "halted", record["power_state"].lower()])
