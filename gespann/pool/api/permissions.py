"""The permissions that roles are made of: one for each method that answers and for each HTTP action, in lower case
(``vm.start``, ``http/get_audit_log``). A role has those whose least role is not above it.

They are records of class ``role`` too, without sub-roles of their own, as published: their refs are made from their
names and are the same in every pool.
"""

from collections.abc import Iterable, Sequence
from functools import cache

from gespann.pool.model.database import Database
from gespann.seams.xenapi.datamodel import NULL_REF, ROLES, role_ref
from gespann.seams.xenapi.errors import XenApiError

ROLE_TEXTS = {
    "pool-admin": "May do everything, and change who may do what",
    "pool-operator": "May manage hosts, storage and networks, but not users",
    "vm-power-admin": "May manage virtual machines, and choose where they run",
    "vm-admin": "May create and destroy virtual machines",
    "vm-operator": "May start, stop and use virtual machines",
    "client-cert": "May do what a client with a certificate of the pool may",
    "read-only": "May look at everything and change nothing",
}


def permission_name(method: str) -> str:
    return method.lower()


def denied(permission: str, least_role: str) -> XenApiError:
    """RBAC_PERMISSION_DENIED [permission, who has it]."""
    allowed = ", ".join(reversed(ROLES[ROLES.index(least_role) :]))
    text = f"No permission in user session. (Roles with this permission: {allowed})"
    return XenApiError("RBAC_PERMISSION_DENIED", [permission_name(permission), text])


def highest_role(roles: Iterable[str]) -> str | None:
    """The name of the one of these refs that may do most; None: there is no role among them."""
    names = {role_ref(name): name for name in ROLES}
    known = [names[ref] for ref in roles if ref in names]
    return max(known, key=ROLES.index, default=None)


def ensure_roles(db: Database, least_roles: Sequence[tuple[str, str]]) -> None:
    """Makes the records of roles and permissions as they should be. ``least_roles``: (permission, least role)."""
    wanted = _wanted(tuple(least_roles))
    there = db.all("role")
    gone = [ref for ref in there if ref not in wanted]
    # permissions first: a role is made when all that it names is there
    new = [ref for ref, fields in wanted.items() if ref not in there or _differs(there[ref], fields)]
    with db.transaction() as tx:
        for ref in gone:
            tx.destroy("role", ref)
        for ref in new:
            if ref in there:
                tx.set("role", ref, **wanted[ref])
            else:
                tx.create("role", wanted[ref], ref=ref)


@cache
def _wanted(least_roles: tuple[tuple[str, str], ...]) -> dict[str, dict[str, object]]:
    wanted = {role_ref(name): _permission(name) for name, _ in least_roles}
    for role in ROLES:
        below = [role_ref(name) for name, least in least_roles if ROLES.index(least) <= ROLES.index(role)]
        wanted[role_ref(role)] = _fields(role, ROLE_TEXTS[role], sorted(below), is_internal=False)
    return wanted


def _permission(name: str) -> dict[str, object]:
    return _fields(name, "A basic permission", [], is_internal=False)


def _fields(name: str, text: str, subroles: list[str], *, is_internal: bool) -> dict[str, object]:
    return {
        "uuid": role_ref(name).removeprefix("OpaqueRef:"),
        "name_label": name,
        "name_description": text,
        "subroles": subroles,
        "is_internal": is_internal,
    }


def _differs(record: object, fields: dict[str, object]) -> bool:
    return any(record[name] != value for name, value in fields.items())  # type: ignore[index]


def permissions_of(db: Database, role: str) -> list[str]:
    """Refs of the permissions that a role has; a permission has itself."""
    return list(db.get("role", role)["subroles"]) or [role]


def permission_names(db: Database, role: str) -> list[str]:
    """Of the role of that name; none before the roles are made."""
    record = db.find("role", role_ref(role))
    return sorted(db.get("role", ref)["name_label"] for ref in record["subroles"]) if record else []


def roles_with(db: Database, permission: str) -> list[str]:
    """Refs of the roles that have a permission; the permission itself is none of them."""
    if permission == NULL_REF:
        return []
    return [ref for ref, role in db.all("role").items() if permission in role["subroles"]]
