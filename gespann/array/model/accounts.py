"""Who may use the group: accounts with hashed passwords, public keys, and CLI settings that outlive a session."""

import msgspec

from gespann.array.model import names
from gespann.array.model.database import Database
from gespann.array.model.records import Account, CliSettings
from gespann.array.model.refusals import Conflict, Mistake, not_there
from gespann.array.model.secrets import aside, check_password, hash_password

ADMINISTRATOR = "grpadmin"
PASSWORD_CHARS = (3, 255)


class Accounts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Account]:
        return [self._record(name) for (name,) in self._database.rows("SELECT name FROM account ORDER BY name")]

    def find(self, name: str) -> Account | None:
        rows = self._database.rows("SELECT 1 FROM account WHERE name = ?", name)
        return self._record(name) if rows else None

    def get(self, name: str) -> Account:
        account = self.find(name)
        if account is None:
            raise not_there("Account", name)
        return account

    def _record(self, name: str) -> Account:
        row = self._database.rows("SELECT * FROM account WHERE name = ?", name)[0]
        return Account(
            name=row["name"],
            read_only=bool(row["read_only"]),
            enabled=bool(row["enabled"]),
            description=row["description"],
            public_keys=msgspec.json.decode(row["public_keys"], type=list[str]),
            settings=msgspec.json.decode(row["settings"], type=CliSettings),
        )

    async def create(self, name: str, password: str, *, read_only: bool = False, description: str = "") -> Account:
        hashed = await aside(hash_password, checked_password(password))
        return self.add(name, hashed, read_only=read_only, description=description)

    def add(self, name: str, password_hash: str, *, read_only: bool = False, description: str = "") -> Account:
        names.account_name(name)
        if self.find(name) is not None:
            raise Conflict(f"Account {name} already exists.")
        with self._database.transaction():
            self._database.run(
                "INSERT INTO account (name, password_hash, read_only, enabled, description, public_keys, settings)"
                " VALUES (?, ?, ?, 1, ?, '[]', '{}')",
                name,
                password_hash,
                read_only,
                names.description(description),
            )
        return self.get(name)

    def delete(self, name: str) -> None:
        account = self.get(name)
        if account.name == ADMINISTRATOR:
            raise Conflict(f"Account {ADMINISTRATOR} cannot be deleted.")
        with self._database.transaction():
            self._database.run("DELETE FROM account WHERE name = ?", name)

    async def set_password(self, name: str, password: str) -> None:
        self._change(name, password_hash=await aside(hash_password, checked_password(password)))

    def set_description(self, name: str, text: str) -> None:
        self._change(name, description=names.description(text))

    def set_enabled(self, name: str, enabled: bool) -> None:
        if self.get(name).name == ADMINISTRATOR and not enabled:
            raise Conflict(f"Account {ADMINISTRATOR} cannot be disabled.")
        self._change(name, enabled=enabled)

    def set_public_keys(self, name: str, keys: list[str]) -> None:
        self._change(name, public_keys=msgspec.json.encode(keys).decode())

    def set_settings(self, name: str, settings: CliSettings) -> None:
        self._change(name, settings=msgspec.json.encode(settings).decode())

    def _change(self, name: str, **changes: object) -> None:
        account = self.get(name)
        with self._database.transaction():
            self._database.update("account", "name", account.name, changes)

    async def authenticate(self, name: str, password: str) -> bool:
        rows = self._database.rows("SELECT password_hash, enabled FROM account WHERE name = ?", name)
        matches = await check_password(password, rows[0]["password_hash"] if rows else None)
        return matches and bool(rows[0]["enabled"])


def checked_password(untrusted: str) -> str:
    shortest, longest = PASSWORD_CHARS
    if not shortest <= len(untrusted) <= longest:
        raise Mistake(f"A password has {shortest} to {longest} characters.")
    return untrusted
