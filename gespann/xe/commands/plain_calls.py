"""Commands that are one XenAPI call: what is called, with what, and what of the answer is shown."""

from gespann.xe.call import Handler
from gespann.xe.commands.parameters import (
    Parameter,
    all_by_uuid,
    boolean,
    by_uuid,
    client_file,
    constant,
    decimal,
    enum,
    file_name,
    integer,
    mapping,
    size,
    text,
    the_pool,
)
from gespann.xe.commands.plain_call import LINES, MAP, TEXT, VOID, PlainCall, own
from gespann.xe.commands.plain_calls_others import OTHERS
from gespann.xe.selectors import HOSTS, SRS, VMS, Selection


def _vms(message: str, *more: Parameter, task: bool = False, shows: str = VOID) -> PlainCall:
    return PlainCall(f"VM.{message}", more, shows=shows, task=task, selects=VMS)


def _hosts(message: str, *more: Parameter, shows: str = VOID) -> PlainCall:
    return PlainCall(f"host.{message}", more, shows=shows, selects=HOSTS)


def _data_sources(class_name: str, prefix: str, selection: Selection) -> dict[str, PlainCall]:
    source = text("data-source")
    return {
        f"{prefix}-data-source-record": PlainCall(f"{class_name}.record_data_source", (source,), selects=selection),
        f"{prefix}-data-source-query": PlainCall(
            f"{class_name}.query_data_source", (source,), shows=TEXT, selects=selection
        ),
        f"{prefix}-data-source-forget": PlainCall(
            f"{class_name}.forget_data_source_archives", (source,), selects=selection
        ),
    }


_STORAGE = {
    "vdi-destroy": own("VDI", "destroy", task=True),
    "vdi-forget": own("VDI", "forget"),
    "vdi-update": own("VDI", "update"),
    "vdi-clone": own("VDI", "clone", mapping("driver-params"), shows="VDI", task=True),
    "vdi-snapshot": own("VDI", "snapshot", mapping("driver-params"), shows="VDI", task=True),
    "vdi-enable-cbt": own("VDI", "enable_cbt"),
    "vdi-disable-cbt": own("VDI", "disable_cbt"),
    "vdi-data-destroy": own("VDI", "data_destroy"),
    "vdi-generate-config": PlainCall("VDI.generate_config", (by_uuid("host", "host-uuid"), by_uuid("VDI")), shows=TEXT),
    "vdi-list-changed-blocks": PlainCall(
        "VDI.list_changed_blocks", (by_uuid("VDI", "vdi-from-uuid"), by_uuid("VDI", "vdi-to-uuid")), shows=TEXT
    ),
    "vdi-pool-migrate": own("VDI", "pool_migrate", by_uuid("SR", "sr-uuid"), constant({}), shows="VDI", task=True),
    "vbd-destroy": own("VBD", "destroy"),
    "vbd-eject": own("VBD", "eject"),
    "vbd-insert": own("VBD", "insert", by_uuid("VDI", "vdi-uuid")),
    "vbd-plug": own("VBD", "plug"),
    "vbd-pause": own("VBD", "pause", shows=TEXT),
    "vbd-unpause": own("VBD", "unpause", text("token")),
    "sr-scan": own("SR", "scan", task=True),
    "sr-update": own("SR", "update"),
    "sr-destroy": own("SR", "destroy", task=True),
    "sr-forget": own("SR", "forget", task=True),
    "sr-enable-database-replication": own("SR", "enable_database_replication"),
    "sr-disable-database-replication": own("SR", "disable_database_replication"),
    "pbd-plug": own("PBD", "plug", task=True),
    "pbd-unplug": own("PBD", "unplug", task=True),
    "pbd-destroy": own("PBD", "destroy"),
    **_data_sources("SR", "sr", SRS),
}

