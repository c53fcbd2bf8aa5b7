"""A whole pool on fakes: memory driver, fake hypervisor, real database file, real API without a wire.

world = await World.begin(tmp_path)
vm = await world.call("VM.create", {...})
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gespann.pool.classes
from gespann import __version__
from gespann.host.fake import AnyStorage, FakeHypervisor
from gespann.host.fake.guest import FakeDomain
from gespann.host.fake.nbd import CHUNK_BYTES, FakeMedium
from gespann.host.membership import Membership
from gespann.host.server import AgentServer
from gespann.pool.api.accounts import Accounts
from gespann.pool.api.api import Api
from gespann.pool.classes.pool_members import Newcomer, add_host
from gespann.pool.model.database import Database
from gespann.pool.model.kept_changes import dataless
from gespann.pool.pool import Pool
from gespann.pool.reconcile.first_start import first_start
from gespann.pool.reconcile.reconciler import Reconciler, prepare
from gespann.pool.steps.address_steps import AGAIN_AFTER_S
from gespann.pool.steps.host_steps import all_doors
from gespann.pool.steps.openings import all_openings
from gespann.pool.succession.succession import Succession
from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.seams.sr_driver import SrError
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.sr.memory import Crash, MemoryDriver, MemoryStorage
from gespann.sr.memory.storage import MemoryVolume
from gespann.system.clock import ManualClock
from gespann.system.mutual_tls import certificate_of
from tests.unit.pool.far_hosts import DOOR_PORT, OWN_ADDRESS, FakeLinks, FarHost
from tests.unit.pool.fresh_database import lay_down
from tests.unit.pool.leads import lead_where_it_belongs

assert gespann.pool.classes.HANDLER_MODULES
MIB = 1024 * 1024
DEVICE_CONFIG = {"target": "10.0.0.1", "username": "grpadmin", "password": "grpadmin", "storagepool": "default"}


#: what the reconciler asks beside all operations, whenever it likes
NOT_OF_OPERATIONS = frozenset(
    {"hello", "domain.list", "guest.metrics", "memory.progress", "facts", "openings", "allegiance", "pool.lead"}
)
#: fields that point at records which a restart makes anew, or are measured again by it
VOLATILE_FIELDS = frozenset(
    {"metrics", "guest_metrics", "consoles", "physical_size", "physical_utilisation", "virtual_allocation"}
)


LIVE = ("Running", "Paused")  # the states in which a VM has a domain


@dataclass
class Moments:
    """Every call of operations to the world outside, before and after its effect, in one numbered row. ``fail_at``
    picks one."""

    passed: list[str] = field(default_factory=list)
    fail_at: int = -1
    crash: bool = False

    def reach(self, call: str, moment: str) -> None:
        """As ``gespann.sr.memory.Faults.reach``."""
        self.meet(call, moment, SrError(202, "Injected failure", call))

    def meet(self, call: str, moment: str, error: Exception) -> None:
        if call in NOT_OF_OPERATIONS:
            return
        self.passed.append(f"{moment} {call}")
        if len(self.passed) - 1 == self.fail_at:
            raise Crash(f"{moment} {call}") if self.crash else error


class StrictStorage(AnyStorage):
    """Lets in whom the memory array would let in, and nobody else."""

    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__()
        self._storage = storage
        self.read_only: set[str] = set()
        storage.block_copies.append(self._copied)
        storage.block_differences = self._different

    def _copied(self, source_uuid: str, target_uuid: str) -> None:
        self.media.pop(target_uuid, None)
        if source_uuid in self.media:
            self.media[target_uuid] = deepcopy(self.media[source_uuid])

    def _different(self, older_uuid: str, newer_uuid: str, size_bytes: int) -> list[tuple[int, int]]:
        empty = FakeMedium(size_bytes)
        older, newer = self.media.get(older_uuid, empty), self.media.get(newer_uuid, empty)
        numbers = sorted(older.chunks.keys() | newer.chunks.keys())
        return [
            (number * CHUNK_BYTES, CHUNK_BYTES)
            for number in numbers
            if older.chunks.get(number) != newer.chunks.get(number) and number * CHUNK_BYTES < size_bytes
        ]

    async def open(self, holder: str, source: IscsiSource | FileSource, read_only: bool) -> None:
        if not self._storage.admits(source):
            raise SeamError("STORAGE", f"iSCSI: Failed to log in to target: {source!r}")
        await super().open(holder, source, read_only)
        if read_only:
            self.read_only.add(holder)

    def admits_writes(self, holder: str) -> bool:
        source = self.open_now.get(holder)
        return source is None or holder in self.read_only or self._storage.lets_write(source)

    def medium(self, source: IscsiSource | FileSource) -> FakeMedium:
        """As large as the volume is."""
        assert isinstance(source, IscsiSource)
        for sr in self._storage.srs.values():
            for uuid, held in sr.volumes.items():
                if self._storage.target(uuid) == source.target:
                    return self.media.setdefault(uuid, FakeMedium(held.volume.virtual_size_bytes))
        raise AssertionError(source)


class InProcessAgent:
    """Seam 5 without its socket."""

    def __init__(self, server: AgentServer, moments: Moments) -> None:
        self.handlers = server._handlers()
        self.moments = moments
        self.reachable = True

    async def call(self, request: Any, timeout_s: float | None = None) -> Any:
        if not self.reachable:
            raise SeamLost("nobody there")
        self.moments.meet(request.op, "before", SeamError("HYPERVISOR", f"injected failure of {request.op}"))
        reply = await self.handlers[type(request)](request)
        self.moments.meet(request.op, "after", SeamLost(f"injected loss of the answer to {request.op}"))
        return reply


class WaitingClock(ManualClock):
    """Moves by itself while an operation looks for a host at its new address, or at its old one."""

    async def sleep(self, delay_s: float) -> None:
        if delay_s != AGAIN_AFTER_S:
            await super().sleep(delay_s)
            return
        self.advance(delay_s)
        for _ in range(20):  # who has waited for that moment does what he waited with
            await asyncio.sleep(0)


@dataclass
class World:
    path: Path
    storage: MemoryStorage
    hypervisor: FakeHypervisor
    clock: ManualClock
    agent_server: AgentServer  # outlives the coordinator
    moments: Moments = field(default_factory=Moments)
    far: dict[str, FarHost] = field(default_factory=dict)  # by address
    address: str = OWN_ADDRESS  # of the machine whose coordinator leads
    data: Path = Path()  # of that coordinator
    in_doubt: bool = False  # its process would end now, and look anew

    @classmethod
    async def begin(cls, path: Path) -> "World":
        """A fresh pool with one host and no SR; ``path`` is made if it is not there."""
        os.makedirs(path, exist_ok=True)
        lay_down(path / "pool.db")
        storage = MemoryStorage()
        run_dir = Path(tempfile.mkdtemp(prefix="gs"))  # short: the path of a socket has 108 bytes at most
        hypervisor = FakeHypervisor(storage=StrictStorage(storage), run_dir=run_dir)
        agent_server = AgentServer(hypervisor, run_dir / "agent.sock", Membership(path))
        clock = WaitingClock()
        agent_server.addresses._sleep = clock.sleep
        world = cls(path, storage, hypervisor, clock, agent_server, data=path)
        world._open_doors(agent_server.membership)
        await hypervisor.open(lambda event: world._told(hypervisor, event))
        await world.boot()
        return world

    async def boot(self, crash_at: int = -1) -> None:
        """The coordinator comes up on what is left of an earlier one. ``crash_at``: a moment at which it dies again."""
        self.moments = Moments(fail_at=crash_at, crash=crash_at >= 0)
        self.in_doubt = False
        await lead_where_it_belongs(self)
        self.db = Database(self.data / "pool.db")
        self.agent = InProcessAgent(self.agent_server, self.moments)
        self.driver = MemoryDriver(self.storage, self.moments)  # type: ignore[arg-type]
        self.pool = Pool(self.db, {"memory": self.driver}, {}, self.clock)
        self.work = prepare(self.pool)
        self.api = Api(self.pool, Accounts(self.data))
        self.session = self.api.sessions.begin("root", "pool-admin").ref
        self.links = FakeLinks(self.pool, self.data / "agents.pem", self.far, self.moments, address=self.address)
        self.pool.services["links"] = self.links
        for host, door in all_doors(self.db).items():
            await self.links.open(host, door)
        self.host = await first_start(self.pool, self.agent, self.address)
        succession = Succession(self.pool, self.data, in_doubt=lambda: setattr(self, "in_doubt", True))
        self.pool.services["succession"] = succession
        await succession.lead(self.links.certificate)
        self.reconciler = Reconciler(self.pool)
        await self.reconciler.start()
        await self.reconciler.sweep()
        self.moments.fail_at = -1

    async def power_cut(self) -> None:
        """The coordinator is gone in the middle of whatever it did; hosts and array go on."""
        await self.reconciler.stop()
        self.db.close()

    async def end(self) -> None:
        await self.reconciler.stop()
        await self.api.close()
        for server in (self.agent_server, *(far.server for far in self.far.values())):
            await server.addresses.close()
        await self.agent_server.holds.close()
        self.db.close()
        for hypervisor in self.hypervisors():
            await hypervisor.close()
            if hypervisor.run_dir is not None:
                shutil.rmtree(hypervisor.run_dir)

    # -- other hosts

    def hypervisors(self) -> list[FakeHypervisor]:
        return [self.hypervisor, *(far.hypervisor for far in self.far.values())]

    def running(self) -> dict[str, FakeDomain]:
        """All machines that run anywhere. One that runs twice is an AssertionError."""
        found: dict[str, FakeDomain] = {}
        for hypervisor in self.hypervisors():
            assert not set(found) & set(hypervisor._running)
            found |= hypervisor._running
        return found

    async def make_far_host(self, hostname: str = "host2") -> FarHost:
        """A machine with an agent, of no pool."""
        number = len(self.far) + 6
        run_dir = Path(tempfile.mkdtemp(prefix="gs"))
        hypervisor = FakeHypervisor(storage=self.hypervisor.storage, run_dir=run_dir, hostname=hostname)
        data = self.path / hostname
        data.mkdir()
        far = FarHost(f"10.0.0.{number}", hypervisor, Membership(data))
        far.server.addresses._sleep = self.clock.sleep
        self._open_doors(far.membership)
        self.far[far.address] = far
        await hypervisor.open(lambda event: self._told(hypervisor, event))
        return far

    @staticmethod
    def _open_doors(membership: Membership | None) -> None:
        assert membership is not None
        membership.door_port = DOOR_PORT

    def _told(self, hypervisor: FakeHypervisor, event: Any) -> None:
        """By the agent of that machine, if the coordinator that leads hears it."""
        if hypervisor is self.hypervisor:
            self.reconciler.agent_event(self.host, event)
            return
        for host, door in self.links.doors.items():
            far = self.links.far(door)
            if far.hypervisor is hypervisor and far.reachable:
                self.reconciler.agent_event(host, event)

    async def join(self, far: FarHost, **changed: Any) -> str:
        """What the two coordinators do in ``pool.join``; the new host's reference."""
        pool_uuid = next(iter(self.db.all("pool").values()))["uuid"]
        facts = await far.hypervisor.facts()
        newcomer = Newcomer(
            **{
                "host_uuid": facts.host_uuid,
                "hostname": far.hostname,
                "address": far.address,
                "door_port": DOOR_PORT,
                "certificate": certificate_of(far.membership.identity),
                "product_version": __version__,
                "cpu_vendor": facts.cpu_vendor,
                **changed,
            }
        )
        await far.is_offered(pool_uuid, self.links.certificate)
        try:
            return await add_host(self.pool, newcomer, newcomer.certificate)
        except BaseException:
            await far.withdraws()
            raise

    async def second_host(self) -> str:
        return await self.join(await self.make_far_host())

    async def call(self, method: str, *params: Any) -> Any:
        return await self.api.call(method, self.session, *params)

    # -- what most tests need first

    async def make_sr(self, name: str = "array") -> str:
        return await self.call("SR.create", self.host, DEVICE_CONFIG, 0, name, "", "memory", "user", True, {})

    async def make_vdi(self, sr: str, name: str = "disk", **fields: Any) -> str:
        return await self.call("VDI.create", vdi_fields(sr, name, **fields))

    async def make_vm(self, name: str = "web1", **fields: Any) -> str:
        return await self.call("VM.create", vm_fields(name, **fields))

    async def make_vbd(self, vm: str, vdi: str = NULL_REF, **fields: Any) -> str:
        return await self.call("VBD.create", vbd_fields(vm, vdi, **fields))

    async def make_vm_with_disk(self, sr: str, name: str = "web1") -> str:
        vm = await self.make_vm(name)
        await self.make_vbd(vm, await self.make_vdi(sr, f"{name} root"), bootable=True)
        return vm

    def write(self, vm: str, content: str) -> None:
        """In place of a guest: all disks of the VM hold this from now on."""
        for vbd in self.get("VM", vm)["VBDs"]:
            vdi = self.db.find("VDI", self.get("VBD", vbd)["VDI"])
            if vdi is not None:
                self.volume(vdi["uuid"]).content = content

    def volume(self, vdi_uuid: str) -> MemoryVolume:
        found = self.storage.find(vdi_uuid)
        assert found is not None
        return found

    def get(self, class_name: str, ref: str) -> Mapping[str, Any]:
        return self.db.get(class_name, ref)

    def medium(self, vdi: str) -> FakeMedium:
        """What is on a VDI."""
        record = self.get("VDI", vdi)
        media = self.hypervisor.storage.media  # type: ignore[attr-defined]
        return media.setdefault(record["uuid"], FakeMedium(record["virtual_size"]))

    def openings(self) -> list[str]:
        """Everything that the array has open."""
        return sorted(
            opening for sr in self.storage.srs.values() for held in sr.volumes.values() for opening in held.openings
        )

    def snapshot(self) -> Any:
        """All that counts, refs and all: equal before and after means that nothing has happened."""
        skipped = {
            "task",
            "session",
            "console",
            "VM_metrics",
            "VM_guest_metrics",
            "host_metrics",
            "host",
            "role",
            "message",
        }
        records = {
            class_name: {
                ref: {k: _in_order(v) for k, v in rec.items() if k not in VOLATILE_FIELDS} for ref, rec in table.items()
            }
            for class_name, table in self.db.tables.items()
            if class_name not in skipped
        }
        return records, self.outside()

    def outside(self) -> Any:
        """The array, the host, and what the pool believes to have open."""
        volumes = {
            uuid: (held.volume, sorted(held.openings), held.content)
            for sr in self.storage.srs.values()
            for uuid, held in sr.volumes.items()
        }
        domains = {
            uuid: (
                running.domain.start_id,
                running.domain.state,
                running.domain.disks,
                running.domain.nics,
                running.domain.vcpus,
                running.memory_target_bytes,
                str(running.tuning),
                dict(running.bridges),
                dict(running.locks),
            )
            for uuid, running in self.running().items()
        }
        open_now = sorted(self.hypervisor.storage.open_now)  # type: ignore[attr-defined]
        members = [far.membership.reply().state for far in self.far.values()]
        return sorted(self.storage.srs), volumes, domains, open_now, all_openings(self.db), members, all_doors(self.db)

    def assert_nothing_orphaned(self) -> None:
        """Array, host and records agree."""
        db, known = self.db, all_openings(self.db)
        assert self.openings() == sorted(opening.opening_id for opening in known)
        for opening in known:
            assert db.get("VBD", opening.vbd)["currently_attached"]
            assert db.get("VM", opening.vm)["power_state"] in LIVE
        running = {vm["uuid"] for vm in db.all("VM").values() if vm["power_state"] in LIVE}
        assert set(self.running()) == running
        for vm in db.all("VM").values():
            if vm["uuid"] in running:
                (where,) = [h.hostname for h in self.hypervisors() if vm["uuid"] in h._running]
                assert db.get("host", vm["resident_on"])["hostname"] == where
        assert len(self.hypervisor.storage.open_now) == len(known)  # type: ignore[attr-defined]
        assert not any(machine.frozen for machine in self.running().values())
        plugged = [vbd for vbd in db.all("VBD").values() if vbd["currently_attached"] and not vbd["empty"]]
        full = [vbd for vbd in plugged if db.get("VM", vbd["VM"])["power_state"] in LIVE]
        assert len(full) == len(known)
        images = {vm["suspend_VDI"] for vm in db.all("VM").values() if vm["power_state"] == "Suspended"}
        assert images == {ref for ref, vdi in db.all("VDI").items() if vdi["type"] == "suspend"}
        volumes = {uuid for sr in self.storage.srs.values() for uuid in sr.volumes}
        assert volumes >= {vdi["uuid"] for vdi in db.all("VDI").values()} - dataless(db)
        for class_name in ("VM", "VDI", "VBD", "VIF", "SR", "host"):
            assert not any(record["current_operations"] for record in db.all(class_name).values())

    def shape(self) -> Any:
        """What there is, without the names that chance gave: equal for two runs of the same request."""
        shown = {
            "VM": (
                "name_label",
                "power_state",
                "is_a_template",
                "is_a_snapshot",
                "current_operations",
                "allowed_operations",
            ),
            "VDI": (
                "name_label",
                "virtual_size",
                "is_a_snapshot",
                "current_operations",
                "allowed_operations",
                "missing",
            ),
            "VBD": ("userdevice", "currently_attached", "empty", "current_operations", "allowed_operations"),
            "VIF": ("device", "currently_attached", "current_operations"),
            "SR": ("name_label", "physical_size", "current_operations", "allowed_operations"),
            "PBD": ("currently_attached",),
            "host": ("hostname", "enabled", "address"),
            "Bond": ("mode", "properties", "links_up", "auto_update_mac"),
            "PIF": (
                "properties",
                "physical",
                "MAC",
                "IPv6",
                "device",
                "currently_attached",
                "VLAN",
                "ip_configuration_mode",
                "IP",
                "gateway",
                "management",
            ),
            "secret": ("value",),
        }
        records = {
            class_name: sorted(str([rec[name] for name in names]) for rec in self.db.all(class_name).values())
            for class_name, names in shown.items()
        }
        srs, volumes, domains, open_now, known, members, doors = self.outside()
        sizes = sorted(
            (v.virtual_size_bytes, v.name_label, v.is_a_snapshot, len(opened), content)
            for v, opened, content in volumes.values()
        )
        running = sorted(tuple(what) for _, *what in domains.values())
        residents = sorted(
            str((vm["name_label"], self.db.get("host", vm["resident_on"])["hostname"]))
            for vm in self.db.all("VM").values()
            if self.db.find("host", vm["resident_on"]) is not None
        )
        vlans = str([(sorted(one.vlans), one.ports, sorted(one.without_gro)) for one in self.hypervisors()])
        cards = str([(one.cards, one.vlans_with_addresses(), one.bonds) for one in self.hypervisors()])
        counts = len(srs), len(open_now), len(known), len(doors), vlans, cards
        leader = self.hypervisor.hostname
        return records, sizes, running, counts, members, residents, self.work.stalled, leader


