"""What the messages about machines, disks, networks and hosts do. Each module registers its handlers when imported."""

from gespann.pool.classes import (
    host,
    host_care,
    host_dead,
    host_power,
    http_archives,
    http_console,
    http_database,
    http_images,
    http_status,
    network,
    pbd,
    pif,
    pool,
    pool_members,
    pool_succession,
    snapshot,
    sr,
    vbd,
    vdi,
    vdi_changes,
    vdi_small,
    vif,
    vm_firmware,
    vm_machine,
    vm_memory,
    vm_power,
    vmss,
)
from gespann.pool.rrd import figures, http_rrd

#: imported for the handlers that they register
HANDLER_MODULES = (
    *(host, host_care, host_dead, host_power),
    *(http_archives, http_console, http_database, http_images, http_status),
    *(network, pbd, pif, pool, pool_members, pool_succession),
    *(snapshot, sr, vbd, vdi, vdi_changes, vdi_small, vif, vm_firmware, vm_machine, vm_memory, vm_power, vmss),
    *(figures, http_rrd),
)
