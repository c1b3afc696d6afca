"""Two outputs side by side: rows that came and went, and what moved."""

from __future__ import annotations

import html
import json
import random
import re
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import pytest

from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.comparison import (
    Change,
    Comparison,
    compare,
    compared_figures,
    comparison_to_json,
    comparison_to_markdown,
    held_sentence,
    points,
    short_names,
    theme_notes,
)
from mellea_cli.report.figures import Figures, Labels, Mix, ThemeFigures
from mellea_cli.report.html_report import comparison_to_html
from mellea_cli.report.results import open_results
from resultrows import result_rows
from rowfiles import write_rows


def compared(tmp_path: Path, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Comparison:
    paths = write_rows(tmp_path / "old.jsonl", old), write_rows(tmp_path / "new.jsonl", new)
    with open_results(str(paths[0])) as before, open_results(str(paths[1])) as after:
        return compare(before, after)


def without_ids(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def test_rows_are_matched_by_id(tmp_path: Path) -> None:
    """New, gone, kept, edited and judged differently are each counted."""
    rows = result_rows(100)
    new = [dict(row) for row in rows[20:]] + [row | {"id": f"N-{row['id']}"} for row in rows[:5]]
    new[0] |= {"text": "another text"}
    new[1] |= {"sentiment": "mixed" if new[1]["sentiment"] != "mixed" else "positive"}
    found = compared(tmp_path, rows, new)
    assert (found.matched_by, found.kept, found.gone, found.added) == ("id", 80, 20, 5)
    assert (found.edited, found.rejudged) == (1, 1)
    assert found.kept + found.gone == found.old.rows
    assert found.kept + found.added == found.new.rows


def test_rows_without_ids_are_matched_by_their_words(tmp_path: Path) -> None:
    """Texts that occur several times are matched as often as they occur in both."""
    rows = without_ids(result_rows(9))
    found = compared(tmp_path, [*rows, rows[0], rows[0]], [rows[0], rows[0], *rows[5:]])
    assert (found.matched_by, found.kept, found.gone, found.added) == ("text", 6, 5, 0)


def test_an_id_that_occurs_twice_is_matched_twice(tmp_path: Path) -> None:
    """A file whose ids are not unique still adds up."""
    rows = result_rows(4)
    found = compared(tmp_path, [rows[0], rows[0], rows[1]], [rows[0], rows[2]])
    assert (found.kept, found.gone, found.added) == (1, 2, 1)


def test_shares_move_and_themes_come_and_go(tmp_path: Path) -> None:
    """Counts are those of both reports; what is only on one side came or went."""

    def row(number: int, mood: str, theme: str) -> dict[str, Any]:
        return {"id": number, "text": f"t{number}", "sentiment": mood, "issues": None, "themes": [theme]}

    old = [row(number, "negative", "Old") for number in range(4)] + [row(4, "positive", "Both")]
    new = [row(number, "positive", "New") for number in range(8)] + [
        row(9, "negative", "Both"),
        row(10, "mixed", "Both"),
    ]
    found = compared(tmp_path, old, new)
    (negative, mixed, positive) = found.of("sentiment")
    assert (negative.old, negative.new, round(negative.points)) == (4, 1, -70)
    assert (mixed.old, mixed.new, positive.new) == (0, 1, 8)
    themes = {change.name: change for change in found.of("theme")}
    assert [change.name for change in found.of("theme")] == ["New", "Old", "Both"]
    assert (themes["New"].arrival, themes["Old"].arrival, themes["Both"].arrival) == ("came", "went", "")


def test_themes_on_one_side_only_are_not_compared(tmp_path: Path) -> None:
    """It says which file has none."""
    found = compared(tmp_path, result_rows(20), result_rows(20, themed=True))
    assert not found.themed
    assert found.of("theme") == []
    assert "themes are not compared" in comparison_to_markdown(found, "x")


def test_equal_files_have_not_changed(tmp_path: Path) -> None:
    """Every change is nothing, and two empty files are equal too."""
    rows = result_rows(50, themed=True)
    assert all(change.points == 0 and not change.arrival for change in compared(tmp_path, rows, rows).changes)
    assert compared(tmp_path, [], []).kept == 0


def test_json_holds_everything(tmp_path: Path) -> None:
    """Programs read the same figures."""
    found = compared(tmp_path, result_rows(30, themed=True), result_rows(60, themed=True))
    told = json.loads(comparison_to_json(found))
    assert told["rows"] == {"matched_by": "id", "kept": 30, "added": 30, "gone": 0, "edited": 0, "rejudged": 0}
    assert [(one["name"], one["old"], one["new"]) for one in told["changes"]] == [
        (change.name, change.old, change.new) for change in found.changes
    ]


@pytest.mark.parametrize(
    ("old", "new", "text"), [(0.1, 0.131, "+3.1"), (0.5, 0.38, "-12.0"), (0.2, 0.2, "0"), (0.1, 0.0996, "0")]
)
def test_a_move_is_told_in_percentage_points(old: float, new: float, text: str) -> None:
    """With its unit and its interval."""
    assert (
        points(Change("theme", "x", 5, 5, old, new, points_low=-1.25, points_high=7)) == f"{text} points (-1.2 to 7.0)"
    )


def judged(count: int, shares: dict[str, float], themes: dict[str, float], seed: int) -> list[dict[str, Any]]:
    """Rows of one population: each has a sentiment by these shares, and each theme with its chance."""
    draw = random.Random(seed)  # noqa: S311 - a simulation
    return [
        {
            "text": f"{seed} {number}",
            "sentiment": (mood := draw.choices(list(shares), list(shares.values()))[0]),
            "issues": {"urgency": draw.choice(("high", "medium", "low", "low")) if mood != "positive" else "low"},
            "themes": [name for name, chance in themes.items() if draw.random() < chance] or ["none"],
        }
        for number in range(count)
    ]


SHARES = {"negative": 0.4, "mixed": 0.15, "positive": 0.45}
CHANCES = {f"Theme {number}": chance for number, chance in enumerate((0.3, 0.2, 0.15, 0.1, 0.05, 0.03, 0.01, 0.004))}


def test_a_large_move_holds_and_colours_by_what_it_means(tmp_path: Path) -> None:
    """More complaints are bad, more praise is good, and what may be chance has neither colour nor words."""
    old = judged(600, SHARES, CHANCES, 1)
    new = judged(600, {"negative": 0.55, "mixed": 0.15, "positive": 0.3}, CHANCES | {"Theme 1": 0.4}, 2)
    found = compared(tmp_path, old, new)
    changes = {change.name: change for change in found.changes}
    assert (changes["negative"].holds, changes["negative"].good, changes["negative"].verdict) == (True, False, "up")
    assert (changes["positive"].good, changes["positive"].verdict) == (False, "down")
    assert changes["Theme 1"].holds
    assert changes["Theme 1"].good == (changes["Theme 1"].tone == "praise")
    assert (changes["mixed"].holds, changes["mixed"].good, changes["mixed"].verdict) == (False, None, "no clear change")
    text = comparison_to_markdown(found, "x")
    assert re.search(r"\| negative \| \d+ \| \d+ \| \d+ % \(\d+ to \d+\) → .* points \(.* to .*\) \| up \|", text)
    assert "shares have changed beyond chance" in text


def sampled_figures(draw: random.Random, rows: int) -> Figures:
    """The figures of so many rows of one population."""
    moods = Counter(draw.choices(list(SHARES), list(SHARES.values()), k=rows))
    urgencies = Counter(draw.choices(("high", "medium", "low"), (1, 2, 5), k=rows))
    themes = [
        ThemeFigures(name, Mix(rows=sum(draw.random() < chance for _ in range(rows))), 0.0)
        for name, chance in CHANCES.items()
    ]
    return Figures("x", Mix(rows, moods, urgencies), 0, 0, labels=Labels(rows, 0, 0, 0), themes=themes)


@pytest.mark.parametrize("rows", [100, 400])
def test_samples_of_one_population_rarely_differ(rows: int) -> None:
    """Of 200 pairs of samples at most one in twenty has a single change that holds."""
    draw = random.Random(17)  # noqa: S311 - a simulation
    marked = 0
    for _ in range(200):
        changes, _score = compared_figures([sampled_figures(draw, rows), sampled_figures(draw, rows)])
        assert len(changes) >= 10
        marked += any(change.holds for change in changes)
    assert marked <= 10


def test_complaints_and_praise_are_told_apart(tmp_path: Path) -> None:
    """By the kinds of the themes; a theme of both kinds has a line under each, a mixed mention counts in both."""

    def row(number: int, mood: str, theme: str, **more: Any) -> dict[str, Any]:
        return {"id": number, "text": f"t{number}", "sentiment": mood, "issues": None, "themes": [theme]} | more

    issues = {"main_complaint": "slow delivery", "positive_aspect": "kind driver", "urgency": "low"}
    old = [row(1, "negative", "Delivery"), row(2, "positive", "Staff"), row(3, "negative", "Staff")]
    new = [
        row(1, "mixed", "Delivery", issues=issues, theme_quotes={"Delivery": "the delivery was slow"}),
        row(2, "mixed", "Delivery", issues=issues, theme_quotes={"Delivery": "a kind driver"}),
        row(3, "mixed", "Delivery", issues=issues),
        row(4, "negative", "Bills"),
    ]
    themes = (Theme("Delivery", "", "both"), Theme("Staff", "", "praise"), Theme("Bills", "", "complaint"))
    paths = write_rows(tmp_path / "old.jsonl", old), write_rows(tmp_path / "new.jsonl", new)
    with open_results(str(paths[0])) as before, open_results(str(paths[1])) as after:
        found = compare(before, after, themes=themes)
    sections = {
        heading: {change.name: (change.old, change.new) for change in changes} for heading, changes in found.sections()
    }
    assert sections["complaints"] == {"Delivery": (1, 2), "Bills": (0, 1)}
    assert sections["praise"] == {"Delivery": (0, 2), "Staff": (2, 0)}


def test_more_files_are_a_series(tmp_path: Path) -> None:
    """The last two are compared, and each share has its value in every file."""
    paths = [write_rows(tmp_path / f"w{seed}.jsonl", judged(50, SHARES, CHANCES, seed)) for seed in range(4)]
    with ExitStack() as stack:
        found = compare(*(stack.enter_context(open_results(str(path))) for path in paths))
    assert [PurePath(figures.name).name for figures in found.files] == ["w0.jsonl", "w1.jsonl", "w2.jsonl", "w3.jsonl"]
    for change in found.of("sentiment"):
        assert change.series == [figures.share(figures.mix.sentiment[change.name], 50).share for figures in found.files]
    told = json.loads(comparison_to_json(found))
    assert len(told["earlier"]) == 2
    assert len(told["changes"][0]["series"]) == 4
    assert len(told["changes"][0]["series_intervals"]) == 4
    text = comparison_to_markdown(found, "x")
    assert "all files" in text
    page = "".join(comparison_to_html(found, title="x", written=datetime(2026, 11, 28, tzinfo=UTC)))
    first, second, *_ = found.changes[0].in_series(intervals=True).split(" → ")
    assert f"{first} → {second}" in text
    assert f"<span>{first} →</span> <span>{second} →</span>" in page


def test_labels_of_files_are_short_and_tell_them_apart() -> None:
    """The name of the file, with folders only where names are the same."""
    assert short_names(["out/w45.csv", "/data/out/w46.csv", "w47.csv"]) == ["w45.csv", "w46.csv", "w47.csv"]
    assert short_names(["a.csv", "a.jsonl", "<stdin>"]) == ["a.csv", "a.jsonl", "<stdin>"]
    assert short_names(["/d/may/a.csv", "/d/june/a.csv", "b.csv"]) == ["may/a.csv", "june/a.csv", "b.csv"]
    assert short_names(["a.csv", "x/a.csv", "y/x/a.csv"]) == ["a.csv", "x/a.csv", "y/x/a.csv"]
    assert short_names(["x/a.csv", "x/a.csv"]) == ["a.csv", "a.csv"]


def test_labels_are_the_same_everywhere(tmp_path: Path) -> None:
    """Table, page, Markdown and JSON, and the notes about a file."""
    for folder in ("may", "june", "july"):
        (tmp_path / folder).mkdir()
    rows = result_rows(30)
    paths = [
        write_rows(tmp_path / name, [*rows, {"id": "x"}]) for name in ("may/a.jsonl", "june/a.jsonl", "july/b.jsonl")
    ]
    with ExitStack() as stack:
        found = compare(*(stack.enter_context(open_results(str(path))) for path in paths))
    assert found.labels == ["may/a.jsonl", "june/a.jsonl", "b.jsonl"]
    told = json.loads(comparison_to_json(found))
    assert [one["label"] for one in (*told["earlier"], told["old"], told["new"])] == found.labels
    page = "".join(comparison_to_html(found, title="t", written=datetime(2026, 1, 1, tzinfo=UTC)))
    text = comparison_to_markdown(found, "t")
    for shown in (page, text):
        assert str(tmp_path) not in shown
        assert all(label in shown for label in found.labels)
    assert "- before: may/a.jsonl, 30 rows" in text
    assert [note for note in theme_notes(found) if note.startswith("june/a.jsonl: 1 row could not be read")]


def test_headings_are_compared(tmp_path: Path) -> None:
    """A row with two of its themes counts once; a theme that became a heading is no theme any more."""

    def row(number: int, *labels: str) -> dict[str, Any]:
        text = f"text {number}"
        return {"id": number, "text": text, "sentiment": "negative", "issues": None, "themes": [*labels] or ["none"]}

    old = [row(n, "Service") for n in range(10)] + [row(n) for n in range(10, 100)]
    new = [row(n, "Phone", "Letters") for n in range(40)] + [row(n, "Phone") for n in range(40, 50)]
    new += [row(n, "Nice") for n in range(50, 100)]
    paths = write_rows(tmp_path / "old.jsonl", old), write_rows(tmp_path / "new.jsonl", new)
    themes = [
        Theme("Phone", "d", "complaint", parent="Service"),
        Theme("Letters", "d", "complaint", parent="Service"),
        Theme("Nice", "d", "praise", parent="People"),
    ]
    with ExitStack() as stack:
        found = compare(*(stack.enter_context(open_results(str(path))) for path in paths), themes=themes)
    headings = {change.name: (change.old, change.new, change.verdict, change.good) for change in found.of("parent")}
    assert headings == {"Service": (10, 50, "up", False), "People": (0, 50, "new", True)}
    assert {change.name for change in found.of("theme")} == {"Phone", "Letters", "Nice"}
    assert [name for name, _ in found.sections()][-3:] == ["headings", "complaints", "praise"]
    assert "| headings | old | new |" in comparison_to_markdown(found, "t")


def test_a_comparison_page_has_every_figure_and_no_path(tmp_path: Path) -> None:
    """What holds comes first; the folder of the files is nowhere, and there is no script."""
    old = judged(600, SHARES, CHANCES, 1)
    new = judged(600, {"negative": 0.55, "mixed": 0.15, "positive": 0.3}, CHANCES, 2)
    found = compared(tmp_path, old, new)
    page = "".join(
        comparison_to_html(found, title="Week <48>", brand="Acme & Co", written=datetime(2026, 11, 28, tzinfo=UTC))
    )
    for text in ("Week &lt;48&gt;", "Acme &amp; Co", "old.jsonl", "Worse", html.escape(held_sentence(found))):
        assert text in page
    assert page.index("Worse") < page.index('id="section-1"')
    for change in found.changes:
        assert points(change) in page
    assert str(tmp_path) not in page
    assert "<script" not in page


def test_a_note_says_that_kinds_of_themes_were_guessed(tmp_path: Path) -> None:
    """Once, where no themes file has them; with a file there is none."""
    rows = result_rows(60, themed=True)
    found = [note for note in theme_notes(compared(tmp_path, rows, rows)) if "kinds" in note]
    assert len(found) == 1
    assert "mostly positive count as praise, the others as complaints" in found[0]
    names = {name for row in rows for name in row["themes"] or ()}
    themes = [Theme(name, "d", kind="complaint") for name in names]
    with ExitStack() as stack:
        files = [stack.enter_context(open_results(str(tmp_path / f"{name}.jsonl"))) for name in ("old", "new")]
        assert not [note for note in theme_notes(compare(*files, themes=themes)) if "kinds" in note]


def test_the_notes_of_a_page_are_sentences(tmp_path: Path) -> None:
    """With a capital and a full stop; a note about a file begins with its name."""
    rows = result_rows(60, themed=True)
    comparison = compared(tmp_path, rows, [*rows, {"id": "x"}])
    page = "".join(comparison_to_html(comparison, title="t", written=datetime(2026, 1, 1, tzinfo=UTC)))
    notes = re.findall(r'<p class="note">(.*?)</p>', page)
    assert any(note.startswith("Most rows are in both files") and note.endswith(".") for note in notes)
    assert all(note[0].isupper() or note.startswith(("old.jsonl:", "new.jsonl:")) for note in notes)
    assert "docs/" not in "".join(notes)
