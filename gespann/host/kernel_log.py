"""The kernel's messages of this host."""

from gespann.seams.json_lines import SeamError
from gespann.system import processes


async def kernel_log(*, clear: bool) -> str:
    try:
        return (await processes.run_async(["dmesg", *(["--read-clear"] if clear else [])])).stdout
    except processes.CommandFailed as error:
        raise SeamError("HYPERVISOR", str(error)) from error
