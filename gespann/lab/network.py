"""The cables and switches of a lab: one namespace with a bridge per network, a veth from there to each node."""

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass

from gespann.system import processes

NETWORKS = ("mgmt", "stor", "vm")
INTERFACES = {"mgmt": "eth0", "stor": "eth1", "vm": "eth2"}
GUEST_BRIDGE = "xenbr2"  # XenServer's name for the bridge over eth2
ROOT_OCTET, SWITCH_OCTET, ARRAY_OCTET, HOST_OCTET = 254, 1, 10, 10  # hostN has HOST_OCTET + N
NAME = re.compile(r"[a-z][a-z0-9]{0,9}")

# Ports named in the set lose every packet, both ways, while their link stays up.
NFT_RULES = """
table bridge lab {
  set dropped { type ifname; }
  chain forward { type filter hook forward priority 0; policy accept; iifname @dropped drop; oifname @dropped drop; }
  chain input { type filter hook input priority 0; policy accept; iifname @dropped drop; }
  chain output { type filter hook output priority 0; policy accept; oifname @dropped drop; }
}
"""


class LabError(Exception):
    """The lab cannot be made or used as asked; the text says what to do."""


@dataclass(frozen=True)
class Addressing:
    """``net`` is the first three octets of the mgmt network; stor and vm follow it."""

    net: str

    def network(self, name: str) -> ipaddress.IPv4Network:
        base = ipaddress.IPv4Address(f"{self.net}.0") + 256 * NETWORKS.index(name)
        return ipaddress.IPv4Network((base, 24))

    def address(self, name: str, octet: int) -> str:
        return str(self.network(name)[octet])


def ip(*words: str, namespace: str | None = None, check: bool = True) -> processes.Result:
    where = ["-n", namespace] if namespace else []
    return processes.run(["ip", *where, *words], check=check)


def namespaces() -> list[str]:
    """The named ones of this machine."""
    return [item["name"] for item in json.loads(ip("-j", "netns", "list").stdout or "[]")]


def port_name(network: str, node: str) -> str:
    return f"{network[0]}-{node}"


def octet_of(node: str) -> int:
    return ARRAY_OCTET if node == "array" else HOST_OCTET + int(node.removeprefix("host"))


