"""Runs libiscsi's conformance suite against engines of its own, one process per test: ``make conformance``.

The suite's summary counts a skipped test as passed, and one process for all of it corrupts its heap in libiscsi 1.19;
so each test has its own process, and a skip is what the test prints, which some do only if asked to be verbose. A test
that hangs is killed and counts as failed. Each test runs on the disk that it was written for, through two portals of
its target, so that the tests of several paths run too. Two workers, each with an engine of its own, share the tests.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gespann.seams.engine_socket import Access, Configure, Target, VolumeCreate
from tests.own_nets import free_port
from tests.product.engine.engine_process import EngineProcess

SUITE = "iscsi-test-cu"
ENGINE = Path("build/engine/release/gespann-engine")
WORKERS = 2
# One test sleeps for a minute between two looks at a disk that is being sanitized.
TIMEOUT_S = 240
MIB = 1 << 20
REMOVABLE = "needs removable media"

# What may be skipped, and why. A test that is listed and passes is as wrong as one that is skipped and not listed.
SKIPS = {
    "SCSI.NoMedia.NoMediaSBC": REMOVABLE,
    "SCSI.PreventAllow.Simple": REMOVABLE,
    "SCSI.PreventAllow.Eject": REMOVABLE,
    "SCSI.PreventAllow.ITNexusLoss": REMOVABLE,
    "SCSI.PreventAllow.Logout": REMOVABLE,
    "SCSI.PreventAllow.WarmReset": REMOVABLE,
    "SCSI.PreventAllow.ColdReset": REMOVABLE,
    "SCSI.PreventAllow.LUNReset": REMOVABLE,
    "SCSI.PreventAllow.2ITNexuses": REMOVABLE,
    "SCSI.StartStopUnit.Simple": REMOVABLE,
    "SCSI.StartStopUnit.PwrCnd": REMOVABLE,
    "SCSI.StartStopUnit.NoLoej": REMOVABLE,
}

# libiscsi 1.19 sets this variable in the callback of the reset, and compares it before any callback can have run: the
# first run in a process fails against every target. When it is over the callback has run and the variable is set, so
# the second run in the same process is the test that was meant. Every family is asked for it, and it is in two.
FIRST_RUN_WRONG = {"iSCSI.iSCSITMF.LUNResetSimpleAsync": "CU_ASSERT_EQUAL(reconnect_succeeded,1)"}

# The suite tries to clear persistent reservations before and after every test and says so each time.
SETUP_NOISE = "[SKIPPED] PERSISTENT RESERVE IN is not implemented."
# What a disk does not restrict is no test left out.
NO_RESTRICTION = re.compile(r"\[SKIPPED\] No (alignment|granularity) restrictions on this LUN")


@dataclass(frozen=True)
class Disk:
    """A volume and how its target shows it; ``tests`` says which tests need it (all others run on ``thin``)."""

    volume: str
    size_bytes: int = 64 * MIB
    physical_block_size: int = 0
    read_only: bool = False
    tests: str = r"(?!)"

    @property
    def target(self) -> Target:
        return Target(
            volume=self.volume,
            name=f"iqn.2026-01.test:{self.volume[-4:]}",
            online=True,
            multihost=True,
            access=[Access()],
            physical_block_size=self.physical_block_size,
            read_only=self.read_only,
        )


THIN = Disk("6090a028a030f846d8d6546fbd010001")
DISKS = [
    # So short that WRITE SAME may go to its end by asking for zero blocks, if not from its beginning.
    Disk("6090a028a030f846d8d6546fbd010002", size_bytes=24 * MIB, tests=r"SCSI\.WriteSame1[06]\.ZeroBlocks"),
    # Several logical blocks in a physical one.
    Disk(
        "6090a028a030f846d8d6546fbd010003",
        physical_block_size=4096,
        tests=r"SCSI\.(WriteSame1[06]\.(UnmapUnaligned|InvalidDataOutSize)|CompareAndWrite\.InvalidDataOutSize)",
    ),
    Disk("6090a028a030f846d8d6546fbd010004", read_only=True, tests=r"SCSI\.ReadOnly\."),
    # So long that overwriting it lasts while the test resets everything.
    Disk("6090a028a030f846d8d6546fbd010005", size_bytes=3072 * MIB, tests=r"SCSI\.Sanitize\.Reset"),
    THIN,
]


def tests_of(prefix: str) -> list[str]:
    """All leaf tests under a prefix such as ``SCSI`` or ``iSCSI.iSCSITMF``."""
    listed = subprocess.run([SUITE, "-l"], capture_output=True, text=True, check=False).stdout.split()
    return [name for name in listed if name.count(".") == 2 and (name + ".").startswith(prefix.rstrip(".") + ".")]


def disk_of(name: str) -> Disk:
    return next((disk for disk in DISKS if re.match(disk.tests, name)), THIN)


def verdict(name: str, output: str) -> str:
    """``pass``, ``fail`` or ``skip``, from what one test printed."""
    if not re.search(r"\.Pr(in|out)[A-Z]", name):
        output = output.replace(SETUP_NOISE, "")
    output = NO_RESTRICTION.sub("", output)
    asserts = re.search(r"asserts\s+\d+\s+(\d+)\s+\d+\s+(\d+)", output)
    if asserts is None:
        return "fail"
    known = FIRST_RUN_WRONG.get(name)
    if known is not None:
        runs = re.findall(rf"Test: {name.rpartition('.')[2]} \.\.\.(?:.*?\n)??(FAILED|passed)", output, re.DOTALL)
        meant = runs == ["FAILED", "passed"]
        return "pass" if meant and int(asserts.group(2)) == 1 and known in output else "fail"
    if int(asserts.group(2)) > 0:
        return "fail"
    return "skip" if "[SKIPPED]" in output else "pass"


def run_one(name: str, urls: list[str]) -> tuple[str, str]:
    """The verdict of one test, and its output."""
    asked = "*." + name.partition(".")[2] if name in FIRST_RUN_WRONG else name
    command = [SUITE, "--dataloss", "--allow-sanitize", "--Verbose-scsi", "--test", asked, *urls]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, errors="replace")
    except subprocess.TimeoutExpired as hung:
        return "fail", f"no end after {TIMEOUT_S} s\n{hung.stdout!r}"
    output = done.stdout + done.stderr
    if done.returncode < 0:
        return "fail", f"killed by signal {-done.returncode}\n{output}"
    return verdict(name, output), output


@dataclass(frozen=True)
class Result:
    name: str
    verdict: str
    output: str

    @property
    def expected(self) -> bool:
        return self.verdict == ("skip" if self.name in SKIPS else "pass")

    def line(self) -> str:
        reason = SKIPS.get(self.name) if self.verdict == "skip" else ""
        if not self.expected and self.verdict != "fail":
            reason = "nobody has said that it may be skipped" if self.verdict == "skip" else "listed as skipped"
        return f"{self.verdict:5} {self.name}" + (f" ({reason})" if reason else "")


def serve_disks(engine: Path, folder: Path) -> tuple[EngineProcess, dict[Disk, list[str]]]:
    """A started engine with all disks, and each one's two URLs."""
    process, second = EngineProcess(engine, folder), free_port()
    process.options = ["--portal", f"127.0.0.1:{second}"]
    try:
        control = process.start()
        for disk in DISKS:
            control.call(VolumeCreate(volume=disk.volume, size_bytes=disk.size_bytes))
        control.call(Configure(targets=[disk.target for disk in DISKS], chap_users=[]))
        control.close()
    except BaseException:
        process.stop()
        raise
    ports = (process.port, second)
    return process, {disk: [f"iscsi://127.0.0.1:{port}/{disk.target.name}/0" for port in ports] for disk in DISKS}


