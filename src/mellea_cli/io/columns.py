"""The columns a run adds to a row, and what they are called when the row has such columns already.

The rule for a clash: an input column is never touched. When the row has a column with the name of ours, ours is called
`mellea_NAME`, and `mellea_NAME_2`, `mellea_NAME_3` and so on when that exists too. It is said once for each name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from mellea_cli.items import Failure, Item, Outcome, Row

ERROR = "error"
"""The column that says why a row has no answers."""
_PREFIX = "mellea_"

Note = Callable[[str], None]


def unsaid(_: str) -> None:
    """Take a note and tell nobody."""


@dataclass(frozen=True, slots=True)
class Added:
    """One column that a run adds."""

    name: str
    parts: tuple[str, ...] = ()
    """For a nested column the names inside it, which become columns of their own in CSV."""
    joint: str = ""
    """For a column of lists what stands between their parts in CSV; empty writes them as JSON."""


@dataclass(frozen=True, slots=True)
class AddedColumns:
    """Every column that a run adds, in order, `error` excluded: it is added to each row that failed."""

    columns: tuple[Added, ...] = ()

    @classmethod
    def of(cls, *columns: str | tuple[str, tuple[str, ...]]) -> AddedColumns:
        """Make it from names, and from (name, parts) for nested columns."""
        return cls(tuple(Added(column) if isinstance(column, str) else Added(*column) for column in columns))

    @property
    def names(self) -> tuple[str, ...]:
        """The names as JSON has them."""
        return tuple(column.name for column in self.columns)

    @property
    def flat(self) -> tuple[str, ...]:
        """The names as CSV has them: parts instead of nested columns, and `error` at the end."""
        names = [name for column in self.columns for name in (column.parts or (column.name,))]
        return (*names, ERROR) if names else ()

    def row(self, item: Item, outcome: Outcome) -> Row:
        """Make the row of an item: its answers, or nulls and the reason when it failed."""
        if isinstance(outcome, Failure):
            return Row(item, {**dict.fromkeys(self.names), ERROR: described(outcome)})
        return Row(item, {name: outcome.values.get(name) for name in self.names})


def described(failure: Failure) -> dict[str, Any]:
    """Return a failure as the value of the `error` column."""
    value: dict[str, Any] = {"kind": failure.kind, "message": failure.message, "attempts": failure.attempts}
    if failure.step:
        value["step"] = failure.step
    if failure.status is not None:
        value["status"] = failure.status
    return value


class FreeNames:
    """Finds names for our columns that no input column has.

    Args:
        note: told once for each of our names that had to give way.
    """

    def __init__(self, note: Note = unsaid) -> None:
        self._note = note
        self._said: set[str] = set()

    def find(self, name: str, taken: Collection[str]) -> str:
        """Return `name`, or what it is called instead when it is taken."""
        if name not in taken:
            return name
        free = base = _PREFIX + name
        number = 2
        while free in taken:
            free = f"{base}_{number}"
            number += 1
        if name not in self._said:
            self._said.add(name)
            self._note(f"the input has a column {name!r}: it stays as it is, ours is called {free!r}")
        return free
