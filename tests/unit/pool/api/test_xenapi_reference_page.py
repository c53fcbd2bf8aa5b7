"""docs/reference/xenapi-methods.md says what is there, word for word."""

from pathlib import Path

from gespann.main.xenapi_reference import page
from gespann.pool.api import dispatch
from gespann.seams.xenapi import datamodel

PAGE = Path(__file__).resolve().parents[4] / "docs/reference/xenapi-methods.md"


def test_page_is_true():
    run = "run: python -m gespann.main.xenapi_reference > docs/reference/xenapi-methods.md"
    assert PAGE.read_text(encoding="utf-8") == page(), run


def test_every_published_message_is_either_answered_or_named_as_missing():
    sections = dict(section.split("\n", 1) for section in page().split("\n## ")[1:])
    absent_classes = sections.pop("Classes that are not there")
    for name, class_ in datamodel.classes().items():
        if name not in sections:
            assert f"`{name}`" in absent_classes
            continue
        missing = sections[name].partition("Not there: ")[2]
        for message in class_.messages:
            answered = dispatch.bind(name, message) is not None
            assert answered != (f"`{message}`" in missing), f"{name}.{message}"
