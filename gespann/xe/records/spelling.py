"""How values are spelled on the command line where that differs from the XenAPI's own spelling."""

from gespann.seams.xenapi import datamodel

# enum -> XenAPI value -> what xe prints. Values and enums not named here are printed as they are.
PRINTED: dict[str, dict[str, str]] = {
    "vm_power_state": {"Halted": "halted", "Paused": "paused", "Running": "running", "Suspended": "suspended"},
    "vbd_mode": {"RO": "ro", "RW": "rw"},
    "vdi_type": {
        "system": "System",
        "user": "User",
        "ephemeral": "Ephemeral",
        "suspend": "Suspend",
        "crashdump": "Crashdump",
        "ha_statefile": "HA statefile",
        "metadata": "Metadata",
        "redo_log": "Redo log",
        "pvs_cache": "PVS cache",
        "cbt_metadata": "CBT metadata",
    },
    "console_protocol": {"vt100": "VT100", "rfb": "RFB", "rdp": "RDP"},
    "on_normal_exit": {"destroy": "Destroy", "restart": "Restart"},
    "on_softreboot_behavior": {
        "soft_reboot": "Soft reboot",
        "destroy": "Destroy",
        "restart": "Restart",
        "preserve": "Preserve",
    },
    "on_crash_behaviour": {
        "destroy": "Destroy",
        "coredump_and_destroy": "Core dump and destroy",
        "restart": "Restart",
        "coredump_and_restart": "Core dump and restart",
        "preserve": "Preserve",
        "rename_restart": "Rename restart",
    },
    "task_allowed_operations": {"cancel": "Cancel", "destroy": "Destroy"},
    "host_allowed_operations": {"vm_start": "VM.start", "vm_resume": "VM.resume", "vm_migrate": "VM.migrate"},
    "vm_operations": {"assert_operation_valid": "assertoperationvalid", "data_source_op": "data_sources_op"},
    "domain_type": {"pv_in_pvh": "pv-in-pvh"},
    "storage_operations": {
        f"{kind}_{verb}": f"{kind.upper()}.{verb}"
        for kind, verbs in {
            "vdi": [
                *("create", "introduce", "destroy", "resize", "clone", "snapshot", "mirror", "enable_cbt"),
                *("disable_cbt", "data_destroy", "list_changed_blocks", "set_on_boot"),
            ],
            "pbd": ["create", "destroy"],
        }.items()
        for verb in verbs
    },
}


def printed(enum: str, value: str) -> str:
    return PRINTED.get(enum, {}).get(value, value)


def parsed(enum: str, text: str) -> str | None:
    """The XenAPI value meant by what somebody typed, in any case and either spelling; None if it is none of them."""
    wanted = text.lower()
    for value in datamodel.enums()[enum]:
        if wanted in (value.lower(), printed(enum, value).lower()):
            return value
    return None
