"""XenAPI class session."""

from gespann.pool.api.messages import Call, implements
from gespann.pool.api.parts import api_of
from gespann.seams.xenapi.errors import XenApiError


@implements("session.login_with_password")
async def login_with_password(call: Call, uname: str, pwd: str, version: str, originator: str) -> str:
    return await api_of(call).sessions.login(call.caller, uname, pwd, originator)


@implements("session.slave_local_login_with_password")
async def slave_local_login_with_password(call: Call, uname: str, pwd: str) -> str:
    """Meant for a host that has lost its coordinator. This one is the coordinator: an ordinary session."""
    return await api_of(call).sessions.login(call.caller, uname, pwd)


@implements("session.logout")
async def logout(call: Call) -> None:
    api_of(call).sessions.end(call.session)


@implements("session.local_logout")
async def local_logout(call: Call) -> None:
    api_of(call).sessions.end(call.session)


@implements("session.change_password")
async def change_password(call: Call, old_pwd: str, new_pwd: str) -> None:
    """Changes the password of the session's own account. Root of this machine need not know the old one."""
    api = api_of(call)
    session = api.sessions.use(call.session)
    if not session.is_local_superuser:
        raise XenApiError("USER_IS_NOT_LOCAL_SUPERUSER", ["Only the local superuser can change the password"])
    await api.accounts.change_password(session.user, old_pwd, new_pwd, check_old=not call.caller.local_root)


@implements("session.get_all_subject_identifiers")
async def get_all_subject_identifiers(call: Call) -> list[str]:
    """Those who are logged in through a directory."""
    return api_of(call).sessions.subject_identifiers()


@implements("session.logout_subject_identifier")
async def logout_subject_identifier(call: Call, subject_identifier: str) -> None:
    """Ends all sessions of one user of the directory."""
    api_of(call).sessions.end_subjects(subject_identifier)


@implements("session.slave_login")
async def slave_login(call: Call, host: str, psecret: str) -> str:
    """For hosts of a pool that share a secret. This pool has none (its hosts show certificates), so no secret is the
    right one."""
    raise XenApiError("SESSION_AUTHENTICATION_FAILED", [host, "Pool credentials invalid"])


@implements("session.slave_local_login")
async def slave_local_login(call: Call, psecret: str) -> str:
    """As ``slave_login``."""
    raise XenApiError("SESSION_AUTHENTICATION_FAILED", ["localhost", "Pool credentials invalid"])
