"""The records that a pool must have before anybody can ask for anything, and those that each start refreshes."""

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from gespann import __version__
from gespann.pool.model.database import Transaction, new_ref
from gespann.pool.pool import Agent
from gespann.pool.reconcile.host_facts import networks_by_bridge, show_facts
from gespann.pool.steps.vm_records import wire_time
from gespann.seams.host_agent import Facts, FactsReply
from gespann.seams.sr_driver import DriverInfo
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool

#: the datamodel in ``gespann/seams/xenapi`` is this version's: every record has all of its fields
API_VERSION = (2, 23)
#: the release whose XenAPI this is; clients decide by it what they may ask
PRODUCT_VERSION = "8.3.0"
MIB = 1024 * 1024
BLANK_TEMPLATE = "Other install media"


async def first_start(pool: "Pool", agent: Agent, address: str) -> str:
    """Makes pool and host if there are none yet; knows the host again by its uuid if there are. ``address``: where it
    is managed unless its agent knows better. Gives the host, and puts its agent into ``pool.agents``. SeamLost if the
    agent does not answer."""
    facts: FactsReply = await agent.call(Facts(), 30.0)
    address = facts.managed_at or address
    host = _known_host(pool, facts)
    if host is None:
        host = _create(pool, facts, address)
    else:
        record = pool.db.get("host", host)
        versions = {**_versions(), "software_version": {**record["software_version"], **_software_version()}}
        with pool.db.transaction() as tx:
            tx.set("host", host, address=address, **versions)
    pool.agents[host] = agent
    show_drivers(pool)
    return host


def _known_host(pool: "Pool", facts: FactsReply) -> str | None:
    for ref, record in pool.db.all("host").items():
        if record["uuid"] == facts.host_uuid:
            return ref
    if pool.db.all("pool"):
        raise XenApiError("HOST_UNKNOWN_TO_MASTER", [facts.host_uuid])
    return None


def _create(pool: "Pool", facts: FactsReply, address: str) -> str:
    host, metrics, now = new_ref(), new_ref(), wire_time(pool.clock.now())
    networks = networks_by_bridge(pool.db)
    with pool.db.transaction() as tx:
        tx.create("host_metrics", {}, metrics)
        tx.create("host", _host_fields(pool, facts, address, metrics), host)
        tx.create(
            "pool",
            {
                "name_label": "",
                "master": host,
                "default_SR": NULL_REF,
                "suspend_image_SR": NULL_REF,
                "crash_dump_SR": NULL_REF,
            },
        )
        show_facts(tx, host, facts, now, networks)
        _create_blank_template(tx)
    return host


def _host_fields(pool: "Pool", facts: FactsReply, address: str, metrics: str) -> dict[str, Any]:
    return {
        **known_before_facts(pool, facts.host_uuid, facts.hostname, address),
        "enabled": True,
        "metrics": metrics,
        # what the machine needs for itself, as measured before any VM runs
        "memory_overhead": max(0, facts.memory_total_bytes - facts.memory_free_bytes),
    }


def known_before_facts(pool: "Pool", host_uuid: str, hostname: str, address: str) -> dict[str, Any]:
    """The fields of a new host's record that nobody needs to be asked for."""
    return {
        "uuid": host_uuid,
        "name_label": hostname,
        "name_description": "",
        "hostname": hostname,
        "address": address,
        **_versions(),
        "software_version": _software_version(),
        "capabilities": ["hvm-3.0-x86_64"],
        "edition": "free",
        "editions": ["free"],
        "suspend_image_sr": NULL_REF,
        "crash_dump_sr": NULL_REF,
        "iscsi_iqn": f"{pool.iscsi_prefix}:{host_uuid[:8]}",
        "tls_verification_enabled": False,
        "ssl_legacy": False,
    }


def _versions() -> dict[str, Any]:
    major, minor = API_VERSION
    return {"API_version_major": major, "API_version_minor": minor, "API_version_vendor": "Gespann"}


def _software_version() -> dict[str, str]:
    major, minor = API_VERSION
    return {
        "product_brand": "Gespann",
        "product_version": PRODUCT_VERSION,
        "product_version_text": __version__,
        "platform_version": __version__,
        "API_version": f"{major}.{minor}",
    }


def _create_blank_template(tx: Transaction) -> None:
    """A VM without disks, to be filled from install media."""
    tx.create(
        "VM",
        {
            "name_label": BLANK_TEMPLATE,
            "name_description": "Template for an operating system that is installed from its own media",
            "is_a_template": True,
            "is_default_template": True,
            "user_version": 1,
            "memory_static_min": 256 * MIB,
            "memory_dynamic_min": 512 * MIB,
            "memory_dynamic_max": 512 * MIB,
            "memory_static_max": 512 * MIB,
            "VCPUs_max": 1,
            "VCPUs_at_startup": 1,
            "actions_after_shutdown": "destroy",
            "actions_after_reboot": "restart",
            "actions_after_crash": "restart",
            "HVM_boot_policy": "BIOS order",
            "HVM_boot_params": {"order": "dc"},
            "domain_type": "hvm",
            "domid": -1,
            "other_config": {"default_template": "true", "mac_seed": str(uuid4())},
        },
    )


def show_drivers(pool: "Pool") -> None:
    """One SM record for each driver there is."""
    there = {record["type"]: ref for ref, record in pool.db.all("SM").items()}
    with pool.db.transaction() as tx:
        for sr_type, driver in pool.drivers.items():
            fields = _sm_fields(driver.info)
            if sr_type in there:
                tx.set("SM", there[sr_type], **fields)
            else:
                tx.create("SM", fields)
        for sr_type, ref in there.items():
            if sr_type not in pool.drivers:
                tx.destroy("SM", ref)


def _sm_fields(info: DriverInfo) -> dict[str, Any]:
    return {
        "type": info.type,
        "name_label": info.name_label,
        "name_description": info.name_description,
        "vendor": info.vendor,
        "copyright": info.copyright,
        "version": info.version,
        "required_api_version": info.required_api_version,
        "configuration": dict(info.configuration),
        "capabilities": list(info.capabilities),
        "features": info.features or dict.fromkeys(info.capabilities, 1),
        "driver_filename": f"gespann/sr/{info.type}",
    }
