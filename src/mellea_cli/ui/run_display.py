"""Run display: everything a person sees of one batch run, from the first line to the summary."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Self

from mellea_cli.errors import InputError, MelleaError, OutputError
from mellea_cli.events import Fanout, Observer
from mellea_cli.ui.console import clean, make_console, say, say_error, say_record
from mellea_cli.ui.run_state import RunState
from mellea_cli.ui.terminal import OutsideProgress, Writable, in_foreground, is_terminal

if TYPE_CHECKING:
    from mellea_cli.run.plan import Prices
    from mellea_cli.ui.live_panels import LiveDisplay
    from mellea_cli.ui.plain_lines import PlainDisplay
    from mellea_cli.ui.summary import RunSummary

Display = Literal["live", "plain"]


def choose_display(stream: IO[str], environ: Mapping[str, str]) -> Display:
    """Choose the display for a stream; `TERM`, `CI`, `TTY_COMPATIBLE` and `TTY_INTERACTIVE` count.

    Returns:
        `"live"` at a terminal that can be drawn on and that belongs to this process (not to the shell, as with
        `mellea ... &`), `"plain"` anywhere else.
    """
    dumb = environ.get("TERM", "").lower() in {"dumb", "unknown"}
    automatic = environ.get("CI", "").lower() not in {"", "0", "false"}
    static = environ.get("TTY_INTERACTIVE") == "0"
    drawable = is_terminal(stream, environ) and not (dumb or automatic or static)
    return "live" if drawable and in_foreground(stream) else "plain"


def make_display(
    name: Display, state: RunState, stream: IO[str], environ: Mapping[str, str], title: str = ""
) -> LiveDisplay | PlainDisplay:
    """Build the display called `name`; with a title, a terminal shows the progress in its own title, too."""
    from mellea_cli.ui.plain_lines import PlainDisplay

    if name == "live":
        from mellea_cli.ui.live_panels import LiveDisplay

        console = make_console(stream, environ)
        if not console.legacy_windows:
            return LiveDisplay(state, console, OutsideProgress(environ if title else {}, clean(title)))
    return PlainDisplay(state, stream)


@dataclass(frozen=True, slots=True)
class DisplayOptions:
    """How a run is shown."""

    quiet: bool = False  # Errors only
    verbose: int = 0  # 1: say why attempts failed; 2: show the model server's log, without panels
    live: bool = True  # Panels, where there is a terminal for them
    json: bool = False  # The summary as one line of JSON instead of a table
    json_errors: bool = False  # Errors, too
    title: str = ""  # What runs, in the title of the terminal; empty leaves the title as it is
    bell: bool = False  # Ring the terminal's bell at the end
    summary_file: str | None = None  # A file that gets the summary as JSON
    log_file: str | None = None  # A file that gets every event but the tokens, as JSON lines


class RunDisplay:
    """Shows a command's runs, one after the other: on `stream`, stderr, never on stdout. A context manager."""

    def __init__(self, stream: IO[str], environ: Mapping[str, str], options: DisplayOptions) -> None:
        self._stream = stream
        self._environ = environ
        self._options = options
        self._display: LiveDisplay | PlainDisplay | None = None
        self._noted: set[str] = set()
        self._rows_are_piped = False
        self._command_stack = ExitStack()
        self._run_stack = ExitStack()
        self._log: Observer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._run_stack.close()
        self._command_stack.close()

    def say(self, line: str) -> None:
        """Print one line; nothing when it is empty, or when only errors are wanted."""
        if not line or self._options.quiet:
            return
        if self._display is not None:
            self._display.line(line)
        else:
            say(self._stream, line)

    def note(self, line: str) -> None:
        """Print a line about the input, once: a command may read its input more than once."""
        if line not in self._noted:
            self._noted.add(line)
            self.say(line)

    def trouble(self, error: InputError) -> None:
        """Print that a row could not be read and is skipped, also when quiet."""
        line = f"skipped: {error.message}"
        if self._options.quiet:
            say(self._stream, line)
        else:
            self.say(line)

    def error(self, error: MelleaError) -> None:
        """Print an error: as one line of JSON where programs read."""
        if self._options.json_errors:
            say_record(self._stream, error.record)
        else:
            say_error(self._stream, self._environ, error.message, error.hint)

    def ended_by(self, error: MelleaError) -> None:
        """Print what ended the run, unless the summary has said it, and what to type next."""
        if self._options.quiet:
            self.error(error)
        elif error.hint:
            say(self._stream, f"try: {error.hint}")

    def begin(self, prices: Prices | None = None) -> Observer:
        """Start to show a run; the display of an earlier one ends.

        Args:
            prices: what tokens cost; `None` when unknown.

        Returns:
            The observer for the run.

        Raises:
            OutputError: the log file cannot be written.
        """
        from mellea_cli.ui.plain_lines import EventLog, TroubleLines

        options = self._options
        self._run_stack.close()
        observers: list[Observer] = []
        if options.log_file and self._log is None:
            self._log = self._command_stack.enter_context(EventLog(Path(options.log_file)))
        if self._log is not None:
            observers.append(self._log)
        if not options.quiet:
            state = RunState(prices=prices)
            # The model server logs to the same terminal, and so may the reader of a pipe: both would tear the panels.
            live = options.live and options.verbose < 2 and not self._rows_are_piped
            name = choose_display(self._stream, self._environ) if live else "plain"
            self._display = display = make_display(name, state, self._stream, self._environ, self._options.title)
            self._run_stack.enter_context(display)
            observers.append(state)
            if options.verbose:
                observers.append(TroubleLines(display.line))
        return observers[0] if len(observers) == 1 else Fanout(*observers)

    def rows(self, stream: IO[str]) -> Writable | None:
        """The stream for data rows to stdout, where a plain descriptor will not do.

        Returns:
            A stream that writes rows above the panels of a terminal, or into whatever has been put in stdout's place;
            `None` when rows may be written to the descriptor.
        """
        try:
            mode = os.fstat(stream.fileno()).st_mode
            self._rows_are_piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            if stream.fileno() == _STDOUT and not stream.isatty():
                return None
        except (OSError, ValueError, AttributeError):
            pass
        return _RowStream(self, stream)

    def current_rows(self, stream: IO[str]) -> Writable:
        """What rows to `stream` must be written to now: the panels' stream while there are panels."""
        return stream if self._display is None else self._display.rows(stream)

    def stop(self) -> None:
        """Stop showing the run, without a summary."""
        self._run_stack.close()
        self._display = None

    def end(self, summary: RunSummary) -> None:
        """Stop showing the run and print the summary.

        Raises:
            OutputError: the summary file cannot be written.
        """
        from mellea_cli.ui.summary import print_summary, to_json

        self.stop()
        self._command_stack.close()
        if self._options.bell and is_terminal(self._stream, self._environ):
            self._stream.write("\a")
            self._stream.flush()
        if self._options.json:
            self._stream.write(to_json(summary) + "\n")
            self._stream.flush()
        elif not self._options.quiet:
            print_summary(summary, self._stream, self._environ)
        if self._options.summary_file:
            path = Path(self._options.summary_file)
            try:
                path.write_text(to_json(summary) + "\n", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"{path}: the summary cannot be written: {error.strerror}") from error


_STDOUT = 1


class _RowStream:
    """Writes rows to stdout, from the run's beginning on above its panels."""

    def __init__(self, display: RunDisplay, stream: IO[str]) -> None:
        self._display = display
        self._stream = stream

    def write(self, text: str, /) -> int:
        return self._display.current_rows(self._stream).write(text)

    def flush(self) -> None:
        self._display.current_rows(self._stream).flush()
