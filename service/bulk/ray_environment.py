"""The variables of Ray that have to be set before it is imported."""

from __future__ import annotations

import os
import secrets


def prepare(*, own_cluster: bool) -> None:
    """Set them, but where the operator has.

    It would report its use to its makers. And its ports, which it opens on every address of the
    machine, run whatever code they are sent: a cluster of our own answers to a token that nobody
    else knows. Who joins another cluster brings its token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if own_cluster and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
