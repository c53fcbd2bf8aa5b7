"""A small iSCSI initiator over one raw socket, so that tests can say exactly what goes over the wire (RFC 7143)."""

import hashlib
import secrets
import socket
import struct

LOGIN, TEXT, SCSI, DATA_OUT, NOP_OUT, TASK_MANAGEMENT, LOGOUT, SNACK = 0x03, 0x04, 0x01, 0x05, 0x00, 0x02, 0x06, 0x10
RESERVED = 0xFFFFFFFF
NOP_IN = 0x20
ALGORITHMS = {5: hashlib.md5, 6: hashlib.sha1, 7: hashlib.sha256, 8: hashlib.sha3_256}


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    """The digest of RFC 7143 13.1, from its polynomial: not the engine's implementation."""
    value = 0xFFFFFFFF
    for byte in data:
        value = CRC32C[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


class Refused(Exception):
    """A login that was not granted; ``status`` is class and detail as one number, such as 0x0202."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:#06x}")
        self.status = status


class Pdu:
    def __init__(self, header: bytes, data: bytes) -> None:
        self.header = header
        self.data = data

    @property
    def opcode(self) -> int:
        return self.header[0] & 0x3F

    def word(self, at: int) -> int:
        return int.from_bytes(self.header[at : at + 4], "big")


def encode_text(keys: dict[str, str]) -> bytes:
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in keys.items())


def decode_text(data: bytes) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (item.decode().partition("=") for item in data.split(b"\0") if item)]


class Initiator:
    """One connection. Call ``login``, then send commands; every answer is checked for its opcode by the caller."""

    def __init__(
        self,
        port: int,
        name: str = "iqn.2026-01.test:host1",
        isid: bytes | None = None,
        source: str = "127.0.0.1",
        host: str = "127.0.0.1",
    ) -> None:
        self.socket = socket.create_connection((host, port), timeout=120, source_address=(source, 0))
        self.name = name
        self.isid = isid or bytes([0x80]) + secrets.token_bytes(5)
        self.cmd_sn = 1
        self.tag = 0
        self.header_digest = self.data_digest = False
        self.challenge_to_send: bytes | None = None
        self.agreed: dict[str, str] = {}

    def close(self) -> None:
        self.socket.close()

    # --- PDUs
    def send(self, header: bytearray, data: bytes = b"") -> None:
        header[5:8] = len(data).to_bytes(3, "big")
        wire = bytes(header)
        if self.header_digest:
            wire += struct.pack("<I", crc32c(bytes(header)))
        padded = data + bytes(-len(data) % 4)
        wire += padded
        if self.data_digest and data:
            wire += struct.pack("<I", crc32c(padded))
        self.socket.sendall(wire)

    def take(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            try:
                piece = self.socket.recv(count - len(received))
            except TimeoutError:  # an OSError, as the end of a connection is: tests that expect an end must not take it
                raise AssertionError("the target says nothing, and has not closed the connection") from None
            if not piece:
                raise ConnectionResetError("the target closed the connection")
            received += piece
        return received

    def receive(self) -> Pdu:
        header = self.take(48)
        if self.header_digest:
            assert struct.unpack("<I", self.take(4))[0] == crc32c(header)
        length = int.from_bytes(header[5:8], "big")
        padded = self.take(length + -length % 4)
        if self.data_digest and length:
            assert struct.unpack("<I", self.take(4))[0] == crc32c(padded)
        return Pdu(header, padded[:length])

    def header(self, opcode: int, flags: int, *, immediate: bool = False) -> bytearray:
        header = bytearray(48)
        header[0] = opcode | (0x40 if immediate else 0)
        header[1] = flags
        self.tag += 1
        header[16:20] = self.tag.to_bytes(4, "big")
        header[20:24] = RESERVED.to_bytes(4, "big")
        header[24:28] = self.cmd_sn.to_bytes(4, "big")
        if not immediate:
            self.cmd_sn += 1
        return header

    # --- login
    def login_request(
        self, keys: dict[str, str], stage: int, following: int | None, *, pieces: int = 1
    ) -> dict[str, str]:
        """One login exchange, its text in so many PDUs; the keys answered."""
        text = encode_text(keys)
        step = -(-len(text) // pieces) or 1
        parts = [text[start : start + step] for start in range(0, len(text), step)] or [b""]
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            flags = stage << 2 | (0 if last else 0x40) | (0x80 | following if last and following is not None else 0)
            header = bytearray(48)
            header[0], header[1] = LOGIN | 0x40, flags
            header[8:14] = self.isid
            header[24:28] = self.cmd_sn.to_bytes(4, "big")
            self.send(header, part)
            answer = self.receive()
            assert answer.opcode == 0x23
            status = int.from_bytes(answer.header[36:38], "big")
            if status:
                raise Refused(status)
            assert last or not answer.data
        return dict(decode_text(answer.data))

    def login(
        self,
        target: str | None,
        *,
        user: str = "",
        secret: str = "",
        mutual_secret: str = "",
        algorithms: str = "5",
        keys: dict[str, str] | None = None,
        pieces: int = 1,
    ) -> "Initiator":
        who = {"InitiatorName": self.name, "SessionType": "Normal" if target else "Discovery"}
        who |= {"TargetName": target} if target else {}
        if user:
            self.login_request(who | {"AuthMethod": "CHAP"}, 0, None, pieces=pieces)
            self.chap(user, secret, mutual_secret, algorithms)
        else:
            self.login_request(who | {"AuthMethod": "None"}, 0, 1, pieces=pieces)
        offer = {"HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "Yes", "ImmediateData": "Yes"} | (
            keys or {}
        )
        self.agreed = self.login_request(offer, 1, 3, pieces=pieces)
        self.header_digest = self.agreed["HeaderDigest"] == "CRC32C"
        self.data_digest = self.agreed["DataDigest"] == "CRC32C"
        return self

    def chap(self, user: str, secret: str, mutual_secret: str, algorithms: str) -> None:
        asked = self.login_request({"CHAP_A": algorithms}, 0, None)
        algorithm = ALGORITHMS[int(asked["CHAP_A"])]
        challenge = bytes.fromhex(asked["CHAP_C"][2:])
        response = algorithm(bytes([int(asked["CHAP_I"])]) + secret.encode() + challenge).hexdigest()
        answer = {"CHAP_N": user, "CHAP_R": f"0x{response}"}
        own = self.challenge_to_send if self.challenge_to_send is not None else secrets.token_bytes(16)
        own = challenge if own == b"reflect" else own
        if mutual_secret:
            answer |= {"CHAP_I": "77", "CHAP_C": f"0x{own.hex()}"}
        proved = self.login_request(answer, 0, 1)
        if mutual_secret:
            expected = algorithm(bytes([77]) + mutual_secret.encode() + own).hexdigest()
            assert proved["CHAP_R"] == f"0x{expected}", "the target did not prove itself"

    # --- full feature phase
    def send_targets(self, value: str = "All") -> list[tuple[str, str]]:
        self.send(self.header(TEXT, 0x80), encode_text({"SendTargets": value}))
        answer = self.receive()
        assert answer.opcode == 0x24
        return decode_text(answer.data)

    def command(
        self, cdb: bytes, *, read: int = 0, write: bytes = b"", immediate: bytes = b"", last: bool = True
    ) -> int:
        """Sends a SCSI command; its task tag. ``write`` is announced, ``immediate`` is sent with it."""
        flags = (0x80 if last else 0) | (0x40 if read else 0) | (0x20 if write else 0) | 0x01
        header = self.header(SCSI, flags)
        header[20:24] = max(read, len(write)).to_bytes(4, "big")
        header[32:48] = cdb.ljust(16, b"\0")
        self.send(header, immediate)
        return self.tag

    def data_out(self, tag: int, transfer_tag: int, data_sn: int, offset: int, data: bytes, *, last: bool) -> None:
        header = bytearray(48)
        header[0], header[1] = DATA_OUT, 0x80 if last else 0
        header[16:20] = tag.to_bytes(4, "big")
        header[20:24] = transfer_tag.to_bytes(4, "big")
        header[36:40] = data_sn.to_bytes(4, "big")
        header[40:44] = offset.to_bytes(4, "big")
        self.send(header, data)

    def read10(self, lba: int, blocks: int) -> bytes:
        self.command(struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0), read=blocks * 512)
        data = b""
        while True:
            answer = self.receive()
            assert answer.opcode == 0x25, f"opcode {answer.opcode:#x}, sense {answer.data.hex()}"
            assert answer.word(40) == len(data)
            data += answer.data
            if answer.header[1] & 1:
                return data

    def write10(self, lba: int, data: bytes, *, immediate: int = 0) -> Pdu:
        """Writes by R2T what is not immediate; the response."""
        cdb = struct.pack(">BBIBHB", 0x2A, 0, lba, 0, len(data) // 512, 0)
        tag = self.command(cdb, write=data, immediate=data[:immediate])
        while True:
            answer = self.receive()
            if answer.opcode != 0x31:
                return answer
            offset, end = answer.word(40), answer.word(40) + answer.word(44)
            segment = int(self.agreed.get("MaxRecvDataSegmentLength", "8192"))
            for sn, at in enumerate(range(offset, end, segment)):
                stop = min(at + segment, end)
                self.data_out(tag, answer.word(20), sn, at, data[at:stop], last=stop == end)

    def status_of(self, cdb: bytes, *, read: int = 0) -> tuple[int, str]:
        """Status and sense (key, code, qualifier as hex) of a command."""
        self.command(cdb, read=read)
        answer = self.receive()
        if answer.opcode == 0x25:
            return answer.header[3], ""
        sense = answer.data[2:]
        return answer.header[3], f"{sense[2]:x}/{sense[12]:02x}/{sense[13]:02x}" if sense else ""


class Patient(Initiator):
    """Answers the pings of the target on the way."""

    def receive(self) -> Pdu:
        while (pdu := super().receive()).opcode == NOP_IN and pdu.word(16) == RESERVED:
            answer = self.header(NOP_OUT, 0x80, immediate=True)
            answer[16:24] = RESERVED.to_bytes(4, "big") + pdu.header[20:24]
            self.send(answer)
        return pdu
