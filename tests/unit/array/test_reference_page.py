from gespann.array.commands.reference import reference_page
from gespann.main.array_reference import PAGE


def test_the_page_is_what_the_declarations_say():
    assert PAGE.read_text() == reference_page(), "run: .venv/bin/python -m gespann.main.array_reference"
