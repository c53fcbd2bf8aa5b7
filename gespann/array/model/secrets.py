"""Passwords (hashed, never to come back) and CHAP secrets (sealed, because iSCSI needs their text)."""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gespann.system.files import read_secret, write_secret

_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 5  # 16 MiB and about 0.15 s a try
_SCRYPT_MEMORY_BYTES = 64 * 1024 * 1024
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that a reader could take for another


def generate_password(length: int = 16) -> str:
    """As long as the array's automatic CHAP passwords: 16 characters, 93 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def hash_password(password: str) -> str:
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    return f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${_b64(salt)}${_b64(digest)}"


async def check_password(password: str, stored: str | None) -> bool:
    """Takes as long for an account that is not there (``stored`` none) as for one that is. Off the loop: it is slow."""
    hashed = stored or _UNKNOWN
    same = await asyncio.to_thread(_matches, password, hashed)
    return same and stored is not None


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

    def __init__(self, key_path: Path) -> None:
        if not key_path.exists():
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
