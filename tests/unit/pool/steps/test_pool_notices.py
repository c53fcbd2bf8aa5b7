"""What operations leave as messages: one for each that ended well, none for others."""

import json
from pathlib import Path

import pytest

from gespann.pool.plan.shapes import OPERATIONS
from gespann.pool.steps.notices import NOTICES, PRIORITY
from gespann.seams.json_lines import SeamError
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError
from tests.unit.pool.world import World

PUBLISHED = Path(datamodel.__file__).parent / "facts/message_types.json"


def told(world: World, vm: str) -> list[tuple[str, str]]:
    uuid = world.get("VM", vm)["uuid"]
    return [
        (m["name"], m["body"]) for m in world.db.all("message").values() if (m["cls"], m["obj_uuid"]) == ("VM", uuid)
    ]


def test_names_are_published_with_this_priority() -> None:
    published = {row["name"]: row["priority"] for row in json.loads(PUBLISHED.read_text(encoding="utf-8"))}
    assert {published[name] for name, _ in NOTICES.values()} == {PRIORITY}


def test_operations_that_are_told_are_operations() -> None:
    assert set(NOTICES) <= OPERATIONS


async def test_each_that_ends_well_is_told_once(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    host = world.get("host", world.host)
    where = f"{host['name_label']} (uuid: {host['uuid']})"
    for message in ("VM.start", "VM.pause", "VM.unpause", "VM.hard_reboot", "VM.clean_shutdown", "VM.clone"):
        more = {"VM.start": (False, False), "VM.clone": ("copy",)}.get(message, ())
        await world.call(message, vm, *more)
    assert told(world, vm) == [
        ("VM_STARTED", f"VM 'web1' started on host: {where}"),
        ("VM_PAUSED", "VM 'web1' paused"),
        ("VM_UNPAUSED", "VM 'web1' unpaused"),
        ("VM_REBOOTED", "VM 'web1' rebooted forcibly"),
        ("VM_SHUTDOWN", "VM 'web1' shut down"),
        ("VM_CLONED", "VM 'web1' cloned"),
    ]
    found = await world.call("message.get", "VM", world.get("VM", vm)["uuid"], "19700101T00:00:00Z")
    assert {record["priority"] for record in found.values()} == {PRIORITY}


async def test_what_failed_or_was_refused_is_not_told(world: World) -> None:
    vm = await world.make_vm_with_disk(await world.make_sr())
    world.hypervisor.fail_next("create", SeamError("HYPERVISOR", "no"), times=5)
    with pytest.raises(XenApiError):
        await world.call("VM.start", vm, False, False)
    with pytest.raises(XenApiError):
        await world.call("VM.pause", vm)
    assert told(world, vm) == []
