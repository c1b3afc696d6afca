"""The progress line says the most that fits, and never more."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.ui.console import make_console
from mellea_cli.ui.plain_lines import progress_line
from mellea_cli.ui.run_state import Progress
from mellea_cli.ui.theme import Palette, width

PALETTE = Palette(make_console(io.StringIO(), {"TERM": "xterm"}))
HALF = Progress(total=500, done=247, failed=3, retried=12, items_per_s=2.4, tokens_per_s=310, left_s=158, elapsed_s=100)


def text(progress: Progress, columns: int, paused_s: int = 0) -> str:
    return "".join(part for _, part in progress_line(progress, columns, PALETTE, paused_s=paused_s))


def test_all_of_it_at_80_columns() -> None:
    """Bar, counts, both rates, time left, failures and retries."""
    line = text(HALF, 79)
    assert line.startswith("━")
    assert line.endswith("250/500  2.4 items/s  310 tok/s  2m 38s left  3 failed  12 retried")


@pytest.mark.parametrize(
    ("columns", "end"),
    [
        (70, "250/500  2.4 items/s  310 tok/s  2m 38s left  3 failed"),
        (50, "250/500  2m 38s left  3 failed"),
        (39, "250/500  2m 38s left  3 failed"),
        (22, "250/500  2m 38s left"),
        (12, "250/500"),
        (5, "250/5"),
    ],
)
def test_what_matters_least_goes_first(columns: int, end: str) -> None:
    """A narrow terminal keeps the counts, the time left and failures."""
    line = text(HALF, columns)
    assert line.endswith(end)
    assert len(line) <= columns


def test_the_bar_is_as_long_as_the_work() -> None:
    """The filled part grows with what is settled, failures included, and is full only at the end."""
    bars = [text(Progress(total=40, done=done), 79).split("  ")[0] for done in range(41)]
    assert len(set(map(len, bars))) == 1
    filled = [
        sum(len(part) for role, part in progress_line(Progress(total=40, done=done), 79, PALETTE) if role == "done")
        for done in range(41)
    ]
    assert filled == sorted(filled)
    assert filled[0] == 0
    assert filled[39] <= filled[40] == len(bars[40])


def test_an_unknown_total_has_no_bar_and_no_time_left() -> None:
    """From a pipe it is said what is done, and for how long it has been going on."""
    line = text(Progress(done=1234, items_per_s=0.5, elapsed_s=65.4), 79)
    assert line.startswith("1,234 done")
    assert "1m 05s so far" in line


def test_a_pause_takes_the_place_of_the_time_left() -> None:
    """While nothing is sent, the countdown is what counts."""
    assert "paused 12s" in text(HALF, 79, paused_s=12)


@given(
    st.builds(
        Progress,
        total=st.none() | st.integers(0, 10**9),
        done=st.integers(0, 10**9),
        failed=st.integers(0, 10**6),
        retried=st.integers(0, 10**6),
        items_per_s=st.floats(0, 10**7),
        tokens_per_s=st.floats(0, 10**9),
        left_s=st.none() | st.floats(0.001, 10**9),
        elapsed_s=st.floats(0, 10**8),
    ),
    st.integers(1, 220),
    st.integers(0, 1000),
)
def test_it_never_wraps(progress: Progress, columns: int, paused_s: int) -> None:
    """Whatever the numbers and the width: one line that fits."""
    assert width(progress_line(progress, columns, PALETTE, paused_s=paused_s)) <= columns
