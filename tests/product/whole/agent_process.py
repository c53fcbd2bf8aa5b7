"""The agent's process with fake machines whose disks are real: each is an iSCSI session that a ``qemu-io`` of its own
holds, so that it outlives the agent as QEMU does, and the engine checks name, secret and generation. Memory is written
and read through such a session. Images are opened by ``qemu-nbd``, as on any host. Machines move to other agents' hosts
(``moving``). A coordinator that comes by the TLS door meets a door of the test's before the agent.

    python -m tests.product.whole.agent_process --run DIR --data DIR --door ADDRESS:PORT
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gespann.host.door import Door
from gespann.host.fake.memory import load_domains
from gespann.host.fake.storage import AnyStorage, Source
from gespann.host.membership import Membership
from gespann.host.nbd_export import QemuNbdImages
from gespann.main import agent
from gespann.seams.host_agent import IscsiSource
from gespann.seams.json_lines import SeamError
from gespann.system.processes import is_running, kill_session
from tests.product.whole.held_disk import HeldDisk
from tests.product.whole.moving import MovingHypervisor

OPEN_WITHIN_S = 30.0
SEEN = "seen.sock"  # what leads to the agent's socket
BLOCK = 512


class HeldSessions(AnyStorage):
    """``folder`` has a file for each holder, with its name, its disk and its process."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.folder = run_dir / "held"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._holders: dict[str, str] = {}  # target -> who opened it last
        starts = {f"{one.domain.uuid}/{one.domain.start_id}" for one in load_domains(run_dir)}
        for path in self.folder.glob("*.json"):
            held = json.loads(path.read_text())
            if held["holder"].rpartition("/")[0] in starts:
                self._holders[held["target"]] = held["holder"]
            else:  # a start that the agent's death cut short has no machine
                self._end(path)

    async def open(self, holder: str, source: Source, read_only: bool) -> None:
        if isinstance(source, IscsiSource):
            await self._log_in(holder, source, read_only)
            self._holders[source.target] = holder
        await super().open(holder, source, read_only)

    def admits_writes(self, holder: str) -> bool:
        """Asked by writing what is there already."""
        path = self._file(holder)
        if not path.exists() or json.loads(path.read_text())["read_only"]:
            return True
        disk = HeldDisk(path)
        try:
            disk.write(0, disk.read(0, BLOCK))
        except SeamError:
            return False
        return True

    def medium(self, source: Source) -> HeldDisk:
        """Of a disk that is open."""
        assert isinstance(source, IscsiSource)
        return HeldDisk(self.stem(self.folder, self._holders[source.target]))

    async def close(self, holder: str) -> None:
        self._end(self._file(holder))
        await super().close(holder)

    async def hand_on(self, holder: str, to: str) -> None:
        path, new = self._file(holder), self._file(to)
        held = json.loads(path.read_text())
        for left in path.parent.glob(f"{path.stem}.*"):
            left.rename(new.with_suffix(left.suffix))
        write_whole(new.with_suffix(".json"), {**held, "holder": to})
        self._holders = {target: to if one == holder else one for target, one in self._holders.items()}
        await super().hand_on(holder, to)

    @classmethod
    def end_all(cls, run_dir: Path) -> None:
        for path in (run_dir / "held").glob("*.json"):
            cls._end(path)

    @staticmethod
    def stem(folder: Path, holder: str) -> Path:
        return folder / hashlib.sha256(holder.encode()).hexdigest()[:16]

    def _file(self, holder: str) -> Path:
        return self.stem(self.folder, holder).with_suffix(".json")

    async def _log_in(self, holder: str, source: IscsiSource, read_only: bool) -> None:
        path = self._file(holder)
        self._end(path)
        process = self._start(path, source, read_only)
        held = {"holder": holder, "target": source.target, "pid": process.pid, "read_only": read_only}
        write_whole(path, held)
        said = path.with_suffix(".out")
        async with asyncio.timeout(OPEN_WITHIN_S):
            while "iB" not in said.read_text():
                if process.poll() is not None:
                    words = said.read_text()
                    self._end(path)
                    raise SeamError("STORAGE", words)
                await asyncio.sleep(0.01)

    def _start(self, path: Path, source: IscsiSource, read_only: bool) -> subprocess.Popen[bytes]:
        """Its input never ends: it holds the other end of the pipe itself."""
        image = f"driver=iscsi,transport=tcp,portal={source.host}:{source.port},target={source.target},lun={source.lun}"
        image += f",user={source.chap_user},password-secret=chap,initiator-name={source.initiator}"
        secret = path.with_suffix(".secret")
        secret.write_text(source.chap_secret)
        words = ["qemu-io", "--object", f"secret,id=chap,file={secret}", *["--read-only"] * read_only]
        pipe = path.with_suffix(".in")
        os.mkfifo(pipe)
        fd = os.open(pipe, os.O_RDWR)
        try:
            os.write(fd, b"length\n")
            with path.with_suffix(".out").open("wb") as out:
                return subprocess.Popen(
                    [*words, "--image-opts", image], stdin=fd, stdout=out, stderr=out, start_new_session=True
                )
        finally:
            os.close(fd)

    @staticmethod
    def _end(path: Path) -> None:
        if path.exists():
            pid = json.loads(path.read_text())["pid"]
            kill_session(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            while is_running(pid):
                pass
        for left in path.parent.glob(f"{path.stem}.*"):
            left.unlink()


def write_whole(path: Path, what: dict[str, Any]) -> None:
    """Whoever is killed here, and whoever reads meanwhile, has all of it or what was there before."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(what))
    beside.rename(path)


def hypervisor(options: argparse.Namespace) -> MovingHypervisor:
    images = QemuNbdImages(options.run / "images")
    storage = HeldSessions(options.run)
    named = {"run_dir": options.run, "storage": storage, "images": images, "hostname": options.fake_hostname}
    return MovingHypervisor(disk=lambda holder: HeldDisk(storage.stem(storage.folder, holder)), **named)


class DoorWithOneBehind(Door):
    """What comes from the coordinator meets the test's door before the agent."""

    def __init__(self, membership: Membership, agent_socket: Path, *where: Any, **how: Any) -> None:
        super().__init__(membership, agent_socket.with_name(SEEN), *where, **how)


if __name__ == "__main__":
    agent.hypervisor, agent.Door = hypervisor, DoorWithOneBehind  # type: ignore[assignment, misc]
    sys.exit(agent.main(sys.argv[1:]))
