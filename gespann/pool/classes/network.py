"""XenAPI class network: a Linux bridge of the same name on each host that needs it."""

import re
from typing import Any
from uuid import uuid4

from gespann.pool.api.messages import Call, implements
from gespann.seams.xenapi.errors import XenApiError

_GIVEN = frozenset({"name_label", "name_description", "MTU", "other_config", "bridge", "managed", "tags"})
BRIDGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # the kernel takes 15 bytes


@implements("network.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    """The bridge is made when the first VM needs it."""
    fields = {name: value for name, value in args.items() if name in _GIVEN}
    taken = {record["bridge"] for record in call.pool.db.all("network").values()}
    if not fields.get("bridge"):
        fields["bridge"] = f"gs{uuid4().hex[:10]}"
    elif not BRIDGE_NAME.fullmatch(fields["bridge"]) or fields["bridge"] in taken:
        raise XenApiError("INVALID_VALUE", ["bridge", fields["bridge"]])
    with call.pool.db.transaction() as tx:
        return tx.create("network", fields)


@implements("network.destroy")
async def destroy(call: Call, network: str) -> None:
    """The record; a bridge that is left on a host has no ports, and harms nobody."""
    record = call.pool.db.get("network", network)
    if record["VIFs"]:
        raise XenApiError("NETWORK_CONTAINS_VIF", list(record["VIFs"]))
    if record["PIFs"]:
        raise XenApiError("NETWORK_CONTAINS_PIF", list(record["PIFs"]))
    if record["other_config"].get("is_guest_installer_network") == "true":
        raise XenApiError("CANNOT_DESTROY_SYSTEM_NETWORK", [network])
    with call.pool.db.transaction() as tx:
        tx.destroy("network", network)
