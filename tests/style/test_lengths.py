"""Functions of about 30 lines and files of about 300 are the aim; past 70 and 600: split, or listed with the reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.style.tree import files_of, syntax_of, text_of

FUNCTION_LINES = 70
FILE_LINES = 600
CODE = ("gespann", "engine", "bench", "guest", "web", "setup")

# path -> why it may be longer
LONG_FILES: dict[str, str] = {}
# path:function -> why it may be longer
LONG_FUNCTIONS: dict[str, str] = {}


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(syntax_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def rust_functions(path: Path) -> Iterator[tuple[str, int]]:
    """In formatted code a function ends at the first `}` that stands as far in as its `fn`."""
    lines = (text_of(path) or "").splitlines()
    for start, line in enumerate(lines):
        found = re.match(r"(\s*)(?:pub(?:\([^)]*\))? )?(?:async |const |unsafe |extern \S+ )*fn (\w+)", line)
        if not found or line.rstrip().endswith(";"):
            continue
        for end in range(start, len(lines)):
            if lines[end].startswith((f"{found[1]}}}", f"{found[1]};")) or (end == start and line.endswith("}")):
                yield found[2], end - start + 1
                break


def test_functions_fit_on_a_page() -> None:
    wrong = []
    for suffix, functions in ((".py", python_functions), (".rs", rust_functions)):
        for path in files_of(suffix, *CODE):
            for name, lines in functions(path):
                if lines > FUNCTION_LINES and f"{path}:{name}" not in LONG_FUNCTIONS:
                    wrong.append(f"{path}:{name}: {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_files_are_not_too_long() -> None:
    wrong = []
    for suffix in (".py", ".rs", ".ts", ".c", ".sh"):
        for path in files_of(suffix, *CODE):
            lines = len((text_of(path) or "").splitlines())
            if lines > FILE_LINES and str(path) not in LONG_FILES:
                wrong.append(f"{path}: {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_the_exceptions_are_still_needed() -> None:
    short = [name for name in LONG_FILES if len((text_of(Path(name)) or "").splitlines()) <= FILE_LINES]
    lengths = {
        f"{path}:{name}": lines
        for suffix, functions in ((".py", python_functions), (".rs", rust_functions))
        for path in files_of(suffix, *CODE)
        for name, lines in functions(path)
    }
    short += [name for name in LONG_FUNCTIONS if lengths.get(name, 0) <= FUNCTION_LINES]
    assert not short, f"no longer exceptions: {short}"
