"""Where items come from: a file or a pipe of JSONL, JSON, CSV or TSV, read as a stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import BinaryIO, Self

from mellea_cli.errors import InputError
from mellea_cli.io.bytesin import ByteInput, open_bytes
from mellea_cli.io.jsonl import RawRow
from mellea_cli.io.options import SourceOptions
from mellea_cli.io.rows import Rows, open_rows
from mellea_cli.io.shape import Shape
from mellea_cli.items import Item

SURVEY_BYTES = 64 << 20
"""Regular files up to this size, packed and unpacked, are checked whole before the first item is handed out."""

Report = Callable[[InputError], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a first pass over a whole file found."""

    count: int
    """Items that the iteration will yield."""
    columns: tuple[str, ...]
    """Every column that occurs, in the order of its first appearance."""
    skipped: int
    """Bad rows; the iteration will skip them."""


def ignore(_: InputError) -> None:
    """Report a bad row to nobody: it is still counted."""


def open_source(
    path: str, options: SourceOptions | None = None, *, report: Report = ignore, stream: BinaryIO | None = None
) -> Source:
    """Open an input.

    Args:
        path: a file, or `-` for standard input.
        options: how to read it.
        report: told of each bad row that is skipped, in the thread that iterates.
        stream: stands in for standard input when `path` is `-`.

    Raises:
        InputError: the file cannot be opened.
    """
    return Source(open_bytes(path, stream), options or SourceOptions(), report)


