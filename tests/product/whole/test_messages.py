"""A request that is new at the engine's socket is either struck at, or named as one that changes nothing."""

from gespann.seams.engine_socket import REQUESTS
from tests.product.whole.messages import ENGINE_OPS, ENGINE_QUESTIONS


def test_every_request_of_the_engine_counts_or_only_asks() -> None:
    """``tests/seams/engine_socket`` holds the engine to these same requests."""
    assert sorted([*ENGINE_OPS, *ENGINE_QUESTIONS]) == sorted(request.op for request in REQUESTS)
