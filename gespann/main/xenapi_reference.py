"""The page ``docs/reference/xenapi-methods.md``, made from the published API and what this pool answers of it:
``python -m gespann.main.xenapi_reference > docs/reference/xenapi-methods.md``."""

from collections.abc import Iterable

from gespann.pool import classes as work_classes
from gespann.pool.api import api as door
from gespann.pool.api import dispatch
from gespann.pool.api.advertised import CLASSES
from gespann.pool.api.messages import HANDLERS, SETTERS
from gespann.seams.xenapi import datamodel

HANDLER_MODULES = (*work_classes.HANDLER_MODULES, *door.HANDLER_MODULES)  # imported: their handlers are registered

HEAD = """# XenAPI: what is there, and what is not

This page is made from the published API and from what the pool answers of it; `python -m gespann.main.xenapi_reference`
prints it anew, and a test keeps it true. Others try every method that is there: as it is meant, and with parameters of
every wrong kind.

A method that is not there answers `MESSAGE_METHOD_UNKNOWN`, and `system.listMethods` does not name it. Records always
have all published fields.

*Generic* messages are answered from the declaration of the class alone: `get_record`, `get_by_uuid`,
`get_by_name_label`, `get_all`, `get_all_where`, `get_all_records`, `get_all_records_where`, a getter for each field,
and setters, adders and removers of the fields that may be written.
"""


def page() -> str:
    here = sorted(CLASSES, key=str.lower)
    return "\n".join([HEAD, *_classes(here), *_absent_classes(here), ""])


def _classes(names: Iterable[str]) -> list[str]:
    lines = []
    for name in names:
        messages = datamodel.classes()[name].messages
        bound = {m for m in messages if dispatch.bind(name, m)}
        work = sorted(m for m in messages if f"{name}.{m}" in HANDLERS)
        absent = sorted(set(messages) - bound)
        hooks = sorted(field.partition(".")[2] for field in SETTERS if field.startswith(f"{name}."))
        lines += [f"## {name}", "", f"{len(bound)} of {len(messages)} messages: {len(bound) - len(work)} generic"]
        lines[-1] += f", and {_words(work)}." if work else "."
        if hooks:
            lines.append(f"Setting {_words(hooks)} does more than to write the field.")
        lines += [f"Not there: {_words(absent)}." if absent else "Nothing is missing.", ""]
    return lines


def _absent_classes(here: Iterable[str]) -> list[str]:
    absent = sorted(set(datamodel.classes()) - set(here), key=str.lower)
    return ["## Classes that are not there", "", f"{_words(absent)}."]


def _words(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(page(), end="")
