"""Sinks: rows into a file that appears whole or not at all, or row by row to a stream, in input order."""

from __future__ import annotations

import json
import sqlite3
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from mellea_cli.errors import OutputError, UsageError
from mellea_cli.io.byte_input import zstd_module
from mellea_cli.io.files import (
    AtomicFile,
    ByteOutput,
    OutputTarget,
    TextOutput,
    TextStream,
    open_special,
    output_error,
    resolve_output,
)
from mellea_cli.io.formats import FORMATS, ColumnType, CsvDialect, Note, RowOutput, ignore, known_format, output_format
from mellea_cli.io.writers import ERROR, AddedColumns, Layout, TypedTable
from mellea_cli.items import Item, Row

_GZIP_WINDOW = 31  # zlib's code for a gzip header and trailer


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How to write an output."""

    format: str | None = None  # A name of `FORMATS`; by default the format of the file's name, else `jsonl`
    # Input columns that are known in advance (from a survey): a table to a pipe needs its header first
    columns: tuple[str, ...] = ()
    raw_csv: bool = False  # Write cells that a spreadsheet would run as formulas unchanged
    # Returns how the input was written; called when a table is written, at the earliest after the first row
    dialect: Callable[[], CsvDialect | None] = field(default=lambda: None)
    types: Callable[[], Mapping[str, ColumnType]] = field(default=dict)  # Returns the types of the input's columns
    rows: int | None = None  # Rows that are known in advance


class Sink(ABC):
    """Takes rows in their final order. Every method but `close` raises `OutputError` when it cannot write."""

    @abstractmethod
    def write(self, row: Row) -> None:
        """Take one row."""

    @abstractmethod
    def flush(self) -> None:
        """Make the rows so far visible to other programs."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the output; no row can follow."""

    @abstractmethod
    def close(self) -> None:
        """Close the output; without `finish` before it, a file is not put into place."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_sink(
    target: OutputTarget,
    added: AddedColumns,
    options: SinkOptions | None = None,
    *,
    note: Note = ignore,
    stdout: TextStream | None = None,
) -> FileSink | StreamSink:
    """Open an output. An existing file is unchanged until `finish`.

    `stdout` replaces standard output where rows share the terminal with other text.

    Raises:
        OutputError: the target cannot be written.
        UsageError: there is no such format.
    """
    options = options or SinkOptions()
    form = known_format(options.format) if options.format else output_format(target.name)
    if target.kind != "file":
        # What goes into a pipe is read by programs, which do not expect a byte order mark.
        options = replace(options, dialect=partial(_unmarked, options.dialect))
    layout = FORMATS.require(form)().layout(RowOutput(added, options, note))
    packing = next((suffix for suffix in _PACKERS if target.name.lower().endswith(suffix)), "")
    if isinstance(layout, TypedTable) and (target.kind != "file" or packing):
        why = f"is packed already: omit {packing}" if packing else "is whole only at its end: name a file with -o"
        raise UsageError(f"{target.name}: cannot hold {layout.kind}", hint=f"{layout.kind} {why}")
    if target.kind == "stdout":
        out = ByteOutput(1, target.name, owned=False) if stdout is None else TextOutput(stdout, target.name)
        return StreamSink(out, layout)
    if target.kind == "special":
        return StreamSink(open_special(target.path, target.name), layout)
    return FileSink(target, layout, _PACKERS[packing] if packing else None)


_PACKERS: Mapping[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.compressobj(wbits=_GZIP_WINDOW),
    ".zst": lambda: zstd_module().ZstdCompressor(),
}


def _unmarked(found: Callable[[], CsvDialect | None]) -> CsvDialect | None:
    dialect = found()
    return dialect and replace(dialect, mark=False, sep_line="")


def open_dead_letters(path: str, options: SinkOptions | None = None, *, note: Note = ignore) -> FileSink | StreamSink:
    """Open a dead-letter file: failed items as they were read, nothing added, so that the file can be an input again.

    Raises:
        OutputError: the file cannot be written.
    """
    # An apostrophe before a formula would change the row: this file is for this program, not for a spreadsheet.
    options = replace(options or SinkOptions(), raw_csv=True)
    return open_sink(resolve_output(path), AddedColumns(), options, note=note)


class StreamSink(Sink):
    """Writes each row at once, in one call, so that a reader sees it immediately."""

    def __init__(self, out: ByteOutput | TextOutput, layout: Layout) -> None:
        self._out = out
        self._layout = layout

    def write(self, row: Row) -> None:
        self._out.write(self._layout.render(row))
        self._out.flush()

    def flush(self) -> None:
        """Do nothing: every row is flushed."""

    def finish(self) -> None:
        self._out.write(self._layout.end())
        self._out.flush()

    def close(self) -> None:
        with suppress(OSError):  # everything was flushed: nothing can be lost
            self._out.close()


class FileSink(Sink):
    """Collects rows in `OUTPUT.partial` and puts the whole output into place at the end.

    An output of an earlier run is unchanged until then, and keeps its permission bits. `packer` makes what packs it.
    """

    def __init__(
        self, target: OutputTarget, layout: Layout | TypedTable, packer: Callable[[], Any] | None = None
    ) -> None:
        self._target = target
        self._layout = layout
        self._packer = packer
        if packer is not None:
            packer()  # what is missing is said before the first row
        self._partial = AtomicFile(target.path, target.name, temporary=target.partial, keep=True)

    def write(self, row: Row) -> None:
        self._partial.write(self._layout.partial_line(row))

    def flush(self) -> None:
        self._partial.flush()

    def finish(self) -> None:
        if self._layout.partial_is_final and self._packer is None:
            self._partial.commit()
            return
        self._partial.flush()
        self._partial.close()
        self._render_whole()
        self._target.partial.unlink(missing_ok=True)

    def close(self) -> None:
        # `finish` reports errors. Here the rows are in the journal, and the next run writes them again.
        with suppress(OutputError):
            self._partial.flush()
        with suppress(OSError):
            self._partial.close()

    def _render_whole(self) -> None:
        target, layout = self._target, self._layout
        packer = self._packer() if self._packer is not None else None
        with AtomicFile(target.path, target.name) as out:
            if isinstance(layout, TypedTable):
                try:
                    with out.opened() as file:
                        layout.write(self._partial_lines, file)
                except OSError as error:
                    raise output_error(target.name, error) from error
                out.commit()
                return
            try:
                with target.partial.open("rb") as lines:
                    for line in lines:
                        data = layout.render_partial(line)
                        out.write(packer.compress(data) if packer else data)
            except OSError as error:
                raise output_error(target.name, error) from error
            out.write(packer.compress(layout.end()) + packer.flush() if packer else layout.end())
            out.commit()

    def _partial_lines(self) -> Iterator[bytes]:
        with self._target.partial.open("rb") as lines:
            yield from lines


HELD_ROWS = 1_000  # Rows that wait in memory for an earlier one; more of them wait in a temporary file


class OrderedSink:
    """Writes rows that arrive in any order in the order of `item.position`, in bounded memory.

    Positions count 0, 1, 2 and so on without a gap. Use it from one thread at a time. `dead_letters` also takes each
    failed item as an input row. At most `bound` rows wait in memory; without `ordered` each row is written at once.
    """

    def __init__(
        self, sink: Sink, dead_letters: Sink | None = None, *, ordered: bool = True, bound: int = HELD_ROWS
    ) -> None:
        self._sink = sink
        self._dead_letters = dead_letters
        self._sinks = [sink] if dead_letters is None else [sink, dead_letters]
        self._ordered = ordered
        self._bound = bound
        self._next = 0
        self._early: dict[int, Row] = {}
        self._spill: _Spill | None = None

    @property
    def held(self) -> int:
        """Rows that wait for an earlier one."""
        return len(self._early) + (self._spill.rows if self._spill is not None else 0)

    def add(self, row: Row) -> None:
        """Take a row; write it, and the rows that waited for it, when its turn has come.

        Raises:
            OutputError: the output, or the temporary file, cannot be written.
        """
        position = row.item.position
        if position == self._next or not self._ordered:
            self._write(row)
            if self._early or self._spill is not None:
                self._write_ready()
        elif len(self._early) < self._bound:
            self._early[position] = row
        else:
            self._spill = self._spill or _Spill()
            self._spill.put(row)

    def flush(self) -> None:
        """Make the rows that were written visible; raises as `add` does."""
        for sink in self._sinks:
            sink.flush()

    def finish(self) -> None:
        """Write the rows that still wait, although rows before them never came, and put the output into place.

        Raises:
            OutputError: the output, or the temporary file, cannot be written.
        """
        while self.held:
            waiting = [*self._early, *([self._spill.first()] if self._spill is not None else [])]
            self._next = min(waiting)
            self._write_ready()
        for sink in self._sinks:
            sink.finish()

    def close(self) -> None:
        """Drop the rows that wait and close the output; without `finish` before, an earlier output is unchanged."""
        self._early.clear()
        if self._spill is not None:
            self._spill.close()
            self._spill = None
        for sink in self._sinks:
            sink.close()

    def _write(self, row: Row) -> None:
        self._sink.write(row)
        if self._dead_letters is not None and row.added.get(ERROR) is not None:
            self._dead_letters.write(Row(row.item, {}))
        self._next = row.item.position + 1

    def _write_ready(self) -> None:
        while True:
            while (row := self._early.pop(self._next, None)) is not None:
                self._write(row)
            if self._spill is None:
                return
            rows = self._spill.take(self._next)
            for row in rows:
                self._write(row)
            if not self._spill.rows:
                self._spill.close()
                self._spill = None
            elif not rows:
                return


_SPILL_BATCH = 256


class _Spill:
    """Rows in a temporary SQLite database, which has no name and disappears with its connection."""

    def __init__(self) -> None:
        try:
            self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("CREATE TABLE waiting (position INTEGER PRIMARY KEY, row TEXT NOT NULL)")
            self._db.execute("BEGIN")
        except sqlite3.Error as error:
            raise _cannot_spill(error) from error
        self.rows = 0

    def put(self, row: Row) -> None:
        item = row.item
        # A row that came as JSON is stored once, as its text.
        fields = dict(item.fields) if item.raw is None else None
        text = json.dumps([item.position, item.id, item.text, fields, item.line, item.raw, dict(row.added)])
        try:
            self._db.execute("INSERT OR REPLACE INTO waiting VALUES (?, ?)", (item.position, text))
        except sqlite3.Error as error:
            raise _cannot_spill(error) from error
        self.rows += 1

    def first(self) -> int:
        """Return the lowest stored position."""
        found: tuple[int] = self._db.execute("SELECT min(position) FROM waiting").fetchone()
        return found[0]

    def take(self, position: int) -> list[Row]:
        """Remove and return the rows from `position` on without a gap, one batch at most."""
        found: list[str] = []
        try:
            stored = self._db.execute(
                "SELECT position, row FROM waiting WHERE position >= ? ORDER BY position LIMIT ?",
                (position, _SPILL_BATCH),
            )
            for place, text in stored:
                if place != position + len(found):
                    break
                found.append(text)
            stored.close()
            if found:
                self._db.execute("DELETE FROM waiting WHERE position < ?", (position + len(found),))
        except sqlite3.Error as error:
            raise _cannot_spill(error) from error
        self.rows -= len(found)
        return [_row(text) for text in found]

    def close(self) -> None:
        self._db.close()


def _row(text: str) -> Row:
    position, ident, words, fields, line, raw, added = json.loads(text)
    return Row(Item(position, ident, words, json.loads(raw) if fields is None else fields, line, raw), added)


def _cannot_spill(error: sqlite3.Error) -> OutputError:
    return OutputError(
        f"rows that wait for an earlier one cannot be stored in a temporary file: {error}",
        hint="free some space in the folder for temporary files, or set TMPDIR to another one",
    )
