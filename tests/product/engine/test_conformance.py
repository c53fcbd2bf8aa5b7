"""libiscsi's conformance suite: every test passes but those that need what this disk is not."""

from pathlib import Path

import pytest

from tests.product.engine import conformance
from tests.product.engine.conformance import FIRST_RUN_WRONG, SKIPS, run_all, verdict

pytestmark = pytest.mark.engine

SUMMARY = "suites 1 1 n/a 0 0\n tests {tests} {tests} 1 0 0\n asserts {asserts} {asserts} {good} {bad} n/a"


def summary(asserts: int, bad: int = 0, tests: int = 1) -> str:
    return SUMMARY.format(tests=tests, asserts=asserts, good=asserts - bad, bad=bad)


def test_every_test_passes_or_is_listed_with_its_reason(engine_path: Path, tmp_path: Path) -> None:
    names = conformance.tests_of("SCSI") + conformance.tests_of("iSCSI")
    assert len(names) > 200, "iscsi-test-cu lists its tests"
    assert set(names) >= set(SKIPS) | set(FIRST_RUN_WRONG)
    results = run_all(names, engine_path, tmp_path, lambda result: print(result.line(), flush=True))
    surprises = [f"{result.line()}\n{result.output}" for result in results if not result.expected]
    assert not surprises, "\n".join(surprises)
    assert len(results) == len(names)


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("SCSI.Read10.Simple", summary(4), "pass"),
        ("SCSI.Read10.Simple", summary(4, 1), "fail"),
        ("SCSI.Read10.Simple", "killed", "fail"),
        ("SCSI.Inquiry.VersionDescriptors", summary(0), "pass"),
        ("SCSI.Read10.Simple", "[SKIPPED] READ10 is not implemented.\n" + summary(1), "skip"),
        ("SCSI.Read10.Simple", "[SKIPPED] PERSISTENT RESERVE IN is not implemented.\n" + summary(1), "pass"),
        ("SCSI.PrinReadKeys.Simple", "[SKIPPED] PERSISTENT RESERVE IN is not implemented.\n" + summary(1), "skip"),
    ],
)
def test_a_verdict_is_what_the_test_printed(name: str, output: str, expected: str) -> None:
    assert verdict(name, output) == expected


def test_a_test_whose_first_run_is_wrong_passes_only_by_its_second() -> None:
    (name, known), *_ = FIRST_RUN_WRONG.items()
    runs = {word: f"Test: {name.rpartition('.')[2]} ...{word}\n" for word in ("FAILED", "passed")}
    assert verdict(name, runs["FAILED"] + known + runs["passed"] + summary(23, 1, 2)) == "pass"
    assert verdict(name, runs["FAILED"] + known + runs["FAILED"] + summary(23, 2, 2)) == "fail"
    assert verdict(name, runs["FAILED"] + "another\n" + runs["passed"] + summary(23, 1, 2)) == "fail"
    assert verdict(name, runs["FAILED"] + known + summary(23, 1)) == "fail"
