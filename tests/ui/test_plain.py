"""Progress without a terminal."""

from __future__ import annotations

import io

import pytest

from mellea_cli.events import ItemFinished, ItemStarted, Note, Paused, RetryScheduled, RunStarted, TokensReceived
from mellea_cli.messages import Usage
from mellea_cli.ui.plain_lines import PlainDisplay, plain_line
from mellea_cli.ui.run_state import RunState


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> RunState:
    view = RunState(clock)
    view(RunStarted("single", ("analysis",), "m", "b", 2, 500))
    return view


def finish(view: RunState, clock: Clock, position: int, *, ok: bool = True) -> None:
    view(ItemStarted(position, str(position), "text"))
    view(TokensReceived(position, "analysis", "word"))
    clock.now += 0.5
    view(ItemFinished(position, str(position), ok, "" if ok else "parse", "", Usage(9, 31), 1.0, False))


def test_a_line_says_it_in_words(view: RunState, clock: Clock) -> None:
    """Counts, failures, both rates and the time left."""
    for position in range(120):
        finish(view, clock, position, ok=position not in {3, 30, 60})
        snapshot = view.snapshot()
    assert plain_line(snapshot) == "120/500 done, 3 failed, 2.0 items/s, 62 tok/s, 3m 10s left"
    view(RetryScheduled(0, "analysis", 1.0, 2))
    view(ItemFinished(200, "x", True, "", "", Usage(), 0.0, True))
    view(Paused("too\nmany \x1b[31mrequests", 7.0))
    assert plain_line(view.snapshot()).startswith("121/500 done, 3 failed, 1 reused, 1 retried, ")
    assert plain_line(view.snapshot()).endswith("paused 7s: too many requests")


def test_nothing_new_is_not_said_again(view: RunState, clock: Clock) -> None:
    """The same numbers are printed once, and again only as a sign of life now and then."""
    stream = io.StringIO()
    display = PlainDisplay(view, stream)
    for _ in range(12):
        clock.now += 5
        display.refresh()
    assert stream.getvalue().count("\n") == 1
    display.refresh()
    assert stream.getvalue().count("\n") == 2
    finish(view, clock, 0)
    display.refresh()
    assert stream.getvalue().splitlines()[-1].startswith("mellea: 1/500 done")


def test_notes_and_lines_are_lines(view: RunState) -> None:
    """Each is printed once, harmless, and without escapes."""
    stream = io.StringIO()
    view(Note("column \x1b]0;x\x07renamed"))
    display = PlainDisplay(view, stream)
    display.refresh()
    display.line("two\nlines")
    display.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "mellea: column renamed"
    assert lines[1].startswith("mellea: 0/500 done")
    assert lines[2] == "mellea: two lines"
    assert "\x1b" not in stream.getvalue()


def test_nothing_is_said_before_the_run_begins() -> None:
    """While the model loads there is no progress to tell."""
    stream = io.StringIO()
    PlainDisplay(RunState(), stream).refresh()
    assert not stream.getvalue()


def test_the_thread_ends_at_once(view: RunState) -> None:
    """Leaving does not wait for the next line, not even for one that is an hour away, and prints what is left."""
    stream = io.StringIO()
    with PlainDisplay(view, stream, every_s=3600) as display:
        assert display._thread.is_alive()
        view(Note("last words"))
    assert not display._thread.is_alive()
    assert stream.getvalue().endswith("mellea: last words\n")


def test_it_prints_by_itself(view: RunState) -> None:
    """A timer prints without anybody asking."""

    class Awaited(io.StringIO):
        def write(self, text: str) -> int:
            told = super().write(text)
            if "\n" in text:
                printed.set()
            return told

    from threading import Event

    printed = Event()
    with PlainDisplay(view, Awaited(), every_s=0.01):
        assert printed.wait(30)


def test_a_reader_that_went_away_does_not_stop_the_run(view: RunState) -> None:
    """When stderr is closed, nothing more is said and nothing is raised."""
    stream = io.StringIO()
    stream.close()
    display = PlainDisplay(view, stream)
    display.line("anybody there?")
    display.close()


def test_a_foreign_encoding_is_survived(view: RunState) -> None:
    """What a stream cannot encode becomes a question mark instead of an error."""
    raw = io.BytesIO()
    PlainDisplay(view, io.TextIOWrapper(raw, encoding="ascii", write_through=True)).line("grün 🎉")
    assert raw.getvalue() == b"mellea: gr?n ?\n"


def test_rows_go_straight_to_their_stream(view: RunState) -> None:
    """Lines do not disturb each other, so data needs no detour."""
    stream = io.StringIO()
    assert PlainDisplay(view, io.StringIO()).rows(stream) is stream
