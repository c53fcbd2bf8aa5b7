"""Who did what, and whether they were let: a line for each call that may change something, on disk in ``audit.log``.

    [20260101T10:00:00.123Z|info|pool|0|VM.start|audit] ('trackid=9f..' 'LOCAL_SUPERUSER' 'root' 'ALLOWED' 'OK' 'API'
    'VM.start' (('vm' 'web1' '3f2a..' 'OpaqueRef:..')))

in one line: session (a hash of its ref, never the ref), subject identifier, user, ALLOWED or DENIED, OK or ERROR:code,
API or HTTP, the call, and its parameters: references with name and uuid, and texts that are names. Other values are
left out, since they may be secrets. Calls that only read are not told, nor those that wait for events.

The file is kept at ``FILE_LIMIT_BYTES``; the last ``FILES_KEPT`` before it are ``audit.log.1`` and on.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gespann.pool.api.values import invalid
from gespann.pool.model.database import Database
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF, Param, Type
from gespann.system.clock import Clock

log = logging.getLogger(__name__)

FILE_LIMIT_BYTES = 8 * 1024 * 1024
FILES_KEPT = 10
VALUE_LIMIT_CHARS = 1024
#: a time from its year on, as far as somebody cared to write it
_TIME_BEGUN = re.compile(rb"([0-9]{1,8}(T([0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]*)?)?)?)?)?)?", re.ASCII)
#: parameters and members that are told whatever the call
NAMES = frozenset({"name", "label", "description", "name_label", "name_description", "new_name"})
#: what besides is told of some calls
TOLD = {
    "VM.start": {"start_paused", "force"},
    "VM.start_on": {"start_paused", "force"},
    "VM.create": {
        "is_a_template",
        "memory_static_max",
        "memory_dynamic_max",
        "memory_dynamic_min",
        "memory_static_min",
    },
    "pool.join": {"master_address"},
    "pool.enable_external_auth": {"service_name", "auth_type"},
    "host.enable_external_auth": {"service_name", "auth_type"},
    "subject.create": {"subject_identifier"},
    "message.create": {"body"},
    "session.login_with_password": {"uname", "originator"},
    "session.logout_subject_identifier": {"subject_identifier"},
}
QUIET = frozenset(
    {"session.logout", "session.local_logout", "event.next", "event.from", "event.register", "event.unregister"}
)
QUIET_HTTP = frozenset({"http/rrd_updates", "http/host_rrd", "http/vm_rrd"})


def is_told(method: str) -> bool:
    """Whether a call may change something."""
    return ".get" not in method and method not in QUIET


def track_id(session_ref: str) -> str:
    """Names a session without giving it away."""
    return f"trackid={hashlib.sha256(session_ref.encode()).hexdigest()[:32]}"


class AuditLog:
    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._fd = -1
        self._size_bytes = 0

    def write(self, who: Sequence[str], allowed: bool, error: str, kind: str, call: str, args: str = "()") -> None:
        """``who``: track id, subject identifier, user name; ``error``: code or ""; ``kind``: API, HTTP or NBD."""
        words = [*who, "ALLOWED" if allowed else "DENIED", f"ERROR:{error}" if error else "OK", kind, call]
        stamp = self._clock.now().strftime("%Y%m%dT%H:%M:%S.%f")[:-3]
        line = f"[{stamp}Z|info|pool|0|{call}|audit] ({' '.join(map(quoted, words))} {args})\n".encode()
        try:
            self._open()
            os.write(self._fd, line)
            self._size_bytes += len(line)
            if self._size_bytes > FILE_LIMIT_BYTES:
                self._turn()
        except OSError as failure:
            log.error("audit line lost (%s): %s", failure, line.decode(errors="replace").rstrip())

    def lines(self, since: str = "") -> Iterator[bytes]:
        """Oldest first; ``since``: a time, or the beginning of one, as 20260101T10:00 or 2026-01-01T10:00:00Z.
        INVALID_VALUE if it is none."""
        bound = since.replace("-", "").replace("Z", "").replace(" ", "T").encode()
        if _TIME_BEGUN.fullmatch(bound) is None:
            raise invalid("since", since)
        return self._lines(bound)

    def _lines(self, bound: bytes) -> Iterator[bytes]:
        for path in [*(self._older(number) for number in range(FILES_KEPT, 0, -1)), self.path]:
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue
            with file:
                yield from (line for line in file if line[1:22] >= bound)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size_bytes = os.fstat(self._fd).st_size

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _turn(self) -> None:
        os.fsync(self._fd)
        self.close()
        for number in range(FILES_KEPT, 0, -1):
            newer = self._older(number - 1) if number > 1 else self.path
            if newer.exists():
                os.replace(newer, self._older(number))


def quoted(text: str) -> str:
    short = text if len(text) <= VALUE_LIMIT_CHARS else f"{text[:VALUE_LIMIT_CHARS]}..."
    escaped = short.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + "".join(c if c.isprintable() else f"\\{ord(c):03d}" for c in escaped) + "'"


def arguments(db: Database, method: str, params: Sequence[Param], values: Sequence[Any]) -> str:
    """The parameters of a call that are told, each as ('name' 'text' 'uuid' 'ref')."""
    told: frozenset[str] = frozenset(TOLD.get(method, ()))
    parts: list[str] = []
    for param, value in zip(params, values, strict=False):
        parts += _parts(db, told, param.name, param.type, value)
    return f"({' '.join(parts)})"


def _parts(db: Database, told: frozenset[str], name: str, type_: Type, value: Any) -> Iterator[str]:
    if type_.kind == "record" and isinstance(value, Mapping):
        fields = datamodel.classes()[type_.name].fields
        for member, item in value.items():
            yield from _parts(db, told, member, fields[member].type, item)
    elif type_.kind == "ref" and value != NULL_REF:
        record = db.find(type_.name, value) or {}
        label = record.get("name_label") or record.get("other_config", {}).get("subject-name", "")
        yield _part(name, str(label), str(record.get("uuid", "")), value)
    elif (name in NAMES or name in told) and type_.kind in ("string", "bool", "int", "enum"):
        yield _part(name, str(value).lower() if type_.kind == "bool" else str(value), "", "")


def _part(*words: str) -> str:
    return f"({' '.join(map(quoted, words))})"
