"""XenAPI classes PIF and VLAN: the network interfaces that a host has, and tagged networks on them.

The bridge that a card is a port of is the host's own configuration: the pool shows it, and does not change it. Its
addresses are changed by ``pif_addresses``."""

from functools import partial

from gespann.pool.api.messages import Call, implements
from gespann.pool.classes.context import assert_free, set_fields, work_of
from gespann.pool.plan import card_plans, network_plans
from gespann.pool.reconcile.host_facts import refresh_host
from gespann.seams.xenapi.errors import XenApiError


@implements("PIF.scan")
async def scan(call: Call, host: str) -> None:
    await refresh_host(call.pool, host)


@implements("PIF.introduce")
async def introduce(call: Call, host: str, mac: str, device: str, managed: bool) -> str:
    """A card that the host has; it is looked for. PIF_DEVICE_NOT_FOUND if it has none of that name (and MAC)."""
    await refresh_host(call.pool, host)
    pif = network_plans.card_like(call.pool.db, host, device)
    if mac and call.pool.db.get("PIF", pif)["MAC"].lower() != mac.lower():
        raise XenApiError("PIF_DEVICE_NOT_FOUND", [])
    return pif


@implements("PIF.forget")
async def forget(call: Call, pif: str) -> None:
    """The record. A card that is still there is found again by the next look at the host."""
    db = call.pool.db
    network_plans.assert_forgettable(db, pif)
    assert_free(call.pool, "PIF", pif)
    with db.transaction() as tx:
        tx.destroy("PIF_metrics", db.get("PIF", pif)["metrics"])
        tx.destroy("PIF", pif)


@implements("PIF.db_forget")
async def db_forget(call: Call, pif: str) -> None:
    """``forget`` touches nothing but the record either."""
    await forget(call, pif)


@implements("PIF.set_disallow_unplug")
async def set_disallow_unplug(call: Call, pif: str, value: bool) -> None:
    """``PIF.unplug`` refuses from then on."""
    assert_free(call.pool, "PIF", pif)
    set_fields(call, "PIF", pif, disallow_unplug=value)


@implements("PIF.set_property")
async def set_property(call: Call, pif: str, name: str, value: str) -> None:
    """``gro``: "on" or "off". In force again after the host has started anew."""
    db = call.pool.db
    await work_of(call.pool).run(lambda: card_plans.plan_set_property(db, pif, name, value), task=call.task)


@implements("PIF.plug")
async def plug(call: Call, pif: str) -> None:
    """Plugged already: nothing to do."""
    if not call.pool.db.get("PIF", pif)["currently_attached"]:
        await work_of(call.pool).run(lambda: network_plans.plan_plug(call.pool.db, pif), task=call.task)


@implements("PIF.unplug")
async def unplug(call: Call, pif: str) -> None:
    """Unplugged already: nothing to do."""
    if call.pool.db.get("PIF", pif)["currently_attached"]:
        await work_of(call.pool).run(lambda: network_plans.plan_unplug(call.pool.db, pif), task=call.task)


@implements("VLAN.create")
async def create(call: Call, tagged_pif: str, tag: int, network: str) -> str:
    db = call.pool.db
    return str(
        await work_of(call.pool).run(lambda: network_plans.plan_create(db, tagged_pif, tag, network), task=call.task)
    )


@implements("VLAN.destroy")
async def destroy(call: Call, vlan: str) -> None:
    await work_of(call.pool).run(lambda: network_plans.plan_destroy(call.pool.db, vlan), task=call.task)


@implements("PIF.create_VLAN")
async def create_vlan_of_host(call: Call, device: str, network: str, host: str, tag: int) -> str:
    """The older word for ``VLAN.create``: the PIF that comes of it."""
    vlan = await create(call, network_plans.card_like(call.pool.db, host, device), tag, network)
    return str(call.pool.db.get("VLAN", vlan)["untagged_PIF"])


@implements("PIF.destroy")
async def destroy_pif(call: Call, pif: str) -> None:
    """The older word for ``VLAN.destroy``, by its PIF."""
    record = call.pool.db.get("PIF", pif)
    if record["VLAN"] == -1:
        raise XenApiError("PIF_IS_PHYSICAL", [pif])
    await destroy(call, record["VLAN_master_of"])


@implements("pool.create_VLAN_from_PIF")
async def create_vlan_from_pif(call: Call, pif: str, network: str, tag: int) -> list[str]:
    """On every host, on the card of the same name. All or none."""
    network_plans.assert_card(call.pool.db, pif)
    return await _create_everywhere(call, call.pool.db.get("PIF", pif)["device"], network, tag)


@implements("pool.create_VLAN")
async def create_vlan(call: Call, device: str, network: str, tag: int) -> list[str]:
    return await _create_everywhere(call, device, network, tag)


async def _create_everywhere(call: Call, device: str, network: str, tag: int) -> list[str]:
    db, work = call.pool.db, work_of(call.pool)
    cards = [network_plans.card_like(db, host, device) for host in db.all("host")]
    for card in cards:
        network_plans.assert_card(db, card)
        network_plans.assert_free(db, card, tag, network)
    made: list[str] = []
    try:
        for card in cards:
            made.append(await work.run(partial(network_plans.plan_create, db, card, tag, network)))
    except XenApiError as refusal:
        for vlan in made:
            try:
                await work.run(partial(network_plans.plan_destroy, db, vlan))
            except XenApiError as error:
                refusal.add_note(f"and the VLAN on another host stays: {error}")
        raise
    return [str(db.get("VLAN", vlan)["untagged_PIF"]) for vlan in made]
