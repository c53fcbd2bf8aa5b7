"""Commands of the original that this engine does not have, by why."""

REASONS: dict[str, tuple[str, ...]] = {
    "no copies of the pool's database are kept on storage, so nothing is recovered from there": (
        *("appliance-assert-can-be-recovered", "appliance-recover", "vm-assert-can-be-recovered", "vm-recover"),
    ),
    "files are not kept beside the records": ("blob-create", "blob-get", "blob-put"),
    "the calls of single programs are not counted or slowed": (
        *("caller-create", "caller-list-usage", "caller-query-usage", "rate-limit-create"),
    ),
    "about the insides of the original's own program": (
        *("diagnostic-compact", "diagnostic-db-stats", "diagnostic-gc-stats", "diagnostic-net-stats"),
        *("diagnostic-timing-stats", "host-ha-xapi-healthcheck", "host-notify", "host-prepare-for-poweroff"),
        *("host-signal-networking-change", "host-update-firewalld-service-status", "observer-create"),
    ),
    "nothing is licensed": (
        *("diagnostic-license-status", "host-apply-edition", "host-license-add", "host-license-remove"),
        "pool-apply-edition",
    ),
    "hosts are updated, backed up and restored by the means of their own operating system": (
        *("host-backup", "host-restore", "patch-upload", "pool-sync-bundle", "pool-sync-updates", "update-apply"),
        *("update-precheck", "update-upload"),
    ),
    "reports are downloaded (`host-get-system-status`) and sent by whoever wants to": (
        *("host-bugreport-upload", "host-crashdump-upload"),
    ),
    "a directory is reached by the operating system's own login": ("host-external-auth-set-ldaps",),
    "hosts know each other by certificates that are pinned when they join": (
        *("host-refresh-server-certificate", "pool-install-trusted-certificate"),
    ),
    "no workload balancing server is asked": (
        *("host-retrieve-wlb-evacuate-recommendations", "pool-retrieve-wlb-diagnostics"),
        *("pool-retrieve-wlb-recommendations", "pool-retrieve-wlb-report", "vm-retrieve-wlb-recommendations"),
    ),
    "of devices and storage that there is no class for": (
        *("gpu-group-create", "hostdriver-select", "lvhd-enable-thin-provisioning", "pvs-cache-storage-create"),
        "vgpu-create",
    ),
    "a dump takes the place of `pool.db` while the coordinator is stopped": ("pool-restore-database",),
    "guests are prepared by their own means": ("vm-sysprep",),
}


def reasons() -> dict[str, str]:
    """By command."""
    return {name: why for why, names in REASONS.items() for name in names}
