"""The live panels: a thread draws the view at a fixed rate, whatever rate the events come at."""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Event, Lock, Thread
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from mellea_cli.ui.console import Unechoed, Writable, clean
from mellea_cli.ui.number_format import count, duration
from mellea_cli.ui.plain_lines import progress_line
from mellea_cli.ui.run_state import Fate, PanelView, Phase, RunState, Snapshot, StepView, fields
from mellea_cli.ui.theme import Line, Palette, Role, Span, cells_of, judged, pad, shorten, width, wrap

if TYPE_CHECKING:
    from rich.console import Console


# A few lines at the bottom of a terminal that are redrawn in place.
#
# Rich's `Live` erases its whole area for each frame and finds it again by counting the lines it wrote: it flickers, and
# after the terminal has become narrower the count is wrong, because terminals differ in how they break old lines anew.
# Here the cursor rests at the first cell of the area instead. A terminal keeps the cursor with its text through a
# resize, so "from here down" is ours whatever happened to it, and only lines that changed are written.

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_TO_END = "\x1b[J"
_REST_OF_LINE = "\x1b[K"


class Area:
    """The redrawn lines. Not locked: its owner is.

    Args:
        stream: where the terminal is.
        fallback: columns and rows to assume where the terminal does not tell.
    """

    def __init__(self, stream: IO[str], fallback: tuple[int, int] = (80, 24)) -> None:
        self._stream = stream
        self._fallback = fallback
        self._lines: list[str] = []
        self._size = (0, 0)
        self._open = False
        self._used = False
        self.gone = False
        """The terminal no longer takes anything."""

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal at this moment."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return self._fallback
        return (columns or self._fallback[0], rows or self._fallback[1])

    def draw(self, lines: list[str], size: tuple[int, int], *, above: str = "") -> None:
        """Bring the area up to date.

        Args:
            lines: the new lines, with their escape sequences; narrower than the terminal, fewer than it has rows.
            size: the size they were made for.
            above: whole lines to print above the area, each with its line feed; they stay when the area goes.
        """
        if not lines and not self._open:
            text = above
        elif above or size != self._size or not self._open:
            text = self._anew(lines, above)
        else:
            text = self._changes(lines)
        self._lines, self._size, self._open = lines, size, bool(lines)
        self._used = self._used or self._open
        if text:
            self._write(_NO_WRAP + text + _WRAP if self._used else text)

    def insert(self, above: str) -> None:
        """Print whole lines above the area, which is drawn again below them."""
        if self._open:
            self.draw(self._lines, self._size, above=above)
        else:
            self._write(above)

    def close(self, *, above: str = "") -> None:
        """Print the last lines, take the area away and give the cursor back. May be called twice."""
        start = f"\r{_TO_END}" if self._open else ""
        end = _WRAP + _SHOW if self._used else ""
        if start or above or end:
            self._write(start + above + end)
        self._lines, self._open, self._used = [], False, False

    def lose(self) -> None:
        """Someone else wrote to the terminal: begin again on the line where the cursor is now."""
        self._lines, self._open = [], False

    def _anew(self, lines: list[str], above: str) -> str:
        start = "\r" + _TO_END if self._open else ""
        # Lines above may be longer than the terminal is wide: they are wrapped as any text.
        told = f"{_WRAP}{above}{_NO_WRAP}" if above else ""
        body = "\r\n".join(line + _REST_OF_LINE for line in lines)
        return _HIDE + start + told + body + _up(len(lines) - 1) + "\r"

    def _changes(self, lines: list[str]) -> str:
        """Write only what differs from the last frame."""
        before = self._lines
        if not lines:
            return "\r" + _TO_END
        text: list[str] = []
        at = 0
        for index, line in enumerate(lines):
            if index < len(before) and line == before[index]:
                continue
            if index >= len(before):
                text.append(_down(len(before) - 1 - at) + "\r\n" if index == len(before) else "\r\n")
            else:
                text.append(_down(index - at) + "\r")
            text.append(line + _REST_OF_LINE)
            at = index
        if len(lines) < len(before):
            text.append(_down(len(lines) - 1 - at) + "\r\n" + _TO_END)
            at = len(lines)
        return "".join(text) + _up(at) + "\r" if text else ""

    def _write(self, text: str) -> None:
        if self.gone:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BlockingIOError:  # a terminal that someone made non-blocking, and that is full: draw all of the next one
            self._size = (0, 0)
        except (OSError, ValueError):
            self.gone = True


