"""The stock ``xe`` on the wire: its protocol written down once more from its description, not from our code, so that
both sides cannot be wrong together.

Frames are an int32 length and that many bytes, all integers little-endian; a frame is a tag (9 a command of the server,
10 a response, 11 a piece of a file), a second tag, and what belongs to it. Bytes of a file follow their frame bare.
"""

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

GREETING = b"XenSource thin CLI protocol" + struct.pack("<ii", 0, 2)
COMMAND, RESPONSE, BLOB = 9, 10, 11
OK, FAILED, WAIT = 5, 6, 18
CHUNK, END = 7, 8


@dataclass
class ThinClient:
    """``stream``: to the pool. ``fetch``: where HTTP transfers go. ``typed``: answers to prompts."""

    stream: socket.socket
    fetch: socket.socket | None = None
    typed: list[str] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    status: int = 1

    def run(self, *words: str) -> "ThinClient":
        body = "\n".join(words).encode()
        head = "POST /cli HTTP/1.0\r\nUser-agent: xe-cli/Unix/0.2\r\noriginator: cli\r\n"
        self.stream.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert self._exactly(len(GREETING)) == GREETING  # no HTTP answer before it
        self.stream.sendall(GREETING)
        while first := self.stream.recv(1):
            (length,) = struct.unpack("<i", first + self._exactly(3))
            if not self._obey(self._exactly(length)):
                break
        self.stream.close()
        return self

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.stream.recv(count - len(data))
            assert piece, "the server closed in the middle of a frame"
            data += piece
        return data

    def _obey(self, frame: bytes) -> bool:
        family, tag = struct.unpack_from("<ii", frame)
        assert family == COMMAND, frame
        rest = frame[8:]
        match tag:
            case 0:  # Print
                self.stdout += _text(rest)[0] + "\n"
            case 16:  # PrintStderr
                self.stderr += _text(rest)[0]
            case 14:  # Error
                code, rest = _text(rest)
                params, rest = [], rest[4:]
                while rest:
                    param, rest = _text(rest)
                    params.append(param)
                self.stderr += f"Error code: {code}\nError parameters: {', '.join(params)}\n"
            case 3:  # Prompt
                answer = self.typed.pop(0).encode()
                self._send(struct.pack("<iii", BLOB, CHUNK, len(answer)))
                self.stream.sendall(answer)
                self._send(struct.pack("<ii", BLOB, END))
            case 1:  # Load
                self._load(Path(_text(rest)[0]))
            case 12:  # HttpGet
                name, rest = _text(rest)
                self._download(Path(name), _text(rest)[0])
            case 13:  # HttpPut
                name, rest = _text(rest)
                self._upload(Path(name), _text(rest)[0])
            case 4:  # Exit
                (self.status,) = struct.unpack("<i", rest)
                return False
            case _:
                raise AssertionError(f"command {tag}")
        return True

    def _download(self, path: Path, url: str) -> None:
        assert self.fetch is not None
        self._send(struct.pack("<ii", RESPONSE, WAIT))
        self.fetch.sendall(f"GET {url} HTTP/1.0\r\n\r\n".encode())
        received = b""
        while data := self.fetch.recv(65536):
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        ok = b" 200 " in head.split(b"\r\n")[0]
        if ok:
            path.write_bytes(body)
        self._send(struct.pack("<ii", RESPONSE, OK if ok else FAILED))

    def _load(self, path: Path) -> None:
        if not path.is_file():
            self._send(struct.pack("<ii", RESPONSE, FAILED))
            return
        self._send(struct.pack("<ii", RESPONSE, OK))
        data = path.read_bytes()
        for piece in (data[:100], data[100:]):
            self._send(struct.pack("<iii", BLOB, CHUNK, len(piece)))
            self.stream.sendall(piece)
        self._send(struct.pack("<ii", BLOB, END))

    def _upload(self, path: Path, url: str) -> None:
        """The head, and the file only once that has been answered."""
        assert self.fetch is not None
        data = path.read_bytes()
        self.fetch.sendall(f"PUT {url} HTTP/1.0\r\ncontent-length: {len(data)}\r\n\r\n".encode())
        head = self.fetch.recv(65536)
        self._send(struct.pack("<ii", RESPONSE, WAIT))
        ok = b" 200 " in head.split(b"\r\n")[0]
        if ok:
            self.fetch.sendall(data)
            while self.fetch.recv(65536):
                pass
        self._send(struct.pack("<ii", RESPONSE, OK if ok else FAILED))

    def _send(self, frame: bytes) -> None:
        self.stream.sendall(struct.pack("<i", len(frame)) + frame)


def _text(data: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack_from("<i", data)
    return data[4 : 4 + length].decode(), data[4 + length :]
