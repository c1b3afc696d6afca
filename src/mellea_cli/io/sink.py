"""Where rows go: into a file that appears whole or not at all, or row by row to standard output, a pipe or a device."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from mellea_cli.errors import OutputError
from mellea_cli.io.files import (
    ByteOutput,
    OutputTarget,
    TextOutput,
    TextStream,
    create_file,
    move_into_place,
    open_special,
    output_error,
    permissions,
    resolve_output,
    writable,
)
from mellea_cli.io.formats import Format, known_format, output_format
from mellea_cli.io.writers import AddedColumns, JsonArray, JsonLines, Layout, Note, Table, unsaid
from mellea_cli.items import Item, Row

_FOLLOW_S = 0.5
"""A row waits at most so long in memory before a later row pushes it into the partial file."""
_GZIP_WINDOW = 31  # zlib's way to say: with a gzip header and trailer


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How an output is to be written."""

    format: str | None = None
    """`jsonl`, `json`, `csv` or `tsv`; `None` goes by the file's name, and is `jsonl` when that says nothing."""
    columns: tuple[str, ...] = ()
    """Input columns that are known beforehand (a survey finds them): a table to a pipe needs its header first."""
    raw_csv: bool = False
    """Write cells that a spreadsheet would run as formulas as they are."""


class Sink(Protocol):
    """Takes rows in the order in which they shall stand. Every method raises `OutputError` when it cannot write."""

    def write(self, row: Row) -> None:
        """Take one row."""
        ...

    def flush(self) -> None:
        """Let others see the rows that were taken."""
        ...

    def finish(self) -> None:
        """Make the output whole; no row can follow."""
        ...

    def close(self) -> None:
        """Let go of the output; without `finish` before it, a file is not put into place. Never raises."""
        ...


def open_sink(
    target: OutputTarget,
    added: AddedColumns,
    options: SinkOptions | None = None,
    *,
    note: Note = unsaid,
    stdout: TextStream | None = None,
) -> FileSink | StreamSink:
    """Open an output. A file that is there already stays as it is until `finish`.

    Args:
        target: where to write, from `resolve_output`.
        added: the columns that the run adds, the same for every row.
        options: how to write it.
        note: told what a person should know, such as a column that is called otherwise; once for each column.
        stdout: stands in for standard output where that is more than a descriptor.

    Raises:
        OutputError: it cannot be written there.
        UsageError: there is no such format.
    """
    chosen = options or SinkOptions()
    form = known_format(chosen.format) if chosen.format else output_format(target.name)
    layout = _layout(form, added, chosen, note)
    if target.kind == "stdout":
        out = ByteOutput(1, target.name, owned=False) if stdout is None else TextOutput(stdout, target.name)
        return StreamSink(out, layout)
    if target.kind == "special":
        return StreamSink(open_special(target.path, target.name), layout)
    return FileSink(target, layout, packed=target.name.lower().endswith(".gz"))


def open_dead_letters(path: str, options: SinkOptions | None = None, *, note: Note = unsaid) -> FileSink | StreamSink:
    """Open a file for dead letters: rows as they were read, nothing added, so that the file can be an input again.

    Every row is given back letter by letter, formula cells of a CSV file too: it is made to be read by this program.

    Raises:
        OutputError: it cannot be written there.
    """
    chosen = replace(options or SinkOptions(), raw_csv=True)
    return open_sink(resolve_output(path), AddedColumns(), chosen, note=note)


def _layout(form: Format, added: AddedColumns, options: SinkOptions, note: Note) -> Layout:
    if form == "jsonl":
        return JsonLines(note)
    if form == "json":
        return JsonArray(note)
    delimiter = "\t" if form == "tsv" else ","
    return Table(added, options.columns, delimiter=delimiter, raw=options.raw_csv, note=note)


