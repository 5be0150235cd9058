"""The one strict loader: plain values (of YAML or JSON) into frozen dataclasses, or a ConfigError that helps.

A dataclass lives beside its consumer; its annotations are the schema, its ``__post_init__`` the invariants.
Understood: bool, int, float, str, Path, None, Any, Literal, unions, tuples (fixed or ``...``), dicts, nested
dataclasses.  Lists become tuples; integers become floats where a float is wanted; nothing else is converted.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from palmar.safety.types import ConfigError

T = TypeVar("T")


def load(cls: type[T], raw: Any, *, where: str = "") -> T:
    """``raw`` as an instance of dataclass ``cls``; keys that are left out keep their defaults.

    Args:
        cls: A dataclass.
        raw: A mapping of plain values.
        where: Dotted path shown in errors, such as ``algo``.

    Raises:
        ConfigError: If a key is unknown or missing, a value has the wrong type, or the dataclass refuses it.
    """
    where = where or cls.__name__
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} is {raw!r}, need a mapping with keys {_names(cls)}")
    accepted = {f.name: f for f in fields(cls) if f.init}  # pyright: ignore[reportArgumentType]
    for key in raw:
        if key not in accepted:
            raise ConfigError(f"{where}: {unknown('key', key, accepted)}")
    absent = [k for k, f in accepted.items() if f.default is f.default_factory is MISSING and k not in raw]
    if absent:
        raise ConfigError(f"{where}: missing {absent}")
    hints = typing.get_type_hints(cls)
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in raw.items()}
    try:
        return cls(**values)
    except ValueError as error:  # ConfigError is one
        raise ConfigError(f"{where}: {error}") from error


def plain(value: Any) -> Any:
    """The inverse of ``load``: nested dicts, lists and scalars, ready for JSON or YAML."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def unknown(kind: str, got: object, accepted: Iterable[str]) -> str:
    """``unknown KIND 'got'``, what was probably meant, and the accepted names: one line for any error."""
    names = list(accepted)
    near = difflib.get_close_matches(str(got), names, n=1, cutoff=0.6)
    meant = f", did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {got!r}{meant} accepted: {', '.join(names)}"


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value`` as annotated by ``hint``."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else load(hint, value, where=where)
    if origin in (Union, types.UnionType):
        return _first_fit(inner, value, where)
    if origin is Literal:
        if value not in inner:
            raise ConfigError(f"{where} is {value!r}, accepted {list(inner)}")
        return value
    if origin in (tuple, list) or hint in (tuple, list):
        return _sequence(inner, value, where)
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}, need a mapping")
        return {k: _value(inner[1] if inner else Any, v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(hint, value, where)


def _sequence(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """A tuple of the annotated length and types."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} is {value!r}, need a list")
    if not inner:
        return tuple(value)
    if len(inner) == 1 or inner[1:] == (Ellipsis,):
        kinds = (inner[0],) * len(value)
    else:
        kinds = inner
    if len(kinds) != len(value):
        raise ConfigError(f"{where} has {len(value)} values, need {len(kinds)}: {list(value)!r}")
    return tuple(_value(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(zip(kinds, value, strict=True)))


def _first_fit(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """``value`` as the first member of a union that takes it; an exact type wins over a converted one."""
    if value is None and type(None) in kinds:
        return None
    if type(value) in kinds:
        return _value(type(value), value, where)
    errors = []
    for kind in (k for k in kinds if k is not type(None)):
        try:
            return _value(kind, value, where)
        except ConfigError as error:
            errors.append(str(error))
    raise ConfigError("; or ".join(errors))


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """A bool, number, string, path or None."""
    wanted = getattr(hint, "__name__", str(hint))
    if hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
            return float(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif hint in (bool, str, type(None)):
        if isinstance(value, hint):
            return value
    else:
        raise TypeError(f"{where}: the strict loader does not understand {hint!r}")
    raise ConfigError(f"{where} is {value!r}, need {'a number' if hint is float else wanted}")


def _names(cls: type) -> list[str]:
    return [f.name for f in fields(cls) if f.init]  # pyright: ignore[reportArgumentType]
