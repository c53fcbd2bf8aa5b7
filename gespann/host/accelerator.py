"""Whether KVM works, found by really running a machine. Libvirt's word is not enough: with /dev/kvm there, QEMU has
been seen to die at the first virtual CPU, and, on a nested machine, to crawl through the BIOS and never start a kernel.

The machine's whole disk is one boot sector that says "done" to QEMU's debug exit port. It is run emulated and on KVM;
an accelerator that is much slower than emulation is none.
"""

import json
import logging
import time
from pathlib import Path
from typing import Literal

from gespann.host.facts import linux_version
from gespann.system import processes
from gespann.system.files import write_durable

log = logging.getLogger(__name__)

# mov dx, 0xf4; mov al, 0x11; out dx, al; hlt; jmp $-1
BOOT_SECTOR = bytes.fromhex("baf400b011eef4ebfd").ljust(510, b"\0") + b"\x55\xaa"
DONE = 0x11 << 1 | 1  # QEMU's isa-debug-exit makes this exit status of the byte
TRY_LIMIT_S = 20.0
SLOWER_TIMES, SLOWER_S = 3.0, 0.5  # measured: emulated 0.1 s, broken nested KVM 2.6 s

Accelerator = Literal["kvm", "tcg"]


async def find_accelerator(cache: Path, qemu_version: str) -> Accelerator:
    """Kept in ``cache`` for as long as QEMU, the kernel and the boot are the same."""
    key = f"{qemu_version} {linux_version()} {_boot_id()}"
    known = _read(cache)
    if known.get("key") == key and known.get("accelerator") in ("kvm", "tcg"):
        return "kvm" if known["accelerator"] == "kvm" else "tcg"
    disk = cache.with_name("accelerator-probe.img")
    write_durable(disk, BOOT_SECTOR)
    emulated_s = await _run("tcg", "max", disk)
    kvm_s = await _run("kvm", "host", disk)
    found = judge(emulated_s, kvm_s)
    log.info("accelerator: %s (a machine's first second: emulated %s s, kvm %s s)", found, emulated_s, kvm_s)
    write_durable(cache, json.dumps({"key": key, "accelerator": found}).encode())
    return found


def judge(emulated_s: float | None, kvm_s: float | None) -> Accelerator:
    """From the seconds each took; None: it did not get through."""
    if kvm_s is None:
        return "tcg"
    return "kvm" if emulated_s is None or kvm_s <= emulated_s * SLOWER_TIMES + SLOWER_S else "tcg"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _read(cache: Path) -> dict[str, str]:
    try:
        read = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


async def _run(accelerator: Accelerator, cpu: str, disk: Path) -> float | None:
    words = ["qemu-system-x86_64", "-accel", accelerator, "-cpu", cpu, "-m", "16", "-nodefaults", "-no-user-config"]
    words += ["-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    words += ["-drive", f"file={str(disk).replace(',', ',,')},format=raw,if=ide,read-only=off"]
    began_s = time.monotonic()
    try:
        tried = await processes.run_async(words, check=False, timeout_s=TRY_LIMIT_S)
    except processes.CommandFailed as error:
        log.warning("%s does not work here: %s", accelerator, error.why)
        return None
    if tried.exit_code != DONE:
        log.warning("%s does not work here: %s", accelerator, tried.stderr.strip()[-500:])
        return None
    return round(time.monotonic() - began_s, 2)
