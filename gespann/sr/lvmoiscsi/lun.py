"""One LUN as the coordinator reaches it: libiscsi's commands to find out about it, QEMU's to read and write it. Each is
a short process with a deadline, so an array that hangs, hangs nobody; secrets go by environment or a private file.
"""

import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gespann.seams.sr_driver import SrError
from gespann.sr.lvmoiscsi import errors
from gespann.system import processes
from gespann.system.files import write_secret

TIMEOUT_S = 30.0
LUNS_MOST = 16  # a PS group has one for each target


@dataclass(frozen=True)
class Portal:
    host: str
    port: int
    initiator: str
    chap_user: str = ""
    chap_secret: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class FoundTarget:
    address: str
    port: int
    iqn: str


@dataclass(frozen=True)
class FoundLun:
    number: int
    vendor: str
    serial: str
    size_bytes: int
    scsi_id: str


# -- finding out


async def discover(portal: Portal) -> list[FoundTarget]:
    """What the array lists to this initiator."""
    done = await _libiscsi(portal, "iscsi-ls", "-i", portal.initiator, f"iscsi://{portal.address}")
    if done.exit_code:
        raise _unreachable(portal, done, errors.DISCOVERY)
    found = []
    for line in done.stdout.splitlines():
        match = re.match(r"Target:(\S+) Portal:\[?([^\s\]]+?)\]?:(\d+),\d+\s*$", line)
        if match:
            found.append(FoundTarget(match[2], int(match[3]), match[1]))
    return found


async def luns(portal: Portal, target: str) -> list[FoundLun]:
    found = []
    for number in range(LUNS_MOST):
        lun = await _look(portal, target, number)
        if lun is not None:
            found.append(lun)
        elif number:
            break  # without LUN 0 there may still be LUN 1
    return found


async def _look(portal: Portal, target: str, number: int) -> FoundLun | None:
    """None: there is no such LUN, or it is no disk."""
    url = f"iscsi://{portal.address}/{target}/{number}"
    plain = await _libiscsi(portal, "iscsi-inq", "-i", portal.initiator, url)
    if plain.exit_code:
        if "LOGICAL_UNIT_NOT_SUPPORTED" in plain.stderr:
            return None
        raise _unreachable(portal, plain, errors.LOGIN)
    if "DIRECT_ACCESS" not in plain.stdout or "Peripheral Qualifier:CONNECTED" not in plain.stdout:
        return None
    size = await _libiscsi(portal, "iscsi-readcapacity16", "-i", portal.initiator, url)
    serial = await _libiscsi(portal, "iscsi-inq", "-e", "1", "-c", "128", "-i", portal.initiator, url)
    names = await _libiscsi(portal, "iscsi-inq", "-e", "1", "-c", "131", "-i", portal.initiator, url)
    bytes_there = re.search(r"Total size:(\d+)", size.stdout)
    if bytes_there is None:
        return None
    vendor, product = (_field(plain.stdout, name) for name in ("Vendor", "Product"))
    unit = _bracketed(serial.stdout, "Unit Serial Number")
    return FoundLun(number, vendor, unit, int(bytes_there[1]), scsi_id(names.stdout, vendor, product, unit))


def scsi_id(designators: str, vendor: str, product: str, serial: str) -> str:
    """As udev's scsi_id gives it: ``3`` and the NAA identifier; without one, ``S`` and vendor, product and serial."""
    named = re.search(r"\[naa\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})\]", designators)
    if named:
        return "3" + named[1].lower()
    return "S" + re.sub(r"[^A-Za-z0-9.-]", "_", f"{vendor}_{product}_{serial}")


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _bracketed(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\[([^\]]*)\]", text, re.MULTILINE)
    return re.sub(r"[^\x21-\x7e]", "", found[1]) if found else ""


async def _libiscsi(portal: Portal, *words: str) -> processes.Result:
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
    if portal.chap_user:
        env |= {"LIBISCSI_CHAP_USERNAME": portal.chap_user, "LIBISCSI_CHAP_PASSWORD": portal.chap_secret}
    try:
        return await processes.run_async(words, env=env, timeout_s=TIMEOUT_S, check=False)
    except processes.CommandFailed as failure:
        raise _silent(portal, failure) from None


