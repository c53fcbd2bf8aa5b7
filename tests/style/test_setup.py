"""What the product stands on: every package with a reason, lock files that fit, pages that exist."""

import re
from pathlib import Path

import pytest

from tests.style.tree import ROOT, files_of, text_of

HOWTO = ("sr-driver", "xenapi-class", "array-command", "fault-test")


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_every_debian_package_has_a_reason() -> None:
    lines = [line for line in text("setup/packages.txt").splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"\S+\s+# \S.*", line)] == []
    names = [line.split()[0] for line in lines]
    assert len(names) == len(set(names)), "a package twice"


def wanted(path: str) -> set[str]:
    names = set()
    for line in text(path).splitlines():
        word = line.split("#")[0].strip()
        if word.startswith("-r"):
            names |= wanted(f"setup/{word.split()[1]}")
        elif word:
            names.add(re.split(r"[\s<>=!~\[;]", word)[0].lower().replace("_", "-"))
    return names


def locked(path: str) -> dict[str, str]:
    """Name -> version of a lock file."""
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*])?==(\S+)", text(path).lower(), re.MULTILINE))


def asked_for(path: str) -> set[str]:
    """What a lock file says was asked for by a .in file, not by another package."""
    names = set()
    for block in re.split(r"\n(?=[A-Za-z0-9])", text(path)):
        if re.search(r"# +(via )?-r requirements", block):
            names.add(block.split("==")[0].split("[")[0].lower().replace("_", "-"))
    return names


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_lock_files_are_fresh(name: str) -> None:
    assert asked_for(f"setup/{name}.lock") == wanted(f"setup/{name}.in"), "run `make lock`"


def test_tests_run_on_what_the_product_runs_on() -> None:
    product, tests = locked("setup/requirements.lock"), locked("setup/requirements-dev.lock")
    assert product.items() <= tests.items(), "run `make lock`"


def test_every_line_of_the_locks_is_checked_by_a_hash() -> None:
    for name in ("requirements", "requirements-dev"):
        entries = re.findall(r"^[A-Za-z0-9._-]+==.*$", text(f"setup/{name}.lock"), re.MULTILINE)
        assert entries
        assert all(entry.endswith("\\") for entry in entries)


def test_the_readme_begins_with_the_two_commands() -> None:
    readme = text("README.md")
    assert 0 < readme.index("make demo") < readme.index("make test") < 800


def test_continuous_integration_runs_the_tests() -> None:
    assert "make test" in text(".ci/run")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


@pytest.mark.parametrize("name", HOWTO)
def test_the_recurring_changes_have_a_page(name: str) -> None:
    assert len(text(f"docs/howto/{name}.md")) > 500
    assert f"{name}.md" in text("docs/howto/README.md")


def targets(document: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text_of(document) or "", flags=re.DOTALL))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("document", files_of(".md"), ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    for target in targets(document):
        path, _, anchor = target.partition("#")
        goal = (ROOT / document.parent / path).resolve() if path else ROOT / document
        assert goal.exists(), f"{document}: {target}"
        if anchor and goal.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{document}: {target}"


def test_every_target_of_make_says_what_it_does() -> None:
    names = re.findall(r"^\.PHONY: (\S+)$", text("Makefile"), re.MULTILINE)
    silent = [name for name in names if not re.search(rf"^{name}:.*## \S", text("Makefile"), re.MULTILINE)]
    assert names
    assert not silent
