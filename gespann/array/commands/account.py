"""``account``: who may log in, and how."""

import asyncssh

from gespann.array.commands.declare import Command, Flag, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs, table
from gespann.array.commands.words import BadInput
from gespann.array.model.records import Account
from gespann.array.model.refusals import Conflict

COLUMNS = (("Name", 20), ("Privilege", 10), ("Enabled", 8), ("Description", 30))
KEYS_MOST = 16


@command(
    "account create <name:new-account> password <password>",
    "Makes an account.",
    Flag("read-only", key="read_only", value=True, help="it can look, but not change anything"),
    Flag("read-write", key="read_only", value=False, help="the default"),
    Option("description", "text"),
)
async def create(session: Session, name: str, password: str, read_only: bool = False, description: str = "") -> Lines:
    await session.control.accounts.create(name, password, read_only=read_only, description=description)
    session.control.events.add("INFO", "6.1.1", f"Account {name} created.")
    return ["Account creation succeeded."]


@command("account delete <account>", "Deletes an account.")
async def delete(session: Session, account: Account) -> Lines:
    if account.name == session.account_name:
        raise Conflict("This is your own account. Another administrator can delete it.")
    if not await session.confirm(f"Do you really want to delete account {account.name}?"):
        return []
    session.control.accounts.delete(account.name)
    session.control.events.add("INFO", "6.1.2", f"Account {account.name} deleted.")
    session.context = []
    return ["Account deletion succeeded."]


@command("account show", "Lists the accounts.", changes=False)
async def show(session: Session) -> Lines:
    rows = [
        (one.name, _privilege(one), "yes" if one.enabled else "no", one.description)
        for one in session.control.accounts.all()
    ]
    return table(COLUMNS, rows)


@command("account show <account>", "Shows an account.", changes=False)
async def show_one(session: Session, account: Account) -> Lines:
    return _detail(session, account)


@command("account select <account> show", "Shows the account.", changes=False)
async def select_show(session: Session, account: Account) -> Lines:
    return _detail(session, account)


@command("account select <account> password <password>", "Sets the password.")
async def password(session: Session, account: Account, password: str) -> Lines:
    await session.control.accounts.set_password(account.name, password)
    session.control.events.add("INFO", "6.1.3", f"Password of account {account.name} changed.")
    return []


@command("account select <account> description <description:text>", "Says whose account it is.")
async def description(session: Session, account: Account, description: str) -> Lines:
    session.control.accounts.set_description(account.name, description)
    return []


@command("account select <account> enable", "Lets the account log in.")
async def enable(session: Session, account: Account) -> Lines:
    session.control.accounts.set_enabled(account.name, True)
    return []


@command("account select <account> disable", "The account can no longer log in or do anything.")
async def disable(session: Session, account: Account) -> Lines:
    session.control.accounts.set_enabled(account.name, False)
    return []


@command("account select <account> publickey create <key:public-key>", "Adds a public key for logging in.")
async def publickey_create(session: Session, account: Account, key: str) -> Lines:
    try:
        parsed = asyncssh.import_public_key(key)
    except (asyncssh.KeyImportError, ValueError):
        raise BadInput("This is not a public key in OpenSSH's form; it is one line, and belongs in quotes.") from None
    if len(account.public_keys) >= KEYS_MOST:
        raise Conflict(f"An account can have {KEYS_MOST} public keys at most.")
    line = parsed.export_public_key("openssh").decode().strip()
    if line not in account.public_keys:
        session.control.accounts.set_public_keys(account.name, [*account.public_keys, line])
    return []


@command("account select <account> publickey delete <number:count>", "Takes a public key away.")
async def publickey_delete(session: Session, account: Account, number: int) -> Lines:
    if number > len(account.public_keys):
        raise Conflict(f"Public key {number} does not exist.")
    keys = [key for at, key in enumerate(account.public_keys, 1) if at != number]
    session.control.accounts.set_public_keys(account.name, keys)
    return []


def _privilege(account: Account) -> str:
    return "read-only" if account.read_only else "read-write"


def _detail(session: Session, account: Account) -> Lines:
    values = [
        ("Name", account.name),
        ("Privilege", _privilege(account)),
        ("Enabled", "yes" if account.enabled else "no"),
        ("Description", account.description),
    ]
    for number, key in enumerate(account.public_keys, 1):
        public = asyncssh.import_public_key(key)
        values.append((f"PublicKey-{number}", f"{public.get_fingerprint()} {public.algorithm.decode()}"))
    return pairs(values, session.settings.formatoutput)


COMMANDS: list[Command] = [
    create,
    delete,
    show,
    show_one,
    select_show,
    password,
    description,
    enable,
    disable,
    publickey_create,
    publickey_delete,
]
