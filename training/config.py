"""Typed TOML: a file is read into dataclasses, and anything that does not fit is one clear line."""

import tomllib
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from training.errors import Refusal

T = TypeVar("T")


class ConfigError(Refusal):
    """A configuration that cannot be used; names file, key, value and what is expected there."""


def load_config(path: Path, schema: type[T]) -> T:
    """Read a TOML file into `schema`, a dataclass; tables become nested dataclasses.

    An unknown key, a missing one, and a value of another type are errors. Integers are taken where
    floats are wanted. Raises ConfigError.
    """
    document = read_toml(path)
    try:
        return parse(document, schema)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as tables, of no schema yet: commands look at it before they import torch.

    Raises ConfigError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: {reason}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def parse(document: dict[str, Any], schema: type[T], *, where: str = "") -> T:
    """Make a dataclass of a table. Raises ConfigError; see `load_config`."""
    assert is_dataclass(schema)
    hints = get_type_hints(schema)
    known = {field.name: field for field in fields(schema) if field.init}
    unknown = [key for key in document if key not in known]
    if unknown:
        raise ConfigError(
            f"unknown key {_dotted(where, unknown[0])}; known here: {', '.join(known)}"
        )
    values = {
        key: _value(value, hints[key], where=_dotted(where, key)) for key, value in document.items()
    }
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"missing key {_dotted(where, name)}")
    try:
        result = schema(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where or 'document'}: {error}") from error
    return result


def _value(value: Any, hint: Any, *, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(value, get_args(hint), where=where)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{where} = {value!r}: one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin is tuple:
        return _tuple(value, get_args(hint), where=where)
    if origin is dict:
        _require(isinstance(value, dict), value, "a table", where=where)
        return {
            key: _value(item, get_args(hint)[1], where=_dotted(where, key))
            for key, item in value.items()
        }
    if is_dataclass(hint):
        _require(isinstance(value, dict), value, "a table", where=where)
        return parse(value, hint, where=where)  # type: ignore[arg-type]
    return _scalar(value, hint, where=where)


def _scalar(value: Any, hint: Any, *, where: str) -> Any:
    if hint is Any:
        return value
    if hint is Path:
        _require(isinstance(value, str), value, "a path in quotes", where=where)
        return Path(value)
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        _require(number, value, "a number", where=where)
        return float(value)
    if hint is int:
        _require(type(value) is int, value, "a whole number", where=where)
    elif hint is bool:
        _require(type(value) is bool, value, "true or false", where=where)
    elif hint is str:
        _require(isinstance(value, str), value, "a text in quotes", where=where)
    else:
        raise TypeError(f"{where}: a configuration cannot hold {hint!r}")
    return value


def _one_of(value: Any, hints: tuple[Any, ...], *, where: str) -> Any:
    # None is how a schema says that a key may be left out; TOML itself has no such value.
    choices = [hint for hint in hints if hint is not type(None)]
    errors = []
    for hint in choices:
        try:
            return _value(value, hint, where=where)
        except ConfigError as error:
            errors.append(error)
    raise errors[-1]


def _tuple(value: Any, hints: tuple[Any, ...], *, where: str) -> tuple[Any, ...]:
    _require(isinstance(value, list), value, "a list", where=where)
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    _require(len(hints) == len(value), value, f"a list of {len(hints)}", where=where)
    pairs = zip(value, hints, strict=True)
    return tuple(_value(item, hint, where=f"{where}[{i}]") for i, (item, hint) in enumerate(pairs))


def _require(fits: bool, value: Any, expected: str, *, where: str) -> None:
    if not fits:
        raise ConfigError(f"{where} = {value!r}: expected {expected}")


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
