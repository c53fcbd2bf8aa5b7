"""A process of ours that begins anew: the same command in the same process, so that whoever started it need not know.

What it holds open goes with it (every descriptor is closed on exec), and a program that was replaced on the disk
meanwhile is the new one.
"""

import logging
import os
import sys
from typing import NoReturn

log = logging.getLogger(__name__)


def begin_anew() -> NoReturn:
    """Call it last, with nothing left to close."""
    log.warning("beginning anew")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 no shell is wanted
