"""Who there is besides the pool's own root: a directory of users and groups that the pool may be told to trust.

Subjects are named by identifiers of the directory's own. There is one directory, ``PAM``: the accounts of the
coordinator's machine, checked by PAM (service ``gespann``; without one of that name PAM uses ``other``) and listed by
NSS, so that whatever the machine is joined to (LDAP, Kerberos, a domain) counts. Identifiers are as in the original:
``u1000`` for a user, ``g1000`` for a group.
"""

import asyncio
import grp
import os
import pwd
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import pamela

from gespann.seams.xenapi.errors import XenApiError

T = TypeVar("T")

SERVICE = "gespann"
AUTH_TYPE = "PAM"
THREADS, LIMIT_S = 4, 60.0
_IDENTIFIER = re.compile(r"[ug][0-9]{1,10}", re.ASCII)


class NoSuchSubject(Exception):
    pass


class WrongPassword(Exception):
    """Text for people: what the directory says."""


class Directory(Protocol):
    async def authenticate(self, user: str, password: str) -> str:
        """The user's identifier. WrongPassword."""
        ...

    async def identifier(self, name: str) -> str:
        """Of a user or, if there is none of that name, a group. NoSuchSubject."""
        ...

    async def information(self, identifier: str) -> dict[str, str]:
        """What is known of it: ``subject-name`` at least. NoSuchSubject."""
        ...

    async def groups(self, identifier: str) -> list[str]:
        """Identifiers of all groups that it is in, at whatever depth. NoSuchSubject."""
        ...


class PamDirectory:
    """What is asked of it may take as long as the services behind it: it works in threads of its own, so that nothing
    else waits for them, and gives up after ``LIMIT_S``."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "directory")

    async def authenticate(self, user: str, password: str) -> str:
        try:
            await self._ask(pamela.authenticate, user, password, SERVICE)
        except pamela.PAMError as error:
            raise WrongPassword(str(error)) from None
        try:
            return await self.identifier(user)
        except NoSuchSubject:
            raise WrongPassword(f"{user} is no user of this machine") from None

    async def identifier(self, name: str) -> str:
        return await self._ask(_identifier, name)

    async def information(self, identifier: str) -> dict[str, str]:
        return await self._ask(_information, identifier)

    async def groups(self, identifier: str) -> list[str]:
        return await self._ask(_groups, identifier)

    async def _ask(self, question: Callable[..., T], *words: str) -> T:
        work = asyncio.get_running_loop().run_in_executor(self._threads, question, *words)
        try:
            async with asyncio.timeout(LIMIT_S):
                return await work
        except TimeoutError:
            raise XenApiError("AUTH_SERVICE_ERROR", [f"no answer within {LIMIT_S:g} s"]) from None


def _identifier(name: str) -> str:
    try:
        return f"u{pwd.getpwnam(name).pw_uid}"
    except (KeyError, ValueError):
        pass
    try:
        return f"g{grp.getgrnam(name).gr_gid}"
    except (KeyError, ValueError):
        raise NoSuchSubject from None


def _user(identifier: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(identifier[1:]))
    except (KeyError, OverflowError):
        raise NoSuchSubject from None


def _group(identifier: str) -> grp.struct_group:
    try:
        return grp.getgrgid(int(identifier[1:]))
    except (KeyError, OverflowError):
        raise NoSuchSubject from None


def _information(identifier: str) -> dict[str, str]:
    """In the keys of the original."""
    if not _IDENTIFIER.fullmatch(identifier):
        raise NoSuchSubject
    if identifier.startswith("g"):
        group = _group(identifier)
        shown = {"subject-name": group.gr_name, "subject-uid": identifier, "subject-gid": identifier}
        return {**shown, "subject-is-group": "true"}
    user = _user(identifier)
    return {
        "subject-name": user.pw_name,
        "subject-uid": identifier,
        "subject-gid": f"g{user.pw_gid}",
        "subject-gecos": user.pw_gecos,
        "subject-displayname": user.pw_gecos or user.pw_name,
        "subject-is-group": "false",
        "subject-account-disabled": str(user.pw_passwd[:1] in ("", "*", "!")).lower(),
        "subject-account-expired": "false",
        "subject-account-locked": "false",
        "subject-password-expired": "false",
    }


def _groups(identifier: str) -> list[str]:
    if not _IDENTIFIER.fullmatch(identifier):
        raise NoSuchSubject
    if identifier.startswith("g"):
        _group(identifier)
        return [identifier]
    user = _user(identifier)
    return [f"g{gid}" for gid in os.getgrouplist(user.pw_name, user.pw_gid)]
