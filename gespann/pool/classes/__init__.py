"""What the messages about machines, disks, networks and hosts do. Each module registers its handlers when imported."""

from gespann.pool.classes import (
    host,
    http_archives,
    http_console,
    http_images,
    network,
    pbd,
    pif,
    pool,
    pool_members,
    snapshot,
    sr,
    vbd,
    vdi,
    vdi_changes,
    vif,
    vm_machine,
    vm_power,
    vmss,
)
from gespann.pool.rrd import figures, http_rrd

#: imported for the handlers that they register
HANDLER_MODULES = (
    *(host, http_archives, http_console, http_images, network, pbd, pif, pool, pool_members),
    *(snapshot, sr, vbd, vdi, vdi_changes, vif, vm_machine, vm_power, vmss),
    *(figures, http_rrd),
)
