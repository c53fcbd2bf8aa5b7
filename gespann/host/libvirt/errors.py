"""What libvirt and QEMU say, as errors of seam 5. Texts of QEMU 7.2 and libvirt 9.0."""

import re

import libvirt

from gespann.seams.json_lines import SeamError

# QEMU's last words when a disk cannot be opened arrive as the text of an internal error.
_STORAGE = re.compile(
    r"iscsi|blockdev|block node|could not open|cannot access storage|failed to get .* lock|"
    r"no such file|grow|image is not in|input/output error|"
    # of a memory image
    r"image magic is incorrect|save image is incomplete|failed to read (qemu header|domain XML)|transport endpoint",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"cannot allocate memory|cannot set up guest memory|not enough memory", re.IGNORECASE)

_CODES = {
    libvirt.VIR_ERR_NO_DOMAIN: "NOT_FOUND",
    libvirt.VIR_ERR_DEVICE_MISSING: "NOT_FOUND",
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: "GUEST_AGENT",
    libvirt.VIR_ERR_AGENT_UNSYNCED: "GUEST_AGENT",
    libvirt.VIR_ERR_OPERATION_TIMEOUT: "TIMEOUT",
    libvirt.VIR_ERR_OPERATION_INVALID: "BAD_STATE",
    libvirt.VIR_ERR_NO_MEMORY: "NO_MEMORY",
}


def translate(error: libvirt.libvirtError) -> SeamError:
    text = (error.get_error_message() or str(error)).strip()[-2000:]
    code = _CODES.get(error.get_error_code())
    if code is None or code == "BAD_STATE":
        if _MEMORY.search(text):
            code = "NO_MEMORY"
        elif _STORAGE.search(text):
            code = "STORAGE"
    return SeamError(code or "HYPERVISOR", text)
