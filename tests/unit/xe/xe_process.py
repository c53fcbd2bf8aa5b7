"""The real ``bin/xe`` as a process, against the real engine behind a small HTTP door on real sockets."""

import asyncio
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from gespann.xe.server import serve_cli
from tests.unit.xe.fake_xenapi import FakeXenApi

ROOT = Path(__file__).resolve().parents[3]
XE = ROOT / "bin/xe"


@dataclass
class Door:
    """Reads the request as the coordinator's HTTP server would, and hands the connection over. ``files``: what GET
    gives and PUT leaves. ``fails``: the error that such a transfer's task ends with when everything has been sent."""

    api: FakeXenApi
    local_root: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)
    puts: list[str] = field(default_factory=list)
    fails: list[str] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            header = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(header)
            fields = dict(line.lower().split(b": ", 1) for line in header.split(b"\r\n")[1:] if b": " in line)
            chunked = fields.get(b"transfer-encoding") == b"chunked"
            body = await (_chunks(reader) if chunked else reader.readexactly(int(fields.get(b"content-length", b"0"))))
            verb, target = header.split(b" ")[:2]
            if verb == b"POST":
                await serve_cli(self.api, body, reader, writer, local_root=self.local_root)
            else:
                await self._file(verb, target.decode(), body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _file(self, verb: bytes, target: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        path, _, query = target.partition("?")
        if path.startswith("/import_raw_vdi"):
            self.files[path] = body
            self.puts.append(target)
        found = self.files.get(path)
        task = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair).get("task_id", "")
        if found is None:
            writer.write(b"HTTP/1.0 404 Not Found\r\n\r\n")
        else:
            sent = found if verb in (b"GET", b"CONNECT") else b""
            writer.write(b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent)
            if task in self.api.db["task"]:
                ended = {"status": "failure", "error_info": self.fails} if self.fails else {"status": "success"}
                self.api.db["task"][task] |= {**ended, "progress": 1.0}
                self.api._touch("task", task)
        await writer.drain()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


@dataclass
class Ended:
    stdout: str
    stderr: str
    status: int


async def run_xe(home: Path, *words: str, typed: str = "", **environment: str) -> Ended:
    """One ``xe`` with a home of its own."""
    out, err, status = await run_xe_on_bytes(home, *words, typed=typed.encode(), **environment)
    return Ended(out.decode(), err, status)


async def run_xe_on_bytes(home: Path, *words: str, typed: bytes = b"", **environment: str) -> tuple[bytes, str, int]:
    """The same in a pipeline: output, errors, status."""
    clean = {"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment}
    process = await asyncio.create_subprocess_exec(
        str(XE),
        *words,
        env=clean,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate(typed)
    return out, err.decode(), process.returncode or 0


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
