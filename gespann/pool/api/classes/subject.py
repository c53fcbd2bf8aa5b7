"""XenAPI class subject: users and groups of a directory that may log in, with the roles that they have.

A change of roles holds at once, for the sessions that are open too; who is left without any is logged out.
"""

from typing import Any

from gespann.pool.api.directory import NoSuchSubject
from gespann.pool.api.messages import Call, implements
from gespann.pool.api.parts import api_of
from gespann.pool.api.permissions import permissions_of
from gespann.seams.xenapi.errors import XenApiError


@implements("subject.create")
async def create(call: Call, args: dict[str, Any]) -> str:
    """It has no role yet. What the directory knows of it takes the place of what was given, if it knows it."""
    identifier = args["subject_identifier"]
    if not identifier:
        raise XenApiError("INVALID_VALUE", ["subject_identifier", identifier])
    api = api_of(call)
    try:
        if api.subjects.enabled:
            args = {**args, "other_config": await api.subjects.directory().information(identifier)}
    except NoSuchSubject:
        raise XenApiError("SUBJECT_CANNOT_BE_RESOLVED", []) from None
    with call.pool.db.transaction() as tx:
        if call.pool.db.where("subject", subject_identifier=identifier):
            raise XenApiError("SUBJECT_ALREADY_EXISTS", [])
        return tx.create("subject", {**args, "roles": []})


@implements("subject.destroy")
async def destroy(call: Call, self: str) -> None:
    with call.pool.db.transaction() as tx:
        tx.destroy("subject", self)
    api_of(call).sessions.subject_changed(self)


@implements("subject.add_to_roles")
async def add_to_roles(call: Call, self: str, role: str) -> None:
    roles = call.pool.db.get("subject", self)["roles"]
    if call.pool.db.find("role", role) is None:
        raise XenApiError("ROLE_NOT_FOUND", [])
    if role in roles:
        raise XenApiError("ROLE_ALREADY_EXISTS", [])
    with call.pool.db.transaction() as tx:
        tx.set("subject", self, roles=[*roles, role])
    api_of(call).sessions.subject_changed(self)


@implements("subject.remove_from_roles")
async def remove_from_roles(call: Call, self: str, role: str) -> None:
    roles = call.pool.db.get("subject", self)["roles"]
    if role not in roles:
        raise XenApiError("ROLE_NOT_FOUND", [])
    with call.pool.db.transaction() as tx:
        tx.set("subject", self, roles=[other for other in roles if other != role])
    api_of(call).sessions.subject_changed(self)


@implements("subject.get_permissions_name_label")
async def get_permissions_name_label(call: Call, self: str) -> list[str]:
    db = call.pool.db
    refs = {ref for role in db.get("subject", self)["roles"] for ref in permissions_of(db, role)}
    return sorted(db.get("role", ref)["name_label"] for ref in refs)
