"""XenAPI class secret: a text under a uuid, so that records can name a password without holding it."""

from typing import Any

from gespann.pool.api.messages import Call, implements
from gespann.system import log


@implements("secret.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    log.hide(args["value"])
    with call.pool.db.transaction() as tx:
        return tx.create("secret", args)


@implements("secret.destroy")
async def destroy(call: Call, self: str) -> None:
    with call.pool.db.transaction() as tx:
        tx.destroy("secret", self)


@implements("secret.introduce")
async def introduce(call: Call, uuid: str, value: str, other_config: dict[str, str]) -> str:
    """DB_UNIQUENESS_CONSTRAINT_VIOLATION if there is a secret of that uuid."""
    log.hide(value)
    with call.pool.db.transaction() as tx:
        return tx.create("secret", {"uuid": uuid, "value": value, "other_config": other_config})
