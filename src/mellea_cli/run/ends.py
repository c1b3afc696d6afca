"""The two ends of a run: where its items come from and where its rows and answers go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from mellea_cli.items import Item, Outcome, Row
from mellea_cli.run.record import Commits
from mellea_cli.run.reuse import Answers


class Items(Protocol):
    """Where items come from: what a run needs of a source."""

    @property
    def skipped(self) -> int:
        """Rows that could not be read and were left out."""

    def __iter__(self) -> Iterator[Item]:
        """The items, in order, positions counted from 0."""

    def stop(self) -> None:
        """Make an iteration that waits for input end."""


class OrderedRows(Protocol):
    """Where rows go: what a run needs of the way to its sink."""

    def add(self, row: Row) -> None:
        """Take one row; rows may come in any order."""

    def flush(self) -> None:
        """Let others see the rows that were taken."""

    def finish(self) -> None:
        """All rows that there will be are there: put the output in its place."""

    def close(self) -> None:
        """Let go of the output; without `finish` before, an earlier output stays as it was."""


class AnswerStore(Answers, Commits, Protocol):
    """Where answers are kept: what a run needs of the journal."""

    def facts(self) -> dict[str, str]:
        """What is noted about the runs that wrote the answers."""

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something for later runs; other facts stay."""


def nothing_carried(_: Item) -> Outcome | None:
    """Know no answer but those to the question itself: the default."""
    return None


@dataclass(frozen=True)
class Ends:
    """The two ends of a run, and what it remembers.

    Args:
        source: where items come from.
        rows: where rows go.
        to_row: makes an item's row of its outcome.
        answers: where answers are kept.
        total: number of items, when it is known.
        can_sweep: whether the source ends by itself, so that a run which stops early may go through the rest of it
            for answers that are there already.
        retry_failed: whether items that failed in an earlier run are asked again.
        replaces: whether there is an output of an earlier run, which less than all of it must not replace.
        carried: finds an answer to an earlier question that also answers this one; `None` from it means to ask.
    """

    source: Items
    rows: OrderedRows
    to_row: Callable[[Item, Outcome], Row]
    answers: AnswerStore
    total: int | None = None
    can_sweep: bool = False
    retry_failed: bool = True
    replaces: bool = False
    carried: Callable[[Item], Outcome | None] = nothing_carried
