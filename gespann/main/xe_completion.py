"""The part of ``completion/xe.bash`` that follows from the declarations: what fields of few possible values may be.

python -m gespann.main.xe_completion completion/xe.bash       writes that part of the file anew
"""

import sys
from collections import defaultdict
from pathlib import Path

from gespann.seams.xenapi import datamodel
from gespann.xe.records.catalog import object_classes
from gespann.xe.records.spelling import printed
from gespann.xe.registry import commands

BEGIN, END = "# begin: python -m gespann.main.xe_completion writes this\n", "# end\n"
_WIDTH = 118


def part() -> str:
    lines = [
        "# What a field of few possible values may be, by class and field.",
        "_xe_choices_of_field() {",
        "    case $1.$2 in",
    ]
    for words, patterns in sorted(_patterns().items()):
        lines += [f"        {line}" for line in _wrapped(sorted(patterns))]
        lines.append(f"            printf '%s\\n' {' '.join(_quoted(word) for word in words)} ;;")
    return "\n".join([*lines, "    esac", "}", ""])


def _patterns() -> dict[tuple[str, ...], list[str]]:
    """Values -> ``class.field``, or ``*.field`` where several classes agree and none does not: arguments of commands on
    other classes that have that name mean the same then."""
    found: dict[str, dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for object_class in object_classes().values():
        if f"{object_class.name}-list" not in commands():
            continue
        for column in object_class.columns:
            if column.type is not None and not column.hidden and (words := _words(column.type)):
                found[column.name][words].append(object_class.name)
    patterns: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for field, by_words in found.items():
        for words, classes in by_words.items():
            agreed = len(by_words) == 1 and len(classes) > 1
            patterns[words] += [f"*.{field}"] if agreed else [f"{name}.{field}" for name in classes]
    return patterns


def _words(type_: datamodel.Type) -> tuple[str, ...]:
    if type_.kind == "bool":
        return ("true", "false")
    return tuple(printed(type_.name, value) for value in datamodel.enums()[type_.name]) if type_.kind == "enum" else ()


def _wrapped(patterns: list[str]) -> list[str]:
    lines = [""]
    for number, pattern in enumerate(patterns):
        piece = pattern + (")" if number + 1 == len(patterns) else " | ")
        if len(lines[-1]) + len(piece) > _WIDTH - 8:
            lines[-1] = lines[-1].rstrip() + " \\"
            lines.append("")
        lines[-1] += piece
    return lines


def _quoted(word: str) -> str:
    return word if word.replace("-", "").replace("_", "").isalnum() else f"'{word}'"


def written_anew(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + part() + END + rest.partition(END)[2]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written_anew(path.read_text(encoding="utf-8")), encoding="utf-8")