def _in_order(value: Any) -> Any:
    """The order of a set says nothing, and a restart may change it."""
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def vm_fields(name: str = "web1", **fields: Any) -> dict[str, Any]:
    return {
        "name_label": name,
        "name_description": "",
        "user_version": 1,
        "is_a_template": False,
        "affinity": NULL_REF,
        "memory_static_min": 128 * MIB,
        "memory_dynamic_min": 128 * MIB,
        "memory_dynamic_max": 128 * MIB,
        "memory_static_max": 128 * MIB,
        "VCPUs_params": {},
        "VCPUs_max": 1,
        "VCPUs_at_startup": 1,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd"},
        "platform": {},
        "PCI_bus": "",
        "other_config": {},
        "recommendations": "",
        **fields,
    }


def vdi_fields(sr: str, name: str = "disk", **fields: Any) -> dict[str, Any]:
    return {
        "name_label": name,
        "name_description": "",
        "SR": sr,
        "virtual_size": 30 * MIB,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        **fields,
    }


def vbd_fields(vm: str, vdi: str, **fields: Any) -> dict[str, Any]:
    return {
        "VM": vm,
        "VDI": vdi,
        "userdevice": "autodetect",
        "bootable": False,
        "mode": "RW",
        "type": "Disk",
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **fields,
    }


def vif_fields(vm: str, network: str, **fields: Any) -> dict[str, Any]:
    return {
        "device": "autodetect",
        "network": network,
        "VM": vm,
        "MAC": "",
        "MTU": 1500,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **fields,
    }


def cd_fields(vm: str, vdi: str = NULL_REF) -> dict[str, Any]:
    return vbd_fields(vm, vdi, type="CD", mode="RO", empty=vdi == NULL_REF)


async def until(condition: Any) -> None:
    """Waits for a condition; fails if it never holds."""
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - nothing there tells when it changes
            await asyncio.sleep(0.001)
