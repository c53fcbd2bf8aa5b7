"""EXTENDED COPY (LID1) as an initiator sends it: SPC-4 6.4, one segment from blocks to blocks."""

import struct

from tests.product.engine.initiator import Initiator


def send(session: Initiator, cdb: bytes, data: bytes) -> tuple[int, str]:
    """Status and sense of a command whose data goes with it."""
    session.command(cdb, write=data, immediate=data)
    answer = session.receive()
    sense = answer.data[2:]
    return answer.header[3], f"{sense[2]:x}/{sense[12]:02x}/{sense[13]:02x}" if sense else ""


def copy_list(source: str, target: str, blocks: int = 128, source_lba: int = 0, target_lba: int = 0) -> bytes:
    """The parameter list: two volumes by their NAA names, blocks of 512 bytes."""

    def named(naa: str) -> bytes:
        return bytes([0xE4, 0, 0, 0, 1, 3, 0, 16]) + bytes.fromhex(naa) + bytes(5) + (512).to_bytes(3, "big")

    segment = struct.pack(">BBHHHHHQQ", 2, 0, 24, 0, 1, 0, blocks, source_lba, target_lba)
    return struct.pack(">BBHIII", 7, 0, 64, 0, len(segment), 0) + named(source) + named(target) + segment


def extended_copy(session: Initiator, parameters: bytes) -> tuple[int, str]:
    return send(session, b"\x83" + bytes(9) + len(parameters).to_bytes(4, "big"), parameters)
