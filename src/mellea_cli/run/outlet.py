"""Where a run's rows leave it: in input order into the output, failed ones into the dead letters as well."""

from __future__ import annotations

from typing import Protocol

from mellea_cli.io.order import InOrder
from mellea_cli.io.sink import Sink
from mellea_cli.items import Row


class _Taker(Protocol):
    def add(self, row: Row) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class Outlet:
    """Takes rows in any order and writes them; see `mellea_cli.run.batch.OrderedRows`.

    Args:
        sink: the output.
        letters: takes failed items as input rows; `None` for none.
        ordered: write in input order; otherwise as they come.
    """

    def __init__(self, sink: Sink, letters: Sink | None = None, *, ordered: bool = True) -> None:
        self._sinks = [sink] if letters is None else [sink, letters]
        tee = sink if letters is None else _Tee(sink, letters)
        self._taker: _Taker = InOrder(tee) if ordered else _AsTheyCome(tee)

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
