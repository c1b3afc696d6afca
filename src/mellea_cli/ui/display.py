"""What a display is, and which one a run gets."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Literal, Protocol, Self

from mellea_cli.ui.keys import in_foreground

if TYPE_CHECKING:
    from mellea_cli.ui.view import RunView

DisplayName = Literal["live", "plain", "none"]


class Writable(Protocol):
    """Where data rows are written: all that is asked of a stream."""

    def write(self, text: str, /) -> int:
        """Take text."""

    def flush(self) -> None:
        """Pass it on."""


class Display(Protocol):
    """Shows a run while it goes on: a context manager around the run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was found. May be called twice."""

    def line(self, text: str) -> None:
        """Print one line without harm to what is shown."""

    def rows(self, stream: IO[str]) -> Writable:
        """The stream through which data rows reach `stream` without harm to what is shown."""


class NoDisplay:
    """Shows nothing (`--quiet`)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def close(self) -> None:
        """There is nothing to close."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def rows(self, stream: IO[str]) -> Writable:
        """The stream itself."""
        return stream


def choose_display(*, stream: IO[str], environ: Mapping[str, str], quiet: bool, no_live: bool) -> DisplayName:
    """Decide how a run is shown.

    Args:
        stream: where talk goes: stderr.
        environ: the environment; `TERM`, `CI`, `TTY_COMPATIBLE` and `TTY_INTERACTIVE` are looked at.
        quiet: `--quiet` was given.
        no_live: `--no-live` was given.

    Returns:
        `"live"` at a terminal that can be drawn on and that is ours (not the shell's: `mellea ... &`), `"plain"`
        anywhere else, `"none"` when asked to be quiet.
    """
    if quiet:
        return "none"
    if no_live or not is_terminal(stream, environ):
        return "plain"
    dumb = environ.get("TERM", "").lower() in {"dumb", "unknown"}
    automatic = environ.get("CI", "").lower() not in {"", "0", "false"}
    still = environ.get("TTY_INTERACTIVE") == "0"
    return "plain" if dumb or automatic or still or not in_foreground(stream) else "live"


def is_terminal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether `stream` is a terminal that can be drawn on; `TTY_COMPATIBLE=0` says that it is not."""
    if environ.get("TTY_COMPATIBLE") == "0":
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def make_display(name: DisplayName, view: RunView, stream: IO[str], environ: Mapping[str, str]) -> Display:
    """Build the display called `name` for what `view` sees."""
    if name == "live":
        from mellea_cli.ui.console import make_console
        from mellea_cli.ui.live import LiveDisplay

        console = make_console(stream, environ)
        if not console.legacy_windows:
            return LiveDisplay(view, console)
        name = "plain"
    if name == "plain":
        from mellea_cli.ui.plain import PlainDisplay

        return PlainDisplay(view, stream)
    return NoDisplay()
