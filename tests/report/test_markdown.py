"""The report as Markdown: the figures are there, and feedback is text and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.aggregate import ReportOptions
from mellea_cli.report.markdown import plain, to_markdown
from resultrows import THEMES, figures_of, result_rows

SHOWN = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"])


def test_the_figures_are_in_tables(tmp_path: Path) -> None:
    """Sentiment, urgency, themes, trend and splits, each with its counts."""
    figures = figures_of(tmp_path, result_rows(100, themed=True), ReportOptions(by=("channel",)))
    text = to_markdown(figures, "Report")
    negative = figures.mix.sentiment["negative"]
    assert f"| negative | {negative} | {figures.shown(negative)} |" in text
    for theme in figures.themes:
        assert f"| {theme.name} | {theme.count} |" in text
    assert f"{figures.reconciliation()}." in text
    assert f"{figures.label_sentence()}." in text
    assert SHOWN.render(text).count("<table>") == 5


def test_a_theme_below_a_parent_is_written_with_it(tmp_path: Path) -> None:
    """The parent has a row of its own, with its rows counted once."""
    rows = result_rows(100, themed=True)
    themes = [Theme(name, "d", parent="All | of it") for name in THEMES]
    figures = figures_of(tmp_path, rows, ReportOptions(themes=themes))
    text, first = to_markdown(figures, "Report"), figures.themes[0]
    assert figures.labels is not None
    assert f"| All \\| of it | {figures.labels.themed} |" in text
    assert f"| All \\| of it / {first.name} | {first.count} |" in text


def test_without_themes_it_says_how_to_get_them(tmp_path: Path) -> None:
    """The next command is the last line."""
    text = to_markdown(figures_of(tmp_path, result_rows(5)), "Report", ["mellea themes r.jsonl -o themes.jsonl"])
    assert "## Themes" not in text
    assert text.endswith("Next: `mellea themes r.jsonl -o themes.jsonl`\n")


@given(st.text(alphabet=st.sampled_from("ab*_`#[]()<>!|\\&;~-+1.=>\"'\n\u2028\x00:/@"), max_size=60))
def test_no_feedback_is_markup(text: str) -> None:
    """Shown by a Markdown program, a text is unchanged: no emphasis, link, heading, list, table or HTML."""
    (paragraph, inline, _) = SHOWN.parse(plain(text) or "x")
    assert paragraph.type == "paragraph_open"
    assert {child.type for child in inline.children or ()} <= {"text", "text_special"}


@pytest.mark.parametrize("text", ["see https://evil.example/x", "www.evil.example", "@everyone"])
def test_no_feedback_becomes_a_link_or_a_call(text: str) -> None:
    """Programs that find addresses and names in plain text find none."""
    assert text not in plain(text)
    assert plain(text).replace("\u2060", "") == text
