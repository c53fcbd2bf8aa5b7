"""Which fields hold the other side of which: the published relations, arranged for the database's quick use.

``followers`` gives the many sides that follow a field; ``leaders`` the one side that a many side is kept from, for
a record that goes away. Relations whose two sides are the same field (``role.subroles``) keep themselves.
"""

from functools import cache

from gespann.seams.xenapi import datamodel

Side = tuple[str, str]


@cache
def followers() -> dict[str, dict[str, list[Side]]]:
    """class -> one-side field -> the (class, field) of many sides kept from it."""
    found: dict[str, dict[str, list[Side]]] = {}
    for relation in datamodel.relations():
        if relation.one != relation.many:
            class_name, field_name = relation.one
            found.setdefault(class_name, {}).setdefault(field_name, []).append(relation.many)
    return found


@cache
def leaders() -> dict[str, dict[str, Side]]:
    """class -> many-side field -> the one side that it is kept from."""
    found: dict[str, dict[str, Side]] = {}
    for relation in datamodel.relations():
        if relation.one != relation.many:
            class_name, field_name = relation.many
            found.setdefault(class_name, {})[field_name] = relation.one
    return found


@cache
def reference_fields(class_name: str) -> dict[str, str]:
    """Fields of a class that hold a ref or a set of refs -> the class they point to."""
    found = {}
    for field in datamodel.classes()[class_name].fields.values():
        type_ = field.type.inner if field.type.kind == "set" else field.type
        if type_ is not None and type_.kind == "ref":
            found[field.name] = type_.name
    return found
