"""What the demo prints: steps with their time, commands as a user types them, and a sign of life after two seconds."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

QUIET_S = 2.0  # what takes less needs no sign of life
PLAIN_EVERY_S = 5.0
OUTPUT_LINES = 50  # of a command, the rest is counted


class SignOfLife:
    """While ``waiting`` takes longer than two seconds: a spinner on a terminal, else a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        done = threading.Event()
        thread = threading.Thread(target=self._spin if self._console.is_terminal else self._tell, args=(what, done))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _spin(self, what: str, done: threading.Event) -> None:
        if done.wait(QUIET_S):
            return
        columns = (TextColumn("   "), SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            progress.add_task(escape(what), total=None)
            done.wait()

    def _tell(self, what: str, done: threading.Event) -> None:
        began = time.monotonic()
        wait_s = QUIET_S
        while not done.wait(wait_s):
            wait_s = PLAIN_EVERY_S
            self._console.print(f"    ... {escape(what)}, {time.monotonic() - began:.0f} s", highlight=False)


class Show:
    def __init__(self, steps: int) -> None:
        self.console = Console(highlight=False, soft_wrap=True, file=sys.stdout)
        self.steps = steps
        self.times: list[tuple[str, float]] = []
        self.life = SignOfLife(self.console)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        number = len(self.times) + 1
        self.console.print(f"\n[bold]{number} of {self.steps}  {escape(title)}[/bold]")
        began = time.monotonic()
        yield
        took_s = time.monotonic() - began
        self.times.append((title, took_s))
        self.console.print(f"  [dim]step {number} took {took_s:.1f} s[/dim]")

    def command(self, line: str) -> None:
        self.console.print(f"  [cyan]$ {escape(line)}[/cyan]")

    def output(self, text: str) -> None:
        lines = text.rstrip().splitlines()
        for line in lines[:OUTPUT_LINES]:
            self.console.print(f"    {escape(line)}")
        if len(lines) > OUTPUT_LINES:
            self.console.print(f"    ({len(lines) - OUTPUT_LINES} more lines)")

    def fact(self, text: str, took_s: float | None = None) -> None:
        """Something that was checked just now."""
        time_text = f" [dim]({took_s:.2f} s)[/dim]" if took_s is not None else ""
        self.console.print(f"  [green]ok[/green]  {escape(text)}{time_text}")

    def say(self, text: str) -> None:
        self.console.print(f"  {escape(text)}")

    def failure(self, text: str) -> None:
        self.console.print(f"\n[bold red]failed:[/bold red] {escape(text)}")
