"""Imports point one way: seams <- system <- {pool sr host array xe} <- main; those in braces never see each other."""

import sys

from tests.style.tree import files_of, imports_of

MAY_IMPORT: dict[str, set[str]] = {
    "seams": set(),
    "system": {"seams"},
    "pool": {"seams", "system"},
    "sr": {"seams", "system"},
    "host": {"seams", "system"},
    "array": {"seams", "system"},
    "xe": {"seams", "system"},
    # What puts them together. The lab makes machines of namespaces; it knows no part of the product.
    "lab": {"seams", "system"},
    "demo": {"seams", "system", "lab"},
    "main": {"seams", "system", "pool", "sr", "host", "array", "xe", "lab", "demo"},
}
PROCESS_DOORS = {"gespann/system/processes.py"}
TESTS_AND_TOOLS = {"tests", "bench"}


def test_parts_import_only_what_they_may() -> None:
    wrong = []
    for path in files_of(".py", "gespann"):
        if len(path.parts) < 3:
            continue
        part = path.parts[1]
        assert part in MAY_IMPORT, f"{path}: a new part; say in MAY_IMPORT what it may import"
        for item in imports_of(path):
            words = item.module.split(".")
            if words[0] in TESTS_AND_TOOLS:
                wrong.append(f"{path}:{item.line}: imports {item.module}")
            if words[0] != "gespann":
                continue
            seen = words[1] if len(words) > 1 else item.name
            if seen != part and seen != "__version__" and seen not in MAY_IMPORT[part]:
                wrong.append(f"{path}:{item.line}: {part} must not import {item.module}")
    assert not wrong, "\n".join(wrong)


def test_seams_need_nothing_but_msgspec_and_the_standard_library() -> None:
    allowed = set(sys.stdlib_module_names) | {"msgspec", "gespann"}
    wrong = [
        f"{path}:{item.line}: {item.module}"
        for path in files_of(".py", "gespann")
        if path.parts[1] == "seams"
        for item in imports_of(path)
        if item.module.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_processes_are_started_by_one_door() -> None:
    """``subprocess`` and its asyncio twin are used in gespann.system.processes, and nowhere else in the product."""
    wrong = [
        f"{path}:{item.line}: {item.module}"
        for path in files_of(".py", "gespann")
        if path.as_posix() not in PROCESS_DOORS
        for item in imports_of(path)
        if item.module.split(".")[0] == "subprocess"
    ]
    assert not wrong, "\n".join(wrong)
