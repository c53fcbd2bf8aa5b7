"""An array group and a pool with hosts, in a lab: what `make up` keeps and the demo and the measurements use.

Node "array" runs group control (which starts the engine), node "host1" an agent and the coordinator. All data lies
below the lab's directory. The nodes restart their services themselves when these die.
"""

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gespann.lab import Lab
from gespann.lab.network import ARRAY_OCTET, HOST_OCTET
from gespann.system import processes

PROJECT = Path(__file__).resolve().parents[2]
ENGINE = PROJECT / "build/engine/release/gespann-engine"
GUEST_IMAGE = PROJECT / "var/cache/guest.img"
XE = PROJECT / "bin/xe"
START_TIMEOUT_S = 60.0
GROUP_SSH_PORT, ISCSI_PORT, XENAPI_PORT = 22, 3260, 443

GROUP_RUN, GROUP_DATA = "/run/gespann/group", "/var/lib/gespann/group"
AGENT_RUN, AGENT_DATA = "/run/gespann/agent", "/var/lib/gespann/agent"
POOL_RUN, POOL_DATA = "/run/gespann/pool", "/var/lib/gespann/pool"


class SiteError(Exception):
    """A part is missing or does not start; ``Site.log_tails`` tells more."""


@dataclass(frozen=True)
class Access:
    """Where the doors are, and the credentials for them."""

    xe_socket: Path
    pool_address: str
    root_password_file: Path
    certificate_file: Path  # of the pool, by which clients know it
    group_address: str  # the CLI, by SSH, as this machine reaches it
    group_password_file: Path
    storage_address: str  # the CLI and iSCSI, as the hosts reach it


class Site:
    def __init__(self, directory: Path, name: str, net: str) -> None:
        self.lab = Lab(directory, name=name, net=net)

    # --- up and down

    @property
    def is_up(self) -> bool:
        return self.lab.is_up and self._is_serving()

    def up_nodes(self, hosts: int = 1) -> None:
        self._check_built()
        self.lab.up(hosts=hosts)

    def start_group(self) -> None:
        """Returns when the CLI answers."""
        array = self.lab.node("array")
        words = [sys.executable, "-m", "gespann.main.group", "--data", GROUP_DATA, "--run", GROUP_RUN]
        words += ["--ssh", f"0.0.0.0:{GROUP_SSH_PORT}", "--iscsi", f"0.0.0.0:{ISCSI_PORT}"]
        words += ["--group-address", array.address("stor"), "--engine", str(ENGINE)]
        array.install("group", words)
        self._wait(self._group_serves, "array", "group")

    def start_pool(self) -> None:
        """Returns when `xe` gets an answer."""
        host = self.lab.node("host1")
        agent = [sys.executable, "-m", "gespann.main.agent", "--run", AGENT_RUN, "--data", AGENT_DATA]
        host.install("agent", agent)
        self._wait(lambda: host.path(AGENT_RUN).joinpath("agent.sock").exists(), "host1", "agent")
        words = [sys.executable, "-m", "gespann.main.coordinator", "--data", POOL_DATA, "--run", POOL_RUN]
        words += ["--listen", f"0.0.0.0:{XENAPI_PORT}"]
        words += ["--agent", f"{AGENT_RUN}/agent.sock", "--address", host.address("mgmt")]
        host.install("coordinator", words)
        self._wait(self._pool_serves, "host1", "coordinator")

    def down(self) -> None:
        self.lab.down()

    @property
    def access(self) -> Access:
        """Also of a site that is not up (yet)."""
        array, host = self.lab.directory / "array", self.lab.directory / "host1"
        addressing = self.lab.addressing
        return Access(
            xe_socket=host / POOL_RUN[1:] / "xapi",
            pool_address=addressing.address("mgmt", HOST_OCTET + 1),
            root_password_file=host / POOL_DATA[1:] / "root.password",
            certificate_file=host / POOL_DATA[1:] / "pool.crt",
            group_address=addressing.address("mgmt", ARRAY_OCTET),
            group_password_file=array / GROUP_DATA[1:] / "grpadmin.password",
            storage_address=addressing.address("stor", ARRAY_OCTET),
        )

    def log_tails(self, lines: int = 15) -> str:
        """The end of each part's log, for a failure to be understood."""
        tails = []
        for node, service in (("array", "group"), ("host1", "agent"), ("host1", "coordinator")):
            log = self.lab.directory / node / "log" / f"{service}.log"
            if log.exists():
                end = log.read_text(errors="replace").splitlines()[-lines:]
                tails.append("\n".join([f"--- the end of {log}", *end]))
        return "\n".join(tails)

    # --- is it there?

    def _is_serving(self) -> bool:
        return self._group_serves() and self._pool_serves()

    def _group_serves(self) -> bool:
        access = self.access
        if not access.group_password_file.exists():
            return False
        try:
            with socket.create_connection((access.group_address, GROUP_SSH_PORT), timeout=2) as door:
                door.settimeout(2)
                return door.recv(8).startswith(b"SSH-2.0")
        except OSError:
            return False

    def _pool_serves(self) -> bool:
        if not self.access.xe_socket.exists():
            return False
        env = {"GESPANN_XAPI_SOCKET": str(self.access.xe_socket), "PATH": "/usr/bin:/bin"}
        try:
            found = processes.run([XE, "host-list", "--minimal"], env=env, timeout_s=10, check=False)
        except processes.CommandFailed:
            return False
        return found.exit_code == 0 and bool(found.stdout.strip())

    def _wait(self, true: Callable[[], bool], node: str, service: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not true():
            if time.monotonic() > deadline:
                raise SiteError(f"{service} on {node} does not serve after {START_TIMEOUT_S:g} s")
            time.sleep(0.25)

    def _check_built(self) -> None:
        for path in (ENGINE, GUEST_IMAGE, XE):
            if not path.exists():
                raise SiteError(f"{path} is missing: run setup/prepare")
