"""Image exports of the fake host: NBD over the media that the fake storage holds in memory."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

from gespann.host.fake.nbd import NbdSession
from gespann.host.fake.storage import FakeStorage, Source


class FakeImages:
    def __init__(self, storage: FakeStorage, run_dir: Path | None) -> None:
        self._storage = storage
        self._run_dir = run_dir
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._exports: dict[str, tuple[asyncio.Server, Path]] = {}
        self._writers: dict[str, set[asyncio.StreamWriter]] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for image_id in list(self._exports):
            await self.end(image_id)
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    async def export(self, image_id: str, source: Source, read_only: bool) -> str:
        async with self._lock:
            if image_id in self._exports:
                return str(self._exports[image_id][1])
            await self._storage.open(f"image/{image_id}", source, read_only)
            medium = self._storage.medium(source)
            path = self._directory() / f"{image_id}.nbd"
            path.unlink(missing_ok=True)
            self._writers[image_id] = writers = set()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writers.add(writer)
                await NbdSession(medium, read_only, reader, writer).serve()
                writers.discard(writer)

            self._exports[image_id] = (await asyncio.start_unix_server(serve, path), path)
            return str(path)

    async def end(self, image_id: str) -> None:
        async with self._lock:
            server, path = self._exports.pop(image_id, (None, None))
            if server is None or path is None:
                return
            server.close()
            for writer in self._writers.pop(image_id):
                writer.close()
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            await self._storage.close(f"image/{image_id}")

    def _directory(self) -> Path:
        if self._run_dir is not None:
            directory = self._run_dir / "images"
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return directory
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="gespann-fake-")
        return Path(self._temporary.name)
