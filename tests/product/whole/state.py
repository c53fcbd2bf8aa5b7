"""What there is, seen from the side: the databases of pool and group, the engine's and the agent's own word."""

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gespann.array.data_plane.link import HELLO as ENGINE_HELLO
from gespann.seams import host_agent
from gespann.seams.engine_socket import SessionList, VolumeList
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.sr.equal.names import is_vdi_volume, vdi_volume

if TYPE_CHECKING:
    from tests.product.whole.whole import Whole

HELLOS = {"engine": ENGINE_HELLO, "agent": host_agent.Hello(version=host_agent.VERSION)}
Records = dict[str, dict[str, Any]]


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


class State:
    def __init__(self, whole: "Whole") -> None:
        self.whole = whole
        self.machines = {"web1": 1}  # the disks that a VM or a snapshot of this name has
        self.loose: set[str] = set()  # disks that may belong to no machine
        self.tells_hosts = False  # in pictures, where machines run
        self.tells_srs = False  # in pictures, where machines have their disks

    def records(self) -> dict[str, Records]:
        """class -> ref -> fields, as the pool has them on disk."""
        found: dict[str, Records] = {}
        for class_name, ref, fields in rows(self.whole.base / "cd/pool.db", "SELECT class, ref, fields FROM record"):
            found.setdefault(class_name, {})[ref] = msgspec.json.decode(fields)
        return found

    def _group(self, sql: str) -> list[tuple[Any, ...]]:
        return rows(self.whole.group.data_dir / "group.sqlite", sql)

    def volumes(self) -> dict[str, str]:
        """name -> NAA, of the group's volumes."""
        return dict(self._group("SELECT name, naa FROM volume"))

    def snapshots(self) -> dict[str, tuple[str, str]]:
        """name -> (NAA, volume), of the group's snapshots."""
        sql = "SELECT s.name, s.naa, v.name FROM snapshot s JOIN volume v ON v.id = s.volume_id"
        return {name: (naa, volume) for name, naa, volume in self._group(sql)}

    def targets(self) -> dict[str, tuple[str, str]]:
        """(iSCSI name, volume) of volumes and snapshots, by name."""
        sql = "SELECT name, target_name, name FROM volume UNION "
        sql += "SELECT s.name, s.target_name, v.name FROM snapshot s JOIN volume v ON v.id = s.volume_id"
        return {name: (target, volume) for name, target, volume in self._group(sql)}

    def access(self) -> list[tuple[str, str]]:
        """(volume, CHAP user) of the access records."""
        sql = "SELECT v.name, a.chap_user FROM access_record a JOIN volume v ON v.id = a.volume_id"
        return self._group(sql)

    def initiators(self) -> list[tuple[str, str]]:
        """(volume, initiator) of the access records."""
        return self._group("SELECT v.name, a.initiator FROM access_record a JOIN volume v ON v.id = a.volume_id")

    def leases(self) -> list[tuple[str, str]]:
        """(volume, the initiator that alone may write)"""
        return self._group("SELECT name, lease_holder FROM volume WHERE lease_holder != ''")

    def chap_users(self) -> list[str]:
        return [name for (name,) in self._group("SELECT name FROM chap_user")]

    def intents(self) -> list[tuple[Any, ...]]:
        """What the group has begun, and the sets by which it makes snapshots of several volumes."""
        begun = self._group("SELECT volume_id, kind FROM intent") + self._group("SELECT name FROM collection")
        return begun + self._group("SELECT name, intent FROM snapshot WHERE intent != ''")

    async def leftovers(self) -> list[str]:
        """Empty when pool, group, engine and host agree, and no operation is under way."""
        records = self.records()
        pool = self.whole.base / "cd/pool.db"
        left = [f"journal: {name}" for (name,) in rows(pool, "SELECT operation FROM journal")]
        left += [f"intent of the group: {row}" for row in self.intents()]
        for class_name, table in records.items():
            for record in table.values():
                if class_name != "task" and record.get("current_operations"):
                    left.append(f"current_operations of {class_name} {record.get('name_label')}")
        left += [f"task: {task['name_label']}" for task in records.get("task", {}).values() if is_at_work(task)]
        left += self._half_made_vms(records)
        return left + await self._volumes(records) + await self._openings(records) + self._files()

    def _half_made_vms(self, records: dict[str, Records]) -> list[str]:
        """Every VM of these tests has as many disks as ``machines`` says, and web1, made from a template, its NIC."""
        left = []
        used = {vbd["VDI"] for vbd in records.get("VBD", {}).values()}
        used |= {vm["suspend_VDI"] for vm in records.get("VM", {}).values()}
        for ref, vdi in records.get("VDI", {}).items():
            if ref not in used and vdi["name_label"] not in self.loose:
                left.append(f"VDI {vdi['name_label']} belongs to no VM")
        templates = any(vm["name_label"] == "tiny" for vm in records.get("VM", {}).values())
        for ref, vm in records.get("VM", {}).items():
            name = vm["name_label"]
            if name in self.machines:
                disks = [one for one in records["VBD"].values() if one["VM"] == ref and one["VDI"] != NULL_REF]
                nics = [one for one in records.get("VIF", {}).values() if one["VM"] == ref]
                of_template = vm["is_a_template"] and not vm["is_a_snapshot"]
                if of_template or len(disks) != self.machines[name] or len(nics) != int(templates):
                    left.append(f"{name} template {vm['is_a_template']}, {len(disks)} disks, {len(nics)} NICs")
            elif not (vm["is_control_domain"] or vm["is_a_template"]):
                left.append(f"VM {name}")
        for class_name in ("VBD", "VIF"):
            for record in records.get(class_name, {}).values():
                if record["VM"] not in records["VM"]:
                    left.append(f"{class_name} of no VM")
        return left

    async def _volumes(self, records: dict[str, Records]) -> list[str]:
        srs = {ref: sr["uuid"] for ref, sr in records.get("SR", {}).items() if sr["type"] == "equal"}
        wanted = {vdi_volume(srs[vdi["SR"]], vdi["uuid"]): vdi for vdi in records.get("VDI", {}).values()}
        volumes, snapshots = self.volumes(), self.snapshots()
        stays = {volume for _, volume in snapshots.values()}  # even if destroyed, for its snapshots
        found = {name for name in volumes if any(is_vdi_volume(name, sr) for sr in srs.values())} | set(snapshots)
        left = [f"volume or snapshot of no VDI: {name}" for name in found - wanted.keys() - stays]
        left += [f"VDI without volume: {name}" for name in wanted.keys() - found]
        left += [f"VDI marked missing: {name}" for name, vdi in wanted.items() if vdi["missing"]]
        stored = {one.volume for one in (await self.whole.ask(self.whole.engine_socket, VolumeList())).volumes}
        known = {*volumes.values(), *(naa for naa, _ in snapshots.values())}
        if stored != known:
            left.append(f"the engine's volumes are not the group's: {stored ^ known}")
        return left

    async def _openings(self, records: dict[str, Records]) -> list[str]:
        """As many records, CHAP users and sessions as running machines have disks."""
        found = await self.whole.domains()
        domains = [domain for _, domain in found]
        vms = records.get("VM", {})
        lives = {ref: vm for ref, vm in vms.items() if vm["power_state"] == "Running" and not vm["is_control_domain"]}
        hosts = {ref: host["hostname"] for ref, host in records.get("host", {}).items()}
        running = sorted((vm["uuid"], hosts.get(vm["resident_on"], "")) for vm in lives.values())
        seen = sorted((domain.uuid, host.hostname) for host, domain in found)
        left = []
        if running != seen:
            left.append(f"running by the pool: {running}, by the hosts: {seen}")
        left += [f"{domain.uuid} stands still: {domain.reason}" for domain in domains if domain.state != "running"]
        plugged = [vbd for vbd in records.get("VBD", {}).values() if vbd["currently_attached"]]
        disks = [vbd for vbd in plugged if vbd["VM"] in lives]
        if any(vms[vbd["VM"]]["power_state"] == "Halted" for vbd in plugged):
            left.append("disks attached to halted VMs")
        access, users = self.access(), self.chap_users()
        sessions = (await self.whole.ask(self.whole.engine_socket, SessionList())).sessions
        counts = (len(disks), sum(len(one.disks) for one in domains), len(access), len(users), len(sessions))
        if len(set(counts)) != 1 or {user for _, user in access} != set(users):
            left.append(f"attached, in machines, records, CHAP users, sessions: {counts}; {access}; {users}")
        left += [
            f"it may write, and nobody has let it in: {one}" for one in set(self.leases()) - set(self.initiators())
        ]
        opened = rows(self.whole.base / "cd/pool.db", "SELECT COUNT(*) FROM opening")[0][0]
        if opened != len(disks):
            left.append(f"{opened} openings written down, {len(disks)} disks attached")
        return left

    def _files(self) -> list[str]:
        """What a host has of images and memory that it no longer serves."""
        kept = [host.run / kind for host in self.whole.hosts.values() for kind in ("images", "memory", "peer")]
        return [f"file: {path}" for folder in kept for path in folder.glob("*")]


def is_at_work(task: dict[str, Any]) -> bool:
    return task["status"] in ("pending", "cancelling")
