"""XenAPI class message: what an administrator should come to know. Kept in the database, the newest of them."""

from collections.abc import Callable, Mapping
from typing import Any

from gespann.pool.api.generic import matching
from gespann.pool.api.messages import Call, implements
from gespann.pool.api.values import datetime_text, decode
from gespann.pool.model.database import Database
from gespann.pool.model.messages import leave
from gespann.seams.xenapi.datamodel import Type
from gespann.seams.xenapi.errors import XenApiError
from gespann.system.clock import Clock

Messages = dict[str, Mapping[str, Any]]

#: which class's uuids a message is about
_CLASS_OF = {"VM": "VM", "Host": "host", "SR": "SR", "Pool": "pool", "VDI": "VDI"}


def post(db: Database, clock: Clock, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    """Leaves a message; its ref. For reconcilers and alerts as well."""
    when = datetime_text(clock.now())
    with db.transaction() as tx:
        return leave(db, tx, name=name, priority=priority, cls=cls, obj_uuid=obj_uuid, body=body, timestamp=when)


@implements("message.create")
async def create(call: Call, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    """INVALID_VALUE: no name; UUID_INVALID: no such object of that class."""
    if not name:
        raise XenApiError("INVALID_VALUE", ["name", name])
    class_name = _CLASS_OF.get(cls)
    if class_name is not None:
        call.pool.db.by_uuid(class_name, obj_uuid)
    return post(call.pool.db, call.pool.clock, name, priority, cls, obj_uuid, body)


@implements("message.destroy")
async def destroy(call: Call, self: str) -> None:
    with call.pool.db.transaction() as tx:
        tx.destroy("message", self)


@implements("message.destroy_many")
async def destroy_many(call: Call, messages: list[str]) -> None:
    """Those that are gone already are passed over."""
    with call.pool.db.transaction() as tx:
        for ref in messages:
            tx.destroy("message", ref)


@implements("message.destroy_all")
async def destroy_all(call: Call, filters: dict[str, str]) -> None:
    """Those that pass all filters: ``before`` and ``after`` (times), ``priority`` (a number), ``cls``, ``name``,
    ``obj_uuid``; none: all. INVALID_VALUE for any other."""
    tests = [_filter(name, text) for name, text in filters.items()]
    gone = [ref for ref, record in call.pool.db.all("message").items() if all(test(record) for test in tests)]
    with call.pool.db.transaction() as tx:
        for ref in gone:
            tx.destroy("message", ref)


def _filter(name: str, text: str) -> Callable[[Mapping[str, Any]], bool]:
    match name:
        case "before" | "after":
            moment = decode(Type("datetime"), name, text)
            return lambda m: bool(m["timestamp"] < moment if name == "before" else m["timestamp"] > moment)
        case "priority":
            number = decode(Type("int"), name, text)
            return lambda m: bool(m["priority"] == number)
        case "cls" | "name" | "obj_uuid":
            return lambda m: bool(m[name].lower() == text.lower())
    raise XenApiError("INVALID_VALUE", ["filters", name])


@implements("message.get")
async def get(call: Call, cls: str, obj_uuid: str, since: str) -> Messages:
    return {
        ref: record
        for ref, record in call.pool.db.all("message").items()
        if record["cls"] == cls and record["obj_uuid"] == obj_uuid and record["timestamp"] >= since
    }


@implements("message.get_all")
async def get_all(call: Call) -> list[str]:
    return list(call.pool.db.all("message"))


@implements("message.get_since")
async def get_since(call: Call, since: str) -> Messages:
    return {ref: record for ref, record in call.pool.db.all("message").items() if record["timestamp"] >= since}


@implements("message.get_record")
async def get_record(call: Call, self: str) -> Mapping[str, Any]:
    return call.pool.db.get("message", self)


@implements("message.get_by_uuid")
async def get_by_uuid(call: Call, uuid: str) -> str:
    return call.pool.db.by_uuid("message", uuid)


@implements("message.get_all_records")
async def get_all_records(call: Call) -> Messages:
    return dict(call.pool.db.all("message"))


@implements("message.get_all_records_where")
async def get_all_records_where(call: Call, expr: str) -> Messages:
    return matching(call, "message", expr)
