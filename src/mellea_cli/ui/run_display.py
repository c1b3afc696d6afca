"""Run display: all that is seen of a batch run, from the first line to the summary; panels are in `live_panels`."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Flag
from threading import Lock, Thread
from typing import IO, TYPE_CHECKING, Any, Literal, Self

from mellea_cli.errors import InputError, MelleaError, OutputError
from mellea_cli.events import (
    AttemptFailed,
    Counted,
    Event,
    Fanout,
    ItemFinished,
    ItemStarted,
    Observer,
    Paused,
    RetryScheduled,
    RunFinished,
    StepFinished,
    TokensReceived,
)
from mellea_cli.ui.console import (
    clean,
    count,
    duration,
    make_console,
    money,
    plural,
    rate,
    remaining,
    say,
    say_error,
    say_record,
)
from mellea_cli.ui.run_state import RunState, Snapshot
from mellea_cli.ui.terminal import OutsideProgress, Writable, can_draw, in_foreground, is_terminal

if TYPE_CHECKING:
    from mellea_cli.run.plan import Prices
    from mellea_cli.ui.live_panels import LiveDisplay
    from mellea_cli.ui.summary import RunSummary

Display = Literal["live", "plain"]


def choose_display(stream: IO[str], environ: Mapping[str, str]) -> Display:
    """Choose the display for a stream; `TERM`, `CI`, `TTY_COMPATIBLE` and `TTY_INTERACTIVE` count.

    Returns:
        `"live"` at a terminal that can be drawn on and that belongs to this process (not to the shell, as with
        `mellea ... &`), `"plain"` anywhere else.
    """
    automatic = environ.get("CI", "").lower() not in {"", "0", "false"}
    static = environ.get("TTY_INTERACTIVE") == "0"
    live = can_draw(stream, environ) and not (automatic or static) and in_foreground(stream)
    return "live" if live else "plain"


def make_display(
    name: Display, state: RunState, stream: IO[str], environ: Mapping[str, str], title: str = ""
) -> LiveDisplay | PlainDisplay:
    """Build the display called `name`; with a title, a terminal shows the progress in its own title, too."""
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
        """Start to show a run, and return its observer; the display of an earlier run ends.

        Raises:
            OutputError: the log file cannot be written.
        """
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


# Without panels.

_INTERVAL_S = 5.0
_FIRST_S = 1.0
# After so many intervals without any change, the line is printed nevertheless, as a sign of life.
_HEARTBEAT = 12


class PlainDisplay:
    """Prints a line of progress every `interval_s`, the first after a second. A context manager around the run."""

    def __init__(self, state: RunState, stream: IO[str], interval_s: float = _INTERVAL_S) -> None:
        self._state = state
        self._stream = stream
        self._interval_s = interval_s
        self._writing = Lock()
        self._stop = Flag()
        self._thread = Thread(target=self._print_regularly, name="mellea-plain", daemon=True)
        self._printed: tuple[object, ...] = ()
        self._unchanged = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop at once and print the remaining notes. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        self._print_notes()

    def line(self, text: str) -> None:
        """Print one line. `text` may come from anywhere."""
        with self._writing:
            try:
                say(self._stream, text)
            except (OSError, ValueError):  # the stream is closed: the run continues without messages
                self._stop.set()

    def rows(self, stream: IO[str]) -> Writable:
        return stream

    def refresh(self) -> None:
        """Print what is new: notes, and a line of progress when the numbers have changed."""
        self._print_notes()
        snapshot = self._state.snapshot()
        progress = snapshot.progress
        if not snapshot.started:
            return
        facts = (progress.finished, progress.failed, progress.total, progress.retries, snapshot.paused)
        self._unchanged = self._unchanged + 1 if facts == self._printed else 0
        if facts != self._printed or self._unchanged >= _HEARTBEAT:
            self._printed, self._unchanged = facts, 0
            self.line(plain_line(snapshot))

    def _print_notes(self) -> None:
        for note in self._state.take_notes():
            self.line(note)

    def _print_regularly(self) -> None:
        pause = min(_FIRST_S, self._interval_s)
        while not self._stop.wait(pause):
            self.refresh()
            pause = self._interval_s


def plain_line(snapshot: Snapshot) -> str:
    """The run's progress in words: `120/500 done, 3 failed, 2.4 items/s, 310 tok/s, 2m 38s left`."""
    progress = snapshot.progress
    of = f"/{count(progress.total)}" if progress.total is not None else ""
    parts = [f"{count(progress.finished)}{of} done"]
    if progress.failed:
        parts.append(f"{count(progress.failed)} failed")
    if progress.reused:
        parts.append(f"{count(progress.reused)} reused")
    if progress.retries:
        parts.append(plural(progress.retries, "retry", "retries"))
    parts += [f"{rate(progress.items_per_s)} items/s", f"{rate(progress.tokens_per_s)} tok/s"]
    if progress.cost is not None:
        parts.append(f"cost {money(progress.cost, progress.currency)}")
    if snapshot.held:
        parts.append(f"paused: {clean(snapshot.paused)}")
    elif snapshot.paused:
        parts.append(f"paused {snapshot.paused_s}s: {clean(snapshot.paused)}")
    elif progress.left_s is not None:
        at = f" until {progress.finish_at}" if progress.finish_at else ""
        parts.append(f"{remaining(progress.left_s)} left{at}")
    else:
        parts.append(f"{duration(progress.elapsed_s)} so far")
    return ", ".join(parts)