def _up(lines: int) -> str:
    return f"\x1b[{lines}A" if lines > 0 else ""


def _down(lines: int) -> str:
    return f"\x1b[{lines}B" if lines > 0 else ""


# One panel: an item, an excerpt of its text, and its answer as it fills.

_LABEL_CELLS_LEAST, _LABEL_CELLS = 9, 11
_TAIL_CHARS = 2_000
"""Of an answer without structure, the last so many characters are considered."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A label and what belongs to it."""

    label: str
    value: str
    role: Role = "plain"
    growing: bool = False
    """The value's end is where the stream is."""


def card(panel: PanelView, size: tuple[int, int], palette: Palette, beat: int = 0) -> list[Line]:
    """Draw a panel.

    Args:
        panel: what to draw.
        size: columns and rows, borders included; every line comes out exactly that wide, and exactly so many come.
        palette: signs and encoding of the terminal.
        beat: a number that grows from frame to frame; moves the sign of a step that has nothing to show yet.
    """
    columns, rows = size
    inner, room = columns - 4, rows - 2
    alone, over = len(panel.steps) == 1, panel.fate is not Fate.RUNNING
    entries = [entry for step in panel.steps for entry in _entries(step, palette, beat, alone=alone, over=over)]
    frame = _frame_role(panel)
    left: Span = (frame, f"{palette.glyphs.down} ")
    right: Span = (frame, f" {palette.glyphs.down}")
    body = _body(panel, entries, (inner, room), palette)
    empty: Line = (left, ("plain", " " * inner), right)
    return [
        _top(panel, entries, columns, frame, palette),
        *((left, *pad(line, inner), right) for line in body),
        *[empty] * (room - len(body)),
        _bottom(panel, columns, frame, palette),
    ]


def animated(panel: PanelView) -> bool:
    """Whether the panel changes though nothing arrives."""
    return panel.fate is Fate.RUNNING and any(step.phase is Phase.ASKED and not step.text for step in panel.steps)


def _frame_role(panel: PanelView) -> Role:
    if panel.fate is Fate.FAILED:
        return "bad"
    troubled = panel.fate is Fate.RUNNING and any(step.phase in (Phase.FAILED, Phase.RETRYING) for step in panel.steps)
    return "warn" if troubled else "frame"


def _entries(step: StepView, palette: Palette, beat: int, *, alone: bool, over: bool) -> Iterator[_Entry]:
    name = "" if alone else step.name.replace("_", " ")
    growing = step.phase is Phase.STREAMING and not over
    found = None if step.clipped else fields(step.text)
    if found:
        for field in found:
            value = palette.safe(field.value)
            yield _Entry(palette.safe(field.label), value, judged(value), growing and field is found[-1])
    elif step.text and found is None:
        yield _Entry(name, palette.fit(clean(step.text[-_TAIL_CHARS:])), "plain", growing)
    elif over:
        return
    elif growing:
        yield _Entry(name, "", "plain", growing)
    elif step.phase is Phase.ASKED:
        spinner = palette.glyphs.spinner
        yield _Entry(name, spinner[beat % len(spinner)] + (" reading" if alone else ""), "quiet")
    elif step.phase is Phase.WAITING and not alone:
        yield _Entry(name, palette.glyphs.dot, "quiet")
    if step.reason and step.phase is not Phase.DONE and not over:
        yield _Entry("again" if step.attempt > 1 else "void", palette.fit(clean(step.reason)), "warn")


