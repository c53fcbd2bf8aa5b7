"""What initiators set by MODE SELECT: the write cache and the thresholds of provisioning, for all sessions alike."""

import time
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, Target
from tests.product.engine.conftest import MIB, NAME
from tests.product.engine.initiator import TASK_MANAGEMENT, Initiator
from tests.product.engine.mode_pages import CACHING, WRITE_CACHE_ENABLED, mode_page, mode_select

pytestmark = pytest.mark.engine
PROVISIONING = (0x1C, 2)
TEST_UNIT_READY = bytes(6)


@pytest.fixture
def sessions(serve: Callable[..., Target], connect: Callable[..., Initiator]) -> list[Initiator]:
    serve(Access(), multihost=True)
    return [connect(name=f"iqn.2026-01.test:host{number}").login(NAME) for number in (1, 2)]


def test_the_write_cache_is_switched_for_all_until_a_reset(sessions: list[Initiator]) -> None:
    one, other = sessions
    page = bytearray(mode_page(one, *CACHING))
    assert page[2] & WRITE_CACHE_ENABLED, "cached at first"
    page[2] &= ~WRITE_CACHE_ENABLED
    assert mode_select(one, bytes(page)) == 0
    assert other.status_of(TEST_UNIT_READY) == (2, "6/2a/01")
    assert mode_page(other, *CACHING)[2] & WRITE_CACHE_ENABLED == 0
    assert one.write10(0, b"\x01" * 512).header[3] == 0
    one.send(one.header(TASK_MANAGEMENT, 0x80 | 5, immediate=True))
    assert one.receive().header[2] == 0
    assert one.status_of(TEST_UNIT_READY) == (2, "6/29/03")
    assert mode_page(one, *CACHING)[2] & WRITE_CACHE_ENABLED, "nothing is saved"


def test_a_threshold_of_used_space_is_told_to_every_session_once(sessions: list[Initiator]) -> None:
    one, other = sessions
    page = bytearray(mode_page(one, *PROVISIONING))
    page[24] |= 0x80
    page[28:32] = (4).to_bytes(4, "big")
    assert mode_select(one, bytes(page)) == 0
    assert other.status_of(TEST_UNIT_READY) == (2, "6/2a/01")
    assert all(session.status_of(TEST_UNIT_READY) == (0, "") for session in sessions)
    for piece in range(5):
        assert one.write10(piece * 2048, b"\x01" * MIB).header[3] == 0
    for session in sessions:
        deadline = time.monotonic() + 120
        while (told := session.status_of(TEST_UNIT_READY)) == (0, ""):
            assert time.monotonic() < deadline, "nobody was told"
            time.sleep(0.05)
        assert told == (2, "6/38/07")
        assert session.status_of(TEST_UNIT_READY) == (0, "")