def _unreachable(portal: Portal, done: processes.Result, number: int) -> SrError:
    said = " ".join((done.stderr or done.stdout).split())[-300:]
    if re.search(r"resolv", said):
        return SrError(errors.DNS, "Incorrect DNS name, unable to resolve.", portal.host)
    if "Status:" not in said:  # of a login that was answered
        return SrError(errors.UNREACHABLE, "Unable to connect to ISCSI service on target", f"{portal.address}: {said}")
    texts = {errors.DISCOVERY: "ISCSI discovery failed", errors.LOGIN: "ISCSI login failed, verify CHAP credentials"}
    return SrError(number, texts[number], f"{portal.address}: {said}")


def _silent(portal: Portal, failure: processes.CommandFailed) -> SrError:
    why = f"{portal.address}: no answer within {TIMEOUT_S:g} s" if failure.exit_code is None else portal.address
    return SrError(errors.UNREACHABLE, "Unable to connect to ISCSI service on target", why)


# -- reading and writing


@dataclass(frozen=True)
class Lun:
    portal: Portal
    target: str
    number: int

    async def read(self, offset: int, size_bytes: int) -> bytes:
        async with self._at_hand() as (words, image, folder):
            path = folder / "read"
            source = f"driver=raw,offset={offset},size={size_bytes},file.{image.replace(',', ',file.')}"
            await self._run(["qemu-img", "convert", *words, "--image-opts", source, "-O", "raw", str(path)])
            data = path.read_bytes()
        if len(data) != size_bytes:
            raise SrError(errors.IO, "The LUN cannot be read", f"{len(data)} of {size_bytes} bytes at {offset}")
        return data

    async def write(self, offset: int, data: bytes) -> None:
        """On the array's disks when it returns."""
        async with self._at_hand() as (words, image, folder):
            path = folder / "written"
            path.write_bytes(data)
            said = await self._io(words, image, f"write -s {path} {offset} {len(data)}")
            if f"wrote {len(data)}/{len(data)} bytes" not in said:
                raise SrError(errors.IO, "The LUN cannot be written", said[-200:])

    async def zero(self, offset: int, size_bytes: int) -> None:
        """Reads as zeroes afterwards; an array that can gives the space back."""
        piece = 1 << 30  # QEMU takes less than 2 GiB at a time
        async with self._at_hand() as (words, image, _):
            for at in range(offset, offset + size_bytes, piece):
                size = min(piece, offset + size_bytes - at)
                said = await self._io(words, image, f"write -z -u {at} {size}")
                if f"wrote {size}/{size} bytes" not in said:
                    raise SrError(errors.IO, "The LUN cannot be cleared", said[-200:])

    async def _io(self, words: list[str], image: str, command: str) -> str:
        done = await self._run(["qemu-io", "-t", "none", *words, "--image-opts", image, "-c", command, "-c", "flush"])
        return done.stdout + done.stderr

    async def _run(self, words: list[str]) -> processes.Result:
        try:
            done = await processes.run_async(words, timeout_s=TIMEOUT_S * 4, check=False)
        except processes.CommandFailed as failure:
            raise _silent(self.portal, failure) from None
        if done.exit_code:
            said = " ".join(done.stderr.split())[-300:]
            if re.search(r"Failed to connect|refused|timed? ?out|No route", said, re.IGNORECASE):
                text = "Unable to connect to ISCSI service on target"
                raise SrError(errors.UNREACHABLE, text, f"{self.portal.address}: {said}")
            raise SrError(errors.IO, "The LUN cannot be used", said)
        return done

    @asynccontextmanager
    async def _at_hand(self) -> AsyncIterator[tuple[list[str], str, Path]]:
        """Words and image options for QEMU's commands, and a private folder that goes afterwards."""
        portal = self.portal
        image = f"driver=iscsi,transport=tcp,portal={portal.address},target={self.target},lun={self.number}"
        image += f",initiator-name={portal.initiator}"
        words: list[str] = []
        with tempfile.TemporaryDirectory(prefix="gespann-lun-") as name:
            folder = Path(name)
            if portal.chap_user:
                write_secret(folder / "secret", portal.chap_secret.encode())
                words = ["--object", f"secret,id=chap,format=raw,file={folder / 'secret'}"]
                image += f",user={portal.chap_user},password-secret=chap"
            yield words, image, folder
