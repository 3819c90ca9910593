"""What ``python -m service --help`` says, made from the fields of the settings."""

from __future__ import annotations

from typing import Any, Literal

from service.settings import Settings, variables
from service.settings_secrets import file_variable, secret_names


def help_text() -> str:
    """Describe every setting with its default, generated from the fields."""
    lines = [
        "usage: python -m service [--help | --version | errors | metrics | key NAME [--admin]]",
        "",
        "Serves video tagging and search over HTTP. Settings come from the environment:",
        "",
    ]
    # Its own first, among them host and port; pydantic begins with those of its base classes.
    own = Settings.__annotations__
    secrets = secret_names(Settings.model_fields)
    for name, field in sorted(Settings.model_fields.items(), key=lambda item: item[0] not in own):
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "unset" if default is None else str(default)
        lines.append(f"  {' or '.join(variables(name))} = {shown}")
        lines.append(f"      {field.description}{_choices(field.annotation)}")
        if name in secrets:
            lines.append(f"      or {file_variable(variables(name)[0])}, a file that holds it")
    return "\n".join(lines)


def _choices(annotation: Any) -> str:
    values = getattr(annotation, "__args__", ())
    is_choice = getattr(annotation, "__origin__", None) is Literal
    return f" ({' | '.join(map(str, values))})" if is_choice else ""
