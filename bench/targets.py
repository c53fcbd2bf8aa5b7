"""The two iSCSI targets that are compared: our engine, and tgtd as Debian ships it (unpacked, never installed)."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Protocol

from bench.record import ROOT
from gespann.seams.engine_socket import VERSION, Access, Configure, Hello, Target, VolumeCreate
from gespann.seams.json_lines import SeamLost
from gespann.system.json_lines import JsonLinesClient

CACHE = ROOT / "var/cache/tgt"
ADDRESS = "127.0.0.1"
VOLUME = "6" + "0" * 30 + "1"
START_LIMIT_S = 20.0


class MeasuredTarget(Protocol):
    name: str
    pid: int
    port: int
    iqn: str
    lun: int

    def start(self, size_bytes: int) -> None: ...

    def stop(self) -> None: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((ADDRESS, port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"no target on port {port}: {log.read_text()[-2000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Engine:
    name = "engine"
    iqn = "iqn.2001-05.com.example:0-8a0906-bench-engine"
    lun = 0

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "engine"
        self.port = free_port()

    def start(self, size_bytes: int) -> None:
        binary = ROOT / "build/engine/release/gespann-engine"
        (self.directory / "data").mkdir(parents=True)
        log = self.directory / "log"
        control = self.directory / "control.sock"
        words = [binary, "--data", self.directory / "data", "--socket", control]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*words, "--portal", f"{ADDRESS}:{self.port}"], stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self.process.pid
        wait_for_port(self.port, self.process, log)
        asyncio.run(self._configure(control, size_bytes))

    async def _configure(self, control: Path, size_bytes: int) -> None:
        client = JsonLinesClient(control, hello=Hello(version=VERSION))
        target = Target(volume=VOLUME, name=self.iqn, online=True, access=[Access()])
        try:
            await client.call(VolumeCreate(volume=VOLUME, size_bytes=size_bytes))
            await client.call(Configure(targets=[target], chap_users=[]))
        except SeamLost as lost:
            raise SystemExit(f"engine: {lost}: {(self.directory / 'log').read_text()[-2000:]}") from lost
        finally:
            await client.close()

    def stop(self) -> None:
        end(self.process)


class Tgtd:
    name = "tgtd"
    iqn = "iqn.2001-05.com.example:bench-tgtd"
    lun = 1  # its LUN 0 is a controller

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "tgtd"
        self.port = free_port()
        self.sbin = unpacked_tgt() / "usr/sbin"

    def start(self, size_bytes: int) -> None:
        self.directory.mkdir(parents=True)
        backing = self.directory / "disk.img"
        with backing.open("wb") as file:
            file.truncate(size_bytes)
        log = self.directory / "log"
        self.environment = {**os.environ, "TGT_IPC_SOCKET": str(self.directory / "ipc")}
        words = [self.sbin / "tgtd", "-f", "-C", "77", "--iscsi", f"portal={ADDRESS}:{self.port}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                words, stdout=output, stderr=output, env=self.environment, start_new_session=True
            )
        self.pid = self.process.pid
        wait_for_port(self.port, self.process, log)
        self._admin("--op", "new", "--mode", "target", "--tid", "1", "-T", self.iqn)
        self._admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(backing))
        self._admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def _admin(self, *words: str) -> None:
        command = [self.sbin / "tgtadm", "-C", "77", "--lld", "iscsi", *words]
        subprocess.run(command, env=self.environment, check=True, timeout=20)

    def stop(self) -> None:
        end(self.process)

    @staticmethod
    def release() -> str:
        return next(CACHE.glob("tgt_*.deb")).stem.replace("%3a", ":").replace("_", " ")


def unpacked_tgt() -> Path:
    """Debian's package `tgt`, fetched once and unpacked beside the other caches: nothing is installed or started."""
    tree = CACHE / "unpacked"
    if not (tree / "usr/sbin/tgtd").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-q", "download", "tgt"], cwd=CACHE, check=True)
        package = next(CACHE.glob("tgt_*.deb"))
        shutil.rmtree(tree, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
    return tree