def _body(panel: PanelView, entries: list[_Entry], size: tuple[int, int], palette: Palette) -> list[Line]:
    inner, room = size
    text = palette.safe(panel.text)
    excerpt = wrap(text, inner)
    # While there is no answer yet, the room is the text's; then the answer's.
    unanswered = panel.fate is Fate.RUNNING and all(not step.text for step in panel.steps)
    most = max(1, room - len(entries) - 1) if unanswered else 2 if room >= 9 else 1
    shown = min(len(excerpt), most if room >= 4 else 0)
    if 0 < shown < len(excerpt):
        excerpt[shown - 1] = shorten(f"{excerpt[shown - 1]} {excerpt[shown]}", inner, palette.glyphs.cut)
    lines: list[Line] = [(("quiet", line),) for line in excerpt[:shown]]
    if panel.fate is Fate.FAILED:
        message = palette.fit(clean(panel.message)) or "failed"
        entries = [*entries[: max(0, room - shown - 2)], _Entry("", message, "bad")]
    return lines + _laid_out(entries, (inner, room - shown), palette)


def _laid_out(entries: list[_Entry], size: tuple[int, int], palette: Palette) -> list[Line]:
    """Give each entry a line, and those that need more what is left; where the stream is comes first."""
    inner, room = size
    if len(entries) > room:  # what is empty goes first, then reasons, then what came first
        entries = [entry for entry in entries if entry.value or entry.growing]
    if len(entries) > room:
        entries = [entry for entry in entries if entry.role != "warn"]
        entries = entries[max(0, len(entries) - room) :]
    if not entries or room <= 0:
        return []
    labels = min(_LABEL_CELLS, max(cells_of(entry.label) for entry in entries), max(0, inner - 8))
    if labels and inner >= 30:  # values do not move to the side when a longer label comes
        labels = max(labels, _LABEL_CELLS_LEAST)
    room_for_value = inner - labels - 1 if labels else inner
    wrapped = [wrap(entry.value, room_for_value - entry.growing) for entry in entries]
    given = [1] * len(entries)
    spare = room - len(entries)
    longer = [index for index, parts in enumerate(wrapped) if len(parts) > 1]
    for index in sorted(longer, key=lambda index: _claim(entries[index], index)):
        extra = min(spare, len(wrapped[index]) - 1)
        given[index] += extra
        spare -= extra
    lines: list[Line] = []
    for entry, parts, number in zip(entries, wrapped, given, strict=True):
        lines += _entry_lines(
            entry, _cut(parts, number, room_for_value, palette, growing=entry.growing), labels, palette
        )
    return lines


def _claim(entry: _Entry, index: int) -> tuple[bool, bool, int]:
    """Who gets lines that are left, smallest first: where the stream is, then from the end, reasons at last."""
    return (not (entry.growing or (entry.role == "bad" and not entry.label)), entry.role == "warn", -index)


def _cut(parts: list[str], number: int, cells: int, palette: Palette, *, growing: bool) -> list[str]:
    """`number` of the lines: the last ones while they grow, else the first ones."""
    if len(parts) <= number:
        return parts
    cut = palette.glyphs.cut
    if growing:
        first, *rest = parts[-number:]
        return [cut + first if cells_of(first) + cells_of(cut) < cells else cut + first[cells_of(cut) :], *rest]
    kept = parts[:number]
    kept[-1] = shorten(f"{kept[-1]} {parts[number]}", cells, cut)
    return kept


def _entry_lines(entry: _Entry, parts: list[str], labels: int, palette: Palette) -> list[Line]:
    lines: list[Line] = []
    for index, part in enumerate(parts):
        label = shorten(entry.label, labels, palette.glyphs.cut) if index == 0 else ""
        spans: list[Span] = []
        if labels:
            spans.append(("label", label + " " * (labels + 1 - cells_of(label))))
        if entry.value:
            spans.append((entry.role, part))
        elif not entry.growing:
            spans.append(("quiet", palette.glyphs.none))
        if entry.growing and index == len(parts) - 1:
            spans.append(("cursor", palette.glyphs.cursor))
        lines.append(tuple(spans))
    return lines


