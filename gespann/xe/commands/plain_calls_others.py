"""Plain calls of classes beside VMs, disks and networks: updates, directories, clusters, GPUs, USB, repositories.

A pool that lacks such a class answers that it has no such call.
"""

from gespann.xe.commands.parameters import (
    boolean,
    by_uuid,
    client_file,
    constant,
    enum,
    file_name,
    integer,
    mapping,
    text,
    the_pool,
    words,
)
from gespann.xe.commands.plain_call import LINES, MAP, TEXT, PlainCall, own
from gespann.xe.selectors import HOSTS, VMS

_CLUSTERS = {
    "cluster-create": PlainCall(
        "Cluster.create",
        (by_uuid("PIF", "pif-uuid"), text("cluster-stack", "corosync"), boolean("pool-auto-join", True)),
        shows="Cluster",
    ),
    "cluster-destroy": own("Cluster", "destroy"),
    "cluster-host-create": PlainCall(
        "Cluster_host.create",
        (by_uuid("Cluster", "cluster-uuid"), by_uuid("host", "host-uuid"), by_uuid("PIF", "pif-uuid")),
        shows="Cluster_host",
    ),
    "cluster-host-destroy": own("Cluster_host", "destroy"),
    "cluster-host-disable": own("Cluster_host", "disable"),
    "cluster-host-enable": own("Cluster_host", "enable"),
    "cluster-host-force-destroy": own("Cluster_host", "force_destroy"),
    "cluster-pool-create": PlainCall(
        "Cluster.pool_create",
        (by_uuid("network", "network-uuid"), text("cluster-stack", "corosync")),
        shows="Cluster",
    ),
    "cluster-pool-destroy": PlainCall("Cluster.pool_destroy", (by_uuid("Cluster", "cluster-uuid"),)),
    "cluster-pool-force-destroy": PlainCall("Cluster.pool_force_destroy", (by_uuid("Cluster", "cluster-uuid"),)),
    "cluster-pool-resync": PlainCall("Cluster.pool_resync", (by_uuid("Cluster", "cluster-uuid"),)),
}

_DEVICES = {
    "gpu-group-destroy": own("GPU_group", "destroy"),
    "gpu-group-get-remaining-capacity": own(
        "GPU_group", "get_remaining_capacity", by_uuid("VGPU_type", "vgpu-type-uuid"), shows=TEXT
    ),
    "hostdriver-deselect": own("Host_driver", "deselect"),
    "hostdriver-rescan": PlainCall("Host_driver.rescan", selects=HOSTS),
    "hostdriver-variant-select": own("Driver_variant", "select"),
    "network-sriov-create": PlainCall(
        "network_sriov.create",
        (by_uuid("PIF", "pif-uuid"), by_uuid("network", "network-uuid")),
        shows="network_sriov",
    ),
    "network-sriov-destroy": own("network_sriov", "destroy"),
    "pci-disable-dom0-access": own("PCI", "disable_dom0_access", shows=TEXT),
    "pci-enable-dom0-access": own("PCI", "enable_dom0_access", shows=TEXT),
    "pci-get-dom0-access-status": own("PCI", "get_dom0_access_status", shows=TEXT),
    "pgpu-disable-dom0-access": own("PGPU", "disable_dom0_access", shows=TEXT),
    "pgpu-enable-dom0-access": own("PGPU", "enable_dom0_access", shows=TEXT),
    "pusb-scan": PlainCall("PUSB.scan", (by_uuid("host", "host-uuid"),)),
    "vgpu-destroy": own("VGPU", "destroy"),
    "vusb-create": PlainCall(
        "VUSB.create",
        (by_uuid("VM", "vm-uuid"), by_uuid("USB_group", "usb-group-uuid"), constant({})),
        shows="VUSB",
    ),
    "vusb-destroy": own("VUSB", "destroy"),
    "vusb-unplug": own("VUSB", "unplug"),
}

