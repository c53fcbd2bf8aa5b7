"""A lab as a whole: made, repaired, and taken away without a trace."""

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gespann.lab.network import HOST_OCTET, SWITCH_OCTET, Addressing, LabError, Switch
from gespann.lab.node import GONE_TIMEOUT_S, Node, started_at, wait_until
from gespann.system import processes
from gespann.system.files import private_directory, write_durable

HOSTS_MOST = 64
SOCKET_PATH_BYTES = 107  # the longest socket below a node is RUN/libvirt/libvirt-admin-sock
ADDRESSES = (100, 199)  # what DHCP gives to guests, last octet

__all__ = ["Lab", "LabError"]


def _noted(directory: Path) -> dict[str, str | int]:
    try:
        state: dict[str, str | int] = json.loads((directory / "lab.json").read_bytes())
    except FileNotFoundError:
        return {}
    return state


def name_and_net(directory: Path) -> tuple[str, str] | None:
    """Of the lab that was made in this directory, if there is one."""
    state = _noted(directory)
    return (str(state["name"]), str(state["net"])) if state else None


@contextlib.contextmanager
def _machine_lock() -> Iterator[None]:
    """One lab of this machine at a time looks whether its names are free, and takes them."""
    fd = os.open("/run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Lab:
    """``directory``: everything of it; ``name``: begins all names of namespaces and interfaces; ``net``: first three
    octets of its three networks (see the package's own page)."""

    def __init__(self, directory: Path, name: str = "gespann", net: str = "198.18.90") -> None:
        self.directory = directory.absolute()
        if len(os.fsencode(self.directory / "host99/run/libvirt/libvirt-admin-sock")) > SOCKET_PATH_BYTES:
            raise LabError(f"{self.directory}: too long a path, sockets below it would not fit in 107 bytes")
        try:
            ipaddress.IPv4Address(f"{net}.0")
        except ValueError:
            raise LabError(f"{net!r} is not the first three octets of an IPv4 network") from None
        self.name = name
        self.addressing = Addressing(net)
        self.switch = Switch(name, self.addressing)

    def node(self, name: str) -> Node:
        """ "array", "host1" ... of a lab that is up (they may be off)."""
        if name not in self.nodes():
            raise LabError(f"this lab has no node {name!r}; it has: {', '.join(self.nodes()) or 'none'}")
        return Node(self.directory, self.switch, name, self._hosts_file())

    def nodes(self) -> list[str]:
        hosts = int(self._state().get("hosts", 0))
        return ["array", *(f"host{number}" for number in range(1, hosts + 1))] if hosts else []

    @property
    def is_up(self) -> bool:
        return bool(self.nodes()) and all(self.node(name).is_on for name in self.nodes())

    def up(self, hosts: int = 1) -> None:
        """Makes what is not there and boots what is off; hosts are added, never taken away."""
        if os.geteuid() != 0:
            raise LabError("a lab needs root: it is made of namespaces")
        if not 1 <= hosts <= HOSTS_MOST:
            raise LabError(f"{hosts} hosts: 1 to {HOSTS_MOST}")
        private_directory(self.directory)
        with self._locked():
            with _machine_lock():
                self._check_ours()
                self.switch.check_free()
                self.switch.claim(str(self.directory))
            hosts = max(hosts, int(self._state().get("hosts", 0)))
            net, directory = self.addressing.net, str(self.directory)
            state = {"name": self.name, "net": net, "hosts": hosts, "directory": directory}
            write_durable(self.directory / "lab.json", json.dumps(state).encode())
            self.switch.up()
            self._start_dhcp()
            for name in self.nodes():
                self.node(name).boot()

    def down(self) -> None:
        """Takes all of it away, with its directory; also what an interrupted ``up`` or a killed lab left. What another
        directory's lab has is not touched, whatever its name."""
        if not self.directory.exists():
            if self.switch.owner() != str(self.directory):
                return
            private_directory(self.directory)  # somebody removed it from under the lab
        with self._locked():
            if self._names_are_ours():
                self._stop_all()
            elif self._owner_is_gone():
                raise LabError(self._taken())
            shutil.rmtree(self.directory)

    def _stop_all(self) -> None:
        self._check_ours()
        for name in self.nodes():
            self.node(name).power_off()
        self._stop_dhcp()
        for pid in self.switch.pids():
            processes.kill(pid)
        self.switch.down()

    def _state(self) -> dict[str, str | int]:
        """What ``up`` noted. A directory that was copied is not the lab that it was copied from."""
        state = _noted(self.directory)
        return state if state.get("directory", str(self.directory)) == str(self.directory) else {}

    def _check_ours(self) -> None:
        state = self._state()
        if state and (state["name"], state["net"]) != (self.name, self.addressing.net):
            raise LabError(f"{self.directory} is the lab {state['name']} on {state['net']}.0; take that down first")
        if not self._names_are_ours():
            raise LabError(self._taken())

    def _names_are_ours(self) -> bool:
        """Or nobody's."""
        owner = self.switch.owner()
        if owner == "":  # its maker was interrupted, so nothing runs there; or it is older than these marks
            return bool(self._state()) or not self.switch.pids()
        return owner in (None, str(self.directory))

    def _owner_is_gone(self) -> bool:
        owner = self.switch.owner()
        return bool(owner) and not Path(str(owner)).exists()

    def _taken(self) -> str:
        owner = self.switch.owner() or "an unknown directory"
        text = f"another lab of the name {self.name} is up, that of {owner}; take it down first, or choose another name"
        if self._owner_is_gone():
            words = f"--directory {owner} --name {self.name} --net {self.addressing.net}"
            text += f"\nits directory is gone; this takes it down: .venv/bin/python -m gespann.main.lab down {words}"
        return text

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.directory / "lock"
        while True:
            private_directory(self.directory)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                    yield
                    return
            finally:
                os.close(fd)  # else the one before us was a ``down``, and this lock went with the directory

    def _hosts_file(self) -> str:
        lines = ["127.0.0.1 localhost", f"{self.addressing.address('mgmt', HOST_OCTET)} array"]
        lines += [f"{self.addressing.address('mgmt', HOST_OCTET + n)} host{n}" for n in range(1, HOSTS_MOST + 1)]
        return "\n".join(lines) + "\n"

    # --- addresses for guests

    def _start_dhcp(self) -> None:
        if self._dhcp_pid() is not None:
            return
        directory = private_directory(self.directory / "dhcp")
        first, last = (self.addressing.address("vm", octet) for octet in ADDRESSES)
        words = [*self.switch.enter(), "dnsmasq", "--conf-file=/dev/null", "--port=0", "--user=root", "--group="]
        words += ["--interface=br-vm", "--bind-interfaces", "--no-ping", "--dhcp-authoritative"]
        words += [f"--dhcp-range={first},{last},255.255.255.0,1h", "--dhcp-option=3", "--dhcp-option=6"]
        words += [
            f"--dhcp-leasefile={directory}/leases",
            f"--pid-file={directory}/pid",
            f"--log-facility={directory}/log",
        ]
        words += [f"--listen-address={self.addressing.address('vm', SWITCH_OCTET)}"]
        processes.run(words)

    def _dhcp_pid(self) -> int | None:
        try:
            pid = int((self.directory / "dhcp/pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.directory / "dhcp").encode() in command else None

    def _stop_dhcp(self) -> None:
        pid = self._dhcp_pid()
        if pid is not None:
            processes.kill(pid)
            wait_until(lambda: started_at(pid) is None, GONE_TIMEOUT_S, "end of the DHCP server")
