"""How large a VM may be."""

from collections.abc import Mapping
from typing import Any

from gespann.seams.xenapi.errors import XenApiError

MIB = 1024 * 1024
VCPUS_LIMIT = 254
MEMORY_LIMIT_BYTES = 4 * 1024**4
MEMORY_FIELDS = ("memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max")
#: QEMU itself and its translation cache, as measured for a small guest (resident size less the guest's memory)
OVERHEAD_BYTES = 128 * MIB


#: beside the memory itself, in a suspend image: 8 bytes for each page of 4096 (QEMU's stream), video memory and the
#: devices' state, libvirt's header
PAGES_SHARE = 256
DEVICES_BYTES = 64 * MIB


def suspend_image_bytes(vm: Mapping[str, Any]) -> int:
    """Enough for a guest whose memory is nowhere zero."""
    memory_bytes = int(vm["memory_static_max"])
    return -(-(memory_bytes + memory_bytes // PAGES_SHARE + DEVICES_BYTES) // MIB) * MIB


def assert_vcpus(at_startup: int, highest: int) -> None:
    if not 1 <= highest <= VCPUS_LIMIT:
        raise XenApiError("INVALID_VALUE", ["VCPUs_max", str(highest)])
    if not 1 <= at_startup <= highest:
        raise XenApiError("INVALID_VALUE", ["VCPUs_at_startup", str(at_startup)])


def assert_memory(static_min: int, dynamic_min: int, dynamic_max: int, static_max: int) -> None:
    if not 0 < static_max <= MEMORY_LIMIT_BYTES:
        raise XenApiError("INVALID_VALUE", ["memory_static_max", str(static_max)])
    if not 0 <= static_min <= dynamic_min <= dynamic_max <= static_max:
        raise XenApiError("MEMORY_CONSTRAINT_VIOLATION_ORDER", [])


def reserved_bytes(vm: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> int:
    """What a host must keep for it. A guest may take all of ``memory_static_max`` until its balloon is there; what that
    has taken from it (``metrics``: of a VM that runs) is the host's again."""
    most = int(vm["memory_static_max"])
    has = int(metrics["memory_actual"]) if metrics is not None and metrics["memory_actual"] else most
    return max(int(vm["memory_dynamic_max"]), min(has, most)) + overhead_bytes(vm)


def overhead_bytes(vm: Mapping[str, Any]) -> int:
    return OVERHEAD_BYTES
