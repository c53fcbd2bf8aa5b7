"""Reading and writing through the iSCSI session that a ``qemu-io`` holds for a fake machine: its commands come by a
pipe (``STEM.in``), what it says is in a file (``STEM.out``).

The commands are those of qemu-io(1); each runs to its end before the next.
"""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from gespann.seams.json_lines import SeamError

ANSWER_WITHIN_S = 60.0
POLL_S = 0.005
KIB = 1024
BAND = 64 * KIB
BANDS = (0, 10 * KIB**2)  # where a disk has its letter; the rest is empty
_LENGTH = re.compile(r"^([\d.]+) (bytes|KiB|MiB|GiB)$", re.MULTILINE)
_DUMPED = re.compile(r"^[0-9a-f]{8,}:  ((?:[0-9a-f]{2} )+)", re.MULTILINE)
_PROMPT = "qemu-io> "
_UNITS = {"bytes": 1, "KiB": KIB, "MiB": KIB**2, "GiB": KIB**3}


class HeldDisk:
    """One session's disk; SeamError STORAGE when what was asked fails."""

    def __init__(self, stem: Path) -> None:
        self._pipe, self._said, self._data = (stem.with_suffix(suffix) for suffix in (".in", ".out", ".data"))

    @property
    def size_bytes(self) -> int:
        said = self._said.read_text().replace(_PROMPT, "")
        found = _LENGTH.search(said)
        assert found is not None, said
        return round(float(found[1]) * _UNITS[found[2]])

    def read(self, offset: int, length: int) -> bytes:
        said = self._ask(f"read -v {offset} {length}", "read")
        data = b"".join(bytes.fromhex(line) for line in _DUMPED.findall(said))
        assert len(data) == length, said
        return data

    def look_at_size(self, size_bytes: int) -> None:
        """As a machine does that is told of its disk's growth."""
        self._until(f"truncate {size_bytes}", lambda said: _PROMPT in said)

    def holds(self, byte: int, offset: int, length: int) -> bool:
        """That it is nothing but this byte."""
        return "Pattern verification failed" not in self._ask(f"read -P {byte} {offset} {length}", "read")

    def write(self, offset: int, data: bytes) -> None:
        """Durable when it returns."""
        self._data.write_bytes(data)
        self._ask(f"write -f -s {self._data} {offset} {len(data)}", "wrote")

    def zero(self, offset: int, length: int) -> None:
        self._ask(f"write -f -z {offset} {length}", "wrote")

    def _ask(self, command: str, done: str) -> str:
        """What it says from the command on."""
        end = re.compile(rf"{done} \d+/\d+ bytes at offset \d+\n.*ops.*\n")
        return self._until(command, lambda said: end.search(said) is not None)

    def _until(self, command: str, is_done: Callable[[str], bool]) -> str:
        """One command at a time, each when the prompt asks for it: of two that come together it would read the second
        only when a third comes."""
        self._wait(lambda: self._said.read_bytes().endswith(_PROMPT.encode()), command)
        before = self._said.stat().st_size
        pipe = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, command.encode() + b"\n")
        finally:
            os.close(pipe)

        def said() -> str:
            return self._said.read_bytes()[before:].decode()

        self._wait(lambda: said().endswith(_PROMPT) and (is_done(said()) or " failed: " in said()), command)
        if " failed: " in said():
            raise SeamError("STORAGE", said())
        return said().replace(_PROMPT, "")

    @staticmethod
    def _wait(condition: Callable[[], bool], command: str) -> None:
        deadline_s = time.monotonic() + ANSWER_WITHIN_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise SeamError("STORAGE", f"{command}: no answer")
            time.sleep(POLL_S)
