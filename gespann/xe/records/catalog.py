"""The classes of objects that ``xe`` lists and changes, with their columns, from the facts and the datamodel."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gespann.seams.xenapi import datamodel
from gespann.xe.records import computed
from gespann.xe.records.columns import (
    Column,
    Reader,
    attribute_reader,
    name_label_reader,
    referenced_classes,
    related_reader,
)
from gespann.xe.tables import class_name

_FACTS = Path(__file__).parent.parent / "facts" / "records.json"
_API_CLASSES = {"message": "message"}  # the facts name the class of its last declaration, which is another one
_FILTERS = {
    "vm": (("is-a-template", "false"),),
    "template": (("is-a-template", "true"), ("is-a-snapshot", "false")),
    "snapshot": (("is-a-snapshot", "true"),),
}


@dataclass(frozen=True)
class ObjectClass:
    """``name``: as in ``<name>-list``. ``api_class``: its XenAPI class. ``filters``: what a list always filters by."""

    name: str
    api_class: str
    default_columns: tuple[str, ...]
    columns: tuple[Column, ...]
    filters: tuple[tuple[str, str], ...]

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


@cache
def object_classes() -> dict[str, ObjectClass]:
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))
    return {fact["class"]: _object_class(fact) for fact in facts}


def _object_class(fact: dict[str, Any]) -> ObjectClass:
    name = fact["class"]
    api_class = class_name(_API_CLASSES.get(name, fact["api_class"]))
    found = [_column(name, api_class, declared) for declared in fact["fields"]]
    return ObjectClass(
        name=name,
        api_class=api_class,
        default_columns=tuple(fact["default_columns"]),
        columns=tuple(column for column in found if column is not None),
        filters=_FILTERS.get(name, ()),
    )


def _column(record_class: str, api_class: str, declared: dict[str, Any]) -> Column | None:
    """None where this engine has no way to know the value: then the column does not exist."""
    name, tag = declared["name"], declared["tag"]
    source = computed.TABLES.get(record_class, {}).get(name)
    common = {
        "name": name,
        "tag": tag,
        "hidden": declared.get("hidden", False),
        "expensive": declared.get("expensive", False),
        "secret": declared.get("secret", False),
        "deprecated": (record_class, name) in computed.DEPRECATED,
        "separator": ", " if name in computed.COMMA_SEPARATED else "; ",
    }
    match source:
        case computed.Related():
            field = datamodel.classes()[source.related].fields[source.attribute]
            read = related_reader(source.via, source.related, attribute_reader(field.name, field.type), source.missing)
            return Column(**common, read=read, needs=(source.related, *referenced_classes(field.type)))
        case computed.Computed():
            return Column(**common, read=source.read, needs=source.needs)
        case computed.Fetched():
            return Column(**common, read=_only_fetched, fetch=source.fetch)
        case _:
            return _attribute_column(api_class, common, source or name)


def _only_fetched(row: object) -> str:
    return "<expensive field>"


def _attribute_column(api_class: str, common: dict[str, Any], source: str) -> Column | None:
    if field := _field(api_class, source):
        read: Reader = attribute_reader(field.name, field.type)
        return Column(**common, read=read, attribute=field.name, type=field.type, needs=referenced_classes(field.type))
    stem = source.removesuffix("-name-label")
    if stem != source and (field := _field(api_class, stem)) and field.type.kind == "ref":
        referenced = class_name(field.type.name)
        return Column(**common, read=name_label_reader(field.name, referenced), needs=(referenced,))
    return None


def _field(api_class: str, name: str) -> datamodel.Field | None:
    """The XenAPI field that a column is named after: ``name-label``, ``sr-uuid`` (SR), ``vbd-uuids`` (VBDs)."""
    by_lower_name = {field.lower(): field for field in datamodel.classes()[api_class].fields}
    spelled = name.replace("-", "_").lower()
    for candidate in (spelled, spelled.removesuffix("_uuid"), spelled.removesuffix("_uuids") + "s"):
        if candidate in by_lower_name:
            return datamodel.classes()[api_class].fields[by_lower_name[candidate]]
    return None
