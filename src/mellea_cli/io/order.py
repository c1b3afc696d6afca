"""Brings rows that finish in any order into the order of the input, in bounded memory."""

from __future__ import annotations

import json
import sqlite3

from mellea_cli.errors import OutputError
from mellea_cli.io.sink import Sink
from mellea_cli.items import Item, Row

HELD_ROWS = 1_000
"""Rows that wait in memory for an earlier one; more of them wait in a temporary file."""
_BATCH = 256


class InOrder:
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
