"""Files that a chat is given: text as it is, JSONL and CSV as rows, a `summarise` output as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mellea_cli.chat.table import Row, Table
from mellea_cli.errors import InputError
from mellea_cli.io.options import SourceOptions
from mellea_cli.io.source import open_source
from mellea_cli.items import Item

_ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".json")
_LARGEST_TEXT = 4 << 20
_LONGEST_CELL = 300


@dataclass(frozen=True, slots=True)
class Document:
    """A text file."""

    name: str
    text: str


def read_file(path: str) -> Document | Table:
    """Read a file for a chat: rows where it holds rows with a text, otherwise its text.

    Raises:
        InputError: it cannot be read, is too large, or is no text.
    """
    name = path.lower().removesuffix(".gz")
    if name.endswith(_ROW_SUFFIXES):
        try:
            return _table(path, SourceOptions(on_bad_row="skip"), _plain_row)
        except InputError:
            if path.lower().endswith(".gz") or not Path(path).is_file():
                raise
            # Rows without a column that is the text: what stands there is shown as it is.
    return Document(Path(path).name, _text(path))


def read_data(path: str) -> Table:
    """Read a `summarise` output.

    Raises:
        InputError: it cannot be read, or is not such an output.
    """
    try:
        return _table(path, SourceOptions(text_field="summary", on_bad_row="skip"), _judged_row)
    except InputError as error:
        if "summary" in error.message:
            raise InputError(
                "is not an output of mellea summarise: there is no column 'summary'",
                path=path,
                hint=f"make one with: mellea summarise {path} -o out.jsonl; or attach it as it is: -f {path}",
            ) from error
        raise


def _table(path: str, options: SourceOptions, row_of: Any) -> Table:
    with open_source(path, options) as source:
        items = list(source)
        rows = [row_of(item) for item in items if item.text.strip()]
        if not rows:
            raise InputError("there are no rows with a text in it", path=path)
        # Rows that failed in a run have no summary: there is nothing to tell about them.
        return Table(Path(path).name, rows, source.skipped + len(items) - len(rows))


def _plain_row(item: Item) -> Row:
    rest = [
        f"{name}: {_cell(value)}"
        for name, value in item.fields.items()
        if value not in (None, "", item.text) and str(value) != str(item.id)
    ]
    return Row(str(item.id), " | ".join([_cell(item.text), *rest]))


def _judged_row(item: Item) -> Row:
    """A row of a `summarise` output: how it was judged and what it says, without what the model need not know."""
    issues = item.fields.get("issues")
    # JSON holds the issues in one column, CSV in one for each part.
    parts: Mapping[str, Any] = issues if isinstance(issues, Mapping) else item.fields
    sentiment, urgency = _word(item.fields.get("sentiment")), _word(parts.get("urgency"))
    complaint, praise = _word(parts.get("main_complaint")), _word(parts.get("positive_aspect"))
    stratum = "/".join(filter(None, (sentiment, urgency)))
    told = [stratum]
    told += [f"complaint: {_cell(complaint)}"] if complaint else []
    told += [f"praise: {_cell(praise)}"] if praise else []
    told.append(_cell(item.text))
    return Row(str(item.id), " | ".join(filter(None, told)), stratum, complaint)


def _word(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in {"none", "null", "n/a"} else text


def _cell(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def _text(path: str) -> str:
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > _LARGEST_TEXT:
            raise InputError(f"is larger than {_LARGEST_TEXT >> 20} MB", path=path, hint="attach a part of it")
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    if b"\0" in data[:8192]:
        raise InputError("is not a text file", path=path, hint="attach text, JSONL or CSV")
    return data.decode("utf-8-sig", "replace")
