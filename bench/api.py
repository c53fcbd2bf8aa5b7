"""The XenAPI of a large pool: `make bench-api`.

10,000 VMs, 20,000 VDIs and VBDs, 10,000 VIFs and 64 hosts are written into the database of a pool; its coordinator,
with the agent of one host on the fake hypervisor, is started, and measured from outside: by HTTP without TLS, on the
same machine. Texts that come back are received whole but not parsed.
"""

import argparse
import asyncio
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xmlrpc.client import dumps

from bench.record import ROOT, in_words, keep, machine, table
from bench.targets import cpu_seconds, end, free_port, wait_until
from gespann.pool.model.database import Database, Transaction

DIRECTORY = ROOT / "var/bench-api"
VMS, HOSTS, WAITERS, PASSWORD = 10_000, 64, 100, "bench horse battery"
MIB = 1 << 20
START_LIMIT_S = 120.0
#: what is measured -> the most it may be, in its unit
TARGETS = {
    "start-up, s": 5.0,
    "start-up, processor s": 5.0,
    "start-up that derives all allowed operations anew, s": 30.0,
    "resident memory, MiB": 1024.0,
    "VM.get_all_records, JSON-RPC, first, s": 1.0,
    "VM.get_all_records, JSON-RPC, s": 1.0,
    "VM.get_all_records, XML-RPC, first, s": 2.0,
    "VM.get_all_records, XML-RPC, s": 2.0,
    "VM.get_record, JSON-RPC, ms": 2.0,
    "VM.get_record, XML-RPC, ms": 2.0,
    "an event to 100 waiting clients, ms": 200.0,
    "xe vm-list of a small pool, s": 0.15,
}
LEAST = {"simple calls a second of one core": 500.0}


# -- the pool


def fill(db: Database, vms: int, hosts: int) -> None:
    """As a real pool would be: two disks, two VBDs and a network interface for each VM."""
    with db.transaction() as tx:
        sr = tx.create("SR", {"name_label": "array", "type": "equal", "shared": True})
        network = tx.create("network", {"name_label": "lan", "bridge": "xenbr7"})
        all_hosts = [*db.all("host"), *(_host(tx, number) for number in range(hosts - len(db.all("host"))))]
    for first in range(0, vms, 1000):
        with db.transaction() as tx:
            for number in range(first, min(vms, first + 1000)):
                _vm(tx, number, sr, network, all_hosts[number % len(all_hosts)])


def _host(tx: Transaction, number: int) -> str:
    metrics = tx.create("host_metrics", {"live": True, "memory_total": 1 << 38, "memory_free": 1 << 37})
    fields = {"name_label": f"host{number}", "hostname": f"host{number}", "metrics": metrics, "enabled": True}
    return tx.create("host", {**fields, "address": f"198.51.100.{number}", "cpu_info": {"cpu_count": "64"}})


def _vm(tx: Transaction, number: int, sr: str, network: str, host: str) -> None:
    size = 512 * MIB
    memory = {f"memory_{limit}": size for limit in ("static_min", "dynamic_min", "dynamic_max", "static_max")}
    fields: dict[str, Any] = {
        "name_label": f"vm{number}",
        "name_description": "one of many",
        "affinity": host,
        **memory,
    }
    fields |= {
        "affinity": host,
        "VCPUs_max": 2,
        "VCPUs_at_startup": 2,
        "platform": {"viridian": "true"},
        "tags": ["bench"],
    }
    vm = tx.create("VM", {**fields, "other_config": {"base_template_name": "Debian", "folder": "/bench"}})
    for device in (0, 1):
        disk = {
            "name_label": f"vm{number} {device}",
            "SR": sr,
            "virtual_size": 8 << 30,
            "type": "user",
            "managed": True,
        }
        vdi = tx.create("VDI", {**disk, "location": f"vol-{number}-{device}"})
        vbd = {"VM": vm, "VDI": vdi, "userdevice": str(device), "type": "Disk", "mode": "RW"}
        tx.create("VBD", {**vbd, "bootable": device == 0})
    mac = f"02:00:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    tx.create("VIF", {"VM": vm, "network": network, "device": "0", "MAC": mac})