class _Closing(ABC):
    """A sink in a `with` block: closed at its end, finished only when somebody said so."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the output."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StreamSink(_Closing):
    """Writes each row at once, in one call, for whoever reads at the other end.

    Args:
        out: where to write.
        layout: the form of the output.
    """

    def __init__(self, out: ByteOutput | TextOutput, layout: Layout) -> None:
        self._out = out
        self._layout = layout

    def write(self, row: Row) -> None:
        """Write one row.

        Raises:
            ReaderGone: the reader of the pipe went away.
            OutputError: it cannot be written.
        """
        self._out.write(self._layout.emit(row))
        self._out.flush()

    def flush(self) -> None:
        """Do nothing: every row is flushed."""

    def finish(self) -> None:
        """Write what belongs after the last row; raises as `write` does."""
        self._out.write(self._layout.tail())
        self._out.flush()

    def close(self) -> None:
        """Let go of the stream; standard output stays open."""
        with suppress(OSError):  # everything was flushed: there is nothing left to lose
            self._out.close()


class FileSink(_Closing):
    """Lets rows grow in `OUTPUT.partial` and puts the whole output into place at the end.

    An output of an earlier run is untouched until then, and keeps its permission bits.

    Args:
        target: the file.
        layout: the form of the output.
        packed: write it as gzip.
    """

    def __init__(self, target: OutputTarget, layout: Layout, *, packed: bool = False) -> None:
        self._target = target
        self._layout = layout
        self._packed = packed
        self._mode = permissions(target.path)
        if self._mode is not None and not writable(target.path):
            raise OutputError(f"{target.name}: is write-protected", hint="choose another name with -o")
        self._partial_name = f"{target.name}.partial"
        self._out = create_file(target.partial, self._partial_name, self._mode)
        self._flushed_at = time.monotonic()

    def write(self, row: Row) -> None:
        """Append one row to the partial file; `flush`, or a later row, makes it visible there.

        Raises:
            OutputError: it cannot be written.
        """
        self._out.write(self._layout.keep(row))
        if time.monotonic() - self._flushed_at > _FOLLOW_S:
            self.flush()

    def flush(self) -> None:
        """Make every row visible in the partial file; raises as `write` does."""
        self._out.flush()
        self._flushed_at = time.monotonic()

    def finish(self) -> None:
        """Put the whole output into place, durably, and remove the partial file.

        Raises:
            OutputError: it cannot be written; the old output and the partial file are still there.
        """
        target = self._target
        if self._layout.kept_is_final and not self._packed:
            self._out.sync()
            self._out.close()
            move_into_place(target.partial, target.path, target.name)
            return
        self._out.flush()
        self._out.close()
        try:
            self._write_whole()
            move_into_place(target.fresh, target.path, target.name)
            target.partial.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(target.name, error) from error
        finally:
            with suppress(OSError):  # gone after the rename; after a failure it is only in the way
                target.fresh.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the partial file, which stays unless `finish` has put it into place."""
        with suppress(OutputError):  # `finish` reports; here the rows are in the journal and will be written again
            self._out.flush()
        with suppress(OSError):
            self._out.close()

    def _write_whole(self) -> None:
        target = self._target
        out = create_file(target.fresh, target.name, self._mode)
        pack, packed_tail = _packer(packed=self._packed)
        try:
            with target.partial.open("rb") as kept:
                for line in kept:
                    out.write(pack(self._layout.emit_kept(line)))
            out.write(pack(self._layout.tail()))
            out.write(packed_tail())
            out.sync()
        finally:
            out.close()


def _packer(*, packed: bool) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if not packed:
        return (lambda data: data), bytes
    packer = zlib.compressobj(wbits=_GZIP_WINDOW)
    return packer.compress, packer.flush


# Brings rows that finish in any order into the order of the input, in bounded memory.

HELD_ROWS = 1_000
"""Rows that wait in memory for an earlier one; more of them wait in a temporary file."""
_BATCH = 256


class ReorderBuffer:
    """Writes rows to a sink by `item.position`, which counts 0, 1, 2 and so on without a gap.

    Use it from one thread at a time.

    Args:
        sink: takes the rows.
        bound: how many early rows may wait in memory.
    """

    def __init__(self, sink: Sink, bound: int = HELD_ROWS) -> None:
        self._sink = sink
        self._bound = bound
        self._next = 0
        self._early: dict[int, Row] = {}
        self._spill: _Spill | None = None
        self.rows_written = 0
        """Rows that the sink has taken."""

    @property
    def held(self) -> int:
        """Rows that wait for an earlier one, in memory or spilled."""
        return len(self._early) + (self._spill.rows if self._spill is not None else 0)

    def add(self, row: Row) -> None:
        """Take a row, and write it and whatever waited for it when its turn has come.

        Raises:
            OutputError: the sink, or the temporary file, cannot be written.
        """
        if row.item.position == self._next:
            self._write(row)
            if self._early or self._spill is not None:
                self._write_ready()
        elif len(self._early) < self._bound:
            self._early[row.item.position] = row
        else:
            self._spill = self._spill or _Spill()
            self._spill.put(row)

    def finish(self) -> None:
        """Write what still waits, in order, though rows before it never came (a run that was stopped).

        Raises:
            OutputError: as `add` does.
        """
        while self.held:
            waiting = [*self._early, *([self._spill.first()] if self._spill is not None else [])]
            self._next = min(waiting)
            self._write_ready()

    def close(self) -> None:
        """Drop what waits, and the temporary file."""
        self._early.clear()
        if self._spill is not None:
            self._spill.close()
            self._spill = None

    def _write(self, row: Row) -> None:
        self._sink.write(row)
        self._next = row.item.position + 1
        self.rows_written += 1

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


