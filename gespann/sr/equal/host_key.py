"""Trust on first use: the key a group showed first is the only one accepted from then on. ``create`` answers with its
fingerprint for the SR's sm_config (``host-key``), so that the pin outlives the process; a group that has changed its
key for a reason is let in again by removing that entry."""

import asyncssh

from gespann.seams.sr_driver import SrError
from gespann.sr.equal import errors


class KnownGroups:
    """Fingerprints seen by this process, by (host, port)."""

    def __init__(self) -> None:
        self._fingerprints: dict[tuple[str, int], str] = {}

    def insist(self, host: str, port: int, pinned: str) -> None:
        """A repository says which key it was made with. SrError 173 when another one is in use already."""
        if pinned and self._fingerprints.setdefault((host, port), pinned) != pinned:
            raise changed_key(host)

    def accept(self, host: str, port: int, fingerprint: str) -> bool:
        return self._fingerprints.setdefault((host, port), fingerprint) == fingerprint

    def fingerprint(self, host: str, port: int) -> str:
        return self._fingerprints.get((host, port), "")


def changed_key(host: str) -> SrError:
    return SrError(
        errors.INVALID_TARGET,
        "The group shows another SSH host key than before",
        f"{host}: if that has a reason, remove host-key from the SR's sm-config and restart the coordinator",
    )


class PinningClient(asyncssh.SSHClient):
    def __init__(self, known: KnownGroups, host: str, port: int) -> None:
        self._known = known
        self._host = host
        self._port = port

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._known.accept(self._host, self._port, key.get_fingerprint("sha256"))
