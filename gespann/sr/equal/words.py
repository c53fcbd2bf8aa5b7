"""The lines this driver sends to a group, as pure functions.

Every word that comes from outside is checked against the alphabet that the group CLI is known to take unquoted (volume
names are letters, digits, ``-``, ``.`` and ``:``), so nothing a user types can become another command. Sizes go out as
whole MB, the unit in which no rounding happens.
"""

import re
from dataclasses import dataclass, field, replace

from gespann.seams.sr_driver import SrError
from gespann.sr.equal import errors

MIB = 1024 * 1024
EXTENTS_AT_ONCE = 10_000  # of one answer about changes, some 400 KB of text
PAGE_BYTES = 15 * MIB  # the array allocates in pages of 15 MB and rounds volume sizes up to them

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:%/*-]{0,254}\Z")
_QUOTED = re.compile(r"[A-Za-z0-9._: -]{0,128}\Z")
_STORAGE_POOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,62}\Z")
_INITIATOR = re.compile(r"(iqn|eui|naa)\.[A-Za-z0-9.:-]{1,219}\Z")
_SECRET = re.compile(r"[A-Za-z0-9./+=_-]{12,16}\Z")


@dataclass(frozen=True)
class Line:
    """``text`` goes to the array; ``public`` is the same without secrets, for errors and logs. A line that only reads
    may be sent again when its answer got lost."""

    text: str = field(repr=False)
    public: str
    reads: bool = False
    works: bool = False  # it may take the array as long as a change does, although it only reads
    secret: str = field(default="", repr=False)

    def without_secret(self, answer: str) -> str:
        return answer.replace(self.secret, "(hidden)") if self.secret else answer


def line(*words: str, reads: bool = False) -> Line:
    for word in words:
        if not _PLAIN.match(word) and not _is_quoted(word):
            raise ValueError(f"not a word of the group CLI: {word!r}")
    text = " ".join(words)
    return Line(text, text, reads)


def quoted(text: str) -> str:
    if not _QUOTED.match(text):
        raise ValueError(f"cannot be quoted safely: {text!r}")
    return f'"{text}"'


def _is_quoted(word: str) -> bool:
    return len(word) >= 2 and word[0] == word[-1] == '"' and _QUOTED.match(word[1:-1]) is not None


def checked_storage_pool(name: str) -> str:
    if not _STORAGE_POOL.match(name):
        raise errors.invalid_storage_pool(name, "it is not a possible name")
    return name


def whole_pages_mib(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * (PAGE_BYTES // MIB)


#: no snapshot is ever deleted for space. Known from the groups' MIB; a PS group's CLI does not take it, ours does
STOP_SNAPSHOTS = "stop-snapshots"
DELETE_OLDEST = "delete-oldest"


@dataclass(frozen=True)
class SnapPolicy:
    """Snapshot reserve and what happens when it is used up; none: left as the array has it."""

    reserve_percent: int | None = None
    depletion: str | None = None  # stop-snapshots | delete-oldest | volume-offline

    def words(self) -> list[str]:
        words = [] if self.reserve_percent is None else ["snap-reserve", f"{self.reserve_percent}%"]
        return words + ([] if self.depletion is None else ["snap-depletion", self.depletion])


def volume_create(
    name: str, size_mib: int, storage_pool: str, description: str, thin: bool, snap_policy: SnapPolicy
) -> Line:
    """Made offline, in one command with its description: there is no moment at which it exists without its uuid."""
    words = ["volume", "create", name, f"{size_mib}MB", "pool", checked_storage_pool(storage_pool)]
    words += ["description", quoted(description), "offline"]
    words += ["thin-provision"] if thin else []
    return line(*words, *snap_policy.words())


@dataclass(frozen=True)
class Door:
    """A target of the array: a volume, or a snapshot of one. Access records belong to the volume either way."""

    volume: str
    snapshot: str = ""


def clone(door: Door, name: str, description: str, snap_policy: SnapPolicy) -> Line:
    words = [] if snap_policy.reserve_percent is None else ["snap-reserve", f"{snap_policy.reserve_percent}%"]
    return door_set(door, "clone", name, *words, "description", quoted(description))


def door_set(door: Door, *words: str, reads: bool = False) -> Line:
    """``online``, ``offline``, ``read-only``, ``multihost-access enable``, ``restore`` (a snapshot), ..."""
    inner = ("snapshot", "select", door.snapshot) if door.snapshot else ()
    return line("volume", "select", door.volume, *inner, *words, reads=reads)


def door_show(door: Door) -> Line:
    return door_set(door, "show", reads=True)


def changes(volume: str, older: str, newer: str, offset: int) -> Line:
    """``older`` and ``newer`` are snapshots of the volume; empty: the volume as it is now. Not a word of a PS group."""
    names = [*(("from", older) if older else ()), *(("to", newer) if newer else ())]
    bounds = ("offset", str(offset), "extents", str(EXTENTS_AT_ONCE))
    return replace(line("volume", "select", volume, "changes", *names, *bounds, reads=True), works=True)


def warnings(after: int | None) -> Line:
    """Not words of a PS group, but for the first."""
    since = () if after is None else ("after", str(after))
    return line("recentevents", "level", "warning", *since, reads=True)


def snapshot_list(volume: str) -> Line:
    return line("volume", "select", volume, "snapshot", "show", reads=True)


def snapshot_create(volume: str, description: str, *, even_if_full: bool = False) -> Line:
    """The array chooses the name and tells it; the description is there from the first moment. ``even_if_full``: not a
    word of a PS group, which never refuses one for space."""
    full = ("even-if-full",) if even_if_full else ()
    return line("volume", "select", volume, "snapshot", "create-now", "description", quoted(description), *full)


def snapshot_rename(volume: str, old: str, new: str) -> Line:
    return line("volume", "select", volume, "snapshot", "rename", old, new)


def snapshot_delete(volume: str, snapshot: str) -> Line:
    return line("volume", "select", volume, "snapshot", "delete", snapshot)


def collection_list() -> Line:
    return line("collection", "show", reads=True)


def collection_create(name: str) -> Line:
    return line("collection", "create", name)


def collection_add(name: str, volume: str) -> Line:
    return line("collection", "select", name, "add", volume)


def collection_snapshot(name: str) -> Line:
    return line("collection", "select", name, "snapshot", "create-now")


def collection_snapshots(name: str) -> Line:
    return line("collection", "select", name, "snapshot", "show", reads=True)


def collection_members(name: str, snapshot_collection: str) -> Line:
    return line("collection", "select", name, "snapshot", "show", snapshot_collection, reads=True)


def collection_delete(name: str) -> Line:
    return line("collection", "delete", name)


def volume_list() -> Line:
    return line("volume", "show", reads=True)


def volume_show(name: str) -> Line:
    return line("volume", "select", name, "show", reads=True)


def volume_set(name: str, *words: str) -> Line:
    """``online``, ``offline``, ``read-only``, ``multihost-access enable``, ``thin-provision`` ..."""
    return line("volume", "select", name, *words)


def volume_allocation(name: str, *, thin: bool) -> Line:
    """The words for a change of an existing volume are from memory of the product, not from a transcript."""
    return volume_set(name, *(["thin-provision"] if thin else ["no", "thin-provision"]))


def volume_describe(name: str, description: str) -> Line:
    return line("volume", "select", name, "description", quoted(description))


def volume_grow(name: str, size_mib: int) -> Line:
    """``no-snap``: otherwise the array makes a snapshot of the volume first."""
    return line("volume", "select", name, "size", f"{size_mib}MB", "no-snap")


def volume_delete(name: str) -> Line:
    return line("volume", "delete", name)


def access_list(name: str) -> Line:
    return line("volume", "select", name, "access", "show", reads=True)


def connection_list(name: str) -> Line:
    return line("volume", "select", name, "show", "connections", reads=True)


def access_create(door: Door, initiator: str, chap_user: str) -> Line:
    if not _INITIATOR.match(initiator):
        raise SrError(errors.BAD_ARGUMENT, "The initiator name is not one of RFC 7143 section 4.2.7", initiator)
    words = ("initiator", initiator, "authmethod", "chap", "username", chap_user)
    applies = ("apply-to", "snapshot" if door.snapshot else "volume")
    return line("volume", "select", door.volume, "access", "create", *words, *applies)


def access_delete(name: str, record_id: str) -> Line:
    return line("volume", "select", name, "access", "delete", record_id)


def lease_grant(name: str, initiator: str, instead_of: str = "") -> Line:
    """A group that is ours; a PS group does not know the word."""
    words = ("instead-of", instead_of) if instead_of else ()
    return line("volume", "select", name, "lease", "grant", initiator, *words)


def chap_user_show(user: str) -> Line:
    return line("chapuser", "show", user, reads=True)


def chap_user_create(user: str, secret: str) -> Line:
    if not _SECRET.match(secret):
        raise SrError(errors.BAD_ARGUMENT, "A CHAP secret has 12 to 16 letters and digits", f"{len(secret)} given")
    head = line("chapuser", "create", user, "password")
    return Line(f"{head.text} {secret}", f"{head.public} (hidden)", secret=secret)


def chap_user_delete(user: str) -> Line:
    return line("chapuser", "delete", user)


def storage_pool_list() -> Line:
    return line("pool", "show", reads=True)


def storage_pool_show(name: str) -> Line:
    return line("pool", "select", checked_storage_pool(name), "show", reads=True)


def member_list() -> Line:
    return line("member", "show", reads=True)


def group_show() -> Line:
    return line("grpparams", "show", reads=True)


def who_am_i() -> Line:
    return line("whoami", reads=True)


# Settings are kept by the array per account, so they are sent at each start of a session: another session of the same
# account may have changed them. One that an older firmware does not know is skipped.
PRELUDE = (
    line("cli-settings", "events", "off"),
    line("cli-settings", "reprintBadInput", "off"),
    line("cli-settings", "confirmation", "off"),
    line("cli-settings", "paging", "off"),
    line("cli-settings", "formatoutput", "off"),
    line("cli-settings", "displayinMB", "on"),
    line("cli-settings", "idlelogout", "off"),
    line("stty", "hardwrap", "off"),
    line("stty", "columns", "255"),
)
