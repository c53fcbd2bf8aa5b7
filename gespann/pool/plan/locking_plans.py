"""Plans for what the interface of a VM may say and hear: live where it is plugged."""

import ipaddress
from typing import Any

from gespann.pool.model.database import Database
from gespann.pool.plan.domain_spec import locking_shape, nic_shape
from gespann.pool.plan.legal_moves import other_operation
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.steps.openings import start_of
from gespann.seams.xenapi.errors import XenApiError

FIELDS = {4: "ipv4_allowed", 6: "ipv6_allowed"}
ALLOWED_MOST = 1024  # addresses of one interface


def checked_addresses(version: int, values: list[str]) -> list[str]:
    """As they are compared: one way of writing each, no address twice. INVALID_IP_ADDRESS_SPECIFIED names the field."""
    found: list[str] = []
    for text in values:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise XenApiError("INVALID_IP_ADDRESS_SPECIFIED", [FIELDS[version]]) from None
        if address.version != version or "%" in text:
            raise XenApiError("INVALID_IP_ADDRESS_SPECIFIED", [FIELDS[version]])
        found.append(str(address))
    if len(set(found)) > ALLOWED_MOST:
        raise XenApiError("INVALID_VALUE", [FIELDS[version], f"more than {ALLOWED_MOST} addresses"])
    return list(dict.fromkeys(found))


@operation("VIF.set_locking")
def plan_set_locking(db: Database, vif: str, fields: dict[str, Any]) -> Plan:
    """``fields``: locking_mode, ipv4_allowed, ipv6_allowed, or some of them."""
    record = db.get("VIF", vif)
    other_operation("VIF", vif, record)
    locks = (Lock("VIF", vif), Lock("VM", record["VM"], shared=True))
    start = start_of(db, record["VM"])
    if start is None or not record["currently_attached"]:
        return Plan("VIF.set_locking", (Act("records-write", {"set": [("VIF", vif, fields)]}),), locks)
    before = nic_shape(db, vif)
    after = {**before, **locking_shape({**record, **fields}, db.get("network", record["network"]))}
    args = {"host": start.host, "vm_uuid": db.get("VM", record["VM"])["uuid"], "vif": vif}
    act = Act("nic-lock", {**args, "nic": after, "before": before, "fields": fields})
    return Plan("VIF.set_locking", (act,), locks)