_UPDATES = {
    "patch-apply": own("pool_patch", "apply", by_uuid("host", "host-uuid"), shows=TEXT),
    "patch-clean": own("pool_patch", "clean"),
    "patch-destroy": own("pool_patch", "destroy"),
    "patch-pool-apply": own("pool_patch", "pool_apply"),
    "patch-pool-clean": own("pool_patch", "pool_clean"),
    "patch-precheck": own("pool_patch", "precheck", by_uuid("host", "host-uuid"), shows=TEXT),
    "repository-forget": own("Repository", "forget"),
    "repository-introduce": PlainCall(
        "Repository.introduce",
        (
            text("name-label"),
            text("name-description", ""),
            text("binary-url"),
            text("source-url"),
            boolean("update"),
            text("gpgkey-path", ""),
        ),
        shows="Repository",
    ),
    "repository-introduce-bundle": PlainCall(
        "Repository.introduce_bundle", (text("name-label"), text("name-description", "")), shows="Repository"
    ),
    "repository-introduce-remote-pool": PlainCall(
        "Repository.introduce_remote_pool",
        (text("name-label"), text("name-description", ""), text("binary-url"), client_file("certificate-file")),
        shows="Repository",
    ),
    "repository-set-gpgkey-path": own("Repository", "set_gpgkey_path", text("gpgkey-path")),
    "update-destroy": own("pool_update", "destroy"),
    "update-introduce": PlainCall("pool_update.introduce", (by_uuid("VDI", "vdi-uuid"),), shows="pool_update"),
    "update-pool-apply": own("pool_update", "pool_apply"),
    "update-pool-clean": own("pool_update", "pool_clean"),
    "update-resync-host": PlainCall("pool_update.resync_host", (by_uuid("host", "host-uuid"),)),
}

_SERVICES = {
    "caller-destroy": own("Caller", "destroy"),
    "drtask-create": PlainCall(
        "DR_task.create", (text("type"), mapping("device-config"), words("sr-whitelist")), shows="DR_task"
    ),
    "drtask-destroy": own("DR_task", "destroy"),
    "observer-destroy": own("Observer", "destroy"),
    "pvs-cache-storage-destroy": own("PVS_cache_storage", "destroy"),
    "pvs-proxy-create": PlainCall(
        "PVS_proxy.create", (by_uuid("PVS_site", "pvs-site-uuid"), by_uuid("VIF", "vif-uuid")), shows="PVS_proxy"
    ),
    "pvs-proxy-destroy": own("PVS_proxy", "destroy"),
    "pvs-server-forget": own("PVS_server", "forget"),
    "pvs-server-introduce": PlainCall(
        "PVS_server.introduce",
        (words("addresses"), integer("first-port"), integer("last-port"), by_uuid("PVS_site", "pvs-site-uuid")),
        shows="PVS_server",
    ),
    "pvs-site-forget": own("PVS_site", "forget"),
    "pvs-site-introduce": PlainCall(
        "PVS_site.introduce",
        (text("name-label"), text("name-description", ""), text("pvs-uuid", "")),
        shows="PVS_site",
    ),
    "rate-limit-add-caller": own("Rate_limit", "add_caller", by_uuid("Caller", "caller-uuid")),
    "rate-limit-destroy": own("Rate_limit", "destroy"),
    "rate-limit-remove-caller": own("Rate_limit", "remove_caller", by_uuid("Caller", "caller-uuid")),
    "sdn-controller-forget": own("SDN_controller", "forget"),
    "sdn-controller-introduce": PlainCall(
        "SDN_controller.introduce",
        (enum("sdn_controller_protocol", "protocol", "ssl"), text("address", ""), integer("tcp-port", 0)),
        shows="SDN_controller",
    ),
    "vmss-destroy": own("VMSS", "destroy"),
}

_HOST = {
    "host-disable-external-auth": PlainCall(
        "host.disable_external_auth", (by_uuid("host", "host-uuid"), mapping("config"), boolean("force"))
    ),
    "host-enable-external-auth": PlainCall(
        "host.enable_external_auth",
        (by_uuid("host", "host-uuid"), mapping("config"), text("service-name"), text("auth-type")),
    ),
}

