"""The closing table of themes: counts, bars, and how the rows add up."""

from __future__ import annotations

import io
import json

from mellea_cli.ui.console import make_console
from mellea_cli.ui.summary import RunSummary, Themed, drawn_lines, plain_lines, to_json
from mellea_cli.ui.theme import Palette, cells_of

THEMED = Themed(
    file="t.toml",
    counts={"Late \x1b[2Jdelivery": 30, "Friendly people who are much too long for a narrow terminal": 50, "Never": 0},
    rows=100,
    labelled=70,
    other=10,
    none=15,
    failed=5,
    quotes=80,
    audited=True,
)
SUMMARY = RunSummary(total=100, done=95, failed=5, blank=15, themed=THEMED)


def test_the_most_common_theme_comes_first_as_plain_lines() -> None:
    """Counts, shares of all rows, and the sum; nothing from outside reaches the terminal as an escape."""
    told = list(plain_lines(SUMMARY))
    themes = [line for line in told if line.startswith("theme: ")]
    assert themes[0].endswith("narrow terminal: 50 (50%)")
    assert themes[2] == "theme: Never: 0 (0%)"
    assert "rows: 70 with themes + 10 other + 15 none + 5 failed = 100 rows" in told
    assert "checked: 80 labels, 80 quotes verbatim, read back from the output" in told
    assert "\x1b" not in "".join(told)


def test_rows_that_were_not_reached_are_named() -> None:
    """A run that stopped early still adds up."""
    stopped = Themed("t.toml", {"Late": 1}, rows=10, labelled=1, quotes=1)
    assert "rows: 1 with themes + 0 other + 0 none + 0 failed = 1 rows of 10; 9 not reached" in list(
        plain_lines(RunSummary(total=10, done=1, themed=stopped))
    )


def test_the_bars_fit_every_terminal() -> None:
    """No line is wider than the terminal; the longest bar is the most common theme's."""
    palette = Palette(make_console(io.StringIO(), {}))
    for columns in (20, 40, 79, 200):
        lines = ["".join(text for _, text in line) for line in drawn_lines(SUMMARY, columns, palette)]
        assert all(cells_of(line) <= columns for line in lines), (columns, lines)
    bars = [line.count(palette.glyphs.block) for line in lines if palette.glyphs.block in line]
    assert bars[0] == max(bars) > min(bars) > 0


def test_programs_get_the_same_figures() -> None:
    """They stand under one key, which is null for a run without themes."""
    told = json.loads(to_json(SUMMARY))
    assert (told["blank"], told["reconciled"]["accounted"], told["reconciled"]["rows"]) == (15, 100, 100)
    assert sum(told["reconciled"][what] for what in ("labelled", "other", "none", "failed")) == 100
    assert told["reconciled"]["themes"]["Never"] == 0
    assert json.loads(to_json(RunSummary()))["reconciled"] is None
