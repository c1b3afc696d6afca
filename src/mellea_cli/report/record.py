"""One row of a finished run, as a report sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["answered", "blank", "failed"]

OTHER, NONE = "other", "none"
"""What stands in the place of a theme: something that no theme covers, and nothing worth one."""

SENTIMENTS = ("negative", "mixed", "positive")
URGENCIES = ("high", "medium", "low")
UNSAID = "not said"
"""Stands for a judgement that an answered row does not hold."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: the feedback, the answers about it, and what is left of its columns."""

    number: int
    """Place among the rows that could be read, counted from 1."""
    id: str
    text: str
    state: State
    """`answered` when there is a sentiment, `failed` when there is a reason why not, else `blank`."""
    summary: str = ""
    sentiment: str = ""
    urgency: str = ""
    complaint: str = ""
    praise: str = ""
    themes: tuple[str, ...] | None = None
    """Names of themes, or `other` or `none` alone; `None` when the row has not been labelled."""
    quotes: Mapping[str, str] = field(default_factory=dict)
    """A verbatim part of the text for each theme."""
    error: str = ""
    error_kind: str = ""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """The input's other columns, as they stand there."""

    @property
    def words(self) -> str:
        """What the customer said, or the summary of it where the text is not at hand."""
        return self.text.strip() or self.summary


def ranked(value: str, order: tuple[str, ...]) -> int:
    """The place of a judgement in its order; unknown ones come after all known ones."""
    return order.index(value) if value in order else len(order)
