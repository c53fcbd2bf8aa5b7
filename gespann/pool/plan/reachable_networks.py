"""Which networks a host can give its VMs."""

from collections.abc import Iterable

from gespann.pool.model.database import Database
from gespann.pool.plan.storage_view import Records
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError


def unreachable(records: Records, host: str, networks: Iterable[str]) -> str:
    """The first one whose card on that host is a member of a bond now, and so leads nowhere; "": there is none."""
    wanted = set(networks)
    for pif in records.get("host", host)["PIFs"] if wanted else []:
        record = records.get("PIF", pif)
        if record["bond_slave_of"] != NULL_REF and record["network"] in wanted:
            return str(record["network"])
    return ""


def assert_reachable(db: Database, host: str, network: str) -> None:
    """HOST_CANNOT_ATTACH_NETWORK"""
    if unreachable(db, host, [network]):
        raise XenApiError("HOST_CANNOT_ATTACH_NETWORK", [host, network])
