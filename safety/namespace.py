"""The array namespace of a value, looked up once per type: at 1 kHz the lookup itself is what costs."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

_KNOWN: dict[type, Any] = {}


def namespace(x: Any) -> Any:
    """Array API namespace of ``x`` (numpy or torch, wrapped by array-api-compat)."""
    kind = type(x)
    if kind not in _KNOWN:
        _KNOWN[kind] = array_namespace(x)
    return _KNOWN[kind]
