"""The group's own settings, each declared once: its CLI word, its kind and its default."""

from dataclasses import dataclass

from gespann.array.model.database import Database


@dataclass(frozen=True)
class Parameter:
    key: str  # the word of ``grpparams``
    label: str  # as ``grpparams show`` prints it
    kind: str  # name, address, percent, thin-percent, switch, text, depletion
    default: str
    help: str


PARAMETERS = (
    Parameter("name", "Name", "name", "", "name of the group, which is also the prompt"),
    Parameter("group-ipaddress", "Group-Ipaddress", "address", "127.0.0.1", "address that initiators and clients use"),
    Parameter("description", "Description", "text", "", "what the group is for"),
    Parameter("location", "Location", "text", "", "where the group stands"),
    Parameter("def-snap-reserve", "Def-Snap-Reserve", "percent", "100", "snapshot reserve of new volumes"),
    Parameter("def-snap-warn", "Def-Snap-Warn", "percent", "10", "snapshot warning limit of new volumes"),
    Parameter("def-snap-depletion", "Def-Snap-Depletion", "depletion", "delete-oldest", "policy when it is used up"),
    Parameter("def-thin-min-reserve", "Def-Thin-Min-Reserve", "thin-percent", "10", "minimum reserve of thin volumes"),
    Parameter(
        "def-thin-growth-warn", "Def-Thin-Growth-Warn", "thin-percent", "60", "in-use warning limit of thin volumes"
    ),
    Parameter("def-thin-growth-max", "Def-Thin-Growth-Max", "thin-percent", "100", "in-use maximum of thin volumes"),
    Parameter("def-iscsi-alias", "Def-iSCSI-Alias", "switch", "enable", "new targets get the volume's name as alias"),
    Parameter("info-messages", "Info-Messages", "switch", "enable", "print remarks after commands that succeeded"),
    Parameter("target-auth-username", "Target-Auth-Username", "text", "", "how the group names itself in mutual CHAP"),
)


class Parameters:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._declared = {parameter.key: parameter for parameter in PARAMETERS}

    def get(self, key: str) -> str:
        rows = self._database.rows("SELECT value FROM parameter WHERE key = ?", key)
        return str(rows[0]["value"]) if rows else self._declared[key].default

    def set(self, key: str, value: str) -> None:
        """``value`` is checked by whoever read it."""
        if key not in self._declared:
            raise KeyError(key)
        self._put(key, value)

    def percent(self, key: str) -> int:
        return int(self.get(key))

    def enabled(self, key: str) -> bool:
        return self.get(key) == "enable"

    def set_sealed(self, key: str, value: bytes) -> None:
        self._put(f"sealed:{key}", value.hex())

    def get_sealed(self, key: str) -> bytes | None:
        rows = self._database.rows("SELECT value FROM parameter WHERE key = ?", f"sealed:{key}")
        return bytes.fromhex(rows[0]["value"]) if rows else None

    def _put(self, key: str, value: str) -> None:
        with self._database.transaction():
            self._database.run("INSERT OR REPLACE INTO parameter (key, value) VALUES (?, ?)", key, value)
