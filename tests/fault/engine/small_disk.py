"""An engine whose data directory is a small file system of its own, which outlives the engine."""

import contextlib
import os
import subprocess
from pathlib import Path

from tests.product.engine.engine_process import EngineProcess


class EngineOnSmallDisk(EngineProcess):
    """The file system is a tmpfs in the mount namespace of a process that waits; each engine is started in there."""

    def __init__(self, binary: Path, folder: Path, size_mib: int) -> None:
        super().__init__(binary, folder)
        data = folder / "data"
        data.mkdir(exist_ok=True)
        script = 'mount -t tmpfs -o "size=$2m,mode=700" gespann-test "$1" && echo mounted && exec cat'
        # root needs no user namespace of its own, and in a chroot could not have one
        self.users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self.holder = subprocess.Popen(
            ["unshare", *self.users, "--mount", "sh", "-c", script, "sh", str(data), str(size_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"mounted\n", "no small file system could be mounted"

    @property
    def data(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root{self.folder / 'data'}")

    def command(self) -> list[str]:
        users = ["--user", "--preserve-credentials"] if self.users else []
        # the root as well: in a chroot it is another one than the namespace has
        return ["nsenter", f"--target={self.holder.pid}", *users, "--mount", "--root", "--", *super().command()]

    def take_room(self, size_bytes: int) -> None:
        """Somebody else's file takes as much of the file system, or what is left of it."""
        with (self.data / "somebody-else").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for _ in range(size_bytes // 4096):
                file.write(bytes(4096))

    def give_room_back(self) -> None:
        (self.data / "somebody-else").unlink()

    def stop(self) -> None:
        super().stop()
        self.holder.kill()
        self.holder.communicate()
