"""The way to SR drivers: finds driver and device-config of an SR, and gives a driver's refusals their XenAPI names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gespann.pool.model.database import Database
from gespann.pool.plan.storage_view import SECRET_SUFFIX
from gespann.seams.sr_driver import Sr, SrDriver, SrError
from gespann.seams.xenapi.errors import XenApiError

if TYPE_CHECKING:
    from gespann.pool.pool import Pool


#: a driver says this when nobody answered: what was asked may have happened
UNREACHABLE = frozenset({140, 141, 164, 171, 176})


class StorageRefused(XenApiError):
    """What a driver said, as the XenAPI says it; ``number`` is the driver's own."""

    def __init__(self, code: str, params: list[str], number: int) -> None:
        super().__init__(code, params)
        self.number = number
        self.nobody_answered = number in UNREACHABLE


def refusal(error: SrError, sr: str, vdi: str = "") -> StorageRefused:
    named = {
        16: ("SR_DEVICE_IN_USE", []),
        24: ("VDI_IN_USE", [vdi, "open"]),
        38: ("SR_OPERATION_NOT_SUPPORTED", [sr]),
        39: ("SR_NOT_EMPTY", []),
        144: ("VDI_MISSING", [sr, vdi]),
    }
    other = (f"SR_BACKEND_FAILURE_{error.number}", ["", error.description, error.detail])
    code, params = named.get(error.number, other)
    return StorageRefused(code, params, error.number)


@contextmanager
def storage_words(sr: str, vdi: str = "") -> Iterator[None]:
    """Around a call of a driver."""
    try:
        yield
    except SrError as error:
        raise refusal(error, sr, vdi) from error


def driver_for_type(pool: "Pool", sr_type: str) -> SrDriver:
    try:
        return pool.drivers[sr_type]
    except KeyError:
        raise XenApiError("SR_UNKNOWN_DRIVER", [sr_type]) from None


def driver_of(pool: "Pool", sr: str) -> SrDriver:
    return driver_for_type(pool, pool.db.get("SR", sr)["type"])


def device_config_with_secrets(db: Database, shown: dict[str, str]) -> dict[str, str]:
    """As the driver wants it: ``password_secret`` (the uuid of a secret object) becomes ``password`` again."""
    config = {}
    for key, value in shown.items():
        if key.endswith(SECRET_SUFFIX):
            secret = db.get("secret", db.by_uuid("secret", value))
            config[key.removesuffix(SECRET_SUFFIX)] = secret["value"]
        else:
            config[key] = value
    return config


def sr_as_driver_sees_it(db: Database, sr: str) -> Sr:
    record = db.get("SR", sr)
    pbds = [db.get("PBD", pbd) for pbd in record["PBDs"]]
    pbds.sort(key=lambda pbd: not pbd["currently_attached"])
    if not pbds:
        raise XenApiError("SR_HAS_NO_PBDS", [sr])
    return Sr(
        uuid=record["uuid"],
        device_config=device_config_with_secrets(db, pbds[0]["device_config"]),
        sm_config=dict(record["sm_config"]),
        name_label=record["name_label"],
        name_description=record["name_description"],
    )
