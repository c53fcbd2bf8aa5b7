"""Readers by NBD at a world's door: programs of others, and one that says whatever a test wants."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gespann.pool.nbd import handshake as nbd
from gespann.system import processes


@dataclass(frozen=True)
class Place:
    """What VDI.get_nbd_info tells, and a directory for what clients want in files."""

    info: dict[str, Any]
    directory: Path

    @property
    def name(self) -> str:
        return str(self.info["exportname"])

    def trust(self) -> Path:
        """A directory as libnbd and QEMU want it."""
        trusted = self.directory / "trusted"
        trusted.mkdir(exist_ok=True)
        (trusted / "ca-cert.pem").write_text(self.info["cert"])
        return trusted

    def uri(self, name: str | None = None) -> str:
        """For programs of libnbd."""
        where = f"{self.info['address']}:{self.info['port']}"
        return f"nbds://{where}/{quote(name or self.name, safe='')}?tls-certificates={self.trust()}"

    async def copy(self, name: str | None = None) -> bytes:
        """All of it, by nbdcopy. CommandFailed."""
        out = self.directory / "copy"
        out.unlink(missing_ok=True)
        await processes.run_async(["nbdcopy", self.uri(name), str(out)], timeout_s=300)
        return await asyncio.to_thread(out.read_bytes)

    async def piece(self, offset: int, length: int) -> bytes:
        """By qemu-img, which knows the server by its certificate's subject. ``length`` is a multiple of what is before
        it."""
        assert offset % length == 0
        out = self.directory / "piece"
        options = {
            "driver": "nbd",
            "host": self.info["address"],
            "port": str(self.info["port"]),
            "export": self.name,
            "tls-creds": "tls",
            "tls-hostname": self.info["subject"],
        }
        image = ",".join(f"{key}={value}" for key, value in options.items())
        tls = f"tls-creds-x509,id=tls,endpoint=client,dir={self.trust()},sanity-check=off"
        words = ["qemu-img", "dd", "--object", tls, "--image-opts", "-U", "-O", "raw"]
        words += [f"bs={length}", f"skip={offset // length}", f"count={offset // length + 1}"]
        await processes.run_async([*words, f"if={image}", f"of={out}"], timeout_s=300)
        return await asyncio.to_thread(out.read_bytes)

    @asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        reader, writer = await asyncio.open_connection(self.info["address"], self.info["port"])
        try:
            yield Client(self, reader, writer)
        finally:
            writer.transport.abort()

    def remove(self) -> None:
        shutil.rmtree(self.directory)


@dataclass
class Client:
    """Byte by byte."""

    place: Place
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def greet(self, flags: int = 3) -> None:
        assert await self.reader.readexactly(18) == nbd.GREETING
        self.writer.write(flags.to_bytes(4, "big"))

    async def ask(self, option: int, data: bytes = b"") -> tuple[int, bytes]:
        """Kind and data of the reply."""
        self.writer.write(nbd.option_bytes(option, data))
        magic, _, kind, length = nbd.REPLY_HEADER.unpack(await self.reader.readexactly(20))
        assert magic == nbd.REPLY_MAGIC
        return kind, await self.reader.readexactly(length)

    async def go(self, name: str) -> tuple[int, bytes]:
        """The last reply to OPT_GO."""
        raw = name.encode()
        kind, data = await self.ask(nbd.OPT_GO, len(raw).to_bytes(4, "big") + raw + b"\0\0")
        while not (kind == nbd.REP_ACK or kind & nbd.REP_ERRORS):
            _, _, kind, length = nbd.REPLY_HEADER.unpack(await self.reader.readexactly(20))
            data = await self.reader.readexactly(length)
        return kind, data

    async def secure(self) -> None:
        await self.greet()
        assert await self.ask(nbd.OPT_STARTTLS) == (nbd.REP_ACK, b"")
        context = ssl.create_default_context(cadata=self.place.info["cert"])
        await self.writer.start_tls(context, server_hostname=self.place.info["subject"])

    async def read(self, offset: int, length: int) -> bytes:
        """After ``go``: one read command, with its simple reply."""
        request = (0x25609513).to_bytes(4, "big") + bytes(4) + b"a request"[:8]
        self.writer.write(request + offset.to_bytes(8, "big") + length.to_bytes(4, "big"))
        head = await self.reader.readexactly(16)
        assert head == (0x67446698).to_bytes(4, "big") + bytes(4) + b"a request"[:8]
        return await self.reader.readexactly(length)

    async def is_shown_out(self) -> bool:
        """The server closes, having said nothing more."""
        try:
            return await self.reader.read() == b""
        except (ConnectionError, ssl.SSLError):
            return True
