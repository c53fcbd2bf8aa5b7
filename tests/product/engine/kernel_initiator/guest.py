"""A Linux machine in QEMU that runs what a test asks for, by QEMU's guest agent."""

import base64
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IP = "/bin/ip"  # by its place: busybox's shell would take its own
BOOT_S = 400.0
RUN_S = 240.0
POLL_S = 0.05
MEMORY_MIB = 640
TRANSLATED_MIB = 256  # of code; QEMU would take 1 GiB
# No KVM, so that it is the same everywhere.
KERNEL_WORDS = (
    "console=ttyS0 quiet nokaslr mitigations=off no_timer_check random.trust_cpu=on cryptomgr.notests audit=0 "
    "lsm=capability net.ifnames=0 panic=-1"
)


def wait_for(true: Callable[[], object], what: str, timeout_s: float = RUN_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


class Failed(AssertionError):
    """A command in the guest did not end with 0."""


class Job:
    """A shell command that runs in the guest."""

    def __init__(self, guest: "Guest", command: str, pid: int) -> None:
        self.guest = guest
        self.command = command
        self.pid = pid  # the guest's
        self._ended: Ended | None = None

    def ended(self) -> Ended | None:
        """None while it runs."""
        if self._ended is None:
            state = self.guest.ask("guest-exec-status", pid=self.pid)
            if state["exited"]:
                out, err = (base64.b64decode(state.get(key, "")) for key in ("out-data", "err-data"))
                status = int(state.get("exitcode", 128 + state.get("signal", 0)))
                self._ended = Ended(status, out.decode(errors="replace"), err.decode(errors="replace"))
        return self._ended

    def wait(self, timeout_s: float = RUN_S) -> Ended:
        wait_for(self.ended, f"in the guest: {self.command}", timeout_s)
        assert self._ended is not None
        return self._ended


class Guest:
    """``enter``: words before QEMU's, by which it gets into the network of the test. One card for each of ``taps``."""

    def __init__(self, image: Path, folder: Path, enter: list[str], taps: list[str]) -> None:
        self.folder = folder
        self._socket: socket.socket | None = None
        words = [*enter, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        words += [
            "-machine",
            "pc",
            "-accel",
            f"tcg,tb-size={TRANSLATED_MIB}",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            str(MEMORY_MIB),
        ]
        words += ["-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd", "-append", KERNEL_WORDS]
        words += ["-serial", f"file:{folder}/serial", "-device", "virtio-serial-pci"]
        words += ["-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"]
        words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        words += ["-object", "rng-random,id=chance,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=chance"]
        for tap in taps:
            words += ["-netdev", f"tap,id={tap},ifname={tap},script=no,downscript=no"]
            words += ["-device", f"virtio-net-pci,netdev={tap},romfile="]
        with (folder / "qemu.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def serial(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "serial").read_text(errors="replace")
        return ""

    def wait_until_up(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, (self.folder / "qemu.log").read_text() + self.serial()
            return "INITIATOR-READY" in self.serial()

        wait_for(ready, "the guest's start", BOOT_S)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(RUN_S)
        self._socket.connect(f"{self.folder}/agent")
        self._lines = self._socket.makefile("rb")
        self.ask("guest-ping")

    def stop(self) -> None:
        if self._socket is not None:
            self._lines.close()
            self._socket.close()
        self.process.kill()
        self.process.wait()

    def ask(self, command: str, **arguments: object) -> Any:
        """One request to the agent."""
        assert self._socket is not None, "the guest is not up"
        name = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": name}).encode() + b"\n")
        answer = json.loads(self._lines.readline())
        assert "return" in answer, answer
        return answer["return"]

    def start(self, command: str, given: str = "") -> Job:
        """``command`` for the shell; ``given`` is its standard input."""
        words: dict[str, object] = {"path": "/bin/sh", "arg": ["-c", command], "capture_output": True}
        if given:
            words["input_data"] = base64.b64encode(given.encode()).decode()
        return Job(self, command, self.ask("guest-exec", **words)["pid"])

    def attempt(self, command: str, given: str = "", timeout_s: float = RUN_S) -> Ended:
        """To its end, however it ends."""
        return self.start(command, given).wait(timeout_s)

    def run(self, command: str, given: str = "", timeout_s: float = RUN_S) -> str:
        """What it wrote. Failed unless it ends with 0."""
        done = self.attempt(command, given, timeout_s)
        if done.status:
            kernel = self.attempt("dmesg | tail -n 20").out
            raise Failed(f"{command}\nended with {done.status}\n{done.out}{done.err}\nthe guest's kernel:\n{kernel}")
        return done.out

    def write(self, path: str, text: str) -> None:
        self.run(f"mkdir -p $(dirname {path}) && cat > {path}", text or "\n")
