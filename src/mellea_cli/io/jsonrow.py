"""Rows as JSON text: the input's own letters, and our columns spliced in behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from mellea_cli.io.columns import FreeNames, Note, unsaid
from mellea_cli.items import Row

_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_ENCODE_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


class JsonRows:
    """Renders rows as JSON objects, one line each.

    Args:
        note: told once for each of our columns that had to take another name.
    """

    def __init__(self, note: Note = unsaid) -> None:
        self._names = FreeNames(note)

    def render(self, row: Row) -> bytes:
        """Return the object in UTF-8, without a line end."""
        item = row.item
        added = row.added
        if not item.fields.keys().isdisjoint(added):
            added = {self._names.find(name, item.fields): value for name, value in added.items()}
        raw = item.raw
        if raw is None:
            return encoded({**item.fields, **added})
        if not added:
            return raw.encode()
        return raw[:-1].rstrip().encode() + (b", " if item.fields else b"") + encoded(added)[1:]


def encoded(value: Any) -> bytes:
    """Return a value as JSON in UTF-8: NaN and infinities as null, halves of surrogate pairs as escapes."""
    try:
        return _ENCODE(value).encode()
    except UnicodeEncodeError:
        return _ENCODE_ASCII(value).encode()
    except ValueError:
        return encoded(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
