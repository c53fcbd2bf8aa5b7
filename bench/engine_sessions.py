"""What a session costs: part of `make bench-engine`.

4,000 logins by one generator, one after the other in batches; then, with a fresh engine, the memory of 1,000 sessions
that have read a mebibyte each and fallen silent. The initiator is this process and not fast: the logins take at most as
long as is said.
"""

import argparse
import resource
import shutil
import socket
import struct
import time
from pathlib import Path
from typing import Any

from bench.quiet import add_directory, enter_own_network, measured
from bench.record import in_words, keep, medians, table
from bench.targets import ADDRESS, Engine, cpu_seconds

LOGINS = 4000
SESSIONS = 1000
BATCH = 100  # an address may have 128 connections that have not logged in
MIB = 1 << 20
PING_AFTER_S = 2
LOGIN, LOGIN_ANSWER, COMMAND, DATA_IN, NOP_OUT, NOP_IN, RESPONSE = 0x03, 0x23, 0x01, 0x25, 0x00, 0x20, 0x21


class Session:
    """The little of an initiator that is needed; offsets are those of RFC 7143 section 11."""

    def __init__(self, engine: Engine, number: int) -> None:
        self.socket = socket.create_connection((ADDRESS, engine.port), timeout=60)
        keys = {
            "InitiatorName": f"iqn.2026-01.org.example:session-{number}",
            "TargetName": engine.iqn(0),
            "SessionType": "Normal",
            "HeaderDigest": "None",
            "DataDigest": "None",
            "MaxRecvDataSegmentLength": "262144",
        }
        text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in keys.items())
        header = bytearray(48)
        header[0], header[1], header[5:8] = 0x40 | LOGIN, 0x87, len(text).to_bytes(3, "big")
        header[8:14] = b"\x80" + number.to_bytes(5, "big")
        header[16:20], header[24:28] = (1).to_bytes(4, "big"), (1).to_bytes(4, "big")
        self.socket.sendall(bytes(header) + text + bytes(-len(text) % 4))
        self.cmd_sn = 1

    def take(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            piece = self.socket.recv(count - len(received))
            if not piece:
                raise SystemExit("the engine closed a session")
            received += piece
        return bytes(received)

    def receive(self) -> bytes:
        """The header; data is taken and forgotten."""
        header = self.take(48)
        length = int.from_bytes(header[5:8], "big")
        self.take(length + -length % 4)
        return header

    def logged_in(self) -> None:
        answer = self.receive()
        if answer[0] & 0x3F != LOGIN_ANSWER or answer[36:38] != b"\0\0":
            raise SystemExit(f"login refused: {answer.hex()}")

    def read(self, length: int) -> None:
        header = bytearray(48)
        header[0], header[1] = COMMAND, 0xC1
        header[20:24], header[24:28] = length.to_bytes(4, "big"), self.cmd_sn.to_bytes(4, "big")
        header[32:48] = struct.pack(">BBQIBB", 0x88, 0, 0, length // 512, 0, 0)
        self.socket.sendall(header)
        self.cmd_sn += 1
        while True:
            answer = self.receive()
            if answer[0] & 0x3F == RESPONSE or (answer[0] & 0x3F == DATA_IN and answer[1] & 1):
                return

    def answer_ping(self) -> None:
        ping = self.receive()
        if ping[0] & 0x3F != NOP_IN:
            raise SystemExit("an unexpected PDU")
        header = bytearray(48)
        header[0], header[1] = 0x40 | NOP_OUT, 0x80
        header[16:20], header[20:24] = b"\xff" * 4, ping[20:24]
        header[24:28] = self.cmd_sn.to_bytes(4, "big")
        self.socket.sendall(header)


def log_in(engine: Engine, count: int) -> list[Session]:
    sessions: list[Session] = []
    for start in range(0, count, BATCH):
        batch = [Session(engine, number) for number in range(start, min(start + BATCH, count))]
        for session in batch:
            session.logged_in()
        sessions += batch
    return sessions


def status_of(pid: int) -> dict[str, int]:
    """KiB, and threads."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[0] in ("VmRSS:", "RssAnon:", "Threads:")}


def measure_logins(directory: Path) -> dict[str, float]:
    engine = Engine(directory)
    engine.start(64 * MIB)
    try:
        cpu, began = cpu_seconds(engine.pid), time.monotonic()
        sessions = log_in(engine, LOGINS)
        took = time.monotonic() - began
        spent = cpu_seconds(engine.pid) - cpu
        for session in sessions:
            session.socket.close()
    finally:
        engine.stop()
    return {"seconds": round(took, 2), "engine_cpu_us_per_login": round(spent / LOGINS * 1e6, 1)}


def measure_memory(directory: Path) -> dict[str, float]:
    engine = Engine(directory, "--ping-after", str(PING_AFTER_S))
    engine.start(64 * MIB)
    try:
        before = status_of(engine.pid)
        sessions = log_in(engine, SESSIONS)
        fresh = status_of(engine.pid)
        for session in sessions:
            session.read(4096)
            session.read(MIB)
        for session in sessions:  # it gives its buffers back when it is silent, and says so by the first ping
            session.answer_ping()
        idle = status_of(engine.pid)
        for session in sessions:
            session.socket.close()
    finally:
        engine.stop()
    return {
        "fresh_kib": round((fresh["VmRSS"] - before["VmRSS"]) / SESSIONS, 2),
        "idle_kib": round((idle["VmRSS"] - before["VmRSS"]) / SESSIONS, 2),
        "threads": idle["Threads"] - before["Threads"],
    }


def page(result: dict[str, Any]) -> str:
    how, middle = result["how"], result["medians"]
    rows = [
        [f"{LOGINS} logins, s", f"{middle['seconds']:.1f}"],
        ["CPU of the engine for a login, us", f"{middle['engine_cpu_us_per_login']:.0f}"],
        [f"resident memory for each of {SESSIONS} sessions just logged in, KiB", f"{middle['fresh_kib']:.1f}"],
        ["the same after a read of 1 MiB each and silence, KiB", f"{middle['idle_kib']:.1f}"],
        ["threads for them", f"{middle['threads']:.0f}"],
    ]
    return (
        "# Sessions\n\n"
        f"`make bench-engine`: {how['repetitions']} repetitions, medians, {how['surroundings']}.\n"
        "Memory is the growth of the engine's resident set, with the stacks of its threads as far as they are in use\n"
        "(each may grow to 256 KiB); the kernel's side of a connection is not in it. All numbers are in\n"
        "`engine-sessions.json`.\n"
        f"Machine: {in_words(how['machine'])}.\n\n" + table(["", ""], rows)
    )


def run_all(options: argparse.Namespace, directory: Path) -> list[dict[str, float]]:
    runs: list[dict[str, float]] = []
    for repetition in range(options.repetitions):
        folder = directory / str(repetition)
        runs.append(measure_logins(folder / "logins") | measure_memory(folder / "memory"))
        shutil.rmtree(folder)
        print(runs[-1], flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_sessions", description="What a session costs.")
    parser.add_argument("--repetitions", type=int, default=3)
    add_directory(parser)
    options = parser.parse_args()
    enter_own_network("bench.engine_sessions")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    runs, how = measured(options, lambda directory: run_all(options, directory))
    middle = medians(runs)
    result = {"how": how, "medians": middle, "runs": runs}
    keep("engine-sessions", result, page(result))


if __name__ == "__main__":
    main()
