"""What handlers need besides their call."""

from typing import Any, cast
from uuid import uuid4

from gespann.pool.api.messages import Call
from gespann.pool.plan.domain_spec import Names
from gespann.pool.plan.legal_moves import Capabilities
from gespann.pool.pool import Pool
from gespann.pool.steps.runner import Work
from gespann.seams.xenapi.datamodel import NULL_REF
from gespann.seams.xenapi.errors import XenApiError

START_ID_DIGITS = 12


def work_of(pool: Pool) -> Work:
    return cast(Work, pool.services["work"])


def capabilities_of(pool: Pool) -> Capabilities:
    """What the driver of an SR type can do: nothing, for a type without driver."""

    def capabilities(sr_type: str) -> frozenset[str]:
        driver = pool.drivers.get(sr_type)
        return frozenset(driver.info.capabilities) if driver else frozenset()

    return capabilities


def fresh_names(pool: Pool, vm: str) -> Names:
    """For one start, or one plug, of a VM."""
    return Names(pool.db.get("VM", vm)["uuid"], uuid4().hex[:START_ID_DIGITS], pool.iscsi_prefix)


def coordinator(pool: Pool) -> str:
    """The host that serves the API."""
    return str(next(iter(pool.db.all("pool").values()))["master"])


def set_fields(call: Call, class_name: str, ref: str, **fields: Any) -> None:
    with call.pool.db.transaction() as tx:
        tx.set(class_name, ref, **fields)


def assert_free(pool: Pool, class_name: str, ref: str) -> None:
    """For changes of records that need no plan: refuses while an operation holds the object."""
    locks = work_of(pool).locks
    for holder in locks.holders(class_name, ref):
        shown = pool.db.get(class_name, ref).get("current_operations", {})
        raise XenApiError("OTHER_OPERATION_IN_PROGRESS", [class_name, ref, shown.get(holder, ""), holder])


def given(ref: str) -> bool:
    return ref not in ("", NULL_REF)
