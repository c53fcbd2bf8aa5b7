"""Choosing objects by their columns: ``field=value``, ``map-field:key=value``, ``set-field:contains=member``."""

from dataclasses import dataclass

from gespann.xe.failures import CommandFailure, UnknownField
from gespann.xe.records.catalog import ObjectClass
from gespann.xe.records.columns import Column, FieldAbsent, Row


@dataclass(frozen=True)
class Filter:
    """``key``: of a map, or empty for a plain field or a set."""

    column: Column
    key: str
    value: str

    def matches(self, row: Row) -> bool:
        try:
            if self.column.is_set and self.key:
                return self._same(self.value, *self.column.members(row))
            if self.key:
                found = self.column.pairs(row).get(self.key)
                return found is not None and self._same(self.value, found)
            return self._same(self.value, self.column.printed(self.column.read(row)))
        except FieldAbsent:
            return False

    def _same(self, wanted: str, *found: str) -> bool:
        if self.column.ignores_case:
            return wanted.lower() in [text.lower() for text in found]
        return wanted in found


def parse_filter(object_class: ObjectClass, name: str, value: str) -> Filter:
    """UnknownField: the class has no such column. CommandFailure: it has, but not one of parts."""
    if column := object_class.column(name):
        return Filter(column, "", value)
    column, key = split_part(object_class, name)
    if column.is_set and key != "contains":
        raise CommandFailure("Invalid syntax for set filtering (should be set-param:contains=key)")
    return Filter(column, key, value)


def split_part(object_class: ObjectClass, name: str) -> tuple[Column, str]:
    """``other-config:key`` or the older ``other-config-key``: the map or set, and the key."""
    field_name, colon, key = name.partition(":")
    if colon:
        column = object_class.column(field_name)
        if column is None:
            raise UnknownField(name)
        if not (column.is_map or column.is_set):
            raise CommandFailure(f"Field '{field_name}' is not a set or map")
        return column, key
    parts = [c for c in object_class.columns if (c.is_map or c.is_set) and name.startswith(c.name + "-")]
    if not parts:
        raise UnknownField(name)
    column = max(parts, key=lambda candidate: (candidate.is_map, len(candidate.name)))
    return column, name[len(column.name) + 1 :]


def parse_filters(object_class: ObjectClass, pairs: list[tuple[str, str]]) -> list[Filter]:
    return [parse_filter(object_class, name, value) for name, value in pairs]


def needed_classes(columns: list[Column]) -> set[str]:
    return {name for column in columns for name in column.needs}
