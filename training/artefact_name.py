"""Names of artefacts: folders of a model store, and what a service calls its models."""

import re

from service.videoclip.manifest import NAME_PATTERN
from training.errors import Refusal


def require_name(name: str, *, where: str) -> None:
    """Raise Refusal unless an artefact may have this name.

    where: what gave it, a key or an option. The manifest has the same rule, but is written last,
    after hours of training or minutes of exporting.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise Refusal(
            f"{where} {name}: 1 to 64 lower-case letters, digits, dots, hyphens and underscores, "
            "the first one a letter or digit"
        )
