"""``ova.xml``: the records of a VM and of what belongs to it, as XML-RPC, with references of their own (``Ref:7``).

    struct: version: struct; objects: array of struct: class, id, snapshot (the record, as get_record gives it)

Written as XenServer writes it, of the versions that say ``export_vsn`` 2: checksums stand beside the blocks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gespann.pool.api import values, wire_xml
from gespann.pool.api.wire_json import MalformedRequest
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, Type
from gespann.seams.xenapi.errors import XenApiError

#: the version of the records' form, by which a XenServer judges whether it can read them
XAPI_VERSION = (1, 9)
EXPORT_VERSION = 2
#: the order in which classes are written
CLASSES = ("VM", "VM_guest_metrics", "VBD", "VIF", "network", "VDI", "SR")
Key = tuple[str, str]
Read = Callable[[str, str], Mapping[str, Any]]


# -- out


@dataclass
class Writer:
    """``read`` gives a record by class and reference; ``changed`` some of its fields as they are to be told."""

    read: Read
    names: dict[str, str] = field(default_factory=dict)  # reference here -> its name there
    keys: list[Key] = field(default_factory=list)
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, class_name: str, ref: str, **changed: Any) -> str:
        """Its name in the archive; once is enough."""
        if ref not in self.names:
            self.names[ref] = f"Ref:{len(self.names)}"
            self.keys.append((class_name, ref))
            self.changed[ref] = changed
        return self.names[ref]

    def xml(self, version: Mapping[str, str]) -> bytes:
        """``version``: hostname, date, product_version, product_brand, build_number."""
        numbers = {"xapi_major": XAPI_VERSION[0], "xapi_minor": XAPI_VERSION[1], "export_vsn": EXPORT_VERSION}
        members = [(key, _text(value)) for key, value in version.items()]
        members += [(key, f"<value><i4>{number}</i4></value>") for key, number in numbers.items()]
        ordered = sorted(self.keys, key=lambda key: CLASSES.index(key[0]))
        objects = "".join(self._object(class_name, ref) for class_name, ref in ordered)
        array = f"<value><array><data>{objects}</data></array></value>"
        return wire_xml.struct([("version", wire_xml.struct(members)), ("objects", array)]).encode()

    def _object(self, class_name: str, ref: str) -> str:
        record = {**self.read(class_name, ref), **self.changed[ref]}
        fields = datamodel.classes()[class_name].fields.values()
        shown = [(f.name, wire_xml.encoder(f.type)(self._told(f.name, f.type, record[f.name]))) for f in fields]
        members = [("class", _text(class_name)), ("id", _text(self.names[ref])), ("snapshot", wire_xml.struct(shown))]
        return wire_xml.struct(members)

    def _told(self, name: str, type_: Type, value: Any) -> Any:
        """References to what is not in the archive point at nothing."""
        if name in ("allowed_operations", "current_operations"):
            return datamodel.zero(type_)
        if type_.kind == "ref":
            return self.names.get(value, NULL_REF)
        if type_.kind == "set" and type_.inner is not None and type_.inner.kind == "ref":
            return [self.names[ref] for ref in value if ref in self.names]
        if type_.kind == "map" and type_.inner is not None and type_.inner.kind == "ref":
            return {}
        return value


def _text(text: str) -> str:
    return wire_xml.encoder(Type("string"))(text)


# -- in


@dataclass(frozen=True)
class Object:
    """A record from a stranger. Fields are read one by one, by their declared types; one that is missing is as by
    default."""

    class_name: str
    id: str
    raw: Mapping[str, Any] = field(repr=False)

    def get(self, name: str) -> Any:
        """XenApiError FIELD_TYPE_ERROR or INVALID_VALUE with the field's name."""
        declared = datamodel.classes()[self.class_name].fields[name]
        if name not in self.raw:
            return declared.default
        return values.decode(declared.type, name, self.raw[name])

    def has(self, name: str) -> bool:
        return name in self.raw

    def fields(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: self.get(name) for name in names if name in self.raw}


@dataclass(frozen=True)
class Metadata:
    objects: Mapping[str, Object]  # by id

    def of_class(self, class_name: str) -> Iterator[Object]:
        return (found for found in self.objects.values() if found.class_name == class_name)

    def find(self, class_name: str, id_: str) -> Object | None:
        found = self.objects.get(id_)
        return found if found is not None and found.class_name == class_name else None

    def need(self, class_name: str, id_: str) -> Object:
        found = self.find(class_name, id_)
        if found is None:
            raise XenApiError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", [id_[:200]])
        return found


def parse(xml: bytes) -> Metadata:
    """IMPORT_ERROR: not the records of an export; IMPORT_INCOMPATIBLE_VERSION: of one that is newer than we know, or so
    old that nothing checks its blocks."""
    try:
        value = wire_xml.parse_value(xml)
    except MalformedRequest as error:
        raise XenApiError("IMPORT_ERROR", [f"ova.xml: {error}"]) from None
    if not isinstance(value, dict) or not isinstance(value.get("version"), dict):
        raise XenApiError("IMPORT_ERROR", ["ova.xml has no version"])
    _assert_readable(value["version"])
    listed = value.get("objects")
    if not isinstance(listed, list):
        raise XenApiError("IMPORT_ERROR", ["ova.xml has no objects"])
    objects: dict[str, Object] = {}
    for item in listed:
        found = _object(item)
        if found.id in objects:
            raise XenApiError("IMPORT_ERROR", [f"ova.xml has two objects {found.id[:200]}"])
        if found.class_name in CLASSES:
            objects[found.id] = found
    return Metadata(objects)


def _object(item: Any) -> Object:
    if isinstance(item, dict):
        class_name, id_, raw = item.get("class"), item.get("id"), item.get("snapshot")
        if isinstance(class_name, str) and isinstance(id_, str) and isinstance(raw, dict):
            return Object(class_name, id_, raw)
    raise XenApiError("IMPORT_ERROR", ["ova.xml has an object without class, id or snapshot"])


def _assert_readable(version: Mapping[str, Any]) -> None:
    try:
        major, minor, export = (int(version.get(key, 0)) for key in ("xapi_major", "xapi_minor", "export_vsn"))
    except (TypeError, ValueError):
        raise XenApiError("IMPORT_ERROR", ["ova.xml has a version that is no number"]) from None
    if (major, minor) > XAPI_VERSION or export < EXPORT_VERSION:
        raise XenApiError("IMPORT_INCOMPATIBLE_VERSION", [])