class Switch:
    """``name`` is the lab's; all names of namespaces and interfaces begin with it."""

    def __init__(self, name: str, addressing: Addressing) -> None:
        if not NAME.fullmatch(name):
            raise LabError(f"{name!r} cannot name a lab: a lower-case letter, then at most 9 letters and digits")
        self.name = name
        self.addressing = addressing
        self.namespace = f"{name}-sw"
        self.root_interface = f"{name}-mgmt"

    # --- whose these names are

    def owner(self) -> str | None:
        """The directory of the lab that has these names on this machine now. "": of one that was interrupted before it
        said so. None: they are free. It is kept where it ends together with the names: at the switch's namespace."""
        if self.namespace not in namespaces():
            return "" if self.ours() else None
        (loopback,) = json.loads(ip("-j", "link", "show", "lo", namespace=self.namespace).stdout)
        return str(loopback.get("ifalias", ""))

    def claim(self, directory: str) -> None:
        """The names are this lab's from now on. Under a lock, and after a look at ``owner``."""
        if self.namespace not in namespaces():
            ip("netns", "add", self.namespace)
        ip("link", "set", "lo", "alias", directory, namespace=self.namespace)

    def pids(self) -> list[int]:
        """Every process in its namespaces."""
        return [int(pid) for name in self.ours() for pid in processes.run(["ip", "netns", "pids", name]).stdout.split()]

    def check_free(self) -> None:
        """LabError if this machine uses one of the networks for something else."""
        for item in json.loads(ip("-j", "-4", "route", "show", "table", "all").stdout or "[]"):
            target, device = item.get("dst", ""), item.get("dev", "")
            if target == "default" or device == self.root_interface or item.get("type") in ("local", "broadcast"):
                continue
            used = ipaddress.IPv4Network(target, strict=False)
            for network in NETWORKS:
                mine = self.addressing.network(network)
                if used.prefixlen and used.overlaps(mine):
                    raise LabError(f"{mine} ({network}) is in use: a route to {used} by {device}; choose another net")

    def up(self) -> None:
        """``claim`` comes first."""
        ip("link", "set", "lo", "up", namespace=self.namespace)
        for network in NETWORKS:
            bridge = f"br-{network}"
            if ip("link", "show", bridge, namespace=self.namespace, check=False).exit_code:
                ip("link", "add", bridge, "type", "bridge", "forward_delay", "0", namespace=self.namespace)
            ip("link", "set", bridge, "up", namespace=self.namespace)
        own = f"{self.addressing.address('vm', SWITCH_OCTET)}/24"
        ip("addr", "replace", own, "dev", "br-vm", namespace=self.namespace)
        self._connect_root()
        if self.in_switch(["nft", "list", "table", "bridge", "lab"], check=False).exit_code:
            self.in_switch(["nft", "-f", "-"], stdin=NFT_RULES.encode())

    def _connect_root(self) -> None:
        if ip("link", "show", self.root_interface, check=False).exit_code:
            ip("link", "add", self.root_interface, "type", "veth", "peer", "name", "root", "netns", self.namespace)
        ip("link", "set", "root", "master", "br-mgmt", "up", namespace=self.namespace)
        ip("addr", "replace", f"{self.addressing.address('mgmt', ROOT_OCTET)}/24", "dev", self.root_interface)
        ip("link", "set", self.root_interface, "up")

    def down(self) -> None:
        """The switch goes last: with it goes the mark of whose the rest is."""
        for namespace in self.ours():
            if namespace != self.namespace:
                ip("netns", "del", namespace)
        if not ip("link", "show", self.root_interface, check=False).exit_code:
            ip("link", "del", self.root_interface)
        if self.namespace in namespaces():
            ip("netns", "del", self.namespace)

    def ours(self) -> list[str]:
        mine = re.compile(rf"{self.name}-(sw|array|host\d+)")
        return [namespace for namespace in namespaces() if mine.fullmatch(namespace)]

    def in_switch(self, words: list[str], *, stdin: bytes = b"", check: bool = True) -> processes.Result:
        return processes.run([*self.enter(), *words], stdin=stdin, check=check)

    def enter(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def plug(self, node: str, namespace: str) -> None:
        """A fresh network namespace for a node, with its cables in and its addresses set."""
        if namespace in namespaces():
            ip("netns", "del", namespace)
        ip("netns", "add", namespace)
        ip("link", "set", "lo", "up", namespace=namespace)
        for network in NETWORKS:
            port, inside = port_name(network, node), INTERFACES[network]
            ip("link", "del", port, namespace=self.namespace, check=False)
            ip(
                "link", "add", port, "type", "veth", "peer", "name", inside, "address", self.mac(node, network),
                "netns", namespace,
                namespace=self.namespace,
            )  # fmt: skip
            ip("link", "set", port, "master", f"br-{network}", "up", namespace=self.namespace)
            ip("link", "set", inside, "up", namespace=namespace)
            self.undrop(node, network)
            if network != "vm":
                own = f"{self.addressing.address(network, octet_of(node))}/24"
                ip("addr", "add", own, "dev", inside, namespace=namespace)
        if node != "array":
            ip("link", "add", GUEST_BRIDGE, "type", "bridge", "forward_delay", "0", namespace=namespace)
            ip("link", "set", INTERFACES["vm"], "master", GUEST_BRIDGE, namespace=namespace)
            ip("link", "set", GUEST_BRIDGE, "up", namespace=namespace)

    def mac(self, node: str, network: str) -> str:
        """Of the node's card there: the same after each boot, else others send to the one before until they ask again,
        half a minute later."""
        own = hashlib.sha256(f"{self.name}/{node}/{network}".encode()).digest()[:5]
        return "02:" + own.hex(":")

    def cut(self, node: str, network: str) -> None:
        ip("link", "set", port_name(network, node), "down", namespace=self.namespace)

    def heal(self, node: str, network: str) -> None:
        ip("link", "set", port_name(network, node), "up", namespace=self.namespace)

    def drop(self, node: str, network: str) -> None:
        self._dropped("add", node, network)

    def undrop(self, node: str, network: str) -> None:
        self._dropped("delete", node, network)

    def _dropped(self, verb: str, node: str, network: str) -> None:
        element = f'{{ "{port_name(network, node)}" }}'
        self.in_switch(["nft", verb, "element", "bridge", "lab", "dropped", element], check=verb == "add")
