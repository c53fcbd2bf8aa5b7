"""Plans for what a network card does for the processor (``PIF.properties``)."""

from typing import Any

from gespann.pool.model.database import Database
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

#: the only property: generic receive offload
VALUES = {"gro": ("on", "off")}


@operation("PIF.set_property")
def plan_set_property(db: Database, pif: str, name: str, value: str) -> Plan:
    """With a bond of its members too. CANNOT_CHANGE_PIF_PROPERTIES for members, and for VLANs: they show the same."""
    record = db.get("PIF", pif)
    if record["VLAN"] != -1 or record["bond_slave_of"] != NULL_REF:
        raise XenApiError("CANNOT_CHANGE_PIF_PROPERTIES", [pif])
    if value not in VALUES.get(name, ()):
        raise XenApiError("INVALID_VALUE", [name, value])
    if not record["currently_attached"]:
        raise XenApiError("REQUIRED_PIF_IS_UNPLUGGED", [pif])
    members = [member for bond in record["bond_master_of"] for member in db.get("Bond", bond)["slaves"]]
    acts = tuple(_act(db, one, name, value) for one in (pif, *members))
    return Plan("PIF.set_property", acts, tuple(Lock("PIF", one) for one in (pif, *members)))


def _act(db: Database, pif: str, name: str, value: str) -> Act:
    record = db.get("PIF", pif)
    shown = [pif, *(db.get("VLAN", vlan)["untagged_PIF"] for vlan in record["VLAN_slave_of"])]
    before = dict(record["properties"])
    args: dict[str, Any] = {"host": record["host"], "device": record["device"], "pifs": shown}
    return Act("card-property", {**args, "before": before, "after": {**before, name: value}})


def cards_unlike(db: Database, host: str, found: dict[str, bool]) -> dict[str, bool]:
    """``found``: cards with generic receive offload, or without. Those that are not as their records say, with what
    they are to have: a host that has started anew has its cards as the kernel makes them."""
    unlike: dict[str, bool] = {}
    for pif in db.get("host", host)["PIFs"]:
        record = db.get("PIF", pif)
        wanted = record["properties"].get("gro", "") == "on"
        if record["VLAN"] == -1 and record["properties"].get("gro") and found.get(record["device"], wanted) != wanted:
            unlike[record["device"]] = wanted
    return unlike
