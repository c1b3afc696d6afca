"""What a run would do, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from mellea_cli.messages import Message
from mellea_cli.ui.console import print_table
from mellea_cli.ui.plaintext import clean


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
