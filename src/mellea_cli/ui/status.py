"""What is said about batches: a line when one has come further, and the table of `mellea jobs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from mellea_cli.messages import Message
from mellea_cli.ui.console import clean, print_table, say
from mellea_cli.ui.number_format import count

if TYPE_CHECKING:
    from mellea_cli.ui.theme import Role


# The doctor's screen.

_ROLES: Mapping[str, Role] = {"ok": "good", "note": "warn", "bad": "bad"}


class Found(Protocol):
    """One line of the screen."""

    @property
    def part(self) -> str:
        """The part of the screen it belongs to."""

    @property
    def subject(self) -> str:
        """What was looked at."""

    @property
    def state(self) -> str:
        """`ok`, `note` or `bad`."""

    @property
    def text(self) -> str:
        """What was found."""


def print_findings(findings: Sequence[Found], command: str, *, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print what was found, part by part, and what to type next if something is missing.

    Args:
        findings: what was found, in order.
        command: what to type next; nothing is printed when empty.
        stream: usually stdout.
        environ: the environment, for colours.
    """
    rows: list[Sequence[str | tuple[Role, str]]] = []
    part = ""
    for finding in findings:
        head = finding.part if finding.part != part else ""
        part = finding.part
        rows.append((("strong", head), finding.subject, (_ROLES[finding.state], finding.state), finding.text))
    print_table(rows, stream=stream, environ=environ)
    if command:
        say(stream, f"to mend it: {command}")


# What a run would do, for `--dry-run`.


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do.

    Args:
        facts: pairs of what and how much, in order.
        step: the step whose prompt is shown.
        messages: that prompt for the first item; empty when there is no item.
    """

    facts: Sequence[tuple[str, str]]
    step: str
    messages: Sequence[Message]


def print_preview(preview: Preview, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print what would run and one rendered prompt.

    Args:
        preview: what to print.
        stream: stdout; no rows go there.
        environ: the environment, for colours.
    """
    print_table([[("strong", what), text] for what, text in preview.facts], stream=stream, environ=environ)
    if not preview.messages:
        return
    stream.write(f"\nthe prompt of step {preview.step!r} for the first item:\n")
    for message in preview.messages:
        stream.write(f"\n[{message.role}]\n")
        # Line by line: a prompt keeps its lines, and nothing in it reaches the terminal as an escape.
        stream.writelines(f"{clean(line)}\n" for line in message.content.splitlines())
    stream.flush()


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