def _badge(panel: PanelView, entries: list[_Entry], palette: Palette) -> Span | None:
    """The few words at the right of the title that say how it stands."""
    glyphs = palette.glyphs
    sentiment = next(
        (entry for entry in entries if entry.label == "sentiment" and judged(entry.value) != "plain"), None
    )
    if panel.fate is Fate.FAILED:
        return "bad", f"{glyphs.bad} {palette.fit(clean(panel.kind))}".rstrip()
    if panel.fate is Fate.OK:
        return (sentiment.role, f"{glyphs.ok} {sentiment.value}") if sentiment else ("good", glyphs.ok)
    for step in panel.steps:
        if step.phase is Phase.RETRYING:
            return "warn", f"{glyphs.retry} {step.attempt} in {step.retry_in_s}s"
        if step.phase is Phase.FAILED:
            return "warn", f"{glyphs.bad} {step.attempt}"
    attempt = max((step.attempt for step in panel.steps), default=1)
    if sentiment:
        return sentiment.role, sentiment.value
    return ("warn", f"{glyphs.retry} {attempt}") if attempt > 1 else None


def _top(panel: PanelView, entries: list[_Entry], columns: int, frame: Role, palette: Palette) -> Line:
    glyphs = palette.glyphs
    badge = _badge(panel, entries, palette)
    left, right = glyphs.corners[0] + glyphs.across, glyphs.across + glyphs.corners[1]
    room = columns - 6 - (cells_of(badge[1]) + 2 if badge else 0)
    if badge and room < 4:
        badge, room = None, columns - 6
    title = shorten(palette.safe(panel.id) or glyphs.none, room, glyphs.cut)
    line: Line = ((frame, left), ("strong", f" {title} "))
    tail: Line = ((badge[0], f" {badge[1]} "),) if badge else ()
    fill = columns - width(line) - width(tail) - len(right)
    return (*line, (frame, glyphs.across * fill), *tail, (frame, right))


def _bottom(panel: PanelView, columns: int, frame: Role, palette: Palette) -> Line:
    glyphs = palette.glyphs
    note = ""
    if panel.fate is not Fate.RUNNING and panel.latency_s > 0:
        note = f" {duration(panel.latency_s)}"
        note += f" {glyphs.dot} {count(panel.tokens)} tokens " if panel.tokens else " "
    if len(note) > columns - 6:
        note = ""
    across = glyphs.across * (columns - 3 - len(note))
    return ((frame, glyphs.corners[2] + across), ("quiet", note), (frame, glyphs.across + glyphs.corners[3]))


# Lays a snapshot out on a screen of a given size.

_CARD_ROWS_LEAST, _CARD_ROWS_GOOD, _CARD_ROWS_MOST = 5, 8, 11
_CARD_COLUMNS_LEAST, _CARD_COLUMNS_WIDE, _CARD_COLUMNS_MOST = 38, 46, 76
_WIDE_SCREEN = 120


@dataclass(frozen=True, slots=True)
class Grid:
    """How the panels stand: `columns` by `rows` of them, each `card` cells wide and high."""

    columns: int = 0
    rows: int = 0
    card: tuple[int, int] = (0, 0)

    @property
    def places(self) -> int:
        """How many panels there are."""
        return self.columns * self.rows


