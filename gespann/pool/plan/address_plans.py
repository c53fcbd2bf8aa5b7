"""Plans for the addresses of hosts' interfaces, and for which of them a host is managed by.

The host's agent takes a change back that it is not told to keep. It is told by the way that the change leads to: at
the new address of a member; and where the coordinator's own host changes, only once every other host answers that did
before.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gespann.pool.model.database import Database
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import is_live
from gespann.seams.host_addresses import Addressing, InterfaceAddresses
from gespann.seams.host_network import vlan_interface
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

KEEP_WITHIN_S = 45.0
HOSTNAME_CHARS = 64
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")


def coordinator_of(db: Database) -> str:
    return str(next(iter(db.all("pool").values()))["master"])


# -- what is asked for


def ipv4_wanted(db: Database, pif: str, mode: str, ip: str, netmask: str, gateway: str, dns: str) -> InterfaceAddresses:
    """INVALID_IP_ADDRESS_SPECIFIED names the parameter that is none."""
    servers = _name_servers(dns)
    if mode != "Static":
        return InterfaceAddresses(ipv4=Addressing(mode="dhcp" if mode == "DHCP" else "none"), dns=servers)
    address = _address(ip, "IP", 4)
    try:
        own = ipaddress.IPv4Interface(f"{address}/{_address(netmask, 'netmask', 4)}")
    except ValueError:
        raise _invalid("netmask") from None
    network = own.network
    if network.prefixlen == 0:
        raise _invalid("netmask")
    if network.prefixlen < 31 and own.ip in (network.network_address, network.broadcast_address):
        raise _invalid("IP")
    _assert_own(db, pif, str(own.ip))
    return InterfaceAddresses(ipv4=_static(own, gateway, 4), dns=servers)


def ipv6_wanted(db: Database, pif: str, mode: str, ipv6: str, gateway: str, dns: str) -> InterfaceAddresses:
    """``ipv6``: with its prefix."""
    servers = _name_servers(dns)
    if mode in ("DHCP", "Autoconf"):
        raise XenApiError("PIF_CONFIGURATION_ERROR", [pif, f"IPv6 by {mode} is not there: Static and None are"])
    if mode != "Static":
        return InterfaceAddresses(ipv6=Addressing(mode="none"), dns=servers)
    text, _, prefix = ipv6.partition("/")
    address = _address(text, "IPv6", 6)
    if not prefix.isdecimal() or not 0 < int(prefix) <= 128:
        raise _invalid("IPv6")
    _assert_own(db, pif, str(address))
    return InterfaceAddresses(ipv6=_static(ipaddress.IPv6Interface(f"{address}/{prefix}"), gateway, 6), dns=servers)


def _static(own: ipaddress.IPv4Interface | ipaddress.IPv6Interface, gateway: str, version: int) -> Addressing:
    if gateway:
        reached = _address(gateway, "gateway", version)
        near = reached in own.network or (reached.is_link_local and version == 6)
        if not near or reached == own.ip:
            raise _invalid("gateway")
    return Addressing(mode="static", addresses=[str(own)], gateway=gateway)


def _name_servers(text: str) -> list[str] | None:
    """None: those that the host has."""
    servers = [part.strip() for part in text.split(",")] if text.strip() else []
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise _invalid("DNS") from None
    return servers or None


def _address(text: str, parameter: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise _invalid(parameter) from None
    unusable = found.is_multicast or found.is_unspecified or found.is_loopback or found == _BROADCAST
    if found.version != version or (unusable and parameter != "netmask") or "%" in text:
        raise _invalid(parameter)
    return found


_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def _invalid(parameter: str) -> XenApiError:
    return XenApiError("INVALID_IP_ADDRESS_SPECIFIED", [parameter])


def _assert_own(db: Database, pif: str, address: str) -> None:
    """Two interfaces of a pool with one address would answer for each other."""
    for ref, other in db.all("PIF").items():
        others = [other["IP"], *(text.partition("/")[0] for text in other["IPv6"])]
        if ref != pif and address in others:
            text = f"{address} is the address of {other['device']} of {db.get('host', other['host'])['hostname']}"
            raise XenApiError("PIF_CONFIGURATION_ERROR", [pif, text])


def interface_of(record: Mapping[str, Any]) -> str:
    """What the host's agent calls a PIF."""
    return str(record["device"]) if record["VLAN"] == -1 else vlan_interface(record["device"], record["VLAN"])


# -- plans


