"""Writes the reference page of the group CLI to docs/reference/array-cli.md."""

from pathlib import Path

from gespann.array.commands.reference import reference_page

PAGE = Path(__file__).parents[2] / "docs/reference/array-cli.md"

if __name__ == "__main__":
    PAGE.write_text(reference_page())
