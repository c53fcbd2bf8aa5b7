"""A pool that foreign clients can be let loose on: the coordinator with its real doors, in a thread of its own, with
fakes behind it (one host with a fake hypervisor, an array in memory).

    with ServedPool() as pool:
        subprocess.run(["client", pool.url, "root", pool.password])

It has an address of its own on the loopback and serves 443 and 80 there: some clients put addresses together from what
records say, and then know no other ports.
"""

import asyncio
import random
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from gespann.host.fake import FakeHypervisor
from gespann.host.fake.nbd import FakeMedium
from gespann.host.server import AgentServer
from gespann.main.coordinator import Coordinator, Settings
from gespann.pool.api.server import Address
from gespann.sr.memory import MemoryDriver, MemoryStorage
from gespann.system.files import private_directory
from tests.unit.pool.world import DEVICE_CONFIG, StrictStorage, vbd_fields, vdi_fields, vif_fields, vm_fields

LIMIT_S = 180.0


class ServedPool:
    password = "correct horse"

    def __init__(self, web: Path | None = None) -> None:
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(2, 255)}"
        self.url = f"https://{self.address}"
        self.web = web
        self.base = Path(tempfile.mkdtemp(prefix="gsclients"))  # short: it holds sockets
        self.storage = MemoryStorage()
        self.coordinator: Coordinator
        self.hypervisor: FakeHypervisor
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "ServedPool":
        self._thread.start()
        self.run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()
        shutil.rmtree(self.base)

    @property
    def certificate(self) -> Path:
        """What a client that checks certificates has to trust."""
        return self.base / "data/pool.crt"

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """In the server's own loop, from a test."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    def call(self, method: str, *params: Any) -> Any:
        """A message as root, past the wire."""
        return self.run(self.coordinator.api.call(method, self.session, *params))

    # -- what clients work with

    def make_vm(self, name: str, sr: str = "", **fields: Any) -> str:
        """A VM with a disk and a network interface."""
        vm = self.call("VM.create", vm_fields(name, **fields))
        vdi = self.call("VDI.create", vdi_fields(sr or self.sr, f"{name} root"))
        self.call("VBD.create", vbd_fields(vm, vdi, bootable=True))
        self.call("VIF.create", vif_fields(vm, self.network, device="0"))
        return vm

    def make_vdi(self, name: str, size_bytes: int) -> str:
        return self.call("VDI.create", vdi_fields(self.sr, name, virtual_size=size_bytes))

    @property
    def media(self) -> dict[str, FakeMedium]:
        """What is on the disks that somebody has read or written, by the VDI's uuid."""
        return self._disks.media

    def get(self, class_name: str, ref: str) -> dict[str, Any]:
        return dict(self.call(f"{class_name}.get_record", ref))

    def named(self, class_name: str, name: str) -> dict[str, Any]:
        """The record of the one object of that name."""
        (ref,) = self.call(f"{class_name}.get_by_name_label", name)
        return self.get(class_name, ref)

    # -- begin and end

    async def _begin(self) -> None:
        data, run = private_directory(self.base / "data"), private_directory(self.base / "run")
        self._disks = StrictStorage(self.storage)
        self.hypervisor = FakeHypervisor(storage=self._disks, run_dir=private_directory(self.base / "a"))
        self._agent = AgentServer(self.hypervisor, self.base / "agent.sock")
        await self._agent.start()
        password = self.base / "password"
        password.write_text(self.password)
        settings = Settings(
            data=data,
            run=run,
            listen=(Address(self.address, 443),),
            plain=(Address(self.address, 80),),
            agent=self.base / "agent.sock",
            name_label="clients",
            address=self.address,
            web=self.web,
            root_password_file=password,
        )
        self.coordinator = Coordinator(settings, drivers={"memory": MemoryDriver(self.storage)})
        await self.coordinator.start()
        self.session = self.coordinator.api.local_session()
        await self._furnish()

    async def _furnish(self) -> None:
        api, db = self.coordinator.api, self.coordinator.pool.db
        self.host = next(iter(db.all("host")))
        self.sr = await api.call(
            *("SR.create", self.session, self.host, DEVICE_CONFIG, 0, "array", "", "memory", "user", True, {})
        )
        for message in ("pool.set_default_SR", "pool.set_suspend_image_SR"):
            await api.call(message, self.session, next(iter(db.all("pool"))), self.sr)
        self.network = await api.call("network.create", self.session, {"name_label": "lan", "other_config": {}})

    async def _end(self) -> None:
        await self.coordinator.stop()
        await self._agent.stop()
