"""XenAPI class role: the published ones, each containing those below it. They cannot be changed."""

from gespann.pool.model.database import Database
from gespann.seams.xenapi.datamodel import ROLES, role_ref

_DESCRIPTIONS = {
    "pool-admin": "May do everything, and change who may do what",
    "pool-operator": "May manage hosts, storage and networks, but not users",
    "vm-power-admin": "May manage virtual machines, and choose where they run",
    "vm-admin": "May create and destroy virtual machines",
    "vm-operator": "May start, stop and use virtual machines",
    "client-cert": "May do what a client with a certificate of the pool may",
    "read-only": "May look at everything and change nothing",
}


def ensure_roles(db: Database) -> None:
    """Makes the records that are missing; their refs are the same in every pool."""
    missing = [name for name in ROLES if db.find("role", role_ref(name)) is None]
    if not missing:
        return
    with db.transaction() as tx:
        for name in missing:
            fields = {
                "uuid": role_ref(name).removeprefix("OpaqueRef:"),
                "name_label": name,
                "name_description": _DESCRIPTIONS[name],
                "subroles": [role_ref(below) for below in ROLES[: ROLES.index(name)]],
            }
            tx.create("role", fields, ref=role_ref(name))
