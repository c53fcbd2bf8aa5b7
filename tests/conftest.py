"""What all tests share: where the built engine is, who may run real guests, in which order folders run, and which
random input is tried."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / "build/engine/release/gespann-engine"
GUEST_IMAGE = ROOT / "var/cache/guest.img"

# What `make test` runs is the same each time: luck belongs to `make search`, whose finds become examples of a test.
# No profile looks at a clock: a slow machine finds the same.
settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "search",
    settings.get_profile("same"),
    derandomize=False,
    max_examples=int(os.environ.get("GESPANN_EXAMPLES", "5000")),
    print_blob=True,
)
settings.load_profile("same")

# Quick ones first: a wrong name is told before a guest boots.
FOLDERS = ("style", "unit", "seams", "sim", "product", "fault")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def when(item: pytest.Item) -> tuple[bool, int]:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return item.get_closest_marker("real") is not None, FOLDERS.index(folder) if folder in FOLDERS else 99

    items.sort(key=when)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("real") is not None and os.geteuid() != 0:
        pytest.fail("real guests run in namespaces: run as root", pytrace=False)


@pytest.fixture(scope="session")
def engine_path() -> Path:
    """The built engine. Missing is a failure, not a skip: `make test` builds it."""
    if not ENGINE.exists():
        pytest.fail(f"{ENGINE} is missing: run setup/prepare test", pytrace=False)
    return ENGINE


@pytest.fixture(scope="session")
def guest_image() -> Path:
    """The small Linux that real guests boot, a raw disk image. Not to be written: copy it."""
    if not GUEST_IMAGE.exists():
        pytest.fail(f"{GUEST_IMAGE} is missing: run setup/prepare test", pytrace=False)
    return GUEST_IMAGE
