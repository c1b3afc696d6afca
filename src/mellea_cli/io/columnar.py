"""Columnar files: Parquet and Arrow (Feather), read and written batch by batch, each column with its type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any

from mellea_cli.errors import InputError
from mellea_cli.extensions import extra_module
from mellea_cli.io.columns import plain_value, seconds_of_text
from mellea_cli.io.formats import PARTS, BinaryFormat, ColumnType, FileInput, RawRow, RowOutput, RowStream
from mellea_cli.io.writers import TypedTable, cell_text

_BATCH_ROWS = 2_000
_GROUP_ROWS = 10_000  # Rows of a written group: what is in memory at once


class ParquetFormat(BinaryFormat):
    """Parquet."""

    def read_file(self, source: FileInput) -> RowStream:
        parquet = extra_module("pyarrow.parquet", "Parquet files")
        file = _opened(source, "Parquet", lambda: parquet.ParquetFile(source.path))
        schema = file.schema_arrow

        def batches() -> Iterator[Any]:
            with file:
                # One group after the other: a reader over all of them reads ahead.
                for group in range(file.num_row_groups):
                    yield from file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], use_threads=False)

        return arrow_rows(batches(), schema, source)

    def layout(self, output: RowOutput) -> ParquetTable:
        return ParquetTable(output)


class ArrowFormat(BinaryFormat):
    """An Arrow file, which is also called Feather."""

    def read_file(self, source: FileInput) -> RowStream:
        pyarrow = extra_module("pyarrow", "Arrow files")
        with Path(source.path).open("rb") as file:
            # Without the mark of a file it is a stream, as data sets are stored.
            opens = pyarrow.ipc.open_file if file.read(6) == b"ARROW1" else pyarrow.ipc.open_stream
        file = _opened(source, "Arrow", lambda: opens(pyarrow.memory_map(source.path)))

        def batches() -> Iterator[Any]:
            whole = map(file.get_batch, range(file.num_record_batches)) if hasattr(file, "get_batch") else file
            for batch in whole:
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    yield batch.slice(start, _BATCH_ROWS)

        return arrow_rows(batches(), file.schema, source)

    def layout(self, output: RowOutput) -> ArrowTable:
        return ArrowTable(output)


def _opened(source: FileInput, kind: str, opens: Callable[[], Any]) -> Any:
    pyarrow = extra_module("pyarrow", f"{kind} files")
    try:
        return opens()
    except (pyarrow.ArrowException, OSError) as error:
        hint = "fetch or write the file again, or name its format with --format"
        raise InputError(
            f"is no {kind} file, or a broken one: {_one_line(error)}", path=source.name, hint=hint
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def unique_names(names: Iterable[str]) -> list[str]:
    """Names of columns, each once: a repeated one gets `_2`, `_3` and so on."""
    unique: dict[str, None] = {}
    for position, name in enumerate(names, start=1):
        new = base = name or f"column_{position}"
        number = 2
        while new in unique:
            new = f"{base}_{number}"
            number += 1
        unique[new] = None
    return list(unique)


def arrow_rows(batches: Iterator[Any], schema: Any, source: FileInput) -> RowStream:
    """The rows of Arrow's batches, as JSON has their values."""
    pyarrow = extra_module("pyarrow", "Arrow data")
    names = unique_names(schema.names)
    types = {
        name: ColumnType(_kinds(pyarrow.types, field.type), arrow=field.type)
        for name, field in zip(names, schema, strict=True)
    }

    def rows() -> Iterator[RawRow | InputError]:
        number = 0
        try:
            for batch in batches:
                source.delivered(batch.nbytes)
                for values in zip(*(_values(pyarrow, column) for column in batch.columns), strict=True):
                    number += 1
                    yield number, dict(zip(names, values, strict=True)), None
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"cannot be read any further: {_one_line(error)}", path=source.name, line=number + 1
            ) from error

    return RowStream(rows(), tuple(names), types=types)


def _kinds(types: Any, kind: Any) -> frozenset[str]:
    for name, matches in (
        ("date", types.is_date),
        ("datetime", types.is_timestamp),
        ("time", types.is_time),
        ("duration", types.is_duration),
        (PARTS, types.is_nested),
    ):
        if matches(kind):
            return frozenset((name,))
    return frozenset()


def _values(pyarrow: Any, column: Any) -> list[Any]:
    """The values of a column as JSON has them."""
    types, kind = pyarrow.types, column.type
    if types.is_dictionary(kind):
        return _values(pyarrow, column.dictionary_decode())
    if types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return column.to_pylist()  # type: ignore[no-any-return]  # Arrow is loaded late, without types
    if types.is_timestamp(kind):
        return _moments(pyarrow, column)
    if types.is_duration(kind) and kind.unit == "ns":
        column = column.cast(pyarrow.duration("us"), safe=False)
    return [plain_value(value) for value in column.to_pylist(maps_as_pydicts="lossy")]


def _moments(pyarrow: Any, column: Any) -> list[Any]:
    try:
        # Python's datetime has microseconds.
        return [plain_value(value) for value in column.cast(pyarrow.timestamp("us", column.type.tz)).to_pylist()]
    except (pyarrow.ArrowInvalid, ValueError, OverflowError):
        texts = column.cast(pyarrow.string()).to_pylist()
        return [text if text is None else text.replace(" ", "T") for text in texts]


