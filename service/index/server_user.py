"""The user that the embedded Postgres runs as: it refuses to be root."""

from __future__ import annotations

import contextlib
import logging
import pwd
import stat
from pathlib import Path

from service.index.video_index import IndexSetupError

logger = logging.getLogger("vtag.postgres")

_HELPERS = ("postgres", "daemon", "nobody")


def helper_user(folder: Path) -> pwd.struct_passwd:
    """Return the user Postgres runs as when we are root: the owner of the data, if there is one.

    Raises:
        IndexSetupError: there is none.
    """
    if folder.exists() and folder.stat().st_uid != 0:
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(folder.stat().st_uid)
    for name in _HELPERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise IndexSetupError(f"running as root, and none of the users {', '.join(_HELPERS)} exists")


def let_pass(folder: Path) -> None:
    """Let other users pass through (not read) the folders on the way, as root's helper must."""
    for step in (folder, *folder.parents):
        mode = stat.S_IMODE(step.stat().st_mode)
        if not mode & stat.S_IXOTH:
            logger.warning("letting other users pass through %s (chmod o+x)", step)
            step.chmod(mode | stat.S_IXOTH)
