"""Steps on the addresses of hosts: ``plan/address_plans.py`` says how they go together."""

import ipaddress
from typing import Any

import msgspec

from gespann.pool.model.database import Transaction
from gespann.pool.pool import HostDoor
from gespann.pool.reconcile.host_facts import configured_fields
from gespann.pool.steps.host_door import HostOffline, HostRefused, ask
from gespann.pool.steps.host_steps import links_of
from gespann.pool.steps.registry import Refused, Run, Step, step
from gespann.seams.engine_socket import Request
from gespann.seams.host_addresses import (
    AddressesChange,
    AddressesChangeReply,
    AddressesKeep,
    AddressesMade,
    AddressesUndo,
    HostnameSet,
    InterfaceAddresses,
)
from gespann.seams.host_agent import VERSION, Hello
from gespann.seams.host_bonds import BondChange
from gespann.seams.host_network import VlanEnds

#: how long a host is looked for at its new address; less than the agent waits before it takes the change back
REACHED_WITHIN_S = 25.0
#: and at its old one, once it has had the time for that
BACK_WITHIN_S = 60.0
AGAIN_AFTER_S = 0.75
HELLO_WITHIN_S = 5.0
HELLO = Hello(version=VERSION)


async def _answers(run: Run, host: str, within_s: float, request: Request = HELLO) -> bool:
    """Whether a host's agent answers before that is over; "not yet" (BAD_STATE) is none."""
    clock = run.pool.clock
    deadline_s = clock.monotonic_s() + within_s
    while True:
        try:
            await ask(run.pool, host, request, timeout_s=HELLO_WITHIN_S)
            return True
        except (HostOffline, HostRefused) as error:
            if isinstance(error, HostRefused) and error.seam_code != "BAD_STATE":
                raise
            if clock.monotonic_s() >= deadline_s:
                return False
        await clock.sleep(AGAIN_AFTER_S)


async def _look_for(run: Run, address: str) -> None:
    """From here on the host is asked at that address; of the coordinator's own the others are told."""
    links = links_of(run.pool)
    if not run.args["own"]:
        door = links.door(run.args["host"])
        await links.open(run.args["host"], HostDoor(address, door.port, door.certificate))
        return
    links.address = address
    for host in run.args["others"]:
        if run.pool.db.find("host", host) is not None:
            door = links.door(host)
            await links.close(host)
            await links.open(host, door)


async def _reached(run: Run, within_s: float) -> bool:
    """The hosts that did answer before; or the one whose addresses change, which is asked what it can only answer
    afterwards: its address may be what it was."""
    if run.args["own"]:
        there = [host for host in run.args["others"] if run.pool.db.find("host", host) is not None]
        return all([await _answers(run, host, within_s) for host in there])
    try:
        return await _answers(run, run.args["host"], within_s, AddressesMade(change_id=run.operation_id))
    except HostRefused as error:
        if error.seam_code == "NOT_FOUND":
            return True  # it has been taken back; who says that it is to be kept is told so
        raise


@step
class AddressesAreChanged(Step):
    """args: host, pif, device, vlan (that the device is the interface of), wanted, manages (the host is to be reached
    by what this interface has then), address (it has now), address_before (by which the host is reached), own (the
    coordinator's host), others, keep_within_s"""

    name = "addresses-change"

    async def do(self, run: Run) -> None:
        args = run.args
        within_s = args["keep_within_s"]
        try:
            reply: AddressesChangeReply = await ask(run.pool, args["host"], self.request(run), timeout_s=within_s)
        except HostRefused as error:
            raise Refused("PIF_CONFIGURATION_ERROR", [args["pif"], error.params[-1]]) from error
        run.notes["now"] = msgspec.to_builtins(reply.now)

    def request(self, run: Run) -> AddressesChange | BondChange:
        args = run.args
        return AddressesChange(
            change_id=run.operation_id,
            device=args["device"],
            wanted=msgspec.convert(args["wanted"], InterfaceAddresses),
            vlan=msgspec.convert(args["vlan"], VlanEnds) if args.get("vlan") is not None else None,
            manages=args["manages"],
            answer_first=args["manages"] and not args["own"],
            keep_within_s=args["keep_within_s"],
        )

    async def undo(self, run: Run) -> None:
        if not run.args["own"] and run.args["manages"]:
            await _answers(run, run.args["host"], BACK_WITHIN_S)  # by its old way
        await ask(run.pool, run.args["host"], AddressesUndo(change_id=run.operation_id))


