"""The machine under a fake hypervisor's domains, and the failures that a test asks for."""

from collections import defaultdict

from gespann.seams.json_lines import SeamError


class FakeMachine:
    def __init__(self) -> None:
        self.boot_id = "first"
        self.powered: list[str] = []  # what the host itself was told to do
        self.kernel_lines = ["Linux, the fake one"]
        self._failures: defaultdict[str, list[SeamError]] = defaultdict(list)

    def fail_next(self, method: str, error: SeamError, times: int = 1) -> None:
        """The next calls of ``method`` ("create", "disk_attach", ...) fail before they do anything."""
        self._failures[method] += [error] * times

    def _maybe_fail(self, method: str) -> None:
        if self._failures[method]:
            raise self._failures[method].pop(0)

    async def power(self, *, reboot: bool) -> None:
        self._maybe_fail("power")
        self.powered.append("reboot" if reboot else "off")

    async def kernel_log(self, *, clear: bool) -> str:
        self._maybe_fail("kernel_log")
        text = "".join(f"{line}\n" for line in self.kernel_lines)
        if clear:
            self.kernel_lines.clear()
        return text