class RunningPool:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        (directory / "password").write_text(PASSWORD)
        self.log = (directory / "log").open("ab")

    def _run(self, *words: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", *words], stdout=self.log, stderr=self.log, cwd=ROOT)

    def start_agent(self) -> None:
        base = self.directory
        self.agent = self._run("gespann.main.agent", "--fake", "--data", base / "a", "--run", base / "agent")
        self._wait(lambda: (base / "agent/agent.sock").exists())

    def start(self) -> float:
        """Seconds until the coordinator answered its first call."""
        base = self.directory
        began = time.monotonic()
        self.coordinator = self._run(
            *("gespann.main.coordinator", "--data", base / "data", "--run", base / "run"),
            *("--agent", base / "agent/agent.sock", "--plain", f"127.0.0.1:{self.port}"),
            *("--root-password-file", base / "password"),
        )
        self._wait(lambda: Client(self.port).call("system.isAlive") is True)
        return time.monotonic() - began

    def _wait(self, there: Callable[[], bool]) -> None:
        if not wait_until(there, START_LIMIT_S):
            raise SystemExit(f"it does not start: {(self.directory / 'log').read_text()[-3000:]}")

    def resident_mib(self) -> float:
        for line in Path(f"/proc/{self.coordinator.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


@contextmanager
def pool_of(name: str, vms: int, hosts: int) -> Iterator[tuple[RunningPool, dict[str, list[float]]]]:
    """The pool, and how long its starts took: the first finds records that no rules have been applied to yet."""
    directory = DIRECTORY / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    pool = RunningPool(directory)
    pool.start_agent()
    try:
        pool.start()
        end(pool.coordinator)
        db = Database(directory / "data/pool.db")
        fill(db, vms, hosts)
        db.sqlite.execute("DELETE FROM meta WHERE key = 'allowed_operations'")
        db.close()
        anew_s = pool.start()
        end(pool.coordinator)
        took = {"start-up, s": [pool.start()], "start-up, processor s": [cpu_seconds(pool.coordinator.pid)]}
        yield pool, {**took, "start-up that derives all allowed operations anew, s": [anew_s]}
    finally:
        end(pool.coordinator)
        end(pool.agent)
        pool.log.close()


# -- its clients


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: bytes | str) -> bytes:
        self._connection.request("POST", path, body)
        return self._connection.getresponse().read()

    def call(self, method: str, *params: Any) -> Any:
        answer = json.loads(self.post("/jsonrpc", request(method, *params)))
        if answer.get("error"):
            raise SystemExit(f"{method}: {answer['error']}")
        return answer["result"]


def request(method: str, *params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})


