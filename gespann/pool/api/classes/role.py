"""XenAPI class role: the published roles, and the permissions that each has. They cannot be changed."""

from collections.abc import Mapping
from typing import Any

from gespann.pool.api.generic import matching
from gespann.pool.api.messages import Call, implements
from gespann.pool.api.permissions import permissions_of, roles_with


@implements("role.get_permissions")
async def get_permissions(call: Call, self: str) -> list[str]:
    return permissions_of(call.pool.db, self)


@implements("role.get_permissions_name_label")
async def get_permissions_name_label(call: Call, self: str) -> list[str]:
    db = call.pool.db
    return sorted(db.get("role", ref)["name_label"] for ref in permissions_of(db, self))


@implements("role.get_by_permission")
async def get_by_permission(call: Call, permission: str) -> list[str]:
    return roles_with(call.pool.db, permission)


@implements("role.get_by_permission_name_label")
async def get_by_permission_name_label(call: Call, label: str) -> list[str]:
    """No permission of that name: no role has it."""
    db = call.pool.db
    return [role for ref in db.by_name_label("role", label) for role in roles_with(db, ref)]


@implements("role.get_all_records_where")
async def get_all_records_where(call: Call, expr: str) -> dict[str, Mapping[str, Any]]:
    """Besides the filters of all classes, two of its own by which clients tell roles from permissions."""
    roles = call.pool.db.all("role")
    match expr.replace(" ", ""):
        case "subroles<>[]":
            return {ref: record for ref, record in roles.items() if record["subroles"]}
        case "subroles=[]":
            return {ref: record for ref, record in roles.items() if not record["subroles"]}
    return matching(call, "role", expr)
