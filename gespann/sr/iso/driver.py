"""SR type ``iso``: install media in a directory, each ``*.iso`` file a read-only VDI.

The directory is the same path on every host: local, or a share that the hosts have mounted. Nothing is ever written to
it, so there is nothing to fence: openings are not recorded anywhere. A VDI's uuid follows from the SR's uuid and the
file's name, so a scan after the loss of the pool's database finds the same VDIs.
"""

import asyncio
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage
from typing import NoReturn, TypeVar

from gespann.seams.host_agent import FileSource, IscsiSource
from gespann.seams.sr_driver import (
    Changes,
    DriverInfo,
    Opening,
    SnapshotSpec,
    Sr,
    SrError,
    SrStat,
    StorageWarning,
    Volume,
    VolumeSpec,
)

UNIMPLEMENTED, READ_ONLY, SR_UNAVAILABLE, BAD_REQUEST = 38, 46, 47, 143
VDI_MISSING, NO_LOCATION, BAD_PATH = 144, 220, 226
LOOK_TIMEOUT_S = 20.0  # a share whose server is away hangs whoever looks at it
SUFFIX = ".iso"

INFO = DriverInfo(
    type="iso",
    name_label="ISO",
    name_description="Install media: the ISO images of a directory that all hosts have",
    capabilities=("SR_PROBE", "VDI_ATTACH", "VDI_DETACH"),
    configuration={
        "location": "Directory with the images: the same absolute path on each host",
        "legacy_mode": "Taken for compatibility: true, as location is always a local path (optional)",
    },
)

T = TypeVar("T")


class IsoDriver:
    info = INFO

    async def probe(self, device_config: dict[str, str], sm_config: dict[str, str]) -> str:
        """The location holds no repository of its own: nothing to be found but whether it can be read."""
        await _look(_images, _location(device_config))
        return '<?xml version="1.0" ?><SRlist></SRlist>'

    async def create(self, sr: Sr, physical_size_bytes: int) -> dict[str, str]:
        unknown = sorted(sr.device_config.keys() - INFO.configuration.keys())
        if unknown:
            raise SrError(BAD_REQUEST, "The device-config has a key that SR type iso does not know", ", ".join(unknown))
        await self.attach(sr)
        return dict(sr.sm_config)

    async def destroy(self, sr: Sr) -> None:
        """Forgets it; the images stay."""

    async def attach(self, sr: Sr) -> None:
        await _look(_images, _location(sr.device_config))

    async def detach(self, sr: Sr) -> None:
        """Nothing is held."""

    async def update(self, sr: Sr) -> None:
        """The directory has no place for a name."""

    async def stat(self, sr: Sr) -> SrStat:
        location = _location(sr.device_config)
        usage = await _look(disk_usage, location)
        images = await _look(_images, location)
        return SrStat(usage.total, usage.used, sum(images.values()))

    async def warnings(self, sr: Sr, after: int | None) -> list[StorageWarning] | None:
        return None

    async def scan(self, sr: Sr) -> list[Volume]:
        images = await _look(_images, _location(sr.device_config))
        return [_volume(sr, name, size_bytes) for name, size_bytes in sorted(images.items())]

    async def volumes_gone(self, sr: Sr, vdi_uuids: list[str]) -> list[str]:
        there = {one.vdi_uuid for one in await self.scan(sr)}
        return [uuid for uuid in vdi_uuids if uuid not in there]

    async def volume_create(self, sr: Sr, spec: VolumeSpec) -> Volume:
        _refuse()

    async def volume_destroy(self, sr: Sr, vdi_uuid: str) -> None:
        if any(one.vdi_uuid == vdi_uuid for one in await self.scan(sr)):
            _refuse()

    async def volume_resize(self, sr: Sr, vdi_uuid: str, size_bytes: int) -> Volume:
        _refuse()

    async def volume_clone(self, sr: Sr, source_vdi_uuid: str, spec: VolumeSpec) -> Volume:
        _refuse()

    async def volume_changes(self, sr: Sr, older_vdi_uuid: str, newer_vdi_uuid: str, offset: int = 0) -> Changes | None:
        return None

    async def volume_update(self, sr: Sr, spec: VolumeSpec) -> Volume:
        _refuse()

    async def volumes_snapshot(self, sr: Sr, snapshots: list[SnapshotSpec]) -> list[Volume]:
        _refuse()

    async def volumes_snapshot_undo(self, sr: Sr, snapshots: list[SnapshotSpec]) -> None:
        """None was made."""

    async def volume_restore(self, sr: Sr, vdi_uuid: str, snapshot_vdi_uuid: str, kept: VolumeSpec) -> Volume:
        _refuse()

    async def volume_restore_undo(self, sr: Sr, vdi_uuid: str, kept_vdi_uuid: str) -> None:
        """Nothing was restored."""

    async def open(self, sr: Sr, vdi_uuid: str, opening: Opening) -> IscsiSource | FileSource:
        image = await self._image(sr, vdi_uuid)
        if opening.mode == "RW":
            raise SrError(READ_ONLY, "Install media can be opened for reading only", image.location)
        return FileSource(path=str(_location(sr.device_config) / image.location), format="raw")

    async def close(self, sr: Sr, vdi_uuid: str, opening_id: str) -> None:
        """The host closes the file; the directory knows nothing of it."""

    async def hand_over(self, sr: Sr, vdi_uuid: str, opening_id: str, to_opening_id: str) -> None:
        """Nobody may write."""

    async def openings(self, sr: Sr, vdi_uuid: str) -> list[str]:
        await self._image(sr, vdi_uuid)
        return []

    async def shut_down(self) -> None:
        """Nothing is held."""

    async def _image(self, sr: Sr, vdi_uuid: str) -> Volume:
        for one in await self.scan(sr):
            if one.vdi_uuid == vdi_uuid:
                return one
        raise SrError(VDI_MISSING, "The directory has no image of this VDI", vdi_uuid)