def plan(size: tuple[int, int], wanted: int) -> Grid:
    """Choose the number of panels and their size for a screen.

    Args:
        size: columns and rows of the terminal.
        wanted: the most panels that could be of use.

    Returns:
        A grid that leaves room for the progress line, the line below and the line on which the cursor rests; no
        panels when the screen is too small for one.
    """
    columns, rows = size[0] - 1, size[1] - 3
    if wanted <= 0 or columns < 28 or rows < _CARD_ROWS_LEAST:
        return Grid()
    least = _CARD_COLUMNS_WIDE if size[0] >= _WIDE_SCREEN else _CARD_COLUMNS_LEAST
    across = min(wanted, max(1, (columns + 1) // (least + 1)))
    down = min(-(-wanted // across), max(1, rows // _CARD_ROWS_GOOD))
    card_columns = min((columns + 1) // across - 1, _CARD_COLUMNS_MOST)
    return Grid(across, down, (card_columns, min(rows // down, _CARD_ROWS_MOST)))


class Painter:
    """Draws frames and remembers panels, so that one that has not changed costs nothing.

    Args:
        palette: looks and signs of the terminal.
    """

    def __init__(self, palette: Palette) -> None:
        self._palette = palette
        self._drawn: dict[int, tuple[PanelView, tuple[int, int], int, list[str]]] = {}

    def frame(self, snapshot: Snapshot, grid: Grid, size: tuple[int, int], beat: int = 0) -> list[str]:
        """The lines of one frame, with their escape sequences.

        There are at most `size[1] - 1` of them, none wider than `size[0] - 1` cells.
        """
        columns, rows = size[0] - 1, size[1] - 1
        if columns < 1 or rows < 1:
            return []
        head = progress_line(snapshot.progress, columns, self._palette, paused_s=snapshot.paused_s)
        lines = [self._palette.ansi(head), *self._panels(snapshot, grid, beat)]
        if rows >= 3:
            lines.append(self._palette.ansi(self._foot(snapshot, columns)))
        return lines[:rows]

    def _panels(self, snapshot: Snapshot, grid: Grid, beat: int) -> list[str]:
        blank = [" " * grid.card[0]] * grid.card[1]
        lines: list[str] = []
        for row in range(grid.rows):
            cards = []
            for place in range(row * grid.columns, (row + 1) * grid.columns):
                panel = snapshot.panels[place] if place < len(snapshot.panels) else None
                cards.append(self._card(place, panel, grid.card, beat) if panel is not None else blank)
            lines += map(" ".join, zip(*cards, strict=True))
        return lines

    def _card(self, place: int, panel: PanelView, size: tuple[int, int], beat: int) -> list[str]:
        beat = beat if animated(panel) else 0
        known = self._drawn.get(place)
        if known is not None and known[:3] == (panel, size, beat):
            return known[3]
        lines = [self._palette.ansi(line) for line in card(panel, size, self._palette, beat)]
        self._drawn[place] = (panel, size, beat, lines)
        return lines

    def _foot(self, snapshot: Snapshot, columns: int) -> Line:
        """Trouble first, then what no panel shows, and who answers."""
        palette, glyphs = self._palette, self._palette.glyphs
        line: Line = ()
        more = f"+{snapshot.more} more in flight" if snapshot.more and snapshot.panels else ""
        room = columns - (len(more) + 2 if more else 0)
        if snapshot.paused:
            reason = f"paused {snapshot.paused_s}s: {palette.fit(clean(snapshot.paused))}"
            line = (("warn", shorten(reason, room, glyphs.cut)),)
        elif snapshot.progress.failures:
            last = snapshot.progress.failures[-1]
            told = f"{glyphs.bad} {clean(last.id)} {clean(last.kind)}: {clean(last.message)}"
            line = (("bad", shorten(palette.fit(told), room, glyphs.cut)),)
        if more:
            line = (*line, ("quiet", f"  {more}" if line else more))
        model = clean(snapshot.model)
        if model.endswith(".gguf"):  # a path: its last part says enough
            model = model.replace("\\", "/").rpartition("/")[2].removesuffix(".gguf")
        who = f" {glyphs.dot} ".join(filter(None, (model, clean(snapshot.backend))))
        who = palette.fit(who)
        left = columns - width(line) - 2
        if who and len(who) <= left:
            line = (*pad(line, columns - width((("quiet", who),))), ("quiet", who))
        return line


_FRAMES_PER_S = 8
_DUTY = 0.01
"""A frame may take this share of the time: when drawing is slower than that, frames get fewer."""
_SLOWEST_S = 0.5
"""But never fewer than this allows."""
_ASLEEP_S = 3.0
"""After a gap as long as this between two frames the process was stopped, and its shell has been writing."""
_LINES_WAITING = 5_000
"""With more lines than this to print, whoever prints waits for the terminal."""


class LiveDisplay:
    """Panels on a terminal while a run goes on. A context manager: when it is left, the terminal is as before.

    Args:
        view: what to show; an observer of the run.
        console: the terminal to show it on.
    """

    def __init__(self, view: RunState, console: Console) -> None:
        self._view = view
        self._file = console.file
        self._palette = Palette(console)
        self._painter = Painter(self._palette)
        self._area = Area(console.file, (console.width, console.height))
        self._keys = Unechoed(console.file)
        self._drawing = Lock()
        self._above: deque[str] = deque()
        self._stop = Event()
        self._thread = Thread(target=self._tick, name="mellea-live", daemon=True)
        self._wanted = 0
        self._beat = 0
        self.fault: Exception | None = None
        """What made the panels end before the run did; the run itself is not harmed by it."""

    def __enter__(self) -> Self:
        self._keys.start()
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing, take the panels away, print what is still to be printed, give the cursor back.

        May be called twice, and as a last act before the process ends in a hurry.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        with self._drawing:
            self._area.close(above=self._take_above())
        self._keys.stop()

    def line(self, text: str) -> None:
        """Print one line above the panels, with the next frame. `text` may come from anywhere."""
        self.print_lines([text])

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print several lines above the panels, with the next frame."""
        self._above.extend(self._palette.fit(clean(line, one_line=False).replace("\n", " ")) for line in lines)
        if self._stop.is_set() or len(self._above) >= _LINES_WAITING:
            with self._drawing:
                self._area.insert(self._take_above())

    def rows(self, stream: IO[str]) -> Writable:
        """A stream for writing data rows to, given the one where they should end up.

        When `stream` is the terminal that shows the panels, rows are printed above them, made harmless like any
        other text. Any other stream is returned as it is.
        """
        return _AbovePanels(self) if _same_terminal(stream, self._file) else stream

    def refresh(self) -> None:
        """Draw one frame now."""
        size = self._area.size()
        snapshot = self._view.snapshot(plan(size, self._wanted).places)
        # A run that has just begun says how many panels it can fill; they appear with the next frame.
        total = snapshot.progress.total
        self._wanted = snapshot.concurrency if total is None else min(snapshot.concurrency, total)
        grid = plan(size, self._wanted) if snapshot.panels else Grid()
        lines = self._painter.frame(snapshot, grid, size, self._beat) if snapshot.started else []
        self._beat += 1
        self._above.extend(self._palette.fit(clean(note)) for note in self._view.take_notes())
        with self._drawing:
            if not self._stop.is_set():
                self._area.draw(lines, size, above=self._take_above())

    def _take_above(self) -> str:
        lines = [self._above.popleft() for _ in range(len(self._above))]
        return "".join(f"{line}\n" for line in lines)

    def _tick(self) -> None:
        pause = 0.0
        last = time.monotonic()
        while not self._stop.wait(pause) and not self._area.gone:
            now = time.monotonic()
            if now - last > _ASLEEP_S:
                self._area.lose()
            last = now
            cost = time.thread_time()
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001 - a bug in the display must not cost the run its results
                self.fault = error
                self._stop.set()
                self._above.append(f"the panels end here, by a bug in them; the run goes on: {clean(repr(error))}")
                with self._drawing:
                    self._area.close(above=self._take_above())
            pause = min(max(1 / _FRAMES_PER_S, (time.thread_time() - cost) / _DUTY), _SLOWEST_S)


class _AbovePanels(io.TextIOBase):
    """Whole lines written here are printed above the panels."""

    def __init__(self, display: LiveDisplay) -> None:
        super().__init__()
        self._display = display
        self._rest = ""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        self._display.print_lines(lines)
        return len(text)


def _same_terminal(one: IO[str], other: IO[str]) -> bool:
    try:
        if not (one.isatty() and other.isatty()):
            return False
        first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (OSError, ValueError):
        return False
    return first.st_rdev == second.st_rdev