# Writing.


class _Misfit(Exception):
    """A column has a cell that its type cannot hold: a person has edited it."""

    def __init__(self, column: int) -> None:
        super().__init__(column)
        self.column = column


class ParquetTable(TypedTable):
    """A Parquet file; columns of the input keep their types, and the others have the type of their values."""

    kind = "a Parquet file"

    def __init__(self, output: RowOutput) -> None:
        self._arrow = extra_module("pyarrow", f"{self.kind[2:].strip()}s")
        super().__init__(output, joined=False)

    def write(self, lines: Callable[[], Iterable[bytes]], file: IO[bytes]) -> None:
        columns = self.columns()
        types = [self._type(kind, known) for _, kind, known in columns]
        names = [name for name, _, _ in columns]
        while True:
            schema = self._arrow.schema(list(zip(names, types, strict=True)))
            try:
                self._write_groups(schema, self.cells(lines()), file)
                break
            except _Misfit as misfit:
                types[misfit.column] = self._type(columns[misfit.column][1], ColumnType())
                if types[misfit.column] == schema.types[misfit.column]:
                    types[misfit.column] = self._arrow.string()
                file.seek(0)
                file.truncate()

    def _write_groups(self, schema: Any, rows: Iterator[list[Any]], file: IO[bytes]) -> None:
        with self._writer(schema, file) as writer:
            while group := list(islice(rows, _GROUP_ROWS)):
                cells = zip(*group, strict=True)
                arrays = [
                    self._array(at, column, kind)
                    for at, (column, kind) in enumerate(zip(cells, schema.types, strict=True))
                ]
                writer.write_batch(self._arrow.record_batch(arrays, schema=schema))

    def _writer(self, schema: Any, file: IO[bytes]) -> Any:
        parquet = extra_module("pyarrow.parquet", "Parquet files")
        return parquet.ParquetWriter(file, schema, compression="zstd")

    def _type(self, kind: str, known: ColumnType) -> Any:
        """Arrow's type of a column."""
        arrow = self._arrow
        if known.arrow is not None:
            return known.arrow.value_type if arrow.types.is_dictionary(known.arrow) else known.arrow
        by_kind = {
            "bool": arrow.bool_,
            "int": arrow.int64,
            "float": arrow.float64,
            "date": arrow.date32,
            "datetime": lambda: arrow.timestamp("us"),
            "time": lambda: arrow.time64("us"),
            "duration": lambda: arrow.duration("us"),
            "texts": lambda: arrow.list_(arrow.string()),
        }
        return by_kind.get(kind, arrow.string)()

    def _array(self, at: int, cells: Iterable[Any], kind: Any) -> Any:
        arrow = self._arrow
        try:
            if arrow.types.is_timestamp(kind):
                return _moments_array(arrow, cells, kind)
            return arrow.array([_restored(arrow.types, cell, kind) for cell in cells], kind)
        except (arrow.ArrowException, ValueError, TypeError, OverflowError, AttributeError, ArithmeticError) as error:
            raise _Misfit(at) from error


class ArrowTable(ParquetTable):
    """An Arrow file."""

    kind = "an Arrow file"

    def _writer(self, schema: Any, file: IO[bytes]) -> Any:
        options = self._arrow.ipc.IpcWriteOptions(compression="zstd")
        return self._arrow.ipc.new_file(file, schema, options=options)


def _moments_array(arrow: Any, cells: Iterable[Any], kind: Any) -> Any:
    moments = [None if cell in (None, "") else datetime.fromisoformat(cell) for cell in cells]
    if kind.tz is None and any(moment is not None and moment.tzinfo is not None for moment in moments):
        raise ValueError("a time zone")
    return arrow.array(moments, arrow.timestamp("us", kind.tz)).cast(kind)


def _restored(types: Any, cell: Any, kind: Any) -> Any:  # noqa: PLR0911, PLR0912 - one for each type
    """A cell as Arrow takes it for a type."""
    if cell is None:
        return None
    if types.is_string(kind) or types.is_large_string(kind):
        return cell_text(cell)
    if cell == "":
        return None
    if types.is_date(kind):
        return date.fromisoformat(cell[:10])
    if types.is_timestamp(kind):
        return datetime.fromisoformat(cell)
    if types.is_time(kind):
        return time.fromisoformat(cell)
    if types.is_duration(kind):
        return timedelta(seconds=seconds_of_text(cell))
    if types.is_decimal(kind):
        return Decimal(str(cell))
    if isinstance(cell, str) and types.is_integer(kind):
        return int(cell)
    if isinstance(cell, str) and types.is_floating(kind):
        return float(cell)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        raise ValueError("bytes are written as text")
    if types.is_map(kind):
        return [
            (_restored(types, name, kind.key_type), _restored(types, value, kind.item_type))
            for name, value in cell.items()
        ]
    if types.is_struct(kind) and isinstance(cell, Mapping):
        return {field.name: _restored(types, cell.get(field.name), field.type) for field in kind}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_restored(types, part, kind.value_type) for part in cell]
    return cell
