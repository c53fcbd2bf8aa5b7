"""Keeps the records of a host true to what its agent says of the machine."""

import ipaddress
import logging
from typing import TYPE_CHECKING, Any

from gespann.pool.model.database import Database, Transaction
from gespann.pool.plan.card_plans import cards_unlike
from gespann.pool.plan.network_plans import attached_vlans
from gespann.pool.reconcile.bond_facts import member_fields, show_bonds, show_vlans
from gespann.pool.reconcile.host_boots import note_boot
from gespann.pool.steps.host_door import ask
from gespann.pool.steps.vm_records import wire_time
from gespann.seams.host_addresses import InterfaceAddresses
from gespann.seams.host_agent import Facts, FactsReply, HostInterface
from gespann.seams.host_bonds import CardProperty
from gespann.seams.host_network import VlanEnsure
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

log = logging.getLogger(__name__)
FACTS_WITHIN_S = 30.0
GRO = {True: "on", False: "off"}
MODES = {"none": "None", "dhcp": "DHCP", "static": "Static"}


async def refresh_host(pool: "Pool", host: str) -> bool:
    """Asks the agent. False, and the host is shown as not live, if it does not answer."""
    try:
        facts: FactsReply = await ask(pool, host, Facts(), timeout_s=FACTS_WITHIN_S)
    except XenApiError as error:
        if pool.db.find("host", host) is None:
            return False
        log.warning("host %s does not answer: %s", pool.db.get("host", host)["hostname"], error)
        show_live(pool, host, live=False)
        return False
    if pool.db.find("host", host) is None:  # it left meanwhile
        return False
    networks = networks_by_bridge(pool.db)
    with pool.db.transaction() as tx:
        show_facts(tx, host, facts, wire_time(pool.clock.now()), networks)
        note_boot(pool.db, tx, host, facts.boot_id)
    await _ensure_properties(pool, host, facts)
    return True


async def _ensure_properties(pool: "Pool", host: str, facts: FactsReply) -> None:
    found = {interface.device: interface.gro for interface in facts.interfaces if interface.gro is not None}
    for card, gro in cards_unlike(pool.db, host, found).items():
        try:
            await ask(pool, host, CardProperty(device=card, gro=gro), timeout_s=FACTS_WITHIN_S)
        except XenApiError as error:
            log.warning("gro of %s is not %s: %s", card, GRO[gro], error)


async def ensure_vlans(pool: "Pool", host: str) -> None:
    """A host that has started anew has none of them. Bonds and addresses its agent looks after by itself."""
    for vlan in attached_vlans(pool.db, host):
        target = vlan.pop("host")
        try:
            await ask(pool, target, VlanEnsure(**vlan), timeout_s=FACTS_WITHIN_S)
        except XenApiError as error:
            log.warning("VLAN %s of %s is not there: %s", vlan["tag"], vlan["device"], error)


def show_live(pool: "Pool", host: str, *, live: bool) -> None:
    metrics = pool.db.get("host", host)["metrics"]
    if pool.db.get("host_metrics", metrics)["live"] != live:
        with pool.db.transaction() as tx:
            tx.set("host_metrics", metrics, live=live)


def networks_by_bridge(db: Database) -> dict[str, str]:
    return {record["bridge"]: ref for ref, record in db.all("network").items()}


def show_facts(tx: Transaction, host: str, facts: FactsReply, now: str, networks: dict[str, str]) -> None:
    """``networks``: bridge -> network, as they are before the transaction."""
    record = tx.get("host", host)
    tx.set(
        "host_metrics",
        record["metrics"],
        memory_total=facts.memory_total_bytes,
        memory_free=facts.memory_free_bytes,
        live=True,
        last_updated=now,
    )
    tx.set(
        "host",
        host,
        hostname=facts.hostname,
        cpu_info=_cpu_info(facts),
        bios_strings=facts.bios_strings,
        software_version={**record["software_version"], **facts.software_version, "accelerator": facts.accelerator},
    )
    _show_cpus(tx, host, facts)
    _show_interfaces(tx, host, facts, networks)


def _cpu_info(facts: FactsReply) -> dict[str, str]:
    return {
        "cpu_count": str(facts.cpu_count),
        "socket_count": "1",
        "threads_per_core": "1",
        "vendor": facts.cpu_vendor,
        "modelname": facts.cpu_model,
        "speed": str(facts.cpu_mhz),
        "flags": facts.cpu_flags,
    }