def seconds(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def measure_lists(pool: RunningPool, session: str, repetitions: int) -> dict[str, list[float]]:
    """Interleaved; the first of each kind finds nothing ready."""
    client, found = Client(pool.port), dict[str, list[float]]()
    json_call = request("VM.get_all_records", session)
    xml_call = dumps((session,), "VM.get_all_records")
    for turn in range(repetitions + 1):
        for kind, path, body in (("JSON-RPC", "/jsonrpc", json_call), ("XML-RPC", "/", xml_call)):
            name = f"VM.get_all_records, {kind}, {'s' if turn else 'first, s'}"
            before = cpu_seconds(pool.coordinator.pid)
            found.setdefault(name, []).append(seconds(lambda path=path, body=body: client.post(path, body)))  # type: ignore[misc]
            found.setdefault(f"{name[:-3]}, processor s", []).append(cpu_seconds(pool.coordinator.pid) - before)
    return found


def measure_records(pool: RunningPool, session: str, calls: int) -> dict[str, list[float]]:
    client, found = Client(pool.port), dict[str, list[float]]()
    vms = client.call("VM.get_all", session)
    for vm in vms[:calls]:
        for kind, path, body in (
            ("JSON-RPC", "/jsonrpc", request("VM.get_record", session, vm)),
            ("XML-RPC", "/", dumps((session, vm), "VM.get_record")),
        ):
            taken = seconds(lambda path=path, body=body: client.post(path, body))  # type: ignore[misc]
            found.setdefault(f"VM.get_record, {kind}, ms", []).append(taken * 1000)
    return found


def measure_rate(pool: RunningPool, session: str, calls: int, repetitions: int) -> dict[str, list[float]]:
    """Calls divided by the processor time that the coordinator took for them."""
    client, found = Client(pool.port), list[float]()
    body = request("VM.get_name_label", session, client.call("VM.get_all", session)[0])
    for _ in range(repetitions):
        before = cpu_seconds(pool.coordinator.pid)
        for _ in range(calls):
            client.post("/jsonrpc", body)
        found.append(calls / (cpu_seconds(pool.coordinator.pid) - before))
    return {"simple calls a second of one core": found}


async def measure_event(pool: RunningPool, session: str, repetitions: int) -> dict[str, list[float]]:
    """From the moment a change is asked for until the last of all that wait has its answer."""
    client, found = Client(pool.port), list[float]()
    vm = client.call("VM.get_all", session)[0]
    token = client.call("event.from", session, ["vm"], "", 0.0)["token"]
    for turn in range(repetitions):
        waiting = [asyncio.create_task(_wait_event(pool.port, session, token)) for _ in range(WAITERS)]
        await asyncio.sleep(1.0)  # until all of them have been asked and wait
        began = time.monotonic()
        await asyncio.to_thread(client.call, "VM.set_name_description", session, vm, f"turn {turn}")
        answers = await asyncio.gather(*waiting)
        found.append((max(at for at, _ in answers) - began) * 1000)
        token = json.loads(answers[0][1].partition(b"\r\n\r\n")[2])["result"]["token"]
    return {f"an event to {WAITERS} waiting clients, ms": found}


async def _wait_event(port: int, session: str, token: str) -> tuple[float, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = request("event.from", session, ["vm"], token, 60.0).encode()
    writer.write(b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
    writer.write(body)
    answer = await reader.read()
    writer.close()
    return time.monotonic(), answer


def measure_xe(pool: RunningPool, repetitions: int) -> dict[str, list[float]]:
    words = [str(ROOT / "bin/xe"), "vm-list"]
    environment = {"GESPANN_XAPI_SOCKET": str(pool.directory / "run/xapi"), "PATH": "/usr/bin:/bin"}

    def once() -> None:
        subprocess.run(words, env=environment, check=True, capture_output=True)

    once()
    return {"xe vm-list of a small pool, s": [seconds(once) for _ in range(repetitions)]}


# -- all together


def measure(vms: int, repetitions: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with pool_of("large", vms, HOSTS) as (pool, took):
        session = Client(pool.port).call("session.login_with_password", "root", PASSWORD, "1.0", "bench")
        found |= took
        found |= measure_lists(pool, session, repetitions)
        found |= measure_records(pool, session, 200)
        found |= measure_rate(pool, session, 1000, repetitions)
        found |= asyncio.run(measure_event(pool, session, repetitions))
        found["resident memory, MiB"] = [pool.resident_mib()]
    with pool_of("small", 10, 1) as (pool, _):
        found |= measure_xe(pool, 4 * repetitions)
    return found


def _shown(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"


def page(result: dict[str, Any]) -> str:
    rows = []
    for name, numbers in result["measured"].items():
        aim = f"at least {LEAST[name]:g}" if name in LEAST else ""
        aim = f"at most {TARGETS[name]:g}" if name in TARGETS else aim
        rows.append([name, *(_shown(numbers[kind]) for kind in ("median", "least", "most")), aim])
    how, run = result["how"], result["how"]["machine"]
    return (
        "# The XenAPI of a large pool\n\n"
        f"`make bench-api`: {how['vms']} VMs, {2 * how['vms']} VDIs and VBDs, {how['vms']} VIFs and {HOSTS} hosts in"
        " the database, the agent of one host on the fake hypervisor. Clients on the same machine, by HTTP without"
        " TLS; answers are received whole and not parsed. *First*: nothing of the answer was ready yet. *Processor*:"
        " what the coordinator itself used, whatever else ran on the machine.\n"
        f"Machine: {in_words(run)}.\n\n" + table(["what", "median", "least", "most", "aim"], rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description="The XenAPI of a large pool.")
    parser.add_argument("--vms", type=int, default=VMS)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="keep the results in bench/results")
    options = parser.parse_args()
    before = machine()
    found = measure(options.vms, options.repetitions)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    measured = {
        name: {
            "median": round(statistics.median(values), 4),
            "least": round(min(values), 4),
            "most": round(max(values), 4),
            "count": len(values),
        }
        for name, values in found.items()
    }
    result = {"how": {"vms": options.vms, "repetitions": options.repetitions, "machine": before}, "measured": measured}
    if options.keep:
        keep("api", result, page(result))
    print(page(result))


if __name__ == "__main__":
    main()