_POOL = {
    "host-apply-updates": PlainCall("host.apply_updates", (text("hash"),), selects=HOSTS),
    "host-emergency-clear-mandatory-guidance": PlainCall("host.emergency_clear_mandatory_guidance"),
    "host-emergency-disable-tls-verification": PlainCall("host.emergency_disable_tls_verification"),
    "host-emergency-reenable-tls-verification": PlainCall("host.emergency_reenable_tls_verification"),
    "host-emergency-reset-server-certificate": PlainCall("host.emergency_reset_server_certificate"),
    "host-emergency-management-reconfigure": PlainCall("host.local_management_reconfigure", (text("interface"),)),
    "host-refresh-pack-info": PlainCall("host.refresh_pack_info", (by_uuid("host", "host-uuid"),)),
    "host-reset-server-certificate": PlainCall("host.reset_server_certificate", selects=HOSTS),
    "host-sm-dp-destroy": own("host", "sm_dp_destroy", text("dp"), boolean("allow-leak")),
    "pool-certificate-install": PlainCall("pool.certificate_install", (file_name("filename"), client_file("filename"))),
    "pool-certificate-list": PlainCall("pool.certificate_list", shows=LINES),
    "pool-certificate-uninstall": PlainCall("pool.certificate_uninstall", (text("name"),)),
    "pool-configure-repository-proxy": PlainCall(
        "pool.configure_repository_proxy",
        (the_pool(), text("proxy-url"), text("proxy-username", ""), text("proxy-password", "")),
    ),
    "pool-configure-update-sync": PlainCall(
        "pool.configure_update_sync",
        (the_pool(), enum("update_sync_frequency", "update-sync-frequency"), integer("update-sync-day")),
    ),
    "pool-deconfigure-wlb": PlainCall("pool.deconfigure_wlb"),
    "pool-disable-binary-storage": PlainCall("pool.disable_binary_storage"),
    "pool-disable-client-certificate-auth": PlainCall("pool.disable_client_certificate_auth", (the_pool(),)),
    "pool-disable-external-auth": PlainCall("pool.disable_external_auth", (the_pool(), mapping("config"))),
    "pool-disable-local-storage-caching": own("pool", "disable_local_storage_caching"),
    "pool-disable-repository-proxy": PlainCall("pool.disable_repository_proxy", (the_pool(),)),
    "pool-disable-ssl-legacy": PlainCall("pool.disable_ssl_legacy", (the_pool(),)),
    "pool-enable-binary-storage": PlainCall("pool.enable_binary_storage"),
    "pool-enable-client-certificate-auth": PlainCall("pool.enable_client_certificate_auth", (the_pool(), text("name"))),
    "pool-enable-external-auth": PlainCall(
        "pool.enable_external_auth", (the_pool(), mapping("config"), text("service-name"), text("auth-type"))
    ),
    "pool-enable-local-storage-caching": own("pool", "enable_local_storage_caching"),
    "pool-external-auth-set-ldaps": PlainCall(
        "pool.external_auth_set_ldaps", (the_pool(), boolean("ldaps"), boolean("force"))
    ),
    "pool-get-guest-secureboot-readiness": PlainCall("pool.get_guest_secureboot_readiness", (the_pool(),), shows=TEXT),
    "pool-initialize-wlb": PlainCall(
        "pool.initialize_wlb",
        tuple(
            text(key) for key in ("wlb_url", "wlb_username", "wlb_password", "xenserver_username", "xenserver_password")
        ),
    ),
    "pool-reset-telemetry-uuid": PlainCall("pool.reset_telemetry_uuid", (the_pool(),)),
    "pool-retrieve-wlb-configuration": PlainCall("pool.retrieve_wlb_configuration", shows=MAP),
    "pool-send-wlb-configuration": PlainCall("pool.send_wlb_configuration", (mapping("config"),)),
    "pool-set-update-sync-enabled": PlainCall("pool.set_update_sync_enabled", (the_pool(), boolean("value"))),
    "pool-set-vswitch-controller": PlainCall("pool.set_vswitch_controller", (text("address"),)),
    "pool-uninstall-trusted-certificate": PlainCall(
        "pool.uninstall_trusted_certificate", (the_pool(), by_uuid("Certificate", "certificate-uuid"))
    ),
    "vm-update-secureboot-certificates-on-boot": PlainCall(
        "VM.update_secureboot_certificates_on_boot", (boolean("mark"),), selects=VMS
    ),
}

OTHERS: dict[str, PlainCall] = {**_CLUSTERS, **_DEVICES, **_UPDATES, **_SERVICES, **_HOST, **_POOL}
