"""Secrets from files: beside every secret setting ``VTAG_X`` there is ``VTAG_X_FILE``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

_SUFFIX: Final = "_FILE"
_MOST_BYTES: Final = 4096


def secret_names(fields: Mapping[str, FieldInfo]) -> list[str]:
    """Names of the fields that hold a secret."""
    return [
        name
        for name, field in fields.items()
        if field.annotation is SecretStr or SecretStr in get_args(field.annotation)
    ]


def file_variable(variable: str) -> str:
    """Name of the variable that holds the path of a secret instead of the secret."""
    return variable + _SUFFIX


def read_secret_files(secrets: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], list[str]]:
    """Read the secrets whose file variable is set; white space around a secret is dropped.

    Args:
        secrets: of each secret setting the name of its field and of its variable.

    Returns:
        Field -> secret, and one line per mistake: both variables set, a file that cannot be read,
        is empty, longer than 4096 bytes or no text. No line shows what a file holds.
    """
    found: dict[str, Any] = {}  # SecretStr; keywords of a constructor whose others are not
    mistakes: list[str] = []
    for name, variable in secrets:
        path = os.environ.get(file_variable(variable))
        if not path:
            continue
        try:
            if os.environ.get(variable):
                raise ValueError(f"is set, and {variable} too: choose one")
            found[name] = SecretStr(_read(Path(path)))
        except ValueError as error:
            mistakes.append(f"{file_variable(variable)}: {error}")
    return found, mistakes


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path} is longer than {_MOST_BYTES} bytes")
    try:
        secret = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if not secret:
        raise ValueError(f"{path} is empty")
    return secret
