"""Two networks between an engine and a guest, each of which can be cut, in a network namespace of the test's own.

The namespace has no name: it ends with the process that holds it, and that ends with the test.
"""

import os
import subprocess
from pathlib import Path

from tests.product.engine.engine_process import EngineProcess
from tests.product.engine.kernel_initiator.guest import wait_for

PORT = 3260
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
# Packets of a network in the set vanish, both ways, while its link stays up.
RULES = """
table inet cut {
  set lost { type ifname; }
  chain input { type filter hook input priority 0; policy accept; iifname @lost drop; }
  chain output { type filter hook output priority 0; policy accept; oifname @lost drop; }
}
"""


class Wires:
    """``tap0``: 198.51.100.0/24; ``tap1``: 203.0.113.0/24. The engine has .1 in each, the guest .2."""

    taps = ("tap0", "tap1")
    engine = ("198.51.100.1", "203.0.113.1")
    guest = ("198.51.100.2", "203.0.113.2")

    def __init__(self) -> None:
        self._holder = subprocess.Popen([*DIE_WITH_US, "unshare", "--net", "sleep", "infinity"])
        namespace = f"/proc/{self._holder.pid}/ns/net"
        wait_for(lambda: os.readlink(namespace) != os.readlink("/proc/self/ns/net"), "a network namespace")
        self.enter = [*DIE_WITH_US, "nsenter", f"--net={namespace}"]
        self._do("ip", "link", "set", "lo", "up")
        for tap, address in zip(self.taps, self.engine, strict=True):
            self._do("ip", "tuntap", "add", "dev", tap, "mode", "tap")
            self._do("ip", "addr", "add", f"{address}/24", "dev", tap)
            self._do("ip", "link", "set", tap, "up")
        self._do("nft", "-f", "-", given=RULES)

    def _do(self, *words: str, given: str = "") -> None:
        done = subprocess.run([*self.enter, *words], input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"

    def cut(self, number: int) -> None:
        """Nothing passes any more, and nobody is told."""
        self._do("nft", "add", "element", "inet", "cut", "lost", f'{{ "{self.taps[number]}" }}')

    def heal(self, number: int) -> None:
        self._do("nft", "delete", "element", "inet", "cut", "lost", f'{{ "{self.taps[number]}" }}')

    def heal_all(self) -> None:
        self._do("nft", "flush", "set", "inet", "cut", "lost")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class EngineOnWires(EngineProcess):
    """With a portal on each network."""

    def __init__(self, binary: Path, folder: Path, wires: Wires) -> None:
        super().__init__(binary, folder)
        self.wires = wires
        self.port = PORT

    def command(self) -> list[str]:
        portals = [word for address in self.wires.engine for word in ("--portal", f"{address}:{PORT}")]
        words = ["--data", str(self.folder / "data"), "--socket", str(self.socket_path), *portals]
        return [*self.wires.enter, str(self.binary), *words, "--log-level", "debug", *self.options]
