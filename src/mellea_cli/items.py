"""Items, their outcomes and their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mellea_cli.messages import Usage


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of feedback.

    Args:
        position: place in the input, counted from 0 over the items that are read.
        id: the unchanged value of the id column (7 is not "7"), or the 1-based position.
        text: the feedback itself.
        fields: every column of the row, the text's own included.
        line: physical line in the file on which the row starts, counted from 1.
        raw: the JSON text of the row, line breaks between tokens replaced by spaces, so that it can be written back
            unchanged; `None` when the input was not JSON.
        known: answers that are known already, by column: only the pipeline's other columns are asked; `None` asks all.
    """

    position: int
    id: str | int | float
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    line: int | None = None
    raw: str | None = None
    known: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """The answers for one item."""

    values: Mapping[str, Any]  # Output columns by name
    usage: Usage = Usage()
    latency_s: float = 0.0  # Seconds from the item's first request to its last token
    attempts: int = 1  # Model calls over all steps
    asked: tuple[str, ...] = ()  # The columns that were asked, where others were known before; empty for all
    answered_by: str = ""  # What has answered instead of the pipeline, such as `learned`; empty for the pipeline


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why an item has no answers; a value, not an exception."""

    kind: str  # An error class's `kind`, such as `parse` or `unavailable`
    message: str  # One sentence for the user
    step: str = ""
    attempts: int = 1
    status: int | None = None
    usage: Usage = Usage()
    latency_s: float = 0.0
    answered: Mapping[str, Any] | None = None
    """Columns that were answered nevertheless, where each is remembered by itself."""


Outcome = Success | Failure


@dataclass(frozen=True, slots=True)
class Row:
    """One output row: an item, and the columns to add to it."""

    item: Item
    added: Mapping[str, Any]  # Columns to add, by name; values may be nested, and CSV flattens them
