"""An array group and a pool with hosts, in a lab: what `make up` keeps and the demo and the measurements use.

Node "array" runs group control (which starts the engine), node "host1" an agent and the coordinator; other hosts run
the same two, and have joined the pool of "host1". All data lies below the lab's directory. The nodes restart their
services themselves when these die.
"""

import socket
import ssl
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gespann.lab import Lab
from gespann.lab.network import ARRAY_OCTET, HOST_OCTET
from gespann.system import processes

PROJECT = Path(__file__).resolve().parents[2]
ENGINE = PROJECT / "build/engine/release/gespann-engine"
GUEST_IMAGE = PROJECT / "var/cache/guest.img"
XE = PROJECT / "bin/xe"
START_TIMEOUT_S = 180.0
GROUP_SSH_PORT, ISCSI_PORT, XENAPI_PORT = 22, 3260, 443
DOOR_PORT = 4434  # of an agent, for the coordinator of its pool

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
        """Returns when `xe` gets an answer, and every host is in the pool."""
        names = [name for name in self.lab.nodes() if name != "array"]
        for name in names:
            self._start_host(name)
        self._wait(self._pool_serves, "host1", "coordinator")
        for name in names[1:]:
            self._join(name)

    def _start_host(self, name: str) -> None:
        host = self.lab.node(name)
        agent = [sys.executable, "-m", "gespann.main.agent", "--run", AGENT_RUN, "--data", AGENT_DATA]
        host.install("agent", [*agent, "--door", f"{host.address('mgmt')}:{DOOR_PORT}"])
        self._wait(lambda: host.path(AGENT_RUN).joinpath("agent.sock").exists(), name, "agent")
        words = [sys.executable, "-m", "gespann.main.coordinator", "--data", POOL_DATA, "--run", POOL_RUN]
        words += ["--listen", f"0.0.0.0:{XENAPI_PORT}"]
        words += ["--agent", f"{AGENT_RUN}/agent.sock", "--address", host.address("mgmt")]
        host.install("coordinator", words)

    def _join(self, name: str) -> None:
        """Does nothing for one that is a member already."""

        def hosts() -> list[str]:
            return self._xe("host1", ["host-list", "params=hostname", "--minimal"]).stdout.strip().split(",")

        if name in hosts():
            return
        self._wait(lambda: self._answers(name), name, "coordinator")
        own = self.lab.node(name)
        certificate = own.path(POOL_DATA).joinpath("pool.crt")
        url = f"https://{own.address('mgmt')}:{XENAPI_PORT}"
        api: Any = xmlrpc.client.ServerProxy(url, context=ssl.create_default_context(cafile=str(certificate)))
        session = api.session.login_with_password("root", _password(own.path(POOL_DATA)), "2.0", "lab")["Value"]
        # not by xe: its words, a password among them, are in the process list for as long as this takes
        answer = api.pool.join(
            session, self.access.pool_address, "root", _password(self.access.root_password_file.parent)
        )
        if answer["Status"] != "Success" or name not in hosts():
            raise SiteError(f"{name} does not join the pool: {answer}")

    def _xe(self, node: str, words: list[str]) -> processes.Result:
        """``xe`` as root of that node would type it."""
        socket_path = self.lab.directory / node / POOL_RUN[1:] / "xapi"
        env = {"GESPANN_XAPI_SOCKET": str(socket_path), "PATH": "/usr/bin:/bin"}
        return processes.run([XE, *words], env=env, timeout_s=300, check=False)

    def _answers(self, node: str) -> bool:
        """Whether `xe` gets an answer there."""
        try:
            found = self._xe(node, ["host-list", "--minimal"])
        except processes.CommandFailed:
            return False
        return found.exit_code == 0 and bool(found.stdout.strip())

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
        hosts = [name for name in self.lab.nodes() if name != "array"]
        for node, service in [("array", "group"), *((h, s) for h in hosts for s in ("agent", "coordinator"))]:
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
        return self.access.xe_socket.exists() and self._answers("host1")

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


def _password(data: Path) -> str:
    return (data / "root.password").read_text().strip()