def _show_cpus(tx: Transaction, host: str, facts: FactsReply) -> None:
    there = {tx.get("host_cpu", cpu)["number"]: cpu for cpu in tx.get("host", host)["host_CPUs"]}
    for number in range(facts.cpu_count):
        if number not in there:
            fields = {
                "host": host,
                "number": number,
                "vendor": facts.cpu_vendor,
                "modelname": facts.cpu_model,
                "speed": facts.cpu_mhz,
                "flags": facts.cpu_flags,
            }
            tx.create("host_cpu", fields)
    for number, cpu in there.items():
        if number >= facts.cpu_count:
            tx.destroy("host_cpu", cpu)


def _show_interfaces(tx: Transaction, host: str, facts: FactsReply, networks: dict[str, str]) -> None:
    """A PIF for each interface. Its network is the bridge that it is a port of; an interface without bridge gets a
    network that VMs cannot use (``managed`` false): taking an interface into a bridge can cut a host off."""
    cards = [pif for pif in tx.get("host", host)["PIFs"] if tx.get("PIF", pif)["VLAN"] == -1]
    there = {tx.get("PIF", pif)["device"]: pif for pif in cards}
    address, own_bonds = tx.get("host", host)["address"], {shape.device for shape in facts.bonds}
    for interface in facts.interfaces:
        bridge = interface.bridge or interface.device
        fields, pif = _pif_fields(interface, address), there.get(interface.device)
        if interface.bond in own_bonds:
            fields = member_fields(fields)
        if interface.bond not in own_bonds or pif is None:
            label = f"Pool-wide network associated with {interface.device}"
            fields["network"] = _network(tx, networks, bridge, interface.mtu, label, usable=bool(interface.bridge))
        if pif is None:
            metrics = tx.create("PIF_metrics", {"carrier": interface.carrier})
            physical = interface.device not in own_bonds
            fields |= {"host": host, "VLAN": -1, "physical": physical, "metrics": metrics}
            tx.create("PIF", fields | {"properties": {} if interface.gro is None else {"gro": GRO[interface.gro]}})
        else:
            tx.set("PIF", pif, **fields)
            tx.set("PIF_metrics", tx.get("PIF", pif)["metrics"], carrier=interface.carrier)
    for bridge in facts.bridges:
        _network(tx, networks, bridge, 1500, f"Bridge {bridge}", usable=True)
    devices = {interface.device for interface in facts.interfaces}
    for device, pif in there.items():
        if device not in devices:
            tx.set("PIF", pif, currently_attached=False)
    show_vlans(tx, host, facts, _pif_fields)
    show_bonds(tx, host, facts, devices - there.keys())


def _pif_fields(interface: HostInterface, host_address: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "device": interface.device,
        "MAC": interface.mac,
        "MTU": interface.mtu,
        "currently_attached": True,
        "managed": bool(interface.bridge),
        "IP": "",
        "netmask": "",
        "IPv6": [],
        "gateway": interface.gateway,
        "ipv6_gateway": interface.ipv6_gateway,
        "management": False,
        "ip_configuration_mode": "None",
        "ipv6_configuration_mode": "None",
    }
    for text in interface.addresses:
        found = ipaddress.ip_interface(text)
        if found.version == 6:
            fields["IPv6"].append(text)
            fields["ipv6_configuration_mode"] = "Static"
        elif not fields["IP"]:
            fields |= {"IP": str(found.ip), "netmask": str(found.netmask), "ip_configuration_mode": "Static"}
        if str(found.ip) == host_address:
            fields["management"] = True
    return fields | configured_fields(interface.configured)


def configured_fields(configured: InterfaceAddresses | None) -> dict[str, Any]:
    """What the pool itself has asked for: the mode is that also while there is no address."""
    fields: dict[str, Any] = {}
    if configured is not None and configured.ipv4 is not None:
        fields["ip_configuration_mode"] = MODES[configured.ipv4.mode]
    if configured is not None and configured.ipv6 is not None:
        fields["ipv6_configuration_mode"] = MODES[configured.ipv6.mode]
    if configured is not None and configured.dns is not None:
        fields["DNS"] = ",".join(configured.dns)
    return fields


def _network(tx: Transaction, networks: dict[str, str], bridge: str, mtu: int, label: str, *, usable: bool) -> str:
    if bridge not in networks:
        fields = {"name_label": label, "bridge": bridge, "MTU": mtu, "managed": usable}
        networks[bridge] = tx.create("network", fields)
    return networks[bridge]
