"""A session with many commands in flight, for writers that must be fast: one thread drives all of them."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.product.engine.initiator import Initiator

NOP_IN, RESPONSE, DATA_IN, R2T, ASYNC = 0x20, 0x21, 0x25, 0x31, 0x32
NOP_OUT, COMMAND, DATA_OUT = 0x40, 0x01, 0x05
RECEIVE_BYTES = 262_144
UNIT_ATTENTION = 6


@dataclass(slots=True)
class Command:
    """``done(status, sense, data)`` is called with the answer; sense is key, code and qualifier, such as "7/27/07"."""

    cdb: bytes
    done: Callable[[int, str, bytes], None]
    write: bytes = b""
    read_bytes: int = 0
    immediate: bool = True


def write16(block: int, data: bytes, *, fua: bool = False) -> bytes:
    return struct.pack(">BBQIBB", 0x8A, 0x08 if fua else 0, block * 8, len(data) // 512, 0, 0)


def read16(block: int, blocks: int) -> bytes:
    return struct.pack(">BBQIBB", 0x88, 0, block * 8, blocks * 8, 0, 0)


def unmap(block: int, blocks: int) -> tuple[bytes, bytes]:
    """CDB and parameter list."""
    listed = struct.pack(">HHIQII", 22, 16, 0, block * 8, blocks * 8, 0)
    return struct.pack(">BBIBHB", 0x42, 0, 0, 0, len(listed), 0), listed


SYNCHRONIZE_CACHE = b"\x35" + bytes(15)


class Session:
    def __init__(self, port: int, iqn: str) -> None:
        initiator = Initiator(port)
        keys = {"MaxRecvDataSegmentLength": str(RECEIVE_BYTES), "InitialR2T": "Yes"}
        initiator.login(iqn, keys=keys)
        self.socket = initiator.socket
        self.socket.setblocking(False)
        self.cmd_sn = initiator.cmd_sn
        self.expected_stat_sn = 0
        self.tag = 0
        self.commands: dict[int, tuple[Command, bytearray]] = {}
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.ended = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.ended = True
        self.socket.close()

    def submit(self, command: Command) -> None:
        self.tag += 1
        self.commands[self.tag] = (command, bytearray(command.read_bytes))
        immediate = command.write if command.immediate else b""
        direction = 0x40 if command.read_bytes else 0x20 if command.write else 0
        header = self._header(direction, len(immediate), command)
        self.cmd_sn += 1
        self.outbox += header + immediate + bytes(-len(immediate) % 4)

    def _header(self, direction: int, immediate_bytes: int, command: Command) -> bytes:
        expected = command.read_bytes or len(command.write)
        fields = (immediate_bytes, 0, self.tag, expected, self.cmd_sn & 0xFFFFFFFF, self.expected_stat_sn)
        return struct.pack(">BBHIQIIII16s", COMMAND, 0x81 | direction, 0, *fields, command.cdb.ljust(16, b"\0"))

    def push(self) -> None:
        """Sends as much as the system takes now."""
        try:
            while self.outbox:
                del self.outbox[: self.socket.send(memoryview(self.outbox)[: 1 << 20])]
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True

    def pull(self) -> None:
        """Takes what has arrived, and calls back for each answer."""
        try:
            while not self.ended:
                piece = self.socket.recv(1 << 20)
                self.ended = not piece
                self.inbox += piece
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        self._take_pdus()

    def take_some(self) -> None:
        """Waits for bytes, on a socket that blocks."""
        piece = self.socket.recv(1 << 20)
        if not piece:
            raise ConnectionResetError("the target closed the connection")
        self.inbox += piece
        self._take_pdus()

    def _take_pdus(self) -> None:
        at = 0
        while len(self.inbox) - at >= 48:
            length = int.from_bytes(self.inbox[at + 5 : at + 8], "big")
            end = at + 48 + length + -length % 4
            if len(self.inbox) < end:
                break
            header = bytes(self.inbox[at : at + 48])
            self._take(header, bytes(self.inbox[at + 48 : at + 48 + length]))
            at = end
        del self.inbox[:at]

    def _take(self, header: bytes, data: bytes) -> None:
        opcode = header[0] & 0x3F
        tag, transfer = struct.unpack_from(">II", header, 16)
        stat_sn = struct.unpack_from(">I", header, 24)[0]
        if opcode == DATA_IN:
            offset = struct.unpack_from(">I", header, 40)[0]
            self.commands[tag][1][offset : offset + len(data)] = data
            if not header[1] & 1:
                return
            self._answered(tag, stat_sn, header[3], b"")
        elif opcode == RESPONSE:
            self._answered(tag, stat_sn, header[3], data)
        elif opcode == R2T:
            self._data_out(tag, transfer, *struct.unpack_from(">II", header, 40))
        elif opcode == NOP_IN and transfer != 0xFFFFFFFF:
            self.outbox += struct.pack(
                ">BBHIQIIII16x", NOP_OUT, 0x80, 0, 0, 0, 0xFFFFFFFF, transfer, self.cmd_sn, self.expected_stat_sn
            )
        elif opcode not in {NOP_IN, ASYNC}:
            raise AssertionError(f"unexpected PDU {header.hex()}")

    def _data_out(self, tag: int, transfer: int, offset: int, length: int) -> None:
        data = self.commands[tag][0].write[offset : offset + length]
        self.outbox += struct.pack(
            ">BBHIQIIIIIII4x", DATA_OUT, 0x80, 0, length, 0, tag, transfer, 0, self.expected_stat_sn, 0, 0, offset
        )
        self.outbox += data

    def _answered(self, tag: int, stat_sn: int, status: int, data: bytes) -> None:
        self.expected_stat_sn = (stat_sn + 1) & 0xFFFFFFFF
        command, read = self.commands.pop(tag)
        sense = data[2:]
        if status == 2 and sense and sense[2] & 15 == UNIT_ATTENTION:
            self.submit(command)  # not done: the news came instead (SAM-5 5.14)
            return
        told = f"{sense[2] & 15:x}/{sense[12]:02x}/{sense[13]:02x}" if len(sense) > 13 else ""
        command.done(status, told, bytes(read))
