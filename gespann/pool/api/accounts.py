"""The pool's own accounts: names, scrypt hashes and roles, in one file of the data directory.

At first start there is one, ``root``, pool-admin, whose password was given or is made at random and then left in
``root.password`` for the administrator to read. Changing the password takes that file away.
"""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gespann.seams.xenapi.datamodel import ROLES
from gespann.seams.xenapi.errors import XenApiError
from gespann.system import files, log

ROOT = "root"
PASSWORD_MIN_CHARS, PASSWORD_MAX_CHARS = 6, 1024
#: one check takes about 50 ms and 16 MiB; more at once would let strangers use up the host
CHECKS_AT_ONCE = 2
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1


@dataclass(frozen=True)
class Account:
    name: str
    role: str
    salt: bytes
    hash: bytes

    def __repr__(self) -> str:
        return f"Account({self.name}, {self.role})"


class _Stored(msgspec.Struct):
    role: str
    salt: bytes
    hash: bytes


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=32)


class Accounts:
    def __init__(self, directory: Path) -> None:
        self.directory = directory  # for what is kept beside
        self._path = directory / "accounts.json"
        self.password_path = directory / "root.password"
        self._accounts: dict[str, Account] = {}
        self._slots = asyncio.Semaphore(CHECKS_AT_ONCE)
        #: checked in place of an unknown account, so that the time taken does not tell which names exist
        self._nobody = Account("", ROLES[0], secrets.token_bytes(16), secrets.token_bytes(32))

    def open(self, root_password: str | None = None) -> None:
        """Reads the accounts, or at first start makes ``root``."""
        if self._path.exists():
            stored = msgspec.json.decode(files.read_secret(self._path), type=dict[str, _Stored])
            self._accounts = {name: Account(name, s.role, s.salt, s.hash) for name, s in stored.items()}
            return
        password = root_password
        if password is None:
            if self.password_path.exists():  # an earlier first start ended between the two files
                password = files.read_secret(self.password_path).decode().strip()
            else:
                password = secrets.token_urlsafe(18)
                files.write_secret(self.password_path, f"{password}\n".encode())
        log.hide(password)
        self.put(ROOT, password, ROLES[-1])

    def put(self, name: str, password: str, role: str) -> None:
        """Makes an account, or gives it another password and role; durable when it returns."""
        salt = secrets.token_bytes(16)
        accounts = {**self._accounts, name: Account(name, role, salt, _scrypt(password, salt))}
        stored = {n: _Stored(a.role, a.salt, a.hash) for n, a in accounts.items()}
        files.write_secret(self._path, msgspec.json.encode(stored))
        self._accounts = accounts

    async def check(self, name: str, password: str) -> Account | None:
        """The account, if the password is right."""
        account = self._accounts.get(name, self._nobody)
        if len(password) > PASSWORD_MAX_CHARS:
            return None
        async with self._slots:
            given = await asyncio.to_thread(_scrypt, password, account.salt)
        right = hmac.compare_digest(given, account.hash)
        return account if right and account is not self._nobody else None

    async def change_password(self, name: str, old: str, new: str, *, check_old: bool = True) -> None:
        """CHANGE_PASSWORD_REJECTED: too short or too long; SESSION_AUTHENTICATION_FAILED: the old one is wrong."""
        if not PASSWORD_MIN_CHARS <= len(new) <= PASSWORD_MAX_CHARS or "\n" in new:
            text = f"A password has {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters on one line"
            raise XenApiError("CHANGE_PASSWORD_REJECTED", [text])
        account = self._accounts.get(name)
        if account is None or (check_old and await self.check(name, old) is None):
            raise XenApiError("SESSION_AUTHENTICATION_FAILED", [name, "Authentication failure"])
        log.hide(new)
        self.put(name, new, account.role)
        if name == ROOT:
            self.password_path.unlink(missing_ok=True)
