"""The built engine as a process of its own, and its control socket, for tests that talk to it from outside."""

import contextlib
import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec

from gespann.seams.engine_socket import Hello, Request
from gespann.seams.json_lines import SeamError
from tests.own_nets import free_port

START_DEADLINE_S = 180.0


class Control:
    """One connection to the control socket, one request at a time."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.reader = self.socket.makefile("rb")
        self.next_id = 1
        self.hello = self.call(Hello(version=1))

    def call(self, request: Request) -> Any:
        """The reply. SeamError: refused."""
        self.send(request)
        return self.receive(request)

    def send(self, request: Request) -> None:
        line = {"id": self.next_id, "op": request.op, "args": request}
        self.next_id += 1
        self.socket.sendall(msgspec.json.encode(line) + b"\n")

    def receive(self, request: Request) -> Any:
        answer = json.loads(self.reader.readline())
        if "error" in answer:
            raise SeamError(answer["error"]["code"], answer["error"]["message"])
        return msgspec.convert(answer["ok"], request.reply)

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


class EngineProcess:
    """Started with ``start``; may be killed and started again on the same data and port."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "engine.log"
        self.options: list[str] = []
        self.under: list[str] = []  # a command that becomes the engine, such as prlimit

    @property
    def socket_path(self) -> Path:
        return self.folder / "engine.socket"

    @property
    def data(self) -> Path:
        """The data directory, as a test reaches it."""
        return self.folder / "data"

    def command(self) -> list[str]:
        portal = f"127.0.0.1:{self.port}"
        return [
            *[*self.under, str(self.binary), "--data", str(self.folder / "data"), "--socket", str(self.socket_path)],
            *["--portal", portal, "--log-level", "debug", *self.options],
        ]

    def start(self) -> Control:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stderr=log)
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            with contextlib.suppress(OSError):
                return Control(self.socket_path)
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the engine did not open its control socket"
            time.sleep(0.01)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=120)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
