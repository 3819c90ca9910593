"""Secrets that webhooks are signed with, as the Standard Webhooks specification has them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from standardwebhooks.webhooks import Webhook as Signer

_PREFIX: Final = "whsec_"
_LEAST, _MOST = 24, 64  # bytes, says the specification


def read_secrets(path: Path) -> tuple[str, ...]:
    """Return the secrets of a file, the newest first.

    Raises:
        ValueError: it cannot be read, or holds none; the message shows no secret.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from None
    found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not found:
        raise ValueError(f"{path} holds no secret")
    for number, secret in enumerate(found, start=1):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not secret.startswith(_PREFIX) or not _LEAST <= len(key) <= _MOST:
            raise ValueError(
                f"{path}: secret {number} is not {_PREFIX} and base64 of {_LEAST} to {_MOST} bytes"
            )
    return found


def signed_headers(secrets: tuple[str, ...], *, webhook_id: str, body: str) -> Mapping[str, str]:
    """Return the headers that prove to the receiver who sent `body`, and when."""
    now = datetime.now(UTC)
    signatures = [Signer(secret).sign(webhook_id, now, body) for secret in secrets]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
