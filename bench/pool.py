"""The whole product, step by step: `make bench` (after the engine's part).

A lab with an array group and a pool is started and a template imported. Then, again and again: install a VM, start it,
wait for its guest's agent, force it down, uninstall it. The coordinator logs how long each step of an operation took:
the array's work (volumes), the host's (agent, libvirt and QEMU together), and its own records. From outside come the
wall time of each `xe` command and the time until the guest's agent has answered.
"""

import argparse
import re
import statistics
import time
from pathlib import Path
from typing import Any

from bench.record import ROOT, in_words, keep, machine, table
from gespann.demo.job import BOOT_TIMEOUT_S, TEMPLATE, Job
from gespann.demo.show import Show
from gespann.demo.site import Site

DIRECTORY, NAME, NET = ROOT / "var/bench", "gbench", "198.18.115"
STEP = re.compile(r": (?P<operation>VM\.\w+|VDI\.\w+): (?P<step>[\w-]+) took (?P<seconds>[\d.]+) s")
Times = dict[str, list[float]]


class Stopwatch:
    def __init__(self, job: Job, log: Path) -> None:
        self.job = job
        self.log = log
        self.taken: Times = {}
        self._read = log.stat().st_size

    def xe(self, name: str, command: str) -> str:
        began = time.monotonic()
        answer = self.job.user.xe(command, quiet=True)
        self.note(name, time.monotonic() - began)
        return answer

    def note(self, name: str, seconds: float) -> None:
        self.taken.setdefault(name, []).append(seconds)

    def take_steps(self, name: str) -> None:
        """What the coordinator has logged of steps since the last call, as parts of ``name``; the same step of several
        volumes is added up."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += len(text)
        sums: dict[str, float] = {}
        for found in STEP.finditer(text.decode(errors="replace")):
            sums[found["step"]] = sums.get(found["step"], 0.0) + float(found["seconds"])
        for step, seconds in sums.items():
            self.note(f"{name}: {step}", seconds)


def one_life(watch: Stopwatch) -> None:
    job = watch.job
    watch.take_steps("before")
    words = f"template={TEMPLATE} new-name-label=bench sr-uuid={job.sr} sm-config:allocation=thin"
    job.vm = watch.xe("xe vm-install", f"vm-install {words}")
    watch.take_steps("vm-install")
    began = time.monotonic()
    watch.xe("xe vm-start", f"vm-start uuid={job.vm}")
    watch.take_steps("vm-start")
    job.user.wait_for("the guest boots", job.guest_address, BOOT_TIMEOUT_S)
    watch.note("from vm-start to the guest's address", time.monotonic() - began)
    watch.xe("xe vm-list, all of it", "vm-list")
    watch.xe("xe vm-list --minimal", "vm-list --minimal")
    watch.xe("xe vm-shutdown force=true", f"vm-shutdown uuid={job.vm} force=true")
    watch.take_steps("vm-shutdown")
    watch.xe("xe vm-uninstall", f"vm-uninstall uuid={job.vm} force=true")
    watch.take_steps("vm-uninstall")


def page(result: dict[str, Any]) -> str:
    rows = [
        [name, f"{numbers['median_s']:.3f}", f"{numbers['least_s']:.3f}", f"{numbers['most_s']:.3f}"]
        for name, numbers in result["times"].items()
    ]
    how = result["how"]
    return (
        "# The product, step by step\n\n"
        f"`make bench`: {how['repetitions']} VMs one after the other, each installed from a template of 512 MiB,"
        " started, forced down and uninstalled. Parts are named `operation: step`, as the coordinator logs them:"
        " `volume-` steps wait for the array, `domain-` steps for the agent, libvirt and QEMU. Guests run"
        f" {how['accelerator']}.\n"
        f"Machine: {in_words(how['machine'])}.\n\n" + table(["what", "median s", "least s", "most s"], rows)
    )


def accelerator(log: Path) -> str:
    return "on KVM" if "accelerator: kvm" in log.read_text() else "without KVM, in software"


def measure(repetitions: int) -> tuple[Times, str]:
    site = Site(DIRECTORY, NAME, NET)
    site.down()
    job = Job(site, Show(steps=3))
    try:
        job.start()
        job.create_repository()
        job.import_template()
        watch = Stopwatch(job, site.lab.directory / "host1/log/coordinator.log")
        for number in range(repetitions):
            one_life(watch)
            print(f"{number + 1} of {repetitions}", flush=True)
        return watch.taken, accelerator(site.lab.directory / "host1/log/agent.log")
    finally:
        site.down()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pool", description="VM install and start, step by step.")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    before = machine()
    taken, runs_on = measure(options.repetitions)
    times = {
        name: {
            "median_s": round(statistics.median(values), 4),
            "least_s": round(min(values), 4),
            "most_s": round(max(values), 4),
            "all_s": [round(value, 4) for value in values],
        }
        for name, values in taken.items()
        if not name.startswith("before")
    }
    result = {"how": {"repetitions": options.repetitions, "machine": before, "accelerator": runs_on}, "times": times}
    keep("pool", result, page(result))
    print(page(result))


if __name__ == "__main__":
    main()
