"""What is said about batches: a line when one has come further, and the table of `mellea jobs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mellea_cli.ui.figures import count

_TENTHS = 10
_WORDS = {
    "validating": "being checked",
    "in_progress": "being worked on",
    "finalizing": "being put together",
    "completed": "done",
    "expired": "out of time",
    "cancelling": "being cancelled",
    "cancelled": "cancelled",
    "failed": "refused",
}


class Stands(Protocol):
    """How a batch stands."""

    @property
    def id(self) -> str:
        """The server's name for it."""

    @property
    def status(self) -> str:
        """Its state, in the server's word."""

    @property
    def completed(self) -> int:
        """Requests with an answer."""

    @property
    def failed(self) -> int:
        """Requests that failed."""


class QueueLines:
    """Says how batches stand, but only what is news: a new state, or another tenth done.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: dict[str, tuple[str, int]] = {}

    def tell(self, batch: Stands, requests: int) -> None:
        """Say how a batch of so many requests stands, if that is news."""
        done = batch.completed + batch.failed
        news = (batch.status, _TENTHS * done // max(1, requests))
        if self._said.get(batch.id) != news:
            self._said[batch.id] = news
            self._say(f"{batch.id}: {standing(batch, requests)}")


def standing(batch: Stands, requests: int) -> str:
    """How a batch stands, in a few words."""
    done = f"{count(batch.completed)} of {count(requests)} answered" if batch.completed or batch.failed else ""
    failed = f"{count(batch.failed)} failed" if batch.failed else ""
    return ", ".join(part for part in (_WORDS.get(batch.status, batch.status), done, failed) if part)
