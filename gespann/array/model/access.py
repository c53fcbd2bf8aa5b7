"""Access records: at most 16 a volume, numbered 1 to 16, the lowest free number first."""

from gespann.array.model import names
from gespann.array.model.database import Database
from gespann.array.model.records import AccessRecord
from gespann.array.model.refusals import Conflict, Mistake

RECORDS_MOST = 16
APPLY_TO = ("volume", "snapshot", "both")
AUTH_METHODS = ("none", "chap")

_FIELDS = "volume_id, number, initiator, address, auth_method, chap_user, apply_to"


class AccessRecords:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, volume_id: int) -> list[AccessRecord]:
        sql = f"SELECT {_FIELDS} FROM access_record WHERE volume_id = ? ORDER BY number"  # noqa: S608
        return self._database.records(AccessRecord, sql, volume_id)

    def get(self, volume_id: int, number: int) -> AccessRecord:
        for record in self.of(volume_id):
            if record.number == number:
                return record
        raise Mistake(f"Access control record {number} does not exist.")

    def create(
        self,
        volume_id: int,
        *,
        initiator: str | None = None,
        address: str | None = None,
        auth_method: str | None = None,
        chap_user: str | None = None,
        apply_to: str = "both",
    ) -> AccessRecord:
        """Says nothing: Mistake. A user name implies CHAP; CHAP without one is a Mistake; the 17th is a Conflict."""
        if initiator is None and address is None and chap_user is None:
            raise Mistake("An access control record needs an initiator, an IP address or a user name.")
        user = names.chap_user_name(chap_user) if chap_user is not None else ""
        method = auth_method or ("chap" if user else "none")
        if method == "chap" and not user:
            raise Mistake("Authentication method chap needs a user name.")
        if method == "none" and user:
            raise Mistake("A user name needs authentication method chap.")
        taken = {record.number for record in self.of(volume_id)}
        free = [number for number in range(1, RECORDS_MOST + 1) if number not in taken]
        if not free:
            raise Conflict(f"A volume can have {RECORDS_MOST} access control records at most.")
        record = AccessRecord(
            volume_id=volume_id,
            number=free[0],
            initiator=names.initiator(initiator or ""),
            address=names.address_pattern(address or names.ANY_ADDRESS),
            auth_method=method,
            chap_user=user,
            apply_to=apply_to,
        )
        with self._database.transaction():
            self._database.insert("access_record", record)
        return record

    def delete(self, volume_id: int, number: int) -> None:
        self.get(volume_id, number)
        with self._database.transaction():
            sql = "DELETE FROM access_record WHERE volume_id = ? AND number = ?"
            self._database.run(sql, volume_id, number)
            self.end_lease(volume_id)

    def end_lease(self, volume_id: int) -> None:
        """A lease ends when nobody can be logged in or log in: the volume is offline, and no record opens it. Before
        that it ends only by its own commands, so that no order of others lets a second one write."""
        with self._database.transaction():
            self._database.run(
                "UPDATE volume SET lease_holder = '' WHERE id = ? AND NOT online AND NOT EXISTS"
                " (SELECT 1 FROM access_record WHERE volume_id = volume.id AND apply_to != 'snapshot')",
                volume_id,
            )
