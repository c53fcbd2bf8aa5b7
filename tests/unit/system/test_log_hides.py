import logging

from gespann.system.log import hide, start_logging


def test_hidden_text_is_blotted_even_in_tracebacks(capsys):
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        start_logging()
        hide("correct-horse")
        try:
            raise ValueError("correct-horse")
        except ValueError:
            logging.getLogger("x").exception("with correct-horse")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    shown = capsys.readouterr().err
    assert "correct-horse" not in shown
    assert shown.count("(hidden)") == 3  # message, source line, exception
