"""Records as they were last written to the wire.

A record in the database is never changed in place: a change puts another in its place. So the text of a record is
good for as long as the record is the same object. An entry keeps its record alive; it is dropped when another record
of the same ref takes its place, or when the table has shrunk.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gespann.seams.xenapi import datamodel

Text = TypeVar("Text")
#: of entries per class and live records, before the dead are swept out
SLACK = 1024


class RecordCache:
    def __init__(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        self.classes = frozenset(tables)
        self.real_class = {name.lower(): name for name in datamodel.classes()}
        self._tables = tables
        self._json: dict[str, dict[int, tuple[Any, Any]]] = {name: {} for name in tables}
        self._xml: dict[str, dict[int, tuple[Any, Any]]] = {name: {} for name in tables}

    def json(self, class_name: str, record: Any, make: Callable[[], Text]) -> Text:
        return self._look(self._json[class_name], class_name, record, make)

    def xml(self, class_name: str, record: Any, make: Callable[[], Text]) -> Text:
        return self._look(self._xml[class_name], class_name, record, make)

    def _look(
        self, entries: dict[int, tuple[Any, Any]], class_name: str, record: Any, make: Callable[[], Text]
    ) -> Text:
        found = entries.get(id(record))
        if found is not None and found[0] is record:
            text: Text = found[1]
            return text
        text = make()
        entries[id(record)] = (record, text)
        if len(entries) > 2 * len(self._tables[class_name]) + SLACK:
            self._sweep(entries, class_name)
        return text

    def _sweep(self, entries: dict[int, tuple[Any, Any]], class_name: str) -> None:
        live = {id(record) for record in self._tables[class_name].values()}
        for key in [key for key in entries if key not in live]:
            del entries[key]
