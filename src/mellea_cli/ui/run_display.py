"""Everything a person sees of one batch run, from the first line to the closing table."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from mellea_cli.errors import InputError, MelleaError, OutputError
from mellea_cli.events import Fanout, Observer
from mellea_cli.ui.console import Display, choose_display, make_display, say, say_error
from mellea_cli.ui.run_state import RunState

if TYPE_CHECKING:
    from mellea_cli.ui.console import Writable
    from mellea_cli.ui.summary import RunSummary


_STDOUT = 1


@dataclass(frozen=True, slots=True)
class DisplayOptions:
    """How a run is to be shown."""

    quiet: bool = False
    """Errors only."""
    verbose: int = 0
    """1: say why attempts failed; 2: show the model server's log, which draws no panels."""
    live: bool = True
    """Panels, where there is a terminal for them."""
    json: bool = False
    """The closing summary as one line of JSON instead of a table."""
    summary_file: str | None = None
    """A file that gets the closing summary as JSON."""
    log_file: str | None = None
    """A file that gets every event but the tokens, as JSON lines."""


class RunDisplay:
    """Talks to the person in front of a run: on stderr, never on stdout. A context manager.

    Args:
        stream: stderr.
        environ: the environment, for what the terminal can do.
        look: how it is to be shown.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str], look: DisplayOptions) -> None:
        self._stream = stream
        self._environ = environ
        self._look = look
        self._display: Display | None = None
        self._piped = False
        self._stack = ExitStack()
        self._stage = ExitStack()
        self._log: Observer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.close()
        self._stack.close()

    def say(self, line: str) -> None:
        """Say one line; nothing when it is empty, or when only errors are wanted."""
        if not line or self._look.quiet:
            return
        if self._display is not None:
            self._display.line(line)
        else:
            say(self._stream, line)

    def trouble(self, error: InputError) -> None:
        """Say that a row could not be read and is left out; errors are said also when quiet was asked for."""
        line = f"left out: {error.message}"
        if self._display is not None and not self._look.quiet:
            self._display.line(line)
        else:
            say(self._stream, line)

    def error(self, message: str, hint: str) -> None:
        """Say what ended the run, and what to do next."""
        say_error(self._stream, self._environ, message, hint)

    def ended_by(self, error: MelleaError) -> None:
        """Say what ended the run, unless the closing table has said it, and what to do next."""
        if self._look.quiet or self._look.json:
            self.error(error.message, error.hint)
        elif error.hint:
            say(self._stream, f"try: {error.hint}")

    def begin(self) -> Observer:
        """Start to show a run; what was shown of an earlier one ends.

        Returns:
            The observer that the run tells what happens.

        Raises:
            OutputError: the log file cannot be written.
        """
        from mellea_cli.ui.event_log import EventLog, TroubleLines

        look = self._look
        self._stage.close()
        observers: list[Observer] = []
        if look.log_file and self._log is None:
            self._log = self._stack.enter_context(EventLog(Path(look.log_file)))
        if self._log is not None:
            observers.append(self._log)
        view = RunState()
        # The model server writes its log to the same terminal: panels would be torn by it.
        still = not look.live or look.verbose > 1 or self._piped
        name = choose_display(stream=self._stream, environ=self._environ, quiet=look.quiet, no_live=still)
        self._display = self._stage.enter_context(make_display(name, view, self._stream, self._environ))
        if name != "none":
            observers.append(view)
        if look.verbose and not look.quiet:
            observers.append(TroubleLines(self._display.line))
        return observers[0] if len(observers) == 1 else Fanout(*observers)

    def rows(self, stream: IO[str]) -> Writable | None:
        """The way for data rows to stdout, when it is more than a plain descriptor.

        Returns:
            A stream that writes rows above the panels of a terminal, or into whatever has been put in stdout's place;
            `None` when rows may simply be written to the descriptor.
        """
        try:
            mode = os.fstat(stream.fileno()).st_mode
            # Whoever reads the pipe may well write to the same terminal: panels would be torn by that.
            self._piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            plain = stream.fileno() == _STDOUT and not stream.isatty()
        except (OSError, ValueError, AttributeError):
            plain = False
        return None if plain else _Rows(self, stream)

    def way_for_rows(self, stream: IO[str]) -> Writable:
        """The way to `stream` at this moment: past the panels while there are some."""
        return stream if self._display is None else self._display.rows(stream)

    def end(self, summary: RunSummary) -> None:
        """Stop showing the run and say how it ended.

        Raises:
            OutputError: the summary file cannot be written.
        """
        from mellea_cli.ui.summary import print_summary, to_json

        self._stage.close()
        self._stack.close()
        self._display = None
        if self._look.json:
            self._stream.write(to_json(summary) + "\n")
            self._stream.flush()
        elif not self._look.quiet:
            print_summary(summary, self._stream, self._environ)
        if self._look.summary_file:
            _write(Path(self._look.summary_file), to_json(summary))


def _write(path: Path, line: str) -> None:
    try:
        path.write_text(line + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: the summary cannot be written: {error.strerror}") from error


class _Rows:
    """Writes to stdout by the way that is right when the row comes: panels appear only when the run begins."""

    def __init__(self, show: RunDisplay, stream: IO[str]) -> None:
        self._show = show
        self._stream = stream

    def write(self, text: str, /) -> int:
        return self._show.way_for_rows(self._stream).write(text)

    def flush(self) -> None:
        self._show.way_for_rows(self._stream).flush()
