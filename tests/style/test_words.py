"""The project speaks of itself only: no path of one machine, no host of a package registry, no word that is not ours.

The patterns are put together from pieces, so that this file does not hold what it forbids.
"""

import re

from tests.style.tree import files_of, project_files, text_of

REGISTRY_HOSTS = ("py" + "pi.org", "deb" + ".debian.org", "pythonhosted" + ".org", "registry" + ".npmjs")
FORBIDDEN = {
    "a path of one machine": r"(^|[^A-Za-z0-9_.-])/(wo" + r"rk|fa" + r"rm)/|bash_" + r"jobs",
    "a host of a package registry": "|".join(map(re.escape, REGISTRY_HOSTS)),
    "a work item": r"(?i)\bissue" + r"s? (no\. ?)?#?\d+",
    "talk of how it was written": r"(?i)\b(chat" + r"gpt|cla" + r"ude|language mod" + r"el|as an a" + r"i\b)",
}
WRITTEN_BY_TOOLS = {"engine/Cargo.lock", "package-lock.json", "LICENSE"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}


def test_no_forbidden_words() -> None:
    wrong = []
    for path in project_files():
        if path.as_posix() in WRITTEN_BY_TOOLS:
            continue
        text = text_of(path)
        for number, line in enumerate((text or "").splitlines(), 1):
            wrong += [f"{path}:{number}: {why}" for why, pattern in FORBIDDEN.items() if re.search(pattern, line)]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_named_for_nothing() -> None:
    wrong = [str(path) for path in project_files() if path.stem in FORBIDDEN_NAMES]
    assert not wrong, f"a name should say what is inside: {wrong}"


def test_nothing_is_put_off_without_an_error() -> None:
    """A driver declares what it can; nothing answers NotImplementedError."""
    wrong = [
        f"{path}:{number}"
        for path in files_of(".py", "gespann")
        for number, line in enumerate((text_of(path) or "").splitlines(), 1)
        if "Not" + "ImplementedError" in line or "TO" + "DO" in line or "FIX" + "ME" in line
    ]
    assert not wrong, "\n".join(wrong)