def _refuse() -> NoReturn:
    raise SrError(UNIMPLEMENTED, "Install media are put into the directory by hand; the pool only reads them")


def _location(device_config: dict[str, str]) -> Path:
    location = device_config.get("location", "")
    if not location:
        raise SrError(NO_LOCATION, "location parameter missing in device-config")
    if not location.startswith("/") or not location.isprintable() or ".." in Path(location).parts:
        raise SrError(BAD_PATH, "The location is an absolute path of a directory", location[:200])
    return Path(location)


async def _look(ask: Callable[[Path], T], location: Path) -> T:
    """In a thread and with a deadline, since a lost share answers nobody."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await asyncio.to_thread(ask, location)
    except TimeoutError:
        raise SrError(SR_UNAVAILABLE, "The directory does not answer", str(location)) from None
    except OSError as failure:
        raise SrError(BAD_PATH, "The directory cannot be read", f"{location}: {failure.strerror}") from None


def _images(location: Path) -> dict[str, int]:
    """Name and size of each image. A link that leads out of the directory is none: it would show a guest any file."""
    inside = location.resolve(strict=True)
    found: dict[str, int] = {}
    for path in inside.iterdir():
        if not path.name.lower().endswith(SUFFIX) or not path.name.isprintable():
            continue
        try:
            real = path.resolve(strict=True)
            seen = real.stat()
        except OSError:
            continue  # gone meanwhile, or a link to nothing
        if stat.S_ISREG(seen.st_mode) and real.is_relative_to(inside):
            found[path.name] = seen.st_size
    return found


def _volume(sr: Sr, name: str, size_bytes: int) -> Volume:
    return Volume(
        vdi_uuid=str(uuid.uuid5(uuid.UUID(sr.uuid), name)),
        location=name,
        virtual_size_bytes=size_bytes,
        utilisation_bytes=size_bytes,
        name_label=name,
        read_only=True,
        sharable=True,
    )
