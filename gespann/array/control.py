"""The group without its doors: the database, what works on it, and the link to the engine, wired together."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from gespann.array.data_plane.link import DataPlane, EngineClient
from gespann.array.data_plane.policy import limit_of, pools_of, target_of, target_of_snapshot
from gespann.array.model.access import AccessRecords
from gespann.array.model.accounts import ADMINISTRATOR, Accounts, checked_password
from gespann.array.model.chap_users import ChapUsers
from gespann.array.model.collections import Collections
from gespann.array.model.database import Database
from gespann.array.model.events import Events
from gespann.array.model.member_space import MemberSpace, MemberSpaces
from gespann.array.model.parameters import Parameters
from gespann.array.model.records import Snapshot, Volume
from gespann.array.model.refusals import Conflict
from gespann.array.model.schedules import Schedules
from gespann.array.model.secrets import Vault, generate_password, hash_password
from gespann.array.model.sizes import format_size
from gespann.array.model.snapshots import Snapshots
from gespann.array.model.storage_pools import StoragePools
from gespann.array.model.volumes import Volumes
from gespann.array.operations.admission import Admission
from gespann.array.operations.leases import Leases
from gespann.array.operations.policy_changes import PolicyChanges
from gespann.array.operations.schedule_runner import ScheduleRunner
from gespann.array.operations.snapshot_watch import SnapshotWatch
from gespann.array.operations.snapshots import SnapshotLifecycle
from gespann.array.operations.space_watch import SpaceWatch
from gespann.array.operations.templates import Templates
from gespann.array.operations.thin_watch import LOOK_CLOSELY_S, LOOK_S, ThinWatch
from gespann.array.operations.volume_lifecycle import VolumeLifecycle
from gespann.seams.engine_socket import (
    ChapMutual,
    ChapUser,
    Configure,
    Request,
    Session,
    SessionList,
    SpacePools,
    Target,
    VolumeInfo,
)
from gespann.seams.json_lines import SeamError, SeamLost
from gespann.system.clock import Clock
from gespann.system.files import private_directory, write_secret

log = logging.getLogger(__name__)

PASSWORD_FILE = f"{ADMINISTRATOR}.password"
MUTUAL = "target-auth-password"


class Control:
    """``data_dir`` holds the database, the key of its secrets and the SSH host keys; nobody else may read it."""

    def __init__(
        self,
        data_dir: Path,
        engine: EngineClient,
        clock: Clock,
        portal_address: str = "",
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.data_dir = private_directory(data_dir)
        self.clock = clock
        self.portal_address = portal_address
        self.database = Database(data_dir / "group.sqlite")
        sealed = self.database.rows("SELECT 1 FROM chap_user UNION SELECT 1 FROM parameter WHERE key LIKE 'sealed:%'")
        self.vault = Vault(data_dir / "secrets.key", in_use=bool(sealed))
        self.parameters = Parameters(self.database)
        self.accounts = Accounts(self.database)
        self.events = Events(self.database, clock)
        self.pools = StoragePools(self.database)
        self.member_spaces = MemberSpaces(self.database)
        self.volumes = Volumes(self.database)
        self.snapshots = Snapshots(self.database)
        self.collections = Collections(self.database)
        self.schedules = Schedules(self.database)
        self.access = AccessRecords(self.database)
        self.chap_users = ChapUsers(self.database, self.vault)
        self.data_plane = DataPlane(engine, clock, self._policy, self._target, self._limits, self._pools)
        self.data_plane.on_current = self._engine_is_current
        self.data_plane.on_lost = self._engine_is_lost
        self.lifecycle = VolumeLifecycle(
            self.volumes,
            self.snapshots,
            self.access,
            Admission(self.pools, self.volumes, self.data_plane, self.member_spaces),
            self.data_plane,
            self.events,
            clock,
            random_bytes,
        )
        self.leases = Leases(self.volumes, self.access, self.lifecycle, self.data_plane, self.events)
        self.snapshot_lifecycle = SnapshotLifecycle(
            self.snapshots, self.lifecycle, self.data_plane, self.events, clock, random_bytes
        )
        self.policy = PolicyChanges(
            self.volumes, self.snapshots, self.access, self.chap_users, self.data_plane, self.events
        )
        self._reported_missing: frozenset[str] = frozenset()
        self._reported_unknown: frozenset[str] = frozenset()
        self._stopping = False
        self._space_watch = SpaceWatch(self.member_spaces, self.pools, self.events)
        self._watch = ThinWatch(self.volumes, self.lifecycle, self.events)
        self.snapshot_watch = SnapshotWatch(
            self.volumes, self.snapshots, self.lifecycle, self.snapshot_lifecycle, self.data_plane, self.events
        )
        self.templates = Templates(
            self.volumes, self.snapshots, self.collections, self.schedules, self.lifecycle, self.events
        )
        self.runner = ScheduleRunner(
            self.schedules,
            self.collections,
            self.volumes,
            self.snapshots,
            self.snapshot_lifecycle,
            self.events,
            clock,
        )
        self._watcher: asyncio.Task[None] | None = None

    def set_up(self, name: str, admin_password: str | None = None, address: str | None = None) -> bool:
        """Makes the group if there is none yet: its name and its administrator. True if it was made now.

        Without ``admin_password`` one is made by chance and kept in a file of mode 0600.
        """
        if self.accounts.find(ADMINISTRATOR) is not None:
            return False
        if admin_password is None:
            admin_password = generate_password()
            write_secret(self.data_dir / PASSWORD_FILE, f"{admin_password}\n".encode())
        hashed = hash_password(checked_password(admin_password))
        with self.database.transaction():
            self.parameters.set("name", name)
            if address is not None:
                self.parameters.set("group-ipaddress", address)
            self.accounts.add(ADMINISTRATOR, hashed, description="Group administrator")
        self.events.add("INFO", "1.1.1", f"Group {name} created.")
        return True

    async def start(self, wait_s: float = 10.0) -> None:
        """Connects to the engine. If that takes longer than ``wait_s`` the group starts all the same, and says so
        to whoever asks for something that needs the engine."""
        self.data_plane.start()
        self._watcher = asyncio.create_task(self._watch_over())
        try:
            async with asyncio.timeout(wait_s):
                await self.data_plane.current.wait()
        except TimeoutError:
            self.events.add("ERROR", "9.1.1", "The data plane does not answer; the group goes on without it.")

    async def stop(self) -> None:
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.data_plane.stop()
        self.database.close()

    async def _watch_over(self) -> None:
        looked_s = self.clock.monotonic_s()
        while True:
            await self.clock.sleep(LOOK_CLOSELY_S)
            if not self.data_plane.current.is_set():
                continue
            now_s = self.clock.monotonic_s()
            due = now_s - looked_s >= LOOK_S
            if due or self.volumes.any_with_maximum():
                await self.look_at_thin_volumes()
            if due:
                looked_s = now_s
                await self.look_at_space()
                await self.look_at_snapshots()
            await self.run_schedules()

    async def look_at_thin_volumes(self) -> None:
        async with self._next_time("look at thin volumes"):
            await self._watch.look(await self.inventory())

    async def look_at_space(self) -> None:
        async with self._next_time("look at the space"):
            self._space_watch.look(await self.data_plane.space())

    async def look_at_snapshots(self) -> None:
        async with self._next_time("look at snapshots"):
            if self.snapshots.counts():
                await self.snapshot_watch.look(await self.inventory())

    async def run_schedules(self) -> None:
        async with self._next_time("run of schedules"):
            await self.runner.run_due()

    @asynccontextmanager
    async def _next_time(self, what: str) -> AsyncIterator[None]:
        """What fails now must be tried again at the next turn all the same: a database without room, say."""
        try:
            yield
        except (SeamLost, SeamError) as error:
            log.debug("no %s: %s", what, error)
        except Exception:
            log.exception("no %s", what)

    # What the engine is told -----------------------------------------------------------------------------------------

    def _target(self, naa: str) -> Target | None:
        snapshot = self.snapshots.by_naa(naa)
        if snapshot is not None:
            return self._snapshot_target(snapshot) if snapshot.online else None
        volume = self.volumes.by_naa(naa)
        return None if volume is None else target_of(volume, self.access.of(volume.id))

    def _snapshot_target(self, snapshot: Snapshot) -> Target:
        volume = self.volumes.row(snapshot.volume_id)
        assert volume is not None  # its row holds the snapshot's
        return target_of_snapshot(snapshot, volume, self.access.of(volume.id))

    def _policy(self, present: frozenset[str]) -> Configure:
        snapshots = [one for one in self.snapshots.online() if one.naa in present]
        users = [user for user in self.chap_users.all() if user.enabled]
        return Configure(
            targets=[
                target_of(volume, self.access.of(volume.id)) for volume in self.volumes.all() if volume.naa in present
            ]
            + [self._snapshot_target(snapshot) for snapshot in snapshots],
            chap_users=[ChapUser(user=user.name, secret=self.chap_users.secret(user.name)) for user in users],
            mutual=self.mutual_credential(),
            portal_address=self.portal_address,
        )

    def _limits(self, present: frozenset[str]) -> list[Request]:
        volumes = [limit_of(volume) for volume in self.volumes.all() if volume.thin and volume.naa in present]
        return [self.member_spaces.get().limit(), *volumes]

    def _pools(self, wanted: Collection[str] | None) -> SpacePools:
        return pools_of(self.pools.all(), self.pools.members(), wanted)

    async def set_member_space(self, space: MemberSpace) -> None:
        """Conflict if the volumes have more than that already: their guests would stop."""
        said = await self.data_plane.space()
        if space.capacity_bytes is not None and space.capacity_bytes < said.used_bytes:
            raise Conflict(f"The volumes occupy {format_size(said.used_bytes, rounding='up')} already.")
        self.member_spaces.set(space)
        await self.data_plane.push(space.limit())

    def mutual_credential(self) -> ChapUser | None:
        user, sealed = self.parameters.get("target-auth-username"), self.parameters.get_sealed(MUTUAL)
        if not user or sealed is None:
            return None
        return ChapUser(user=user, secret=self.vault.open(MUTUAL, sealed))

    async def set_mutual(self, user: str | None = None, secret: str | None = None) -> None:
        if user is not None:
            self.parameters.set("target-auth-username", user)
        if secret is not None:
            self.parameters.set_sealed(MUTUAL, self.vault.seal(MUTUAL, secret))
        await self.data_plane.push(ChapMutual(credential=self.mutual_credential()))

    # What the engine says --------------------------------------------------------------------------------------------

    async def _engine_is_current(self) -> None:
        await self.lifecycle.settle_all()
        await self.snapshot_lifecycle.settle_all(self.volumes.rows())
        self._compare()

    def _compare(self) -> None:
        """Reports volumes that only one side knows. None is removed: a database of yesterday must not cost data."""
        present = self.data_plane.present
        rows = {volume.naa: f"Volume {volume.name}" for volume in self.volumes.rows()}
        rows |= {naa: f"Snapshot {name} of volume {volume}" for naa, (volume, name) in self.snapshots.names().items()}
        missing, unknown = frozenset(rows) - present, present - frozenset(rows)
        for naa in sorted(missing - self._reported_missing):
            self.events.add("ERROR", "9.2.1", f"{rows[naa]} is missing in the data plane; it is offline.")
        for naa in sorted(unknown - self._reported_unknown):
            self.events.add("ERROR", "9.2.2", f"The data plane has a volume {naa} that this group does not know.")
        self._reported_missing, self._reported_unknown = missing, unknown

    def _engine_is_lost(self, why: str) -> None:
        if not self._stopping:
            self.events.add("ERROR", "9.1.2", "The data plane has gone; waiting for it.")

    def is_served(self, volume: Volume | Snapshot) -> bool:
        """Online in deed, not only in desire."""
        return volume.online and volume.naa in self.data_plane.present

    async def sessions(self, volume: Volume | Snapshot | None = None) -> list[Session]:
        reply = await self.data_plane.call(SessionList(volume=None if volume is None else volume.naa))
        return list(reply.sessions)

    async def inventory(self) -> dict[str, VolumeInfo]:
        return await self.data_plane.inventory()
