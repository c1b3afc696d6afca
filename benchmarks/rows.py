"""What a benchmark has found: rows that are printed, and kept for `docs/performance.md`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

INTO = "MELLEA_BENCH_INTO"
"""The variable that names the file to which rows are added, a line of JSON each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Args:
        part: the benchmark it comes from.
        what: what was measured, and against what.
        value: the figure.
        unit: `x` for a ratio, else `ms`, `s`, `MB`, ...
        bar: what it is to stay within; `None` where there is nothing to hold.
        at_least: whether the bar is a lower one.
        note: the figures behind it.
    """

    part: str
    what: str
    value: float
    unit: str = "x"
    bar: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure is within its bar."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def __str__(self) -> str:
        bar = "" if self.bar is None else f"  ({'at least' if self.at_least else 'at most'} {self.bar:g})"
        mark = "" if self.holds else "  <-- not held"
        note = f"  [{self.note}]" if self.note else ""
        return f"{self.part:<10} {self.what:<68} {self.value:>9.2f} {self.unit}{bar}{note}{mark}"


def tell(row: Row) -> None:
    """Print a row, and keep it where somebody collects them."""
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()
    if path := os.environ.get(INTO):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
