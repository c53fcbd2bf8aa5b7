"""Runs libiscsi's conformance suite against a target, one process per test, and counts what its own summary does not.

Usage: ``python tests/product/engine/conformance.py iscsi://host:port/target/0 [second-url] [--test FAMILY.SUITE]``

The suite's summary counts a skipped test as passed, and one process for all of it corrupts its heap in libiscsi 1.19;
so each test has its own process, and a skip is what the test prints. A test that hangs is killed and counts as failed.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter

SUITE = "iscsi-test-cu"
TIMEOUT_S = 60


def tests_of(prefix: str) -> list[str]:
    """All leaf tests under a prefix such as ``SCSI`` or ``iSCSI.iSCSITMF``."""
    listed = subprocess.run([SUITE, "-l"], capture_output=True, text=True, check=False).stdout.split()
    return [name for name in listed if name.count(".") == 2 and (name + ".").startswith(prefix.rstrip(".") + ".")]


# The suite tries to clear persistent reservations before and after every test and says so each time.
SETUP_NOISE = "[SKIPPED] PERSISTENT RESERVE IN is not implemented."


# What fails against every target, and what it prints then. Any other failure of these tests counts.
WRONG_TESTS = {
    # libiscsi 1.19 sets this variable in the callback of the reset, and compares it before any callback can have run.
    "iSCSI.iSCSITMF.LUNResetSimpleAsync": "CU_ASSERT_EQUAL(reconnect_succeeded,1)",
}


def verdict(name: str, output: str) -> str:
    """``pass``, ``fail``, ``skip``, or ``wrong`` for a test that cannot pass, from what one test printed."""
    if not re.search(r"\.Pr(in|out)[A-Z]", name):
        output = output.replace(SETUP_NOISE, "")
    asserts = re.search(r"asserts\s+\d+\s+\d+\s+(\d+)\s+(\d+)", output)
    if asserts is None or int(asserts.group(2)) > 0:
        known = asserts is not None and int(asserts.group(2)) == 1 and name in WRONG_TESTS
        return "wrong" if known and WRONG_TESTS[name] in output else "fail"
    return "skip" if "[SKIPPED]" in output else "pass"


def run_one(name: str, urls: list[str]) -> tuple[str, str]:
    """The verdict of one test, and its output."""
    command = [SUITE, "--dataloss", "--allow-sanitize", "--test", name, *urls]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, errors="replace")
    except subprocess.TimeoutExpired as hung:
        return "fail", f"no end after {TIMEOUT_S} s\n{hung.stdout}"
    if done.returncode < 0:
        return "fail", f"killed by signal {-done.returncode}\n{done.stdout}{done.stderr}"
    return verdict(name, done.stdout + done.stderr), done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--test", action="append", default=[], help="family or suite; default: all of SCSI and iSCSI")
    parser.add_argument("--output", help="file for the output of tests that did not pass")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    kept = open(arguments.output, "w") if arguments.output else None  # noqa: SIM115
    for name in [test for prefix in arguments.test or ["SCSI", "iSCSI"] for test in tests_of(prefix)]:
        result, output = run_one(name, arguments.urls)
        counts[result] += 1
        print(f"{result:5} {name}", flush=True)
        if kept and result != "pass":
            print(f"===== {result} {name}\n{output}", file=kept, flush=True)
    wrong = f", {counts['wrong']} not countable (the test itself is wrong)" if counts["wrong"] else ""
    print(f"total: {counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped{wrong}")
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
