"""The report on one screen, and two of them side by side: they fit, and feedback is only ever text."""

from __future__ import annotations

import io
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.aggregate import ReportOptions
from mellea_cli.report.comparison import compare
from mellea_cli.report.figures import Figures
from mellea_cli.report.results import open_results
from mellea_cli.ui.console import make_console
from mellea_cli.ui.report_view import comparison_lines, print_comparison, print_report, report_lines
from mellea_cli.ui.theme import Palette
from memorystreams import TerminalStream
from resultrows import NASTY, figures_of, nasty_rows, result_rows
from rowfiles import write_rows


def drawn(figures: Figures, size: tuple[int, int] = (79, 24), encoding: str = "utf-8") -> list[str]:
    palette = Palette(make_console(TerminalStream(encoding), {"TERM": "xterm"}))
    return ["".join(text for _, text in line).rstrip() for line in report_lines(figures, ["mellea x"], size, palette)]


def busy_figures(tmp_path: Path) -> Figures:
    """Many themes, failures, a note, long quotes, a split: more than fits."""
    rows = result_rows(300, themed=True)
    for number, row in enumerate(rows):
        if row["sentiment"]:
            row["themes"] = [f"Theme number {number % 25} with a rather long name of its own"]
            row["text"] *= 6
            row["theme_quotes"] = {}
    rows[0]["created_at"] = "the day before yesterday, or maybe " * 3
    return figures_of(tmp_path, rows, ReportOptions(date="created_at"))


def test_themes_are_below_their_parent(tmp_path: Path) -> None:
    """The parent with its rows is first, and its themes have a dot."""
    themes = (Theme("Price", "p", parent="Money"), Theme("Delivery", "d"))
    lines = drawn(figures_of(tmp_path, result_rows(60, themed=True), ReportOptions(themes=themes)), (79, 60))
    place = next(place for place, line in enumerate(lines) if " Money " in line)
    assert lines[place + 1].lstrip().startswith("· Price ")
    assert lines[place].split()[-5:] == lines[place + 1].split()[-5:]
    assert not any("· Delivery" in line for line in lines)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_busy_report_fits_a_small_terminal(tmp_path: Path, encoding: str) -> None:
    """80 by 24, the prompt's line included; the themes that are left out are counted."""
    lines = drawn(busy_figures(tmp_path), encoding=encoding)
    assert len(lines) <= 23
    assert all(cell_len(line) <= 79 for line in lines)
    assert any("more themes" in line for line in lines)
    assert lines[-1] == "next       mellea x"
    assert sum(line.startswith("urgent") for line in lines) == 1
    for line in lines:
        line.encode(encoding)


def test_the_picture_holds_the_figures(tmp_path: Path) -> None:
    """Counts and shares are next to the bars, and the longest bar is the most frequent theme's."""
    figures = figures_of(tmp_path, result_rows(200, themed=True))
    text = "\n".join(drawn(figures, (99, 60)))
    for name, number in figures.mix.sentiment.items():
        assert any(name in line and f" {number} " in line for line in text.splitlines())
    bars = [line.count("█") for line in text.splitlines() if any(theme.name in line for theme in figures.themes)]
    assert bars == sorted(bars, reverse=True)
    assert len(bars) == len(figures.themes)


def test_a_narrow_terminal_puts_one_below_the_other(tmp_path: Path) -> None:
    """Forty columns are enough."""
    lines = drawn(figures_of(tmp_path, result_rows(60, themed=True)), (39, 60))
    assert all(cell_len(line) <= 39 for line in lines[:-1])
    assert any(line.startswith("urgency    high") for line in lines)


def test_feedback_cannot_draw_on_the_terminal(tmp_path: Path) -> None:
    """Escape sequences, markup of Rich and characters that turn writing round do nothing."""
    row = nasty_rows()[0] | {"text": "\x1b]0;title\x07\x1b[2J[bold]x[/bold]\u202e\r\x9b31m", "id": "\x1b[31m7"}
    stream = io.StringIO()
    print_report(figures_of(tmp_path, [row], ReportOptions(by=("channel",))), [NASTY], stream, {})
    text = stream.getvalue()
    assert not [character for character in text if ord(character) < 32 and character != "\n"]
    assert "\u202e" not in text
    assert "\x9b" not in text
    assert "[bold]x[/bold]" in text


