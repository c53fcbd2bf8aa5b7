"""``cli-settings`` (kept with the account) and ``stty`` (for the session)."""

import msgspec

from gespann.array.commands.declare import Command, Lines, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs
from gespann.array.model.records import CliSettings

_HELP = {
    "confirmation": "whether questions are asked before data is lost",
    "paging": "whether output stops after each screen",
    "events": "whether events are printed as they happen",
    "formatoutput": "whether two values share a line",
    "displayinMB": "whether all sizes are whole MB",
    "idlelogout": "whether an idle session ends",
    "reprintBadInput": "whether a bad command is offered again for editing",
}


@command("cli-settings show", "Shows the settings of the command line.", changes=False)
async def show(session: Session) -> Lines:
    values = msgspec.structs.asdict(session.settings)
    return pairs([(name, "on" if on else "off") for name, on in values.items()], session.settings.formatoutput)


def _setter(name: str) -> Command:
    async def run(session: Session, state: str) -> Lines:
        settings = msgspec.structs.replace(session.settings, **{name: state == "on"})
        session.control.accounts.set_settings(session.account_name, settings)
        return []

    return command(f"cli-settings {name} <state:on|off>", f"Sets {_HELP[name]}.", changes=False)(run)


@command("stty show", "Shows the settings of the terminal.", changes=False)
async def stty_show(session: Session) -> Lines:
    screen = session.screen
    values = [
        ("columns", str(screen.columns)),
        ("rows", str(screen.rows)),
        ("hardwrap", "on" if screen.hardwrap else "off"),
    ]
    return pairs(values, session.settings.formatoutput)


@command("stty columns <columns>", "Sets the width of the terminal.", changes=False)
async def stty_columns(session: Session, columns: int) -> Lines:
    session.screen.columns = columns
    return []


@command("stty rows <rows>", "Sets the height of the terminal.", changes=False)
async def stty_rows(session: Session, rows: int) -> Lines:
    session.screen.rows = rows
    return []


@command("stty hardwrap <state:on|off>", "Whether lines are broken at the width of the terminal.", changes=False)
async def stty_hardwrap(session: Session, state: str) -> Lines:
    session.screen.hardwrap = state == "on"
    return []


COMMANDS: list[Command] = [
    show,
    *(_setter(name) for name in CliSettings.__struct_fields__),
    stty_show,
    stty_columns,
    stty_rows,
    stty_hardwrap,
]
