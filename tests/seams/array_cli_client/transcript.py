"""Reads the console transcripts of ``dialogues/``."""

from dataclasses import dataclass
from pathlib import Path

DIALOGUES = Path(__file__).parent / "dialogues"
PROMPT = "EQGroup01> "


@dataclass(frozen=True)
class Exchange:
    sent: str
    answer: str  # with CRLF, up to and with the next prompt


def exchanges(name: str) -> list[Exchange]:
    lines = [line for line in (DIALOGUES / name).read_text().splitlines() if not line.startswith("#")]
    found: list[Exchange] = []
    sent, answer = "", ""
    for line in lines:
        if line.startswith(PROMPT.rstrip()):
            if sent:
                found.append(Exchange(sent, answer + PROMPT))
            sent, answer = line.removeprefix(PROMPT.rstrip()).strip(), ""
        else:
            answer += line + "\r\n"
    return found
