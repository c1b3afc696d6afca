"""Rows through a source and a sink, as a run passes them: what tests of table formats share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mellea_cli.io.files import resolve_output
from mellea_cli.io.formats import ColumnType
from mellea_cli.io.sink import SinkOptions, open_sink
from mellea_cli.io.source import SourceOptions, open_source
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Item, Row

ANSWERS = AddedColumns.of("summary", ("issues", ("complaint", "urgency")))


def write_table(
    path: Path, rows: Sequence[dict[str, Any]], types: dict[str, ColumnType] | None = None, **options: Any
) -> list[str]:
    """Write rows as an output without added columns; return what was said."""
    notes: list[str] = []
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    settings = SinkOptions(columns=columns, types=lambda: types or {}, **options)
    with open_sink(resolve_output(str(path)), AddedColumns(), settings, note=notes.append) as sink:
        for position, row in enumerate(rows):
            sink.write(Row(Item(position, position, "", row), {}))
        sink.finish()
    return notes


def read_table(path: Path | str, notes: list[str] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Read the rows of an input; the first column is taken for the text where none is named."""
    said = notes if notes is not None else []
    with open_source(str(path), SourceOptions(**options), note=said.append) as source:
        return [dict(item.fields) for item in source]


def convert(path: Path, output: Path, **options: Any) -> list[str]:
    """Read one file and write another, as a run without questions; return what was said."""
    notes: list[str] = []
    with open_source(str(path), SourceOptions(**options), note=notes.append) as source:
        scan = source.survey()
        assert scan is not None
        settings = SinkOptions(
            columns=scan.columns, types=lambda: source.types, dialect=lambda: source.dialect, rows=scan.count
        )
        with open_sink(resolve_output(str(output)), AddedColumns(), settings, note=notes.append) as sink:
            for item in source:
                sink.write(Row(item, {}))
            sink.finish()
    return notes
