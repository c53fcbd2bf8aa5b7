"""The pool: members, high availability, and groups of VMs."""

import json

from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF
from gespann.xe.call import Call, Handler
from gespann.xe.commands.parameters import enum_value
from gespann.xe.commands.transfers import transfer
from gespann.xe.failures import CommandFailure

# The pool's own words; scripts wait for them.
_JOINING = "Host agent will restart and attempt to join pool in 10. seconds..."
_EJECTING = "Specified host will attempt to restart as a master of a new pool in 10. seconds..."
_TAKING_OVER = "Host agent will restart and transition to master in 10.000 seconds..."
_LEADING = "Host agent is already master. Use '--force' to execute the operation anyway."
_COPY = (
    "It leads by a copy of the database that was the latest at {taken_at}, {age_s} s ago:"
    " what the pool was told after that is not in it."
)
_UNREACHABLE = (
    "Host cannot contact destination host: connection refused.",
    "Check destination host has services running and accessible from this host.",
)


async def pool_ha_enable(call: Call) -> None:
    srs = [await call.ref_of("SR", uuid) for uuid in call.arguments.words("heartbeat-sr-uuids")]
    await call.run_task("pool.enable_ha", srs, call.arguments.mapping("ha-config"))


async def pool_ha_compute_hypothetical(call: Call) -> None:
    """``vm-uuid=... restart-priority=...`` in pairs, any number of them."""
    vms = [value for key, value in call.arguments.pairs if key == "vm-uuid"]
    priorities = [value for key, value in call.arguments.pairs if key == "restart-priority"]
    if len(vms) != len(priorities):
        raise CommandFailure("Call requires an equal number of vm-uuid and restart-priority arguments")
    plan = {await call.ref_of("VM", uuid): priority for uuid, priority in zip(vms, priorities, strict=True)}
    tolerated = await call.request("pool.ha_compute_hypothetical_max_host_failures_to_tolerate", plan)
    await call.printer.values([str(tolerated)])


async def pool_ha_compute_vm_failover_plan(call: Call) -> None:
    hosts = [await call.ref_of("host", uuid) for uuid in call.arguments.words("host-uuids")]
    all_vms = await call.tables.all("VM")
    vms = [ref for ref, vm in all_vms.items() if vm["resident_on"] in hosts and not vm["is_control_domain"]]
    plan = await call.request("pool.ha_compute_vm_failover_plan", hosts, vms)
    await call.tables.fetch(["host"])
    record = [("VM", "Destination Host or Error")]
    for vm, outcome in plan.items():
        destination = call.tables.describe(outcome["host"]) if "host" in outcome else outcome.get("error_code", "")
        record.append((call.tables.describe(vm), destination))
    await call.printer.table([record])


async def pool_join(call: Call) -> None:
    """A pool that cannot be reached is no failure of the command: so it has always been."""
    arguments = call.arguments
    message = "pool.join_force" if arguments.boolean("force") else "pool.join"
    keys = ("master-address", "master-username", "master-password")
    try:
        await call.request(message, *[arguments.required(key) for key in keys])
    except XenApiError as error:
        if error.code not in ("JOINING_HOST_CONNECTION_FAILED", "POOL_JOINING_HOST_CONNECTION_FAILED"):
            raise
        for line in _UNREACHABLE:
            await call.printer.values([line])
        return
    await call.printer.values([_JOINING])


async def pool_eject(call: Call) -> None:
    host = await call.ref_of("host", call.arguments.required("host-uuid"))
    if not call.arguments.boolean("force"):
        await call.client.print(
            "WARNING: Ejecting a host from the pool will reinitialise that host's local SRs.\n"
            "WARNING: Any data contained with the local SRs will be lost."
        )
        for line in await _local_disks(call, host):
            await call.client.print(line)
        if not await call.confirmed():
            return
    await call.request("pool.eject", host)
    await call.printer.values([_EJECTING])


async def _local_disks(call: Call, host: str) -> list[str]:
    """The disks on SRs that only this host has."""
    pbds, srs, vdis = [await call.tables.all(name) for name in ("PBD", "SR", "VDI")]
    local = {pbd["SR"] for pbd in pbds.values() if pbd["host"] == host and not srs[pbd["SR"]]["shared"]}
    found = [vdi for vdi in vdis.values() if vdi["SR"] in local and vdi["managed"]]
    if not found:
        return []
    return [
        "The following VDI objects will be destroyed:",
        *(f"VDI: {vdi['uuid']} ({vdi['name_label']})" for vdi in found),
    ]