class _Spill:
    """Rows in a temporary SQLite database that has no name and goes with its connection."""

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
        """Store one row."""
        try:
            self._db.execute("INSERT OR REPLACE INTO waiting VALUES (?, ?)", (row.item.position, _packed(row)))
        except sqlite3.Error as error:
            raise _cannot_spill(error) from error
        self.rows += 1

    def first(self) -> int:
        """Return the lowest position that is stored."""
        found: tuple[int] = self._db.execute("SELECT min(position) FROM waiting").fetchone()
        return found[0]

    def take(self, position: int) -> list[Row]:
        """Remove and return the rows from `position` on without a gap, a batch at most."""
        found: list[str] = []
        try:
            stored = self._db.execute(
                "SELECT position, row FROM waiting WHERE position >= ? ORDER BY position LIMIT ?", (position, _BATCH)
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
        return [_unpacked(text) for text in found]

    def close(self) -> None:
        """Give the temporary file back."""
        self._db.close()


def _cannot_spill(error: sqlite3.Error) -> OutputError:
    return OutputError(
        f"rows that wait for an earlier one cannot be stored in a temporary file: {error}",
        hint="make room in the folder for temporary files, or set TMPDIR to another one",
    )


def _packed(row: Row) -> str:
    item = row.item
    # A row that came as JSON is stored once, as it stood.
    fields = dict(item.fields) if item.raw is None else None
    return json.dumps([item.position, item.id, item.text, fields, item.line, item.raw, dict(row.added)])


def _unpacked(text: str) -> Row:
    position, ident, words, fields, line, raw, added = json.loads(text)
    return Row(Item(position, ident, words, json.loads(raw) if fields is None else fields, line, raw), added)


class _Taker(Protocol):
    def add(self, row: Row) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class OrderedSink:
    """Takes rows in any order and writes them; see `mellea_cli.run.batch.OrderedRows`.

    Args:
        sink: the output.
        letters: takes failed items as input rows; `None` for none.
        ordered: write in input order; otherwise as they come.
    """

    def __init__(self, sink: Sink, letters: Sink | None = None, *, ordered: bool = True) -> None:
        self._sinks = [sink] if letters is None else [sink, letters]
        tee = sink if letters is None else _Tee(sink, letters)
        self._taker: _Taker = ReorderBuffer(tee) if ordered else _AsTheyCome(tee)

    def add(self, row: Row) -> None:
        """Take one row.

        Raises:
            OutputError: it cannot be written.
        """
        self._taker.add(row)

    def flush(self) -> None:
        """Let others see the rows that could be written; raises as `add` does."""
        for sink in self._sinks:
            sink.flush()

    def finish(self) -> None:
        """Write what waits for rows that never came, and put the output into its place.

        Raises:
            OutputError: it cannot be written.
        """
        self._taker.finish()
        for sink in self._sinks:
            sink.finish()

    def close(self) -> None:
        """Let go of the output; without `finish` before, an earlier output stays as it was."""
        self._taker.close()
        for sink in self._sinks:
            sink.close()


class _AsTheyCome:
    """Writes rows at once, in the order in which they are finished."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def add(self, row: Row) -> None:
        self._sink.write(row)

    def finish(self) -> None:
        return None

    def close(self) -> None:
        return None


class _Tee:
    """Writes each row to the output, and failed ones to the dead letters as they were read."""

    def __init__(self, sink: Sink, letters: Sink) -> None:
        self._sink = sink
        self._letters = letters

    def write(self, row: Row) -> None:
        self._sink.write(row)
        if row.added.get("error") is not None:
            self._letters.write(Row(row.item, {}))

    def flush(self) -> None:
        self._sink.flush()
        self._letters.flush()

    def finish(self) -> None:
        self._sink.finish()
        self._letters.finish()

    def close(self) -> None:
        self._sink.close()
        self._letters.close()
