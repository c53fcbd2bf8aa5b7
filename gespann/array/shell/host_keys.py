"""The group's SSH host keys: made once, of every kind that old and new clients ask for."""

from pathlib import Path

import asyncssh

from gespann.system.files import read_secret, write_secret

_KINDS = {
    "ed25519": ("ssh-ed25519", {}),
    "ecdsa": ("ecdsa-sha2-nistp256", {}),
    "rsa": ("ssh-rsa", {"key_size": 3072}),
}


def host_keys(data_dir: Path) -> list[asyncssh.SSHKey]:
    """PermissionError if others could read one: a host key that others know is worth nothing."""
    keys = []
    for name, (algorithm, options) in _KINDS.items():
        path = data_dir / f"ssh_host_{name}_key"
        if not path.exists():
            key = asyncssh.generate_private_key(algorithm, comment="gespann group", **options)
            write_secret(path, key.export_private_key("openssh"))
        keys.append(asyncssh.import_private_key(read_secret(path)))
    return keys
