"""The group CLI, word for word, with and without a terminal."""

from pathlib import Path

import pytest

from tests.seams.array_cli.transcript import Transcript, play

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("pty", [True, False], ids=["pty", "no-pty"])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_transcript(group, path, pty):
    async with group.connect() as connection:
        await play(Transcript.read(path), connection, pty)
