"""Passwords (hashed, never to come back) and CHAP secrets (sealed, because iSCSI needs their text)."""

import asyncio
import base64
import functools
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gespann.system.files import read_secret, write_secret

_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 5  # 16 MiB and about 0.15 s a try
_SCRYPT_MEMORY_BYTES = 64 * 1024 * 1024
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that a reader could take for another


P = ParamSpec("P")
R = TypeVar("R")

# Threads of their own: however many guesses arrive, no more than these are busy with them, and whatever else runs in
# the loop's threads (asyncssh does part of each login there) does not queue behind them.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="password")


def generate_password(length: int = 16) -> str:
    """As long as the array's automatic CHAP passwords: 16 characters, 93 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def hash_password(password: str) -> str:
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    return f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${_b64(salt)}${_b64(digest)}"


async def check_password(password: str, stored: str | None) -> bool:
    """Takes as long for an account that is not there (``stored`` none) as for one that is."""
    same = await aside(_matches, password, stored or _UNKNOWN)
    return same and stored is not None


async def aside(slow: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs what takes long (``hash_password``) off the loop, so that nobody else waits for it."""
    return await asyncio.get_running_loop().run_in_executor(_threads, functools.partial(slow, *args, **kwargs))


def _matches(password: str, stored: str) -> bool:
    kind, n, r, p, salt, wanted = stored.split("$")
    if kind != "scrypt":
        return False
    found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(wanted))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_MEMORY_BYTES)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_UNKNOWN = f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${_b64(bytes(16))}${_b64(bytes(64))}"


class Vault:
    """AES-256-GCM under a key file of mode 0600. Each text is bound to its owner's name, so that swapping the sealed
    texts of two users in the database opens neither."""

    def __init__(self, key_path: Path, in_use: bool = False) -> None:
        """``in_use``: something is sealed already. RuntimeError then if the key is missing, since another one would
        open nothing and let nobody in."""
        if not key_path.exists():
            if in_use:
                raise RuntimeError(f"{key_path} is missing: secrets in the database are sealed with it; put it back")
            write_secret(key_path, os.urandom(32))
        self._cipher = AESGCM(read_secret(key_path))

    def seal(self, owner: str, text: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, text.encode(), owner.encode())

    def open(self, owner: str, sealed: bytes) -> str:
        """ValueError if the key is another one or the text was tampered with."""
        try:
            return self._cipher.decrypt(sealed[:12], sealed[12:], owner.encode()).decode()
        except InvalidTag:
            raise ValueError(f"the sealed secret of {owner} does not open with this key") from None
