"""What all tests share: where the built engine is, who may run real guests, in which order folders run, and which
random input is tried."""

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import order

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / "build/engine/release/gespann-engine"
GUEST_IMAGE = ROOT / "var/cache/guest.img"
MEMORY = Path("/dev/shm")
DESCRIPTORS = 16384

# Short, as the paths of sockets have 107 bytes at most, and seen from a lab's nodes, which have a /var of their own.
os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

# Thousands of connections at once are tried: the limit that a shell gives is often 1,024.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= _soft < DESCRIPTORS:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS if _hard < 0 else min(_hard, DESCRIPTORS), _hard))

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> order.Scheduler:
    return order.scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: order.place_of(item.nodeid))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("real") is not None and os.geteuid() != 0:
        pytest.fail("real guests run in namespaces: run as root", pytrace=False)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """In memory, where no power is cut: a coordinator's database and a group's state wait for the disk at each commit,
    half the time of their tests. Engines and guests have the disk."""
    on_disk = any(request.node.get_closest_marker(name) for name in ("engine", "real"))
    if on_disk or not os.access(MEMORY, os.W_OK):
        yield tmp_path
    else:
        with tempfile.TemporaryDirectory(prefix="gespann-", dir=MEMORY) as made:
            yield Path(made)


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
