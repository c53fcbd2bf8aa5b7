"""Many VMs at once: `make bench-many`.

50 VMs are cloned from one template and started, all of them asked for at the same time by clients of their own, on the
fake hypervisor with the real array: a group, its engine, and the driver's SSH between. Then, with ``--guests``, 8 real
ones in a lab, from the first clone to the address of the last guest.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.api import Client
from bench.record import ROOT, in_words, keep, machine, table
from bench.targets import cpu_seconds, end, free_port, put_first, wait_until
from gespann.demo.job import TEMPLATE, Job
from gespann.demo.show import Show
from gespann.demo.site import Site

DIRECTORY, ADDRESS = ROOT / "var/bench-many", "127.0.0.1"
LAB, NAME, NET = ROOT / "var/bench-guests", "gmany", "198.18.116"
PASSWORD, GROUP_PASSWORD = "bench horse battery", "bench battery horse"
START_LIMIT_S, BOOT_LIMIT_S = 60.0, 600.0
MIB, NULL = 1 << 20, "OpaqueRef:NULL"
GOAL_S = 10.0
STEP = re.compile(
    r": (?P<step>VM\.(clone|start|hard_shutdown|destroy)|VDI\.destroy): (?P<act>[\w-]+) took (?P<s>[\d.]+) s"
)


class Processes:
    """Group, engine, agent and coordinator, on this machine's loopback."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        self.directory = directory
        self.ssh_port, self.iscsi_port, self.api_port = free_port(), free_port(), free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name, password in (("root.password", PASSWORD), ("group.password", GROUP_PASSWORD)):
            (directory / name).touch(mode=0o600)
            (directory / name).write_text(password)

    def start(self) -> None:
        base = self.directory
        self._run(
            *("group", "--data", base / "g", "--run", base / "gr", "--ssh", f"{ADDRESS}:{self.ssh_port}"),
            *("--iscsi", f"{ADDRESS}:{self.iscsi_port}", "--admin-password-file", base / "group.password"),
        )
        self._run("agent", "--fake", "--data", base / "a", "--run", base / "ar")
        self._wait(lambda: "group is up" in self.log("group") and (base / "ar/agent.sock").exists())
        self._run(
            *("coordinator", "--data", base / "c", "--run", base / "cr", "--agent", base / "ar/agent.sock"),
            *("--plain", f"{ADDRESS}:{self.api_port}", "--root-password-file", base / "root.password"),
        )
        self._wait(lambda: Client(self.api_port).call("system.isAlive") is True)

    def _run(self, name: str, *words: str | Path) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            whole = [sys.executable, "-m", f"gespann.main.{name}", *words]
            started = subprocess.Popen(whole, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
        put_first(started.pid)
        self.running[name] = started

    def _wait(self, there: Callable[[], bool]) -> None:
        if not wait_until(there, START_LIMIT_S):
            raise SystemExit(f"it does not start: {[self.log(name)[-2000:] for name in self.running]}")

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def stop(self) -> None:
        engine = self.engine_pid()
        for process in reversed(self.running.values()):
            end(process)
        subprocess.run(["kill", str(engine)], check=False)
        shutil.rmtree(self.directory)

    def engine_pid(self) -> int:
        """It is the group's child, and outlives it."""
        group = self.running["group"].pid
        found = subprocess.run(["pgrep", "-P", str(group)], capture_output=True, text=True, check=True)
        return int(found.stdout.split()[0])

    def cpu(self) -> dict[str, float]:
        spent = {name: cpu_seconds(process.pid) for name, process in self.running.items()}
        return {**spent, "engine": cpu_seconds(self.engine_pid())}


class ManyVms:
    def __init__(self, processes: Processes, count: int) -> None:
        self.processes = processes
        self.count = count
        self.client = Client(processes.api_port)
        self.session = self.client.call("session.login_with_password", "root", PASSWORD, "2.23", "bench")
        self._read = 0

    def call(self, method: str, *params: Any) -> Any:
        return self.client.call(method, self.session, *params)

    def prepare(self) -> None:
        (host,) = self.call("host.get_all")
        config = {
            "target": ADDRESS,
            "port": str(self.processes.ssh_port),
            "username": "grpadmin",
            "password": GROUP_PASSWORD,
            "storagepool": "default",
        }
        sm_config = {"allocation": "thin"}
        self.sr = self.call("SR.create", host, config, 0, "array", "", "equal", "user", True, sm_config)
        disk = {"name_label": "system", "SR": self.sr, "virtual_size": 510 * MIB, "type": "user", "sharable": False}
        vdi = self.call("VDI.create", {**disk, "read_only": False, "other_config": {}})
        self.template = self._template(vdi)

    def _template(self, vdi: str) -> str:
        memory = {f"memory_{limit}": 128 * MIB for limit in ("static_min", "dynamic_min", "dynamic_max", "static_max")}
        texts = ("PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args", "PV_legacy_args")
        maps = ("VCPUs_params", "platform", "other_config", "HVM_boot_params")
        fields: dict[str, Any] = dict.fromkeys((*texts, "PCI_bus", "recommendations", "name_description"), "")
        fields |= {name: {} for name in maps} | memory
        fields |= {"name_label": "many", "user_version": 1, "is_a_template": False, "affinity": NULL}
        fields |= {"VCPUs_max": 1, "VCPUs_at_startup": 1, "HVM_boot_policy": "BIOS order"}
        fields |= {f"actions_after_{what}": act for what, act in _AFTER.items()}
        vm = self.call("VM.create", fields)
        disk = {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "empty": False}
        other = {"other_config": {"owner": ""}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
        self.call("VBD.create", {**disk, "unpluggable": True, **other})
        self.call("VM.set_is_a_template", vm, True)
        return str(vm)

    def _one(self, number: int) -> str:
        """As a client of its own, from its first request to its running VM."""
        client = Client(self.processes.api_port)
        vm = str(client.call("VM.clone", self.session, self.template, f"many {number}"))
        client.call("VM.provision", self.session, vm)
        client.call("VM.start", self.session, vm, False, False)
        return vm

    def _end(self, vm: str) -> None:
        client = Client(self.processes.api_port)
        client.call("VM.hard_shutdown", self.session, vm)
        vbd = client.call("VM.get_VBDs", self.session, vm)[0]
        vdi = client.call("VBD.get_VDI", self.session, vbd)
        client.call("VM.destroy", self.session, vm)
        client.call("VDI.destroy", self.session, vdi)

    def round(self) -> dict[str, float]:
        self.steps()
        before = self.processes.cpu()
        with ThreadPoolExecutor(self.count) as clients:
            began = time.monotonic()
            vms = list(clients.map(self._one, range(self.count)))
            took = {"cloned and started, s": time.monotonic() - began}
            for name, spent in self.processes.cpu().items():
                took[f"processor time of {name}, s"] = spent - before[name]
            took |= self.steps()
            states = [self.call("VM.get_power_state", vm) for vm in vms]
            assert states == ["Running"] * self.count, states
            began = time.monotonic()
            list(clients.map(self._end, vms))
            took["forced down and taken away, s"] = time.monotonic() - began
        return took | self.steps()

    def steps(self) -> dict[str, float]:
        """Median of each step, from the coordinator's log since the last call."""
        text = self.processes.log("coordinator")
        found: dict[str, list[float]] = {}
        for one in STEP.finditer(text, self._read):
            found.setdefault(f"step {one['step']}: {one['act']}, s", []).append(float(one["s"]))
        self._read = len(text)
        return {name: statistics.median(values) for name, values in found.items()}


_AFTER = {"shutdown": "destroy", "reboot": "restart", "crash": "restart"}


def fakes(count: int, rounds: int) -> list[dict[str, float]]:
    processes = Processes(DIRECTORY)
    try:
        processes.start()
        put_first("self")
        put_first(processes.engine_pid())
        many = ManyVms(processes, count)
        many.prepare()
        return [many.round() for _ in range(rounds)]
    finally:
        processes.stop()


def guests(count: int) -> dict[str, float]:
    """Real ones, in a lab."""
    site = Site(LAB, NAME, NET)
    site.down()
    job = Job(site, Show(steps=3))
    try:
        job.start()
        job.create_repository()
        job.import_template()
        words = f"vm-install template={TEMPLATE} sr-uuid={job.sr} sm-config:allocation=thin new-name-label"

        def one(number: int) -> None:
            vm = job.user.xe(f"{words}=many{number}", quiet=True)
            job.user.xe(f"vm-start uuid={vm}", quiet=True)

        began = time.monotonic()
        with ThreadPoolExecutor(count) as clients:
            list(clients.map(one, range(count)))
        took = {"installed and started, s": time.monotonic() - began}
        listed = "vm-list is-control-domain=false params=networks"

        def all_there() -> str:
            found = re.findall(r"0/ip: (\d+\.\d+\.\d+\.\d+)", job.user.xe(listed, quiet=True))
            return "yes" if len(set(found)) >= count else ""

        job.user.wait_for("the guests boot", all_there, BOOT_LIMIT_S)
        took["to the address of the last guest, s"] = time.monotonic() - began
        return took
    finally:
        site.down()


def page(result: dict[str, Any]) -> str:
    how = result["how"]
    rows = [
        [name, f"{statistics.median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}"]
        for name, values in result["fakes"].items()
    ]
    text = (
        "# Many VMs at once\n\n"
        f"`make bench-many`: {how['vms']} VMs cloned from one template and started, each by a client of its own, all"
        f" at the same time, {how['rounds']} rounds. The hypervisor is the fake one; group, engine, and the SSH between"
        f" driver and group are real. Goal: {GOAL_S:g} s. Steps are the median of one round's VMs.\n"
        f"Machine: {in_words(how['machine'])}.\n\n" + table(["what", "median", "least", "most"], rows)
    )
    if result.get("guests"):
        text += (
            f"\n{how['guests']} real guests of 192 MiB at once, {how['accelerator']},"
            f" each installed and started by an `xe` of its own; load {how['guests_load']} before:\n\n"
        )
        text += table(["what", "seconds"], [[name, f"{value:.1f}"] for name, value in result["guests"].items()])
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pool_many", description="Many VMs cloned and started at once."
    )
    parser.add_argument("--vms", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guests", type=int, default=8, help="real guests; 0: none")
    parser.add_argument("--keep", action="store_true", help="keep the results")
    options = parser.parse_args()
    how = {"vms": options.vms, "rounds": options.rounds, "guests": options.guests, "machine": machine()}
    taken: dict[str, list[float]] = {}
    for one in fakes(options.vms, options.rounds):
        for name, value in one.items():
            taken.setdefault(name, []).append(round(value, 4))
    result: dict[str, Any] = {"how": how, "fakes": taken}
    if options.guests:
        how["guests_load"] = machine()["load_before"]
        result["guests"] = guests(options.guests)
        how["accelerator"] = "without KVM, in software"
    print(page(result))
    if options.keep:
        keep("pool-many", result, page(result))


if __name__ == "__main__":
    main()
