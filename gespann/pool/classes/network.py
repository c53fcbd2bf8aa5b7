"""XenAPI class network: a Linux bridge of the same name on each host that needs it."""

import re
from typing import Any
from uuid import uuid4

from gespann.pool.api.messages import Call, implements, on_set
from gespann.pool.classes.context import assert_free, set_fields
from gespann.pool.nbd.front import look_again
from gespann.pool.plan.frame_sizes import assert_mtu
from gespann.pool.plan.reachable_networks import assert_reachable
from gespann.pool.steps.host_door import ask
from gespann.seams.host_agent import BridgeEnsure
from gespann.seams.xenapi.errors import XenApiError

_GIVEN = frozenset({"name_label", "name_description", "MTU", "other_config", "bridge", "managed", "tags"})
BRIDGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # the kernel takes 15 bytes

LOOPBACK = frozenset({"lo"})


@implements("network.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    """The bridge is made when the first VM needs it."""
    fields = {name: value for name, value in args.items() if name in _GIVEN}
    taken = {record["bridge"] for record in call.pool.db.all("network").values()}
    if not fields.get("bridge"):
        fields["bridge"] = f"gs{uuid4().hex[:10]}"
    elif not BRIDGE_NAME.fullmatch(fields["bridge"]) or fields["bridge"] in taken | LOOPBACK:
        raise XenApiError("INVALID_VALUE", ["bridge", fields["bridge"]])
    assert_mtu(fields["MTU"])
    with call.pool.db.transaction() as tx:
        return tx.create("network", fields)


@on_set("network.MTU")
async def set_mtu(call: Call, network: str, value: int) -> None:
    set_fields(call, "network", network, MTU=assert_mtu(value))


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


@implements("network.set_default_locking_mode")
async def set_default_locking_mode(call: Call, network: str, mode: str) -> None:
    """VIF_IN_USE while a VM uses the network: its interface would have to change with it."""
    db = call.pool.db
    for vif in db.get("network", network)["VIFs"]:
        if db.get("VIF", vif)["currently_attached"]:
            raise XenApiError("VIF_IN_USE", [network, vif])
        assert_free(call.pool, "VM", db.get("VIF", vif)["VM"])  # one that starts has read the old one
    set_fields(call, "network", network, default_locking_mode=mode)


#: what a pool must not have both of: programs that read disks over TLS, and such that do without
_INCOMPATIBLE = {"nbd": "insecure_nbd", "insecure_nbd": "nbd"}


@implements("network.add_purpose")
async def add_purpose(call: Call, network: str, purpose: str) -> None:
    """``nbd``: disks are read at this host's addresses there when this returns. ``insecure_nbd`` is written down, and
    nothing is served without TLS."""
    db = call.pool.db
    has = db.get("network", network)["purpose"]
    if any(_INCOMPATIBLE[purpose] in other["purpose"] for other in db.all("network").values()):
        raise XenApiError("NETWORK_INCOMPATIBLE_PURPOSES", [purpose, _INCOMPATIBLE[purpose]])
    if purpose not in has:
        set_fields(call, "network", network, purpose=[*has, purpose])
    look_again(call.pool)


@implements("network.remove_purpose")
async def remove_purpose(call: Call, network: str, purpose: str) -> None:
    has = call.pool.db.get("network", network)["purpose"]
    set_fields(call, "network", network, purpose=[one for one in has if one != purpose])
    look_again(call.pool)


@implements("network.attach")
async def attach(call: Call, network: str, host: str) -> None:
    """Its bridge is on that host when this returns."""
    record = call.pool.db.get("network", network)
    if not record["managed"]:  # an interface that is in no bridge
        raise XenApiError("NETWORK_UNMANAGED", [network])
    assert_reachable(call.pool.db, host, network)
    await ask(call.pool, host, BridgeEnsure(bridge=record["bridge"], mtu=record["MTU"]))