_NETWORKING = {
    "network-destroy": own("network", "destroy"),
    "network-attach": own("network", "attach", by_uuid("host", "host-uuid")),
    "vif-destroy": own("VIF", "destroy"),
    "vif-plug": own("VIF", "plug"),
    "vif-move": own("VIF", "move", by_uuid("network", "network-uuid")),
    "vif-configure-ipv4": own(
        "VIF",
        "configure_ipv4",
        enum("vif_ipv4_configuration_mode", "mode"),
        text("address", ""),
        text("gateway", ""),
    ),
    "vif-configure-ipv6": own(
        "VIF",
        "configure_ipv6",
        enum("vif_ipv6_configuration_mode", "mode"),
        text("address", ""),
        text("gateway", ""),
    ),
    "pif-plug": own("PIF", "plug"),
    "pif-unplug": own("PIF", "unplug"),
    "pif-forget": own("PIF", "forget"),
    "pif-db-forget": own("PIF", "db_forget"),
    "pif-scan": PlainCall("PIF.scan", (by_uuid("host", "host-uuid"),)),
    "pif-introduce": PlainCall(
        "PIF.introduce",
        (by_uuid("host", "host-uuid"), text("mac", ""), text("device"), boolean("managed", True)),
        shows="PIF",
    ),
    "pif-reconfigure-ip": own(
        "PIF",
        "reconfigure_ip",
        enum("ip_configuration_mode", "mode"),
        *(text(key, "") for key in ("IP", "netmask", "gateway", "DNS")),
    ),
    "pif-reconfigure-ipv6": own(
        "PIF",
        "reconfigure_ipv6",
        enum("ipv6_configuration_mode", "mode"),
        *(text(key, "") for key in ("IPv6", "gateway", "DNS")),
    ),
    "pif-set-primary-address-type": own(
        "PIF", "set_primary_address_type", enum("primary_address_type", "primary_address_type")
    ),
    "vlan-create": PlainCall(
        "VLAN.create",
        (by_uuid("PIF", "pif-uuid"), integer("vlan"), by_uuid("network", "network-uuid")),
        shows="VLAN",
    ),
    "vlan-destroy": own("VLAN", "destroy"),
    "bond-create": PlainCall(
        "Bond.create",
        (
            by_uuid("network", "network-uuid"),
            all_by_uuid("PIF", "pif-uuids"),
            text("mac", ""),
            enum("bond_mode", "mode", "balance-slb"),
            mapping("properties"),
        ),
        shows="Bond",
    ),
    "bond-destroy": own("Bond", "destroy"),
    "bond-set-mode": own("Bond", "set_mode", enum("bond_mode", "mode")),
    "tunnel-create": PlainCall(
        "tunnel.create",
        (
            by_uuid("PIF", "pif-uuid"),
            by_uuid("network", "network-uuid"),
            enum("tunnel_protocol", "protocol", "gre"),
        ),
        shows="tunnel",
    ),
    "tunnel-destroy": own("tunnel", "destroy"),
}

_HOSTS = {
    "host-enable": _hosts("enable"),
    "host-reboot": _hosts("reboot"),
    "host-shutdown": _hosts("shutdown"),
    "host-power-on": _hosts("power_on"),
    "host-dmesg": _hosts("dmesg", shows=TEXT),
    "host-sync-data": _hosts("sync_data"),
    "host-compute-free-memory": _hosts("compute_free_memory", shows=TEXT),
    "host-compute-memory-overhead": _hosts("compute_memory_overhead", shows=TEXT),
    "host-get-server-certificate": _hosts("get_server_certificate", shows=TEXT),
    "host-set-hostname-live": PlainCall("host.set_hostname_live", (by_uuid("host", "host-uuid"), text("host-name"))),
    "host-set-power-on-mode": _hosts("set_power_on_mode", text("power-on-mode"), mapping("power-on-config")),
    "host-forget": PlainCall("host.destroy", (by_uuid("host"),)),
    "host-declare-dead": own("host", "declare_dead"),
    "host-call-plugin": PlainCall(
        "host.call_plugin",
        (by_uuid("host", "host-uuid"), text("plugin"), text("fn"), mapping("args")),
        shows=TEXT,
        task=True,
    ),
    "host-get-sm-diagnostics": own("host", "get_sm_diagnostics", shows=TEXT),
    "host-get-thread-diagnostics": own("host", "get_thread_diagnostics", shows=TEXT),
    "host-syslog-reconfigure": PlainCall("host.syslog_reconfigure", (by_uuid("host", "host-uuid"),)),
    "host-send-debug-keys": PlainCall("host.send_debug_keys", (by_uuid("host", "host-uuid"), text("keys"))),
    "host-management-reconfigure": PlainCall("host.management_reconfigure", (by_uuid("PIF", "pif-uuid"),)),
    "host-management-disable": PlainCall("host.management_disable"),
    "host-enable-display": own("host", "enable_display", shows=TEXT),
    "host-disable-display": own("host", "disable_display", shows=TEXT),
    "host-enable-ssh": _hosts("enable_ssh"),
    "host-disable-ssh": _hosts("disable_ssh"),
    "host-enable-local-storage-caching": _hosts("enable_local_storage_caching", by_uuid("SR", "sr-uuid")),
    "host-disable-local-storage-caching": _hosts("disable_local_storage_caching"),
    "host-emergency-ha-disable": PlainCall("host.emergency_ha_disable", (boolean("soft"),), forced=True),
    "host-shutdown-agent": PlainCall("host.shutdown_agent"),
    **_data_sources("host", "host", HOSTS),
}

