"""docs/reference/xe.md says what is there, word for word."""

from pathlib import Path

from gespann.main.xe_reference import page

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/xe.md"


def test_the_page_is_true() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), "run: python -m gespann.main.xe_reference > docs/reference/xe.md"
