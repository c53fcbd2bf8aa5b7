"""What a command knows of the session it runs in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from gespann.array.commands.parser import Selected
from gespann.array.control import Control
from gespann.array.model.records import Account, CliSettings
from gespann.array.model.sizes import format_size

Ask = Callable[[str], Awaitable[bool]]


@dataclass
class Screen:
    """``stty``: holds for the session only."""

    columns: int = 80
    rows: int = 24
    hardwrap: bool = True


async def _nobody_to_ask(_: str) -> bool:
    return False


@dataclass
class Session:
    control: Control
    account_name: str
    number: int = 0
    address: str = ""
    started: datetime | None = None
    screen: Screen = field(default_factory=Screen)
    context: list[Selected] = field(default_factory=list)
    ask: Ask = _nobody_to_ask
    closing: bool = False
    others: Callable[[], list["Session"]] = list  # all sessions there are

    @property
    def account(self) -> Account:
        """As it is now: another session may change it. Mistake if it has been deleted."""
        return self.control.accounts.get(self.account_name)

    @property
    def settings(self) -> CliSettings:
        account = self.control.accounts.find(self.account_name)
        return account.settings if account else CliSettings()

    @property
    def prompt(self) -> str:
        context = f"({self.context[-1].label(self.control)})" if self.context else ""
        return f"{self.control.parameters.get('name')}{context}> "

    def size(self, size_bytes: int, rounding: str = "nearest") -> str:
        return format_size(size_bytes, self.settings.displayinMB, rounding)

    def remark(self, text: str) -> list[str]:
        """A line for people, after a command that succeeded; ``grpparams info-messages disable`` silences it."""
        return [text] if self.control.parameters.enabled("info-messages") else []

    def leave(self, naa: str) -> None:
        """What has this identity has gone: nothing below it is selected any more."""
        for depth, level in enumerate(self.context):
            if getattr(level.value, "naa", None) == naa:
                self.context = self.context[:depth]
                return

    async def confirm(self, question: str) -> bool:
        """Yes, or confirmation is off. The answer defaults to no."""
        return not self.settings.confirmation or await self.ask(f"{question} (y/n) [n] ")