class Source:
    """Items of one input, in order, read as they are asked for; memory does not grow with the input.

    Iterate it once, in any one thread; call `survey` before, if at all. `stop` may be called from any thread. Close
    the source, or use it in a `with` block, when the iteration is over. While iterating:

    Raises:
        InputError: the input cannot be read on, or a row is bad and bad rows are not to be skipped.
    """

    def __init__(self, data: ByteInput, options: SourceOptions, report: Report) -> None:
        self.name = data.name
        """The path, or `<stdin>`."""
        self.skipped = 0
        """Bad rows that the iteration has left out so far."""
        self.notes: list[str] = []
        """What a person should know about the input, such as a column that was renamed; grows while reading."""
        self._data = data
        self._options = options
        self._report = report
        self._checked: tuple[int, int] | None = None
        checkable = data.size is not None and data.size <= SURVEY_BYTES
        self._fails = options.on_bad_row == "fail" or (options.on_bad_row == "auto" and checkable)

    def survey(self) -> Survey | None:
        """Read a regular file once to count its items and check every row.

        Returns:
            What was found, or `None` when the input is a pipe or too large for that: then bad rows are skipped and
            reported unless the options say `fail`.

        Raises:
            InputError: a row is bad and bad rows are not to be skipped, or the file cannot be read.
        """
        size = self._data.size
        if size is None or size > SURVEY_BYTES:
            return None
        signature = self._data.signature()
        bad: list[InputError] = []
        columns: dict[str, None] = {}
        count = 0
        for item in self._items(columns, bad.append):
            count += 1
            if not item.fields.keys() <= columns.keys():
                columns.update(dict.fromkeys(item.fields))
            if count == self._options.limit and self._options.sample is None:
                break
            if self._data.delivered > SURVEY_BYTES:
                self._fails = self._options.on_bad_row == "fail"
                return None
        if bad and (self._fails or not count):
            raise _refusal(bad, usable=count)
        self._checked = signature
        for most in (self._options.sample, self._options.limit):
            count = count if most is None else min(count, most)
        return Survey(count, tuple(columns), len(bad))

    def look(self) -> Iterator[Item]:
        """Yield what an iteration over a surveyed file will yield, without reporting or counting bad rows."""
        return self._taken(ignore)

    @property
    def repeatable(self) -> bool:
        """Whether it can be gone through more than once: a regular file can, a pipe cannot."""
        return self._data.size is not None

    def once_more(self) -> Iterator[Item]:
        """Go through a repeatable input as the iteration does, but neither count nor report bad rows again."""
        return self._taken(self._refuse)

    def __iter__(self) -> Iterator[Item]:
        if self._changed():
            raise InputError(
                "changed while it was being checked",
                path=self.name,
                hint="run the same command again, or pipe it in: cat FILE | mellea summarise -",
            )
        yield from self._taken(self._skip)
        if self._changed():
            self._note(f"{self.name}: changed while it was being read")

    def _taken(self, on_bad: Report) -> Iterator[Item]:
        """Yield the items that the options leave."""
        limit = self._options.limit
        if limit == 0:
            return
        items = self._items({}, on_bad)
        if self._options.sample is not None:
            items = _reservoir(items, self._options.sample, self._options.seed)
        for item in items:
            yield item
            if item.position + 1 == limit:
                return

    def stop(self) -> None:
        """End the iteration soon, also when it waits for a pipe. Safe from any thread."""
        self._data.stop()

    def close(self) -> None:
        """Give the file back. Call it when no thread iterates any more."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _items(self, columns: dict[str, None], on_bad: Report) -> Iterator[Item]:
        """Yield every item from the start, enter a header into `columns`, and hand bad rows to `on_bad`."""
        self._data.rewind()
        shape = Shape(self._options.text_field, self._options.id_field, self.name)
        try:
            rows = self._open(shape)
        except InputError:
            if self._data.stopped:
                return
            raise
        columns.update(dict.fromkeys(rows.header))
        position = 0
        bad: InputError | None = None
        for number, row in enumerate(self._until_stopped(rows.stream), start=1):
            try:
                if isinstance(row, InputError):
                    raise row
                item = shape.item(row, position)
            except InputError as error:
                if shape.text_field is None and row is not error:
                    raise  # nobody said which column is the text, and the first row has none that looks like it
                told = _numbered(error, number) if rows.numbered else error
                bad = bad or told
                on_bad(told)
                continue
            yield item
            position += 1
        if bad is not None and not position and not self._data.stopped:
            raise bad

    def _until_stopped(self, rows: Iterator[RawRow | InputError]) -> Iterator[RawRow | InputError]:
        try:
            for row in rows:
                if self._data.stopped:
                    return  # it may be half a row
                yield row
        except InputError:
            if not self._data.stopped:  # an array that was left in its middle is not broken
                raise

    def _open(self, shape: Shape) -> Rows:
        rows = open_rows(self._data, self._options)
        for note in rows.notes:
            self._note(note)
        if rows.header:
            shape.check_header(rows.header, rows.header_line)
        return rows

    def _refuse(self, error: InputError) -> None:
        if self._fails:
            raise _refusal([error], usable=1)

    def _skip(self, error: InputError) -> None:
        self._refuse(error)
        self.skipped += 1
        self._report(error)

    def _changed(self) -> bool:
        return self._checked is not None and self._checked != self._data.signature()

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _numbered(error: InputError, number: int) -> InputError:
    """Say which element of an array it is: all of them may stand in one line."""
    return InputError(f"item {number}: {error.reason}", path=error.path, line=error.line, hint=error.hint)


def _refusal(bad: list[InputError], *, usable: int) -> InputError:
    """Return the first bad row's error with the way out, unless there would be nothing left."""
    error = bad[0]
    if usable:
        rows = f"the {len(bad)} bad rows" if len(bad) > 1 else "it"
        way_out = f"leave {rows} out with --on-bad-row skip"
        error.hint = f"{error.hint}; or {way_out}" if error.hint else way_out
    return error


def _reservoir(items: Iterator[Item], size: int, seed: int) -> Iterator[Item]:
    """Take `size` items by chance, each with the same probability, and yield them in order; holds `size` items."""
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    kept: list[Item] = []
    for item in items:
        if len(kept) < size:
            kept.append(item)
        elif (place := draw.randrange(item.position + 1)) < size:
            kept[place] = item
    kept.sort(key=lambda item: item.position)
    for position, item in enumerate(kept):
        yield replace(item, position=position)
