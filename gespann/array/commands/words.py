"""A command line as words. Blanks separate; '...' and "..." keep blanks and #; an unquoted # begins a comment."""

from dataclasses import dataclass

from gespann.array.model.refusals import Mistake


class BadInput(Mistake):
    """The line is not a command: the shell may offer it again for editing."""


@dataclass(frozen=True)
class Word:
    text: str
    quoted: bool = False  # a quoted word is never a keyword's abbreviation, a ? or an option


def split_words(untrusted: str) -> list[Word]:
    words: list[Word] = []
    text, quoted, inside, mark = "", False, False, ""
    for character in untrusted:
        if mark:
            if character == mark:
                mark = ""
            else:
                text += character
        elif character in "'\"":
            mark, quoted, inside = character, True, True
        elif character == "#":
            break
        elif character in " \t":
            if inside:
                words.append(Word(text, quoted))
            text, quoted, inside = "", False, False
        elif not character.isprintable():
            raise BadInput("The command contains a control character.")
        else:
            text, inside = text + character, True
    if mark:
        raise BadInput(f"A closing {mark} is missing.")
    if inside:
        words.append(Word(text, quoted))
    if any(not word.text.isprintable() for word in words):
        raise BadInput("The command contains a control character.")
    return words
