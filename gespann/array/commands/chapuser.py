"""``chapuser``: names and passwords by which initiators prove themselves."""

from gespann.array.commands.declare import Command, Flag, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, table
from gespann.array.model.records import ChapUser
from gespann.array.model.refusals import Conflict

COLUMNS = (("Name", 30), ("Enabled", 8))


@command(
    "chapuser create <name:user-name>",
    "Makes a CHAP user; prints the password if it made one.",
    Option("password", "secret", help="default: 16 characters by chance"),
    Flag("enable", key="enabled", value=True, help="the default"),
    Flag("disable", key="enabled", value=False, help="nobody can prove to be this user for now"),
)
async def create(session: Session, name: str, password: str | None = None, enabled: bool = True) -> Lines:
    made = await session.control.policy.create_chap_user(name, password, enabled)
    return ["CHAP user creation succeeded.", *([] if password else [f"Password is {made}"])]


@command("chapuser delete <user:chap-user>", "Deletes a CHAP user.")
async def delete(session: Session, user: ChapUser) -> Lines:
    if not await session.confirm(f"Do you really want to delete CHAP user {user.name}?"):
        return []
    await session.control.policy.delete_chap_user(user.name)
    session.context = [level for level in session.context if level.value != user]
    return ["CHAP user deletion succeeded."]


@command("chapuser show", "Lists the CHAP users.", changes=False)
async def show(session: Session) -> Lines:
    return table(COLUMNS, [(user.name, "yes" if user.enabled else "no") for user in session.control.chap_users.all()])


@command("chapuser show <user:chap-user>", "Shows a CHAP user with its password.", changes=False)
async def show_one(session: Session, user: ChapUser) -> Lines:
    return _detail(session, user)


@command("chapuser select <user:chap-user> show", "Shows the CHAP user with its password.", changes=False)
async def select_show(session: Session, user: ChapUser) -> Lines:
    return _detail(session, user)


@command("chapuser select <user:chap-user> enable", "Lets initiators prove to be this user.")
async def enable(session: Session, user: ChapUser) -> Lines:
    await session.control.policy.set_chap_user(user.name, enabled=True)
    return []


@command("chapuser select <user:chap-user> disable", "No new connection can prove to be this user.")
async def disable(session: Session, user: ChapUser) -> Lines:
    await session.control.policy.set_chap_user(user.name, enabled=False)
    return []


@command("chapuser select <user:chap-user> password <secret>", "Sets the password.")
async def password(session: Session, user: ChapUser, secret: str) -> Lines:
    await session.control.policy.set_chap_user(user.name, secret=secret)
    return []


def _detail(session: Session, user: ChapUser) -> Lines:
    if session.account.read_only:
        raise Conflict(f"Account {session.account_name} is read-only; passwords are not shown to it.")
    values = [
        ("Name", user.name),
        ("Enabled", "yes" if user.enabled else "no"),
        ("Password", session.control.chap_users.secret(user.name)),
    ]
    return pairs(values, session.settings.formatoutput)


COMMANDS: list[Command] = [create, delete, show, show_one, select_show, enable, disable, password]