_POOL = {
    "pool-ha-disable": PlainCall("pool.disable_ha", task=True),
    "pool-ha-compute-max-host-failures-to-tolerate": PlainCall(
        "pool.ha_compute_max_host_failures_to_tolerate", shows=TEXT
    ),
    "pool-ha-prevent-restarts-for": PlainCall("pool.ha_prevent_restarts_for", (integer("seconds"),)),
    "pool-designate-new-master": PlainCall("pool.designate_new_master", (by_uuid("host", "host-uuid"),), task=True),
    "pool-sync-database": PlainCall("pool.sync_database"),
    "pool-management-reconfigure": PlainCall("pool.management_reconfigure", (by_uuid("network", "network-uuid"),)),
    "pool-vlan-create": PlainCall(
        "pool.create_VLAN_from_PIF",
        (by_uuid("PIF", "pif-uuid"), by_uuid("network", "network-uuid"), integer("vlan")),
    ),
    "pool-enable-redo-log": PlainCall("pool.enable_redo_log", (by_uuid("SR", "sr-uuid"),)),
    "pool-disable-redo-log": PlainCall("pool.disable_redo_log"),
    "pool-certificate-sync": PlainCall("pool.certificate_sync"),
    "pool-crl-list": PlainCall("pool.crl_list", shows=LINES),
    "pool-crl-install": PlainCall("pool.crl_install", (file_name("filename"), client_file("filename"))),
    "pool-crl-uninstall": PlainCall("pool.crl_uninstall", (text("name"),)),
    "pool-install-ca-certificate": PlainCall(
        "pool.install_ca_certificate", (file_name("filename"), client_file("filename"))
    ),
    "pool-uninstall-ca-certificate": PlainCall("pool.uninstall_ca_certificate", (text("name"), boolean("force"))),
    "pool-enable-tls-verification": PlainCall("pool.enable_tls_verification"),
    "pool-secret-rotate": PlainCall("pool.rotate_secret"),
    "pool-enable-ssh": PlainCall("pool.enable_ssh", (the_pool(),)),
    "pool-disable-ssh": PlainCall("pool.disable_ssh", (the_pool(),)),
    "pool-send-test-post": PlainCall(
        "pool.send_test_post", (text("dest-host"), integer("dest-port"), text("body")), shows=TEXT
    ),
}

_VMS = {
    "vm-destroy": own("VM", "destroy"),
    "vm-unpause": _vms("unpause", task=True),
    "vm-pause": _vms("pause", task=True),
    "vm-suspend": _vms("suspend", task=True),
    "vm-restart-device-models": _vms("restart_device_models"),
    "vm-query-services": _vms("query_services", shows=MAP),
    "vm-compute-memory-overhead": _vms("compute_memory_overhead", shows=TEXT),
    "vm-memory-shadow-multiplier-set": _vms("set_shadow_multiplier_live", decimal("multiplier")),
    "vm-memory-target-set": _vms("set_memory_target_live", size("target")),
    "vm-memory-balloon": _vms("set_memory_target_live", size("target")),
    "vm-memory-target-wait": _vms("wait_memory_target_live"),
    "vm-memory-set": _vms("set_memory", size("memory")),
    "vm-memory-dynamic-range-set": _vms("set_memory_dynamic_range", size("min"), size("max")),
    "vm-memory-static-range-set": _vms("set_memory_static_range", size("min"), size("max")),
    "vm-memory-limits-set": _vms(
        "set_memory_limits", size("static-min"), size("static-max"), size("dynamic-min"), size("dynamic-max")
    ),
    "vm-vcpu-hotplug": _vms("set_VCPUs_number_live", integer("new-vcpus")),
    "vm-copy-bios-strings": _vms("copy_bios_strings", by_uuid("host", "host-uuid")),
    "vm-call-plugin": PlainCall(
        "VM.call_plugin",
        (by_uuid("VM", "vm-uuid"), text("plugin"), text("fn"), mapping("args")),
        shows=TEXT,
        task=True,
    ),
    "vm-call-host-plugin": PlainCall(
        "VM.call_host_plugin",
        (by_uuid("VM", "vm-uuid"), text("plugin"), text("fn"), mapping("args")),
        shows=TEXT,
        task=True,
    ),
    "vm-set-uefi-mode": own("VM", "set_uefi_mode", enum("vm_uefi_mode", "mode"), shows=TEXT),
    "vm-get-secureboot-readiness": own("VM", "get_secureboot_readiness", shows=TEXT),
    **_data_sources("VM", "vm", VMS),
}

_MORE = {
    "task-cancel": own("task", "cancel"),
    "secret-destroy": own("secret", "destroy"),
    "user-password-change": PlainCall("session.change_password", (text("old", ""), text("new"))),
    "session-subject-identifier-list": PlainCall("session.get_all_subject_identifiers", shows=LINES),
    "session-subject-identifier-logout": PlainCall("session.logout_subject_identifier", (text("subject-identifier"),)),
    "subject-remove": PlainCall("subject.destroy", (by_uuid("subject", "subject-uuid"),)),
    "appliance-destroy": own("VM_appliance", "destroy"),
    "appliance-start": own("VM_appliance", "start", boolean("paused"), task=True),
    "vm-group-destroy": own("VM_group", "destroy"),
    "vtpm-create": PlainCall("VTPM.create", (by_uuid("VM", "vm-uuid"), constant(False)), shows="VTPM"),
    "vtpm-destroy": own("VTPM", "destroy"),
    "host-crashdump-destroy": own("host_crashdump", "destroy"),
}


def plain_commands() -> dict[str, Handler]:
    return {
        name: declared.run
        for table in (_STORAGE, _NETWORKING, _HOSTS, _POOL, _VMS, _MORE, OTHERS)
        for name, declared in table.items()
    }
