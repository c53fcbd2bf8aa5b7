"""A disk opened on the host itself and served as NBD on a Unix socket: what image.open and image.close drive."""

from typing import Protocol

from gespann.seams.host_agent import FileSource, IscsiSource


class Images(Protocol):
    async def open(self) -> None:
        """Ends what an earlier run left behind."""
        ...

    async def close(self) -> None:
        """Ends every export."""
        ...

    async def export(self, image_id: str, source: IscsiSource | FileSource, read_only: bool) -> str:
        """The socket's path. Repeated: the same socket. SeamError STORAGE if the disk cannot be opened."""
        ...

    async def end(self, image_id: str) -> None:
        """Flushes, closes, and returns when the session is gone. SeamError STORAGE if the flush failed."""
        ...
