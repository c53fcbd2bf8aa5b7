"""What clients are told of a failure that no handler foresaw."""

import errno
import sqlite3

from gespann.seams.xenapi.errors import XenApiError


def told_of(error: Exception) -> XenApiError:
    """Only its kind: details may hold secrets, and the log has them. But a full disk is the administrator's turn."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or (isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL):
        return XenApiError("OUT_OF_SPACE", ["the data directory of the coordinator"])
    return XenApiError("INTERNAL_ERROR", [type(error).__name__])
