"""The pool's objects as one command sees them: each class is fetched whole, at most once."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError
from gespann.xe.api import NULL_REF, Record

NOT_IN_DATABASE = "<not in database>"
# A server without a class answers its calls with one of these: then there is no such object, which is the truth.
_NO_SUCH_CLASS = frozenset(["MESSAGE_METHOD_UNKNOWN", "MESSAGE_REMOVED", "NOT_IMPLEMENTED"])

_CLASS_BY_LOWER_NAME = {name.lower(): name for name in datamodel.classes()}


def class_name(name: str) -> str:
    """The exact spelling of a XenAPI class, whatever the case: ``Host`` is ``host``, ``Pool`` is ``pool``."""
    return _CLASS_BY_LOWER_NAME[name.lower()]


Request = Callable[..., Awaitable[Any]]


class Tables:
    """``fetch`` first, then look up without waiting."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._tables: dict[str, dict[str, Record]] = {}

    async def fetch(self, classes: Iterable[str]) -> None:
        for name in classes:
            if name not in self._tables:
                self._tables[name] = await self._fetch_one(name)

    async def _fetch_one(self, name: str) -> dict[str, Record]:
        try:
            return await self._read(name)
        except XenApiError as error:
            if error.code in _NO_SUCH_CLASS:
                return {}
            raise

    async def all(self, name: str) -> dict[str, Record]:
        """The whole class. XenApiError also where the server does not have it: it was asked for by name."""
        if name not in self._tables:
            self._tables[name] = await self._read(name)
        return self._tables[name]

    async def _read(self, name: str) -> dict[str, Record]:
        return dict(await self._request(f"{name}.get_all_records"))

    def forget(self, name: str) -> None:
        """After a change: the next ``fetch`` reads the class again."""
        self._tables.pop(name, None)

    def record(self, name: str, ref: str) -> Record | None:
        return self._tables[name].get(ref)

    def uuid(self, name: str, ref: str) -> str:
        record = None if ref == NULL_REF else self.record(name, ref)
        return NOT_IN_DATABASE if record is None else str(record["uuid"])

    def name_label(self, name: str, ref: str) -> str:
        record = None if ref == NULL_REF else self.record(name, ref)
        return NOT_IN_DATABASE if record is None else str(record.get("name_label", NOT_IN_DATABASE))

    def describe(self, text: str) -> str:
        """A reference to an object of any fetched class as ``uuid (name)``; any other text as it is."""
        for records in self._tables.values():
            if record := records.get(text):
                return _description(record)
        return text

    @property
    def fetched(self) -> Mapping[str, dict[str, Record]]:
        return self._tables


def _description(record: Record) -> str:
    label = record.get("name_label")
    return f"{record.get('uuid', '')} ({label})" if label is not None else str(record.get("uuid", ""))
