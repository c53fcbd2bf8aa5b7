"""CHAP users: names and secrets by which initiators prove themselves. Secrets are sealed in the database."""

from gespann.array.model import names
from gespann.array.model.database import Database
from gespann.array.model.records import ChapUser
from gespann.array.model.refusals import Conflict, not_there
from gespann.array.model.secrets import Vault, generate_password


class ChapUsers:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def all(self) -> list[ChapUser]:
        return self._database.records(ChapUser, "SELECT name, enabled FROM chap_user ORDER BY name")

    def get(self, name: str) -> ChapUser:
        found = self._database.records(ChapUser, "SELECT name, enabled FROM chap_user WHERE name = ?", name)
        if not found:
            raise not_there("CHAP user", name)
        return found[0]

    def secret(self, name: str) -> str:
        self.get(name)
        sealed = self._database.rows("SELECT secret FROM chap_user WHERE name = ?", name)[0]["secret"]
        return self._vault.open(name, sealed)

    def create(self, name: str, secret: str | None = None, *, enabled: bool = True) -> str:
        """The secret, made by chance if none is given."""
        names.chap_user_name(name)
        secret = generate_password() if secret is None else names.chap_secret(secret)
        if any(user.name == name for user in self.all()):
            raise Conflict(f"CHAP user {name} already exists.")
        with self._database.transaction():
            sealed = self._vault.seal(name, secret)
            self._database.run("INSERT INTO chap_user (name, enabled, secret) VALUES (?, ?, ?)", name, enabled, sealed)
        return secret

    def set_secret(self, name: str, secret: str) -> None:
        self.get(name)
        with self._database.transaction():
            sealed = self._vault.seal(name, names.chap_secret(secret))
            self._database.update("chap_user", "name", name, {"secret": sealed})

    def set_enabled(self, name: str, enabled: bool) -> None:
        self.get(name)
        with self._database.transaction():
            self._database.update("chap_user", "name", name, {"enabled": enabled})

    def delete(self, name: str) -> None:
        self.get(name)
        with self._database.transaction():
            self._database.run("DELETE FROM chap_user WHERE name = ?", name)
