"""From a name and a password to a subject of this pool and its role."""

from dataclasses import dataclass

from gespann.pool.api.directory import AUTH_TYPE, Directory, NoSuchSubject, WrongPassword
from gespann.pool.api.permissions import highest_role
from gespann.pool.pool import Pool
from gespann.seams.xenapi.errors import XenApiError


@dataclass(frozen=True)
class Admitted:
    """``subjects``: refs of those records by which the user is let in, itself or its groups."""

    identifier: str
    subjects: tuple[str, ...]
    role: str


class Subjects:
    def __init__(self, pool: Pool, directory: Directory) -> None:
        self._pool = pool
        self._directory = directory

    @property
    def enabled(self) -> bool:
        """Whether the pool trusts a directory: as the coordinator's host says."""
        db = self._pool.db
        pools = list(db.all("pool").values())
        host = db.find("host", pools[0]["master"]) if pools else None
        return host is not None and host["external_auth_type"] == AUTH_TYPE

    def directory(self) -> Directory:
        """AUTH_IS_DISABLED while there is none."""
        if not self.enabled:
            raise XenApiError("AUTH_IS_DISABLED", [])
        return self._directory

    async def admit(self, user: str, password: str) -> Admitted:
        """SESSION_AUTHENTICATION_FAILED: the directory does not know this user and password;
        SESSION_AUTHORIZATION_FAILED: neither the user nor a group of the user is a subject here;
        RBAC_PERMISSION_DENIED: the subjects have no role."""
        directory = self.directory()
        try:
            identifier = await directory.authenticate(user, password)
            known = {identifier, *await directory.groups(identifier)}
        except (WrongPassword, NoSuchSubject):
            raise XenApiError("SESSION_AUTHENTICATION_FAILED", [user, "Authentication failure"]) from None
        records = self._pool.db.all("subject").items()
        subjects = tuple(ref for ref, record in records if record["subject_identifier"] in known)
        if not subjects:
            text = f"Subject {user} (identifier {identifier}) has no access rights in this pool"
            raise XenApiError("SESSION_AUTHORIZATION_FAILED", [user, text])
        role = self.role_of(subjects)
        if role is None:
            text = f"Subject {user} (identifier {identifier}) has no roles in this pool"
            raise XenApiError("RBAC_PERMISSION_DENIED", ["session.login_with_password", text])
        return Admitted(identifier, subjects, role)

    def role_of(self, subjects: tuple[str, ...]) -> str | None:
        """The highest that any of them has now."""
        records = [self._pool.db.find("subject", ref) for ref in subjects]
        return highest_role(role for record in records if record is not None for role in record["roles"])