@step
class AddressesAreKept(Step):
    """args: as ``addresses-change``"""

    name = "addresses-keep"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        args, way = run.args, self.way(run)
        if args["manages"]:
            await _look_for(run, way)
            if not await _reached(run, REACHED_WITHIN_S):
                await self._back(run)
        try:
            await ask(run.pool, args["host"], AddressesKeep(change_id=run.operation_id))
        except HostRefused as error:
            if error.seam_code == "NOT_FOUND":
                text = f"the host took the change back before it was told to keep it ({error.params[-1]})"
                raise self._refused(run, text) from error
            raise

    def way(self, run: Run) -> str:
        now = msgspec.convert(run.notes["now"], InterfaceAddresses)
        for family in (now.ipv4, now.ipv6):
            if family is not None and family.addresses:
                return family.addresses[0].partition("/")[0]
        return str(run.args["address"])

    def _refused(self, run: Run, text: str) -> Refused:
        return Refused("PIF_CONFIGURATION_ERROR", [run.args["pif"], text])

    async def _back(self, run: Run) -> None:
        """Raises Refused if the host has, or now gets, its old addresses; HOST_OFFLINE while nobody knows."""
        await _look_for(run, run.args["address_before"])
        if not run.args["own"] and not await _answers(run, run.args["host"], BACK_WITHIN_S):
            raise HostOffline(run.args["host"])
        await ask(run.pool, run.args["host"], AddressesUndo(change_id=run.operation_id))
        whom = "not every host of the pool was" if run.args["own"] else "the host was not"
        raise self._refused(run, f"{whom} reached at {self.way(run)}: the change was taken back")

    async def undo(self, run: Run) -> None:
        if run.args["manages"]:
            await _look_for(run, run.args["address_before"])

    def commit(self, run: Run, tx: Transaction) -> None:
        args = run.args
        now = msgspec.convert(run.notes["now"], InterfaceAddresses)
        if tx.exists("PIF", args["pif"]):
            tx.set("PIF", args["pif"], **pif_fields(now))
        if args["manages"] and tx.exists("host", args["host"]):
            show_management(tx, args["host"], args["pif"], self.way(run))
            if args["own"] and "doors" in run.pool.services:
                run.pool.services["doors"](self.way(run))


def pif_fields(now: InterfaceAddresses) -> dict[str, Any]:
    fields = configured_fields(now)
    if now.ipv4 is not None:
        own = ipaddress.ip_interface(now.ipv4.addresses[0]) if now.ipv4.addresses else None
        fields |= {"IP": str(own.ip) if own else "", "netmask": str(own.netmask) if own else ""}
        fields["gateway"] = now.ipv4.gateway
    if now.ipv6 is not None:
        fields |= {"IPv6": now.ipv6.addresses, "ipv6_gateway": now.ipv6.gateway}
    return fields


def show_management(tx: Transaction, host: str, pif: str, address: str) -> None:
    tx.set("host", host, address=address)
    for other in tx.get("host", host)["PIFs"]:
        if tx.get("PIF", other)["management"] != (other == pif):
            tx.set("PIF", other, management=other == pif)
    tx.execute("UPDATE host_door SET address = ? WHERE host = ?", address, host)


@step
class HostnameIsSet(Step):
    """args: host, hostname, before"""

    name = "hostname-set"

    async def do(self, run: Run) -> None:
        await self._set(run, run.args["hostname"])

    async def undo(self, run: Run) -> None:
        await self._set(run, run.args["before"])

    async def _set(self, run: Run, hostname: str) -> None:
        await ask(run.pool, run.args["host"], HostnameSet(hostname=hostname))

    def commit(self, run: Run, tx: Transaction) -> None:
        if tx.exists("host", run.args["host"]):
            tx.set("host", run.args["host"], hostname=run.args["hostname"])

    def revert(self, run: Run, tx: Transaction) -> None:
        if tx.exists("host", run.args["host"]):
            tx.set("host", run.args["host"], hostname=run.args["before"])