def test_no_rows_are_one_sentence(tmp_path: Path) -> None:
    """Nothing else is drawn."""
    stream = io.StringIO()
    print_report(figures_of(tmp_path, []), [], stream, {})
    assert stream.getvalue() == "no rows: there is nothing to report\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(text=st.text(max_size=200), name=st.text(min_size=1, max_size=60), columns=st.integers(24, 120))
def test_whatever_it_says_it_stays_in_its_width(tmp_path: Path, text: str, name: str, columns: int) -> None:
    """Wide characters, long words and long ids are cut or wrapped."""
    text = text.encode("utf-8", "replace").decode()
    row: dict[str, Any] = {"id": name, "text": text, "sentiment": "mixed", "issues": {"urgency": "high"}}
    figures = figures_of(tmp_path, [row | {"themes": [name], "channel": name}], ReportOptions(by=("channel",)))
    for line in drawn(figures, (columns, 40))[:-1]:
        assert cell_len(line) <= columns


def test_a_comparison_stays_in_its_width(tmp_path: Path) -> None:
    """Long names and file names are cut, the signs of what moved are not."""
    old = write_rows(tmp_path / f"{'o' * 100}.jsonl", result_rows(90, themed=True))
    new = write_rows(tmp_path / "new.jsonl", [row | {"themes": ["x" * 90]} for row in result_rows(50, themed=True)])
    with open_results(str(old)) as before, open_results(str(new)) as after:
        comparison = compare(before, after)
    palette = Palette(make_console(TerminalStream(), {"TERM": "xterm"}))
    lines = ["".join(text for _, text in line) for line in comparison_lines(comparison, 79, palette)]
    assert all(cell_len(line) <= 79 for line in lines)
    assert any(line.endswith("  new") for line in lines)
    assert any(line.endswith("  gone") for line in lines)


def week(path: Path, shares: tuple[int, int, int]) -> Path:
    """An output with so many negative, mixed and positive rows; `path` names the rows."""
    moods = [
        mood for mood, number in zip(("negative", "mixed", "positive"), shares, strict=True) for _ in range(number)
    ]
    return write_rows(
        path,
        [
            {"id": f"{path.stem}{at}", "text": f"{at}", "sentiment": mood, "nps": at % 11, "issues": {"urgency": "low"}}
            for at, mood in enumerate(moods)
        ],
    )


def compared_text(paths: list[Path], environ: dict[str, str], kind: type[io.StringIO] = io.StringIO) -> str:
    with ExitStack() as stack:
        comparison = compare(*(stack.enter_context(open_results(str(path))) for path in paths))
    stream = kind()
    print_comparison(comparison, stream, environ)
    return stream.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("files", [2, 3])
def test_what_moved_is_a_word_and_every_interval_is_whole(tmp_path: Path, columns: int, files: int) -> None:
    """Without a terminal there is no colour; `COLUMNS` is the width, and a narrow one takes more lines."""
    shares = [(240, 90, 270), (250, 90, 260), (330, 90, 180)][-files:]
    paths = [week(tmp_path / f"w{at}.jsonl", one) for at, one in enumerate(shares)]
    text = compared_text(paths, {"COLUMNS": str(columns)})
    assert all(cell_len(line) <= columns for line in text.splitlines())
    words = " ".join(text.split())
    table = words.split(" sentiment ")[1].split(" urgency ")[0]
    for name, verdict in (("negative", "up"), ("mixed", "no clear change"), ("positive", "down")):
        line = re.split(r" ?(?:negative|mixed|positive) ", table)[("", "negative", "mixed", "positive").index(name)]
        assert re.search(rf" {verdict}(?: |$)", line), line
    assert words.count(" points (") == len(re.findall(r" points \(-?\d+\.\d to -?\d+\.\d\)", words)) == 7
    if columns >= 120:
        assert words.count("42 % (38 to 46)") == 1
        assert ("40 % (36 to 44) →" in words) == (files == 3)


def test_an_interval_without_a_clear_change_is_explained(tmp_path: Path) -> None:
    """Below the table, and only where one excludes 0."""
    paths = [week(tmp_path / "a.jsonl", (240, 90, 270)), week(tmp_path / "b.jsonl", (276, 90, 234))]
    text = compared_text(paths, {})
    assert "no clear change" in text.split("negative")[1].split("mixed")[0]
    assert "note       some intervals exclude 0 although the change is not clear: 6 shares" in text
    assert "excludes 0" not in compared_text([paths[0], week(tmp_path / "c.jsonl", (240, 91, 269))], {})
