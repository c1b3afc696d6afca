"""What a slash command is, and what it asks of the screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mellea_cli.chat.chat import Chat


@dataclass(frozen=True, slots=True)
class Effect:
    """What a command leaves for the screen to do, in this order."""

    notes: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """A table to print."""
    headers: Sequence[str] = ()
    show_turns: int = 0
    """Print so many of the last turns again."""
    copy: str = ""
    """Put this on the clipboard."""
    ask: str = ""
    """Ask this."""
    draft: str | None = None
    """Put this into the prompt."""
    edit: bool = False
    """Open the editor on the draft."""
    multi: bool = False
    """Change what Enter does."""
    leave: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command."""

    name: str
    argument: str
    help: str
    run: Callable[[Chat, str], Awaitable[Effect]] = field(repr=False)
    completes: str = ""
    """What its argument is one of: `model`, `path`, `option`, `session`; empty for anything."""
