"""The doctor's screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Protocol

from mellea_cli.ui.console import print_table, say

if TYPE_CHECKING:
    from mellea_cli.ui.paint import Role

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
