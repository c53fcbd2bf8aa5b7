"""MODE SENSE and MODE SELECT of single pages."""

from tests.product.engine.initiator import Initiator

CACHING = (0x08, 0)
WRITE_CACHE_ENABLED = 0x04  # in byte 2 of the caching page


def mode_page(session: Initiator, code: int, subpage: int) -> bytes:
    session.command(bytes([0x5A, 8, code, subpage, 0, 0, 0, 0, 255, 0]), read=255)
    return session.receive().data[8:]


def mode_select(session: Initiator, page: bytes) -> int:
    parameters = bytes(8) + page
    session.command(bytes([0x55, 0x10, 0, 0, 0, 0, 0, 0, len(parameters), 0]), write=parameters, immediate=parameters)
    return session.receive().header[3]