async def pool_emergency_transition(call: Call) -> None:
    """On a member: it leads the pool from the copy of the database that it has, and how old that is, is said."""
    age = ""
    try:
        shown = await call.request("host.call_plugin", NULL_REF, "pool-copy", "show", {})
        copy = json.loads(str(shown))
        age = _COPY.format(**copy)
    except XenApiError as error:
        if error.code not in ("XENAPI_MISSING_PLUGIN", "HANDLE_INVALID", "OPERATION_NOT_ALLOWED"):
            raise
        if error.code != "OPERATION_NOT_ALLOWED" and not call.arguments.boolean("force"):
            await call.printer.values([_LEADING])
            return
    await call.request("pool.emergency_transition_to_master")
    await call.printer.values([_TAKING_OVER])
    if age:
        await call.printer.values([age])


async def pool_emergency_reset(call: Call) -> None:
    address = call.arguments.required("master-address")
    await call.request("pool.emergency_reset_master", address)
    await call.printer.values([f"Host agent will restart and become slave of {address} in 10.000 seconds..."])


async def pool_recover_slaves(call: Call) -> None:
    hosts = await call.request("pool.recover_slaves")
    await call.printer.values([await call.uuid_of("host", str(host)) for host in hosts])


async def appliance_create(call: Call) -> None:
    record = {
        "name_label": call.arguments.required("name-label"),
        "name_description": call.arguments.text("name-description"),
    }
    appliance = str(await call.request("VM_appliance.create", record))
    await call.printer.values([await call.uuid_of("VM_appliance", appliance)])


async def appliance_shutdown(call: Call) -> None:
    appliance = await call.ref_of("VM_appliance", call.arguments.required("uuid"))
    verb = "hard_shutdown" if call.arguments.boolean("force") else "clean_shutdown"
    await call.run_task(f"VM_appliance.{verb}", appliance)


async def vm_group_create(call: Call) -> None:
    record = {
        "name_label": call.arguments.required("name-label"),
        "name_description": call.arguments.text("name-description"),
        "placement": enum_value("placement_policy", "placement", call.arguments.required("placement")),
    }
    group = str(await call.request("VM_group.create", record))
    await call.printer.values([await call.uuid_of("VM_group", group)])


async def logout_all(call: Call) -> None:
    for user in await call.request("session.get_all_subject_identifiers"):
        await call.request("session.logout_subject_identifier", user)


async def _subject_and_role(call: Call) -> tuple[str, str]:
    subject = await call.ref_of("subject", call.arguments.required("uuid"))
    if (uuid := call.arguments.get("role-uuid", None)) is not None:
        return subject, await call.ref_of("role", uuid)
    name = call.arguments.required("role-name")
    roles = await call.request("role.get_by_name_label", name)
    if not roles:
        raise CommandFailure(f"There is no role named {name}")
    return subject, str(roles[0])


async def subject_role_add(call: Call) -> None:
    await call.request("subject.add_to_roles", *await _subject_and_role(call))


async def subject_role_remove(call: Call) -> None:
    await call.request("subject.remove_from_roles", *await _subject_and_role(call))


async def pool_dump_database(call: Call) -> None:
    await transfer(call, "Dumping the database", "/pool/xmldbdump", {}, upload=False, file_key="file-name")


COMMANDS: dict[str, Handler] = {
    "pool-dump-database": pool_dump_database,
    "pool-ha-enable": pool_ha_enable,
    "pool-ha-compute-hypothetical-max-host-failures-to-tolerate": pool_ha_compute_hypothetical,
    "pool-ha-compute-vm-failover-plan": pool_ha_compute_vm_failover_plan,
    "pool-join": pool_join,
    "pool-eject": pool_eject,
    "pool-emergency-transition-to-master": pool_emergency_transition,
    "pool-emergency-reset-master": pool_emergency_reset,
    "pool-recover-slaves": pool_recover_slaves,
    "appliance-create": appliance_create,
    "vm-group-create": vm_group_create,
    "session-subject-identifier-logout-all": logout_all,
    "subject-role-add": subject_role_add,
    "subject-role-remove": subject_role_remove,
    "appliance-shutdown": appliance_shutdown,
}