class TroubleLines:
    """An observer that prints a line for each failed attempt, retry, pause and failed item (`-v`)."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._ids: dict[int, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case TokensReceived():
                return
            case ItemStarted():
                self._ids[event.position] = event.id
            case AttemptFailed():
                self._say(f"{self._id(event.position)} {event.step}: {event.kind}: {event.message}")
            case RetryScheduled():
                when = f"in {duration(event.delay_s)}" if event.delay_s > 0 else "at once"
                what = "re-prompt" if event.reprompt else "retry"
                self._say(f"{self._id(event.position)} {event.step}: {what} {when}, attempt {event.attempt}")
            case Paused():
                self._say(f"paused for {duration(event.delay_s)}: {event.reason}")
            case ItemFinished():
                self._ids.pop(event.position, None)
                if not event.ok:
                    self._say(f"{event.id} failed: {event.kind}: {event.message}")
            case _:
                pass

    def _id(self, position: int) -> str:
        return self._ids.get(position, f"#{position + 1}")


_FLUSH_INTERVAL_S = 1.0


class EventLog:
    """An observer that appends each event to a file as a line of JSON (`--log-file`). A context manager.

    A line has `time` (UTC), `t` (seconds since the log was opened), `event` (the event's name), and the event's own
    fields. Feedback and answers are not logged: of an item's text only the length is written, and streamed chunks are
    counted and written with the end of their step.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise OutputError(
                f"{path}: cannot write the log: {error.strerror or error}", hint="choose another --log-file"
            ) from error
        self._started = self._flushed = time.monotonic()
        self._streams: dict[tuple[int, str], list[float]] = {}
        # Why the log ended before the run did, such as a full disk. The run continues without it.
        self.fault: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        if self.fault is not None or self._file.closed or isinstance(event, Counted):
            return
        now = time.monotonic()
        if isinstance(event, TokensReceived):
            stream = self._streams.setdefault((event.position, event.step), [0, 0, now])
            stream[0] += 1
            stream[1] += len(event.text)
            return
        record: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "t": round(now - self._started, 3),
            "event": type(event).__name__,
            **asdict(event),
        }
        if isinstance(event, ItemStarted):
            record["text"] = len(event.text)
        elif isinstance(event, AttemptFailed | StepFinished):
            pieces, chars, first = self._streams.pop((event.position, event.step), (0, 0, now))
            record |= {"pieces": pieces, "chars": chars, "streamed_s": round(now - first, 3)}
        elif isinstance(event, ItemFinished):
            del record["values"]
            for key in [key for key in self._streams if key[0] == event.position]:
                del self._streams[key]
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            if now - self._flushed >= _FLUSH_INTERVAL_S or isinstance(event, RunFinished):
                self._file.flush()
                self._flushed = now
        except OSError as error:
            self.fault = error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.fault = self.fault or error
