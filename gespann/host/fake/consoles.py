"""Console sockets of fake machines: a serial line that greets and echoes, a VNC port that says its version."""

import asyncio
import contextlib
import hashlib
from pathlib import Path

GREETING = b"Fake 12 ttyS0\r\n\r\nfake login: "
RFB_VERSION = b"RFB 003.008\n"  # RFC 6143 section 7.1.1


class FakeConsoles:
    """None of it without a ``run_dir``."""

    def __init__(self, run_dir: Path | None) -> None:
        self.run_dir = run_dir
        self._servers: dict[str, list[tuple[asyncio.Server, Path]]] = {}
        self._writers: dict[str, set[asyncio.StreamWriter]] = {}

    async def open(self, uuid: str) -> tuple[str, str]:
        if self.run_dir is None:
            return "", ""
        await self.close(uuid)
        name = hashlib.sha256(uuid.encode()).hexdigest()[:12]  # a test's RUN is long, a socket's path may not be
        serial, vnc = self.run_dir / f"{name}.serial", self.run_dir / f"{name}.vnc"
        serial.unlink(missing_ok=True)
        vnc.unlink(missing_ok=True)
        self._writers[uuid] = set()
        self._servers[uuid] = [
            (await self._serve(uuid, serial, GREETING), serial),
            (await self._serve(uuid, vnc, RFB_VERSION), vnc),
        ]
        return str(serial), str(vnc)

    async def close(self, uuid: str) -> None:
        for server, path in self._servers.pop(uuid, []):
            server.close()
            path.unlink(missing_ok=True)
        for writer in self._writers.pop(uuid, set()):
            writer.close()

    async def close_all(self) -> None:
        for uuid in list(self._servers):
            await self.close(uuid)

    async def _serve(self, uuid: str, path: Path, greeting: bytes) -> asyncio.Server:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers[uuid].add(writer)
            with contextlib.suppress(ConnectionError):
                writer.write(greeting)
                while data := await reader.read(4096):
                    writer.write(data)
                    await writer.drain()
            self._writers.get(uuid, set()).discard(writer)
            writer.close()

        return await asyncio.start_unix_server(echo, path)
