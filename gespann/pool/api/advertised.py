"""Which classes this pool has. Others, though published, answer MESSAGE_METHOD_UNKNOWN and do not appear in
``system.listMethods``: a class that is listed is promised to be complete and kept current."""

CLASSES = frozenset(
    {
        "Bond",
        "PBD",
        "PIF",
        "PIF_metrics",
        "SM",
        "SR",
        "VBD",
        "VBD_metrics",
        "VDI",
        "VIF",
        "VIF_metrics",
        "VLAN",
        "VM",
        "VMSS",
        "VTPM",
        "VM_guest_metrics",
        "VM_metrics",
        "auth",
        "console",
        "event",
        "host",
        "host_cpu",
        "host_metrics",
        "message",
        "network",
        "pool",
        "role",
        "secret",
        "session",
        "subject",
        "task",
    }
)

#: setters, adders and removers that are published as messages of their own although they do nothing but write the
#: field: answered like those of RW fields (``on_set`` hooks apply)
PLAIN_FIELDS = frozenset(
    {
        "VDI.allow_caching",
        "VM.HVM_boot_policy",
        "VM.NVRAM",
        "VM.actions_after_crash",
        "VM.blocked_operations",
        "VM.has_vendor_device",
        "VM.order",
        "VM.other_config",
        "VM.platform",
        "VM.shutdown_delay",
        "VM.snapshot_schedule",
        "VM.start_delay",
        "VMSS.frequency",
        "VMSS.last_run_time",
        "VMSS.retained_snapshots",
        "VMSS.schedule",
        "VMSS.type",
    }
)
