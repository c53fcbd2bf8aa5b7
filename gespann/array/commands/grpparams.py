"""``grpparams``: the group's own settings. The commands are derived from ``parameters.PARAMETERS``."""

from collections.abc import Awaitable, Callable

from gespann.array.commands.declare import Command, Lines, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, rule, title
from gespann.array.commands.volume import DEPLETION
from gespann.array.model.parameters import PARAMETERS, Parameter

_KINDS = {
    "name": "value:group-name",
    "address": "value:address",
    "percent": "value:reserve",
    "thin-percent": "value:percent",
    "switch": "value:enable|disable",
    "text": "value:text",
    "depletion": f"value:{DEPLETION}",
}


@command("grpparams show", "Shows the settings of the group.", changes=False)
async def show(session: Session) -> Lines:
    parameters = session.control.parameters
    values = [(one.label, _shown(one, parameters.get(one.key))) for one in PARAMETERS]
    values.append(("Target-Auth-Password", "********" if session.control.mutual_credential() else ""))
    return [title("Group Information"), *pairs(values, session.settings.formatoutput), rule()]


def _shown(parameter: Parameter, value: str) -> str:
    if parameter.kind in ("percent", "thin-percent"):
        return f"{value}%"
    return {"enable": "enabled", "disable": "disabled"}.get(value, value) if parameter.kind == "switch" else value


def _setter(parameter: Parameter) -> Command:
    async def run(session: Session, value: str | int) -> Lines:
        control = session.control
        if parameter.key == "target-auth-username":
            await control.set_mutual(user=str(value))
        else:
            control.parameters.set(parameter.key, str(value))
            control.events.add("INFO", "5.1.1", f"Group setting {parameter.key} changed.")
        return []

    declared: Callable[[Callable[..., Awaitable[Lines]]], Command] = command(
        f"grpparams {parameter.key} <{_KINDS[parameter.kind]}>", f"Sets: {parameter.help}."
    )
    return declared(run)


@command("grpparams target-auth-password <secret>", "Sets: how the group proves itself in mutual CHAP.")
async def target_auth_password(session: Session, secret: str) -> Lines:
    await session.control.set_mutual(secret=secret)
    return []


COMMANDS: list[Command] = [show, target_auth_password, *(_setter(parameter) for parameter in PARAMETERS)]