def run_all(names: list[str], engine: Path, folder: Path, tell: Callable[[Result], None]) -> list[Result]:
    """Every named test, by two workers; the long one begins first."""
    waiting = iter(sorted(names, key=lambda name: disk_of(name).size_bytes, reverse=True))
    results: list[Result] = []
    lock = threading.Lock()

    def take() -> Iterator[str]:
        while True:
            with lock:
                name = next(waiting, None)
            if name is None:
                return
            yield name

    def work(number: int) -> None:
        own = folder / str(number)
        own.mkdir()
        process, urls = serve_disks(engine, own)
        try:
            for name in take():
                result = Result(name, *run_one(name, urls[disk_of(name)]))
                with lock:
                    results.append(result)
                    tell(result)
        finally:
            process.stop()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(min(WORKERS, len(names)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(results) < len(names):
        missing = len(names) - len(results)
        raise RuntimeError(f"{missing} tests did not run: an engine did not start")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, default=ENGINE)
    parser.add_argument("--test", action="append", default=[], help="family or suite; default: all of SCSI and iSCSI")
    parser.add_argument("--output", type=Path, help="file for the output of tests that did not pass")
    arguments = parser.parse_args()
    names = [test for prefix in arguments.test or ["SCSI", "iSCSI"] for test in tests_of(prefix)]
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        results = run_all(names, arguments.engine.resolve(), Path(folder), lambda one: print(one.line(), flush=True))
    if arguments.output:
        kept = [f"===== {one.line()}\n{one.output}" for one in results if one.verdict != "pass"]
        arguments.output.write_text("\n".join(kept))
    counts = Counter(result.verdict for result in results)
    surprises = sorted(result.line() for result in results if not result.expected)
    print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped")
    if surprises:
        print("Not as expected:", *surprises, sep="\n  ")
    return 1 if surprises or not results else 0


if __name__ == "__main__":
    sys.exit(main())
