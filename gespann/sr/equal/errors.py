"""The numbers of the SM list that this driver answers with, each with what it means in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

from gespann.seams.sr_driver import SrError

BAD_ARGUMENT = 1
VDI_IN_USE = 24
SR_NOT_EMPTY = 39
VDI_EXISTS = 43
VDI_UNAVAILABLE = 46
SR_UNAVAILABLE = 47
VDI_CREATE = 78
VDI_SIZE = 79
VDI_DELETE = 80
VDI_CLONE = 81
VDI_SNAPSHOT = 82
VDI_RESIZE = 110
DNS = 140
BAD_REQUEST = 143
VDI_MISSING = 144
NO_TARGET = 160
NO_USERNAME = 161
NO_PASSWORD = 162
NO_STORAGE_POOL = 163
CONNECT_FAILED = 164
SNAP_RESERVE = 165
SNAP_DEPLETION = 166
OUT_OF_SPACE = 167
SNAPSHOT_OF_SNAPSHOT = 168
PERMISSION_DENIED = 169
FIRMWARE = 170
UNREACHABLE = 171
INVALID_STORAGE_POOL = 172
INVALID_TARGET = 173
UNINTELLIGIBLE = 174
BAD_METADATA = 175
CUT_SHORT = 176
GENERAL = 202


class CliRefusal(Exception):
    """The group answered with an error line. ``text`` is what it said, secrets blotted out."""

    def __init__(self, public_line: str, text: str) -> None:
        super().__init__(f"{public_line}: {text}")
        self.public_line = public_line
        self.text = text

    @property
    def missing(self) -> bool:
        return "does not exist" in self.text

    @property
    def unknown(self) -> bool:
        """This firmware has no such command."""
        return "bad command" in self.text.lower() or self.text.startswith("Unknown word")

    def as_sr_error(self, number: int) -> SrError:
        """``number`` says what was being done; the few texts that mean something else everywhere go first."""
        said = self.text.lower()
        detail = f"{self.public_line}: {self.text}"
        if any(word in said for word in ("space", "insufficient", "not enough", "exceed")):
            return SrError(OUT_OF_SPACE, "The storage pool has not enough free space for this", detail)
        if any(word in said for word in ("permission", "privilege", "not authorized", "not allowed for this account")):
            return SrError(PERMISSION_DENIED, "The array account may not do this", detail)
        if "data plane" in said and "not answer" in said:  # our group's word: what was recorded is done when it is back
            return SrError(CUT_SHORT, "The array cannot carry this out now; it may yet take effect", detail)
        if "snmp" in said:
            return SrError(UNINTELLIGIBLE, "The array could not process the command", detail)
        return SrError(number, "The array refused", detail)


def missing_key(key: str) -> SrError:
    number = {"target": NO_TARGET, "username": NO_USERNAME, "password": NO_PASSWORD}[key]
    return SrError(number, f"Equallogic {key} parameter missing in Dconf string")


def missing_storage_pool(storage_pools_xml: str) -> SrError:
    return SrError(NO_STORAGE_POOL, "Equallogic StoragePool parameter missing in Dconf string", storage_pools_xml)


def invalid_storage_pool(name: str, why: str) -> SrError:
    return SrError(
        INVALID_STORAGE_POOL, "The storagepool of the device-config is not one of this group", f"{name}: {why}"
    )


def cut_short(public_line: str, why: str) -> SrError:
    return SrError(
        CUT_SHORT,
        "The array's answer to a command ended before its time; it may have taken effect",
        f"{public_line}: {why}",
    )


def sr_missing(sr_uuid: str) -> SrError:
    return SrError(SR_UNAVAILABLE, "The group holds no management volume of this repository", sr_uuid)


def vdi_missing(vdi_uuid: str) -> SrError:
    return SrError(VDI_MISSING, "The group holds no volume of this VDI", vdi_uuid)


@contextmanager
def refused_as(number: int) -> Iterator[None]:
    try:
        yield
    except CliRefusal as refusal:
        raise refusal.as_sr_error(number) from None