@operation("PIF.reconfigure_ip")
def plan_reconfigure(db: Database, pif: str, wanted: InterfaceAddresses) -> Plan:
    record = _plugged(db, pif)
    bears = _bears_management(db, record, wanted)
    if bears and (wanted.ipv4 or wanted.ipv6 or Addressing(mode="none")).mode == "none":
        raise XenApiError("PIF_IS_MANAGEMENT_INTERFACE", [pif])
    return _plan(db, "PIF.reconfigure_ip", pif, record, wanted, manages=bears)


@operation("host.management_reconfigure")
def plan_management(db: Database, pif: str) -> Plan:
    """INTERFACE_HAS_NO_IP for one by which nobody could reach the host."""
    if db.get("PIF", pif)["bond_slave_of"] != NULL_REF:
        raise XenApiError("CANNOT_PLUG_BOND_SLAVE", [pif])
    record = _plugged(db, pif)
    if not _own_address(record):
        raise XenApiError("INTERFACE_HAS_NO_IP", [record["device"]])
    _assert_same_kind(db, pif, record)
    return _plan(db, "host.management_reconfigure", pif, record, InterfaceAddresses(), manages=True)


def _plugged(db: Database, pif: str) -> Mapping[str, Any]:
    record = db.get("PIF", pif)
    if not record["currently_attached"]:
        raise XenApiError("REQUIRED_PIF_IS_UNPLUGGED", [pif])
    return record


def _own_address(record: Mapping[str, Any]) -> str:
    """That by which the host is reached, if it is managed by this interface; "": there is none."""
    ipv6 = str(next(iter(record["IPv6"]), "")).partition("/")[0]
    return ipv6 if record["primary_address_type"] == "IPv6" else str(record["IP"])


def _assert_same_kind(db: Database, pif: str, record: Mapping[str, Any]) -> None:
    """A host that is managed by addresses of one kind is not suddenly managed by those of the other."""
    for other in db.get("host", record["host"])["PIFs"]:
        now = db.get("PIF", other)
        if now["management"] and now["primary_address_type"] != record["primary_address_type"]:
            raise XenApiError("PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE", [pif])


def assert_may_be_primary(db: Database, pif: str) -> None:
    """Of the kind of addresses by which the host would be managed: not while it is."""
    if db.get("PIF", pif)["management"]:
        raise XenApiError("PIF_IS_MANAGEMENT_INTERFACE", [pif])


def _vlan_ends(db: Database, record: Mapping[str, Any]) -> dict[str, Any] | None:
    if record["VLAN"] == -1:
        return None
    network = db.get("network", record["network"])
    ends = {"device": record["device"], "tag": record["VLAN"]}
    return ends | {"bridge": network["bridge"], "mtu": network["MTU"]}


def _bears_management(db: Database, record: Mapping[str, Any], wanted: InterfaceAddresses) -> bool:
    """Whether the host is reached by an address that is to change."""
    address = db.get("host", record["host"])["address"]
    if not record["management"]:
        return False
    is_v6 = ":" in address
    return (wanted.ipv6 if is_v6 else wanted.ipv4) is not None


def _plan(
    db: Database, name: str, pif: str, record: Mapping[str, Any], wanted: InterfaceAddresses, *, manages: bool
) -> Plan:
    host = record["host"]
    others = [ref for ref in db.all("host") if ref != host and is_live(db, ref)]
    args = {
        "host": host,
        "pif": pif,
        "device": interface_of(record),
        "vlan": _vlan_ends(db, record),
        "wanted": msgspec.to_builtins(wanted),
        "manages": manages,
        "address": _own_address(record) or record["IP"],
        "address_before": db.get("host", host)["address"],
        "own": host == coordinator_of(db),
        "others": others,
        "keep_within_s": KEEP_WITHIN_S,
    }
    locks = [Lock("PIF", pif)]
    if manages:  # one at a time: each of them needs the ways to the others
        locks.append(Lock("pool", next(iter(db.all("pool")))))
    return Plan(name, (Act("addresses-change", args), Act("addresses-keep", args)), tuple(locks))


@operation("host.set_hostname_live")
def plan_hostname(db: Database, host: str, hostname: str) -> Plan:
    """HOST_NAME_INVALID: RFC 1123 section 2.1, in the 64 bytes of Linux."""
    if not hostname:
        raise XenApiError("HOST_NAME_INVALID", ["empty string"])
    if len(hostname) > HOSTNAME_CHARS:
        raise XenApiError("HOST_NAME_INVALID", [f"more than {HOSTNAME_CHARS} characters"])
    if not HOSTNAME.fullmatch(hostname):
        raise XenApiError("HOST_NAME_INVALID", ["letters, digits and inner hyphens, in parts between full stops"])
    args = {"host": host, "hostname": hostname, "before": db.get("host", host)["hostname"]}
    return Plan("host.set_hostname_live", (Act("hostname-set", args),), (Lock("host", host),))
