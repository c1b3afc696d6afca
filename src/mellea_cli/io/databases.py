"""Databases: the rows of a table, a view or a query, from SQLite and DuckDB files. They are only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mellea_cli.errors import InputError, UsageError, name_some, nearest
from mellea_cli.extensions import extra_module
from mellea_cli.io.byte_input import PART
from mellea_cli.io.columnar import arrow_rows, unique_names
from mellea_cli.io.columns import names_text, plain_value, same_names
from mellea_cli.io.formats import BinaryFormat, FileInput, RawRow, RowOutput, RowStream

if TYPE_CHECKING:
    from mellea_cli.io.writers import Layout

_BATCH_ROWS = 2_000


class _Database(BinaryFormat, Protocol):
    """A database, which is only read."""

    kind: str

    def layout(self, output: RowOutput) -> Layout:  # noqa: ARG002 - the protocol's
        hint = "name a Parquet, XLSX, CSV or JSONL file with -o"
        raise UsageError(f"rows cannot be written to {self.kind}", hint=hint)


class SqliteFormat(_Database):
    """An SQLite database."""

    kind = "an SQLite database"

    def read_file(self, source: FileInput) -> RowStream:
        try:
            # The file belongs to another program: it is never written, and its owner may go on writing.
            connection = sqlite3.connect(
                f"{Path(source.path).absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            connection.text_factory = lambda data: data.decode(errors="replace")
            tables = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
            names = [name for (name,) in connection.execute(f"{tables} ORDER BY name")]
            statement, notes = _statement(source, names, lambda table: _columns(connection.execute(table)))
            cursor = connection.execute(statement)
        except sqlite3.Error as error:
            raise _refused(source, error) from error
        if cursor.description is None:
            connection.close()
            raise _no_rows(source)
        columns = unique_names(column[0] for column in cursor.description)

        def rows() -> Iterator[RawRow | InputError]:
            number = 0
            with closing(connection):
                try:
                    for number, values in enumerate(cursor, start=1):
                        yield number, dict(zip(columns, map(plain_value, values), strict=True)), None
                except sqlite3.Error as error:
                    message = f"cannot be read any further: {error}"
                    raise InputError(message, path=source.name, line=number + 1) from error

        return RowStream(rows(), tuple(columns), notes=notes)


class DuckDbFormat(_Database):
    """A DuckDB database; rows come in batches, with their types."""

    kind = "a DuckDB database"

    def read_file(self, source: FileInput) -> RowStream:
        duckdb = extra_module("duckdb", "DuckDB databases")
        extra_module("pyarrow", "DuckDB databases")
        try:
            # A query sees this file, and neither others nor the network.
            config = {"enable_external_access": "false"}
            connection = duckdb.connect(source.path, read_only=True, config=config)
            tables = "SELECT table_name FROM information_schema.tables ORDER BY table_name"
            names = [name for (name,) in connection.execute(tables).fetchall()]
            statement, notes = _statement(source, names, lambda table: _columns(connection.execute(table)))
            result = connection.sql(statement)
            if result is None:
                raise _no_rows(source)
            reader = (
                result.to_arrow_reader(_BATCH_ROWS)
                if hasattr(result, "to_arrow_reader")
                else result.fetch_arrow_reader(_BATCH_ROWS)
            )
        except duckdb.Error as error:
            raise _refused(source, error) from error

        def batches() -> Iterator[Any]:
            with connection:
                yield from reader

        return replace(arrow_rows(batches(), reader.schema, source), notes=notes)


def _columns(result: Any) -> list[str]:
    return [column[0] for column in result.description]


def _statement(source: FileInput, names: list[str], columns: Callable[[str], list[str]]) -> tuple[str, list[str]]:
    """The query that the user gave, or that of a whole table, and what the user should know about it.

    Of several tables the only one with the named columns, or with a text, is taken; `columns` gives those of a query.

    Raises:
        InputError: there is no such table, or it is not clear which one is meant.
    """
    if source.options.query is not None:
        if source.part:
            raise UsageError("--query and a table behind the file do not go together", hint="omit one of them")
        return source.options.query, []
    file = source.name.removesuffix(PART + source.part) if source.part else source.name
    if source.part:
        same = [name for name in names if name.casefold() == source.part.casefold()]
        if not same:
            near = nearest(source.part, names)
            hint = f"did you mean {file}{PART}{near}?" if near else f"it has {name_some(names) or 'none'}"
            raise InputError(f"has no table {source.part!r}", path=file, hint=hint)
        table = source.part if source.part in same else same[0]
    elif len(fits := [name for name in names if _has_text(source, columns(f"{_whole(name)} LIMIT 0"))] or names) == 1:
        table = fits[0]
    else:
        names = fits
        hint = f"name one: {file}{PART}{names[0]}, or use --query" if names else ""
        raise InputError(
            f"has {len(names)} tables: {name_some(names)}" if names else "has no table", path=file, hint=hint
        )
    others = name_some([name for name in names if name != table])
    note = f"{file}: the table is {table!r}, the only one with a column that looks like the text; not read: {others}"
    return _whole(table), [note] if others and not source.part else []


def _whole(table: str) -> str:
    quoted = table.replace('"', '""')
    return f'SELECT * FROM "{quoted}"'  # noqa: S608 - it is quoted


def _has_text(source: FileInput, columns: list[str]) -> bool:
    named = source.options.text_fields
    return all(same_names(name, columns) for name in named) if named else names_text(columns)


def _refused(source: FileInput, error: Exception) -> InputError | UsageError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if source.options.query is not None:
        return UsageError(f"{source.name}: --query: {reason}", hint="try the query in the database's own shell")
    return InputError(f"cannot be read: {reason}", path=source.name)


def _no_rows(source: FileInput) -> UsageError:
    return UsageError(f"{source.name}: --query gives no rows", hint="begin it with SELECT")
