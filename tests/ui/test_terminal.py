"""The redrawn area on an emulated terminal."""

from __future__ import annotations

import io

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.ui.terminal import RedrawnArea

COLUMNS, ROWS = 30, 8


class Emulated(io.StringIO):
    """A stream that ends in an emulated terminal, whose driver turns a line feed into a new line."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, rows, history=500)
        self._emulator = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self._emulator.feed(text.replace("\n", "\r\n"))
        return super().write(text)

    @property
    def rows(self) -> list[str]:
        """What the screen shows, without blank rows at its end."""
        return without_blank_end([row.rstrip() for row in self.screen.display])

    @property
    def all_rows(self) -> list[str]:
        """The same, with what has scrolled off before it."""
        old = ["".join(line[x].data for x in range(COLUMNS)).rstrip() for line in self.screen.history.top]
        return without_blank_end([*old, *(row.rstrip() for row in self.screen.display)])


def without_blank_end(rows: list[str]) -> list[str]:
    while rows and not rows[-1]:
        rows = rows[:-1]
    return rows


@pytest.fixture
def terminal() -> Emulated:
    return Emulated()


SIZE = (COLUMNS, ROWS)


def test_only_changed_lines_are_written(terminal: Emulated) -> None:
    """A frame like the last one costs nothing; one changed line costs that line."""
    area = RedrawnArea(terminal)
    area.draw(["one", "two", "three"], SIZE)
    assert terminal.rows == ["one", "two", "three"]
    written = terminal.tell()
    area.draw(["one", "two", "three"], SIZE)
    assert terminal.tell() == written
    area.draw(["one", "2", "three"], SIZE)
    assert terminal.rows == ["one", "2", "three"]
    assert "three" not in terminal.getvalue()[written:]


def test_the_area_grows_and_shrinks(terminal: Emulated) -> None:
    """More lines scroll the screen, fewer leave nothing behind."""
    terminal.write("".join(f"before {n}\n" for n in range(6)))
    area = RedrawnArea(terminal)
    area.draw(["a"], SIZE)
    area.draw(["a", "b", "c", "d"], SIZE)
    assert terminal.rows == [*(f"before {n}" for n in range(2, 6)), "a", "b", "c", "d"]
    area.draw(["x", "b"], SIZE)
    assert terminal.rows == [*(f"before {n}" for n in range(2, 6)), "x", "b"]
    area.draw([], SIZE)
    assert terminal.rows == [f"before {n}" for n in range(2, 6)]
    area.draw(["y", "z"], SIZE)
    area.close()
    assert terminal.rows == [f"before {n}" for n in range(2, 6)]


def test_lines_above_stay(terminal: Emulated) -> None:
    """What is printed above scrolls away like any output, the area stays below it."""
    area = RedrawnArea(terminal)
    area.draw(["panel", "foot"], SIZE)
    area.draw(["panel", "foot"], SIZE, above="note 1\nnote 2\n")
    assert terminal.rows == ["note 1", "note 2", "panel", "foot"]
    area.insert("a long line that the terminal has to break\n")
    assert terminal.rows[2:] == ["a long line that the terminal", "has to break", "panel", "foot"]
    area.close(above="last\n")
    assert terminal.rows == ["note 1", "note 2", "a long line that the terminal", "has to break", "last"]


def test_the_cursor_is_given_back(terminal: Emulated) -> None:
    """It is hidden while the area is there, visible afterwards, at the start of a line; lines wrap again."""
    area = RedrawnArea(terminal)
    area.draw(["panel"], SIZE)
    assert terminal.screen.cursor.hidden
    area.close()
    area.close()
    assert not terminal.screen.cursor.hidden
    assert (terminal.screen.cursor.x, terminal.screen.cursor.y) == (0, 0)
    assert pyte.modes.DECAWM in terminal.screen.mode


def test_an_area_that_was_never_drawn_writes_no_escape(terminal: Emulated) -> None:
    """A run that ends before its first frame leaves only its lines."""
    area = RedrawnArea(terminal)
    area.draw([], SIZE, above="note\n")
    area.close(above="bye\n")
    assert terminal.getvalue() == "note\nbye\n"


def test_a_narrower_terminal_keeps_nothing_of_the_old_frame(terminal: Emulated) -> None:
    """The cursor rests at the first cell of the area, so everything from there on can be erased."""
    terminal.write("shell\n")
    area = RedrawnArea(terminal)
    area.draw(["#" * 29, "#" * 29, "#" * 29], SIZE)
    terminal.screen.resize(ROWS, 15)
    area.draw(["small"], (15, ROWS))
    assert terminal.rows == ["shell", "small"]


def test_another_size_draws_all_again(terminal: Emulated) -> None:
    """After a resize no old line is trusted, not even one that reads the same."""
    area = RedrawnArea(terminal)
    area.draw(["#" * 20, "foot"], SIZE)
    terminal.screen.resize(ROWS, 10)
    terminal.screen.resize(ROWS, 25)
    assert terminal.rows[0] == "#" * 10
    area.draw(["#" * 20, "foot"], (25, ROWS))
    assert terminal.rows == ["#" * 20, "foot"]


def test_after_a_stop_it_begins_where_the_cursor_is(terminal: Emulated) -> None:
    """When the shell has written meanwhile, what it wrote stays."""
    area = RedrawnArea(terminal)
    area.draw(["panel", "foot"], SIZE)
    terminal.write("\r\x1b[Jstopped\n$ fg\n")
    area.abandon()
    area.draw(["panel", "foot"], SIZE)
    assert terminal.rows == ["stopped", "$ fg", "panel", "foot"]


class Broken(io.StringIO):
    """A stream whose other end fails."""

    def __init__(self, error: type[OSError]) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error("no")


def test_a_terminal_that_is_gone_is_left_alone() -> None:
    """A hang-up ends the drawing and nothing else."""
    area = RedrawnArea(Broken(OSError))
    area.draw(["a"], SIZE)
    assert area.gone
    area.close()


def test_a_full_terminal_is_only_late() -> None:
    """A non-blocking terminal that accepts nothing now is redrawn later."""
    area = RedrawnArea(Broken(BlockingIOError))
    area.draw(["a"], SIZE)
    assert not area.gone


def test_a_stream_without_a_size_has_the_assumed_one() -> None:
    """What does not tell its size is taken to be as large as was said."""
    assert RedrawnArea(io.StringIO(), (33, 7)).size() == (33, 7)


@given(
    st.lists(
        st.tuples(
            st.lists(st.text("abcdef", max_size=8), max_size=ROWS - 1),
            st.lists(st.text("xyz", min_size=1, max_size=8), max_size=3),
        ),
        max_size=12,
    )
)
def test_the_screen_always_shows_the_last_frame(frames: list[tuple[list[str], list[str]]]) -> None:
    """Whatever the frames and the lines between: the screen ends in lines printed so far, then the frame."""
    terminal = Emulated()
    area = RedrawnArea(terminal)
    printed: list[str] = []
    for lines, above in frames:
        area.draw(lines, SIZE, above="".join(f"{line}\n" for line in above))
        printed += above
        assert terminal.all_rows == without_blank_end([*printed, *lines])
    area.close()
    assert terminal.all_rows == printed
