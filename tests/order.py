"""In which order tests run, and which of them one process runs: ``make test`` has a process for each core.

A file stays together, for what it makes once. A folder does whose files share something that takes long to start; the
tests of some others share nothing and are long, so that each goes to whichever process is free."""

from typing import Any

from xdist.scheduler import LoadScopeScheduling

# Quick ones first: a wrong name is told before a guest boots.
FOLDERS = ("style", "unit", "seams")
# Then what takes minutes, the longest first; what is short comes last, so that all processes end together.
LONG = (
    "product/hosts/test_live_migration.py",
    "product/host/",
    "product/whole/",
    "product/engine/kernel_initiator/",
    "product/hosts/",
    "product/lab/",
    "fault/engine/",
    "product/clients/",
    "product/sr/test_lvmoiscsi_guest.py",
)
TOGETHER = ("product/host/", "product/engine/kernel_initiator/", "product/clients/")
APART = (
    "unit/pool/steps/test_pool_every_step.py",
    "product/whole/",
    "product/lab/",
    "product/hosts/test_join_and_eject.py",
    "fault/engine/test_kills.py",
)


def _place(path: str, places: tuple[str, ...]) -> int:
    return next((number for number, place in enumerate(places) if path.startswith(place)), len(places))


def _path(test: str) -> str:
    """Below ``tests/``, of a test's name."""
    return test.partition("::")[0].removeprefix("tests/")


def place_of(test: str) -> tuple[int, int]:
    """Tests run in the order of this, and otherwise as they were found."""
    path = _path(test)
    return _place(path, tuple(f"{folder}/" for folder in FOLDERS)), _place(path, LONG)


def unit_of(test: str) -> str:
    """What one process runs: the tests of one answer."""
    path = _path(test)
    if any(path.startswith(place) for place in APART):
        return test
    return next((place for place in TOGETHER if path.startswith(place)), path)


class Scheduler(LoadScopeScheduling):
    """Gives each process the next unit when it has nearly done its last."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def scheduler(config: Any, log: Any) -> Scheduler:
    config.option.loadscopereorder = False  # the order is ours
    return Scheduler(config, log)
