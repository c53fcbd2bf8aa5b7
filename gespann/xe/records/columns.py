"""Columns: a name, a tag, and how its value is read from a record. Built from the datamodel wherever that suffices."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gespann.seams.xenapi.datamodel import Type
from gespann.xe.api import Record
from gespann.xe.call import Call
from gespann.xe.records.spelling import printed
from gespann.xe.tables import NOT_IN_DATABASE, Tables, class_name

Value = str | list[str] | dict[str, str]


class FieldAbsent(Exception):
    """The record lacks what this column shows, so the column is left out."""


@dataclass(frozen=True)
class Row:
    """One object: its reference, its record, and the tables that ``needs`` of its columns were fetched into."""

    ref: str
    record: Record
    tables: Tables

    def attribute(self, name: str) -> Any:
        try:
            return self.record[name]
        except KeyError:
            raise FieldAbsent(name) from None


Reader = Callable[[Row], Value]
Fetcher = Callable[[Call, Row], Awaitable[Value]]


@dataclass(frozen=True)
class Column:
    """``tag``: RO RW, S.. for sets, M.. for maps. ``attribute``: the XenAPI field behind it, if it is just one;
    ``type`` is then that field's. ``needs``: classes to fetch before ``read``. ``fetch``: how to get an expensive one.
    """

    name: str
    tag: str
    read: Reader
    attribute: str = ""
    type: Type = field(default=Type("string"))
    needs: tuple[str, ...] = ()
    fetch: Fetcher | None = None
    hidden: bool = False
    expensive: bool = False
    secret: bool = False  # shown to nobody who does not ask for this very value
    deprecated: bool = False
    separator: str = "; "

    @property
    def heading(self) -> str:
        return f"{self.name} ({self.tag:>3})" + (" [DEPRECATED]" if self.deprecated else "")

    @property
    def is_set(self) -> bool:
        return self.tag.startswith("S")

    @property
    def is_map(self) -> bool:
        return self.tag.startswith("M")

    @property
    def writable(self) -> bool:
        return self.tag.endswith("RW")

    @property
    def ignores_case(self) -> bool:
        return self.name in ("uuid", "power-state", "MAC") or self.name.endswith("-uuid")

    def printed(self, value: Value) -> str:
        if isinstance(value, dict):
            return "; ".join(f"{key}: {text}" for key, text in value.items())
        return value if isinstance(value, str) else self.separator.join(value)

    def members(self, row: Row) -> list[str]:
        value = self.read(row)
        return value if isinstance(value, list) else []

    def pairs(self, row: Row) -> dict[str, str]:
        value = self.read(row)
        return value if isinstance(value, dict) else {}


def scalar_text(type_: Type, value: Any, tables: Tables) -> str:
    """One value of a record as the command line spells it."""
    match type_.kind:
        case "bool":
            return "true" if value else "false"
        case "float":
            return f"{float(value):.3f}"
        case "enum":
            return printed(type_.name, str(value))
        case "ref":
            return tables.uuid(class_name(type_.name), str(value))
        case _:
            return str(value)


def value_text(type_: Type, value: Any, tables: Tables, *, only_map_values: bool = False) -> Value:
    """``only_map_values``: current_operations shows the operations, not the tasks that do them."""
    if type_.kind == "set" and type_.inner:
        return [scalar_text(type_.inner, item, tables) for item in value]
    if type_.kind == "map" and type_.inner and type_.key:
        if only_map_values:
            return [scalar_text(type_.inner, item, tables) for item in value.values()]
        return {
            scalar_text(type_.key, key, tables): _text_of_inner(type_.inner, item, tables)
            for key, item in value.items()
        }
    return scalar_text(type_, value, tables)


def _text_of_inner(type_: Type, value: Any, tables: Tables) -> str:
    text = value_text(type_, value, tables)
    return text if isinstance(text, str) else "; ".join(text)


def referenced_classes(type_: Type | None) -> tuple[str, ...]:
    if type_ is None:
        return ()
    if type_.kind == "ref":
        return (class_name(type_.name),)
    return referenced_classes(type_.key) + referenced_classes(type_.inner)


def attribute_reader(attribute: str, type_: Type) -> Reader:
    only_values = attribute == "current_operations"

    def read(row: Row) -> Value:
        return value_text(type_, row.attribute(attribute), row.tables, only_map_values=only_values)

    return read


def name_label_reader(attribute: str, referenced: str) -> Reader:
    return lambda row: row.tables.name_label(referenced, str(row.attribute(attribute)))


def related_reader(attribute: str, related: str, read: Reader, missing: str = NOT_IN_DATABASE) -> Reader:
    """Reads from the one object that ``attribute`` points at, such as a VM's metrics; ``missing`` without one."""

    def read_related(row: Row) -> Value:
        ref = str(row.attribute(attribute))
        record = row.tables.record(related, ref)
        return missing if record is None else read(Row(ref, record, row.tables))

    return read_related
