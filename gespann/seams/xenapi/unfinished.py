"""Labels of a VM that an install has not finished, or an uninstall has begun: whoever starts a pool again knows by them
what to take away.

Both are several calls of the XenAPI, and the coordinator may die between two of them. Meanwhile the VM bears such a
label; the XenAPI has no other field that the call that makes the VM sets in the same instant.
"""

import re
from uuid import uuid4

from gespann.seams.uuids import UUID

_UNFINISHED = re.compile(rf"vm-(un)?install {UUID}: .*", re.DOTALL)


def unfinished_label(name: str) -> str:
    """A label for the time of one install. ``name``: what the VM will be called, for people who look meanwhile."""
    return f"vm-install {uuid4()}: {name}"


def going_label(name: str) -> str:
    """A label for the time of one uninstall."""
    return f"vm-uninstall {uuid4()}: {name}"


def is_unfinished(label: str) -> bool:
    return _UNFINISHED.fullmatch(label) is not None
