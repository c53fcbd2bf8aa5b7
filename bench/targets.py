"""What is compared: our engine, and the targets that Debian ships (unpacked, never installed)."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.record import ROOT
from gespann.seams.engine_socket import VERSION, Access, Configure, Hello, Target, VolumeCreate
from gespann.seams.json_lines import SeamLost
from gespann.system.json_lines import JsonLinesClient

CACHE = ROOT / "var/cache"
ADDRESS = "127.0.0.1"
START_LIMIT_S = 20.0


class MeasuredTarget(Protocol):
    name: str

    @property
    def pid(self) -> int | None:
        """None: there is no process but the generator."""

    def start(self, size_bytes: int) -> None: ...

    def stop(self) -> None: ...

    def generator_words(self) -> list[str]:
        """PROTOCOL ADDRESS PORT NAME LUN of bench/generator."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def put_first(pid: int | str) -> None:
    """The group of processes that this one is in goes before everything else on the machine, as far as that may be."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-20")


def wait_until(there: Callable[[], bool], limit_s: float) -> bool:
    """Whether it came to be. An OSError of ``there`` says that it is not there yet."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if there():
                return True
        time.sleep(0.02)
    return False


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((ADDRESS, port)) == 0

    wait_until(lambda: process.poll() is not None or answers(), START_LIMIT_S)
    if not answers():
        raise SystemExit(f"no target on port {port}: {log.read_text()[-2000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(words: list[str | Path], port: int, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True)
    put_first(process.pid)
    wait_for_port(port, process, log)
    return process


def sparse_file(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


class Engine:
    """The engine with as many volumes as it is asked for, each open to every host."""

    name = "engine"

    def __init__(self, directory: Path, *options: str, volumes: int = 1) -> None:
        self.directory = directory / self.name
        self.port = free_port()
        self.options = options
        self.volumes = volumes

    @staticmethod
    def iqn(number: int) -> str:
        return f"iqn.2001-05.com.example:0-8a0906-bench-engine-{number}"

    def start(self, size_bytes: int) -> None:
        binary = ROOT / "build/engine/release/gespann-engine"
        (self.directory / "data").mkdir(parents=True)
        log = self.directory / "log"
        control = self.directory / "control.sock"
        words: list[str | Path] = [binary, "--data", self.directory / "data", "--socket", control, *self.options]
        self.process = serve([*words, "--portal", f"{ADDRESS}:{self.port}"], self.port, log, dict(os.environ))
        self.pid = self.process.pid
        asyncio.run(self._configure(control, size_bytes))

    async def _configure(self, control: Path, size_bytes: int) -> None:
        client = JsonLinesClient(control, hello=Hello(version=VERSION))
        targets = [
            Target(volume=f"6{number:031x}", name=self.iqn(number), online=True, multihost=True, access=[Access()])
            for number in range(self.volumes)
        ]
        try:
            for target in targets:
                await client.call(VolumeCreate(volume=target.volume, size_bytes=size_bytes))
            await client.call(Configure(targets=targets, chap_users=[]))
        except SeamLost as lost:
            raise SystemExit(f"engine: {lost}: {(self.directory / 'log').read_text()[-2000:]}") from lost
        finally:
            await client.close()

    def generator_words(self, volume: int = 0) -> list[str]:
        return ["iscsi", ADDRESS, str(self.port), self.iqn(volume), "0"]

    def stop(self) -> None:
        end(self.process)


class MemoryEngine(Engine):
    """The engine's own loop with volumes in memory: what the network and the protocol alone cost."""

    name = "memory"

    def __init__(self, directory: Path, volumes: int = 1) -> None:
        super().__init__(directory, "--memory-volumes", volumes=volumes)


class Tgtd:
    name = "tgtd"
    iqn = "iqn.2001-05.com.example:bench-tgtd"

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "tgtd"
        self.port = free_port()
        self.sbin = unpacked("tgt") / "usr/sbin"

    def start(self, size_bytes: int) -> None:
        self.directory.mkdir(parents=True)
        backing = sparse_file(self.directory / "disk.img", size_bytes)
        self.environment = {**os.environ, "TGT_IPC_SOCKET": str(self.directory / "ipc")}
        words: list[str | Path] = [self.sbin / "tgtd", "-f", "-C", "77", "--iscsi", f"portal={ADDRESS}:{self.port}"]
        self.process = serve(words, self.port, self.directory / "log", self.environment)
        self.pid = self.process.pid
        self._admin("--op", "new", "--mode", "target", "--tid", "1", "-T", self.iqn)
        self._admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(backing))
        self._admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def _admin(self, *words: str) -> None:
        command: list[str | Path] = [self.sbin / "tgtadm", "-C", "77", "--lld", "iscsi", *words]
        subprocess.run(command, env=self.environment, check=True, timeout=20)

    def generator_words(self) -> list[str]:
        return ["iscsi", ADDRESS, str(self.port), self.iqn, "1"]  # its LUN 0 is a controller

    def stop(self) -> None:
        end(self.process)


ISTGT_CONF = """
[Global]
  NodeBase "iqn.2001-05.com.example"
  PidFile {directory}/pid
  AuthFile {directory}/auth.conf
  MediaDirectory {directory}
  LogFacility "local7"
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 16
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 2
  DefaultTime2Retain 60
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod None
  Portal UC1 {address}:{control_port}
  Netmask {address}
[PortalGroup1]
  Portal DA1 {address}:{port}
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask {address}
[LogicalUnit1]
  TargetName bench-istgt
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth 64
  LUN0 Storage {directory}/disk.img {size_mib}MB
"""


class Istgt:
    """With the settings of its own example, one disk."""

    name = "istgt"

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "istgt"
        self.port = free_port()
        self.program = unpacked("istgt") / "usr/sbin/istgt"

    def start(self, size_bytes: int) -> None:
        self.directory.mkdir(parents=True)
        sparse_file(self.directory / "disk.img", size_bytes)
        (self.directory / "auth.conf").touch(mode=0o600)
        configuration = self.directory / "istgt.conf"
        configuration.write_text(
            ISTGT_CONF.format(
                directory=self.directory,
                address=ADDRESS,
                port=self.port,
                control_port=free_port(),
                size_mib=size_bytes >> 20,
            )
        )
        log = self.directory / "log"
        self.process = serve([self.program, "-D", "-c", configuration], self.port, log, dict(os.environ))
        self.pid = self.process.pid

    def generator_words(self) -> list[str]:
        return ["iscsi", ADDRESS, str(self.port), "iqn.2001-05.com.example:bench-istgt", "0"]

    def stop(self) -> None:
        end(self.process)


class Nbdkit:
    """Its file plugin: another protocol, the same disk."""

    name = "nbdkit"

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "nbdkit"
        self.port = free_port()
        self.tree = unpacked("nbdkit") / "usr"

    def start(self, size_bytes: int) -> None:
        self.directory.mkdir(parents=True)
        disk = sparse_file(self.directory / "disk.img", size_bytes)
        plugin = next(self.tree.glob("lib/*/nbdkit/plugins/nbdkit-file-plugin.so"))
        words: list[str | Path] = [
            self.tree / "bin/nbdkit",
            "-f",
            "-i",
            ADDRESS,
            "-p",
            str(self.port),
            plugin,
            f"file={disk}",
        ]
        self.process = serve(words, self.port, self.directory / "log", dict(os.environ))
        self.pid = self.process.pid

    def generator_words(self) -> list[str]:
        return ["nbd", ADDRESS, str(self.port), "-", "-"]

    def stop(self) -> None:
        end(self.process)


class LocalFile:
    """No target at all: the generator's own io_uring on a file."""

    name = "file"
    pid = None

    def __init__(self, directory: Path) -> None:
        self.disk = directory / "local.img"

    def start(self, size_bytes: int) -> None:
        sparse_file(self.disk, size_bytes)

    def generator_words(self) -> list[str]:
        return ["file", str(self.disk), "-", "-", "-"]

    def stop(self) -> None:
        pass


def release(package: str) -> str:
    return next(CACHE.glob(f"{package}/{package}_*.deb")).stem.replace("%3a", ":").replace("_", " ")


def unpacked(package: str) -> Path:
    """A package of Debian, fetched once and unpacked beside the other caches: nothing is installed or started."""
    folder = CACHE / package
    tree = folder / "unpacked"
    if not tree.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-q", "download", package], cwd=folder, check=True)
        shutil.rmtree(folder / "new", ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", next(folder.glob(f"{package}_*.deb")), folder / "new"], check=True)
        (folder / "new").rename(tree)
    return tree
