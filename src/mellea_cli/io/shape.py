"""What the columns of an input mean: which one holds the text, which one the id."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from mellea_cli.errors import InputError
from mellea_cli.io.jsonl import RawRow
from mellea_cli.items import Item

TEXT_COLUMNS = ("text", "feedback", "comment", "review", "body", "message", "content")
"""The columns that are tried, in this order, when the user names none."""
ID_COLUMN = "id"
_SHOWN_COLUMNS = 12


class Shape:
    """Turns raw rows into items.

    Args:
        text_field: the column with the text, or `None` to find it.
        id_field: the column with the id, or `None` for `id` where there is one.
        path: how messages call the input.
    """

    def __init__(self, text_field: str | None, id_field: str | None, path: str) -> None:
        self._wanted_text = text_field
        self._wanted_id = id_field
        self._path = path
        self.text_field: str | None = text_field
        """The column with the text; `None` until the first row is seen."""

    def check_header(self, columns: tuple[str, ...], line: int) -> None:
        """Settle the columns of an input that names them above its rows.

        Raises:
            InputError: a column that was asked for is not there, or none looks like the text.
        """
        for wanted, flag in ((self._wanted_text, "--text-field"), (self._wanted_id, "--id-field")):
            if wanted is not None and wanted not in columns:
                raise self._missing(wanted, flag, columns, line)
        if self.text_field is None:
            self.text_field = self._find_text(dict.fromkeys(columns), line)

    def item(self, row: RawRow, position: int) -> Item:
        """Make an item of a row.

        Args:
            row: the row.
            position: the item's place, from 0; its 1-based form is the id of an item that brings none.

        Raises:
            InputError: the row lacks the text, or holds something else in its place.
        """
        line, fields, raw = row
        name = self.text_field
        if name is None:
            name = self.text_field = self._find_text(fields, line)
        text = fields.get(name)
        if text.__class__ is not str:
            text = self._as_text(name, row)
        elif not text.isascii():
            text = encodable(text)
        wanted = self._wanted_id
        ident = _as_id(fields.get(ID_COLUMN if wanted is None else wanted))
        if ident is None:
            if wanted is not None:
                raise self._no_id(wanted, fields, line)
            ident = position + 1
        return Item(position, ident, text, fields, line, raw)

    def _as_text(self, name: str, row: RawRow) -> str:
        line, fields, _ = row
        if name not in fields:
            raise self._missing(name, "--text-field", fields, line)
        value = fields[name]
        if value is None:
            return ""
        if isinstance(value, dict | list):
            kind = "an object" if isinstance(value, dict) else "an array"
            raise InputError(
                f"column {name!r} holds {kind}, not text", path=self._path, line=line, hint="name a column with text"
            )
        return json.dumps(value)

    def _find_text(self, columns: Mapping[str, Any], line: int) -> str:
        for name in TEXT_COLUMNS:
            if name in columns:
                return name
        folded = {name.strip().casefold(): name for name in reversed(list(columns))}
        for name in TEXT_COLUMNS:
            if name in folded:
                return folded[name]
        if (inside := _wrapped_rows(columns)) is not None:
            raise InputError(
                f"is one object with its rows under {inside!r}",
                path=self._path,
                line=line,
                hint=f"take them out: jq -c '.{inside}[]' FILE | mellea summarise -",
            )
        hint = "say which one holds the feedback: --text-field NAME"
        if any(name.startswith(("{", "[")) for name in columns):
            hint = "if this is JSON, say --format jsonl or json; else --text-field NAME"
        raise InputError(
            f"no column looks like the text; columns seen: {_listed(columns)}", path=self._path, line=line, hint=hint
        )

    def _missing(self, wanted: str, flag: str, columns: Iterable[str], line: int) -> InputError:
        names = list(columns)
        folded = {name.strip().casefold(): name for name in names}
        close = difflib.get_close_matches(wanted.strip().casefold(), list(folded), n=1)
        hint = f"did you mean {flag} {folded[close[0]]}?" if close else f"name another one with {flag}"
        return InputError(
            f"no column {wanted!r}; columns seen: {_listed(names)}", path=self._path, line=line, hint=hint
        )

    def _no_id(self, wanted: str, fields: Mapping[str, Any], line: int) -> InputError:
        if wanted not in fields:
            return self._missing(wanted, "--id-field", fields, line)
        return InputError(
            f"the id column {wanted!r} holds no string or number",
            path=self._path,
            line=line,
            hint="leave --id-field out to number the rows",
        )


def encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which no server accepts, with U+FFFD; whole pairs become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _as_id(value: Any) -> str | int | float | None:
    if isinstance(value, str):
        return value or None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _wrapped_rows(columns: Mapping[str, Any]) -> str | None:
    for name, value in columns.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return name
    return None


def _listed(columns: Iterable[str]) -> str:
    names = list(columns)
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return (", ".join(_printable(name) for name in names[:_SHOWN_COLUMNS]) or "none") + more


def _printable(name: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name)
    return shown if len(shown) <= 40 else shown[:39] + "…"
