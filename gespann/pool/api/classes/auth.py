"""XenAPI class auth: questions to the directory that the pool trusts. AUTH_IS_DISABLED while it trusts none."""

from gespann.pool.api.directory import NoSuchSubject
from gespann.pool.api.messages import Call, implements
from gespann.pool.api.parts import api_of
from gespann.seams.xenapi.errors import XenApiError


@implements("auth.get_subject_identifier")
async def get_subject_identifier(call: Call, subject_name: str) -> str:
    try:
        return await api_of(call).subjects.directory().identifier(subject_name)
    except NoSuchSubject:
        raise XenApiError("SUBJECT_CANNOT_BE_RESOLVED", []) from None


@implements("auth.get_subject_information_from_identifier")
async def get_subject_information_from_identifier(call: Call, subject_identifier: str) -> dict[str, str]:
    try:
        return await api_of(call).subjects.directory().information(subject_identifier)
    except NoSuchSubject:
        raise XenApiError("SUBJECT_CANNOT_BE_RESOLVED", []) from None


@implements("auth.get_group_membership")
async def get_group_membership(call: Call, subject_identifier: str) -> list[str]:
    try:
        return await api_of(call).subjects.directory().groups(subject_identifier)
    except NoSuchSubject:
        raise XenApiError("SUBJECT_CANNOT_BE_RESOLVED", []) from None
