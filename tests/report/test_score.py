"""A score column: its figures and impacts equal those of pandas on the same rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas
import pytest

from mellea_cli.errors import InputError
from mellea_cli.report.aggregate import ReportOptions
from mellea_cli.report.comparison import compare, theme_notes
from mellea_cli.report.figures import Figures
from mellea_cli.report.results import open_results
from mellea_cli.report.score import ScoreFigures, ScoreKind, recognised_kind, score_change
from resultrows import figures_of
from rowfiles import write_rows

THEMES = ("Billing", "Staff", "Price")


def scored_rows(count: int = 400, seed: int = 3) -> list[dict[str, Any]]:
    """Rows in which billing costs points and staff brings some; some rows have no score, some no text."""
    draw = random.Random(seed)  # noqa: S311 - made-up rows
    rows = []
    for number in range(count):
        themes = [name for name in THEMES if draw.random() < 0.3]
        nps = round(draw.gauss(8, 2)) - 3 * ("Billing" in themes) + ("Staff" in themes)
        row: dict[str, Any] = {"id": number, "text": f"text {number}", "sentiment": "mixed", "issues": None}
        row |= {"themes": themes or ["none"], "channel": draw.choice(("web", "shop"))}
        row |= {"nps": max(0, min(10, nps)), "csat": draw.choice((1, 2, 3, 4, 4, 5, 5)), "stars": draw.uniform(1, 5)}
        row["stars"] = round(row["stars"], 1)
        if number % 17 == 0:
            row |= {"nps": None, "csat": "", "stars": None}
        if number % 23 == 0:
            row |= {"text": "", "sentiment": None}
        rows.append(row)
    return rows


def score_of(folder: Path, rows: list[dict[str, Any]], kind: ScoreKind, **more: Any) -> ScoreFigures:
    found = figures_of(folder, rows, ReportOptions(by=("channel",), score=(kind, more.get("column", kind)))).score
    assert found is not None
    return found


def by_pandas(scores: pandas.Series, kind: ScoreKind) -> float:
    scores = scores.dropna()
    if kind == "nps":
        return float(100 * ((scores >= 9).mean() - (scores <= 6).mean()))
    return float(100 * (scores >= 4).mean()) if kind == "csat" else float(scores.mean())


@pytest.mark.parametrize("kind", ["nps", "csat", "stars"])
def test_score_and_impacts_are_those_of_pandas(tmp_path: Path, kind: ScoreKind) -> None:
    """The impact is the score of all rows minus the score without the group's, for themes and values of a column."""
    rows = scored_rows()
    table = pandas.DataFrame(rows)
    table[kind] = pandas.to_numeric(table[kind])
    found = score_of(tmp_path, rows, kind)
    everything = by_pandas(table[kind], kind)
    assert found.value == pytest.approx(everything)
    assert (found.rows, found.missing) == (table[kind].notna().sum(), table[kind].isna().sum())
    expected = {
        ("theme", name): everything
        - by_pandas(table[kind][~table["themes"].map(lambda names, name=name: name in names)], kind)
        for name in THEMES
    }
    for name in ("web", "shop"):
        expected["channel", name] = everything - by_pandas(table[kind][table["channel"] != name], kind)
    assert {(one.group, one.name): one.impact for one in found.impacts} == pytest.approx(expected)
    assert [one.impact for one in found.impacts] == sorted(one.impact for one in found.impacts)


def test_only_impacts_beyond_chance_hold(tmp_path: Path) -> None:
    """Billing costs points for certain, the channel means nothing."""
    impacts = {one.name: one for one in score_of(tmp_path, scored_rows(), "nps").impacts}
    assert impacts["Billing"].holds
    assert impacts["Billing"].high < 0
    assert impacts["Staff"].impact > 0
    assert not impacts["web"].holds
    assert impacts["web"].low < 0 < impacts["web"].high


def test_the_error_of_an_impact_is_that_of_a_bootstrap(tmp_path: Path) -> None:
    """The linearised interval is as wide as the spread of impacts over rows drawn again."""
    rows = scored_rows()
    billing = next(one for one in score_of(tmp_path, rows, "nps").impacts if one.name == "Billing")
    table = pandas.DataFrame([row for row in rows if row["nps"] is not None])
    table["in"] = table["themes"].map(lambda names: "Billing" in names)
    impacts = []
    for seed in range(400):
        drawn = table.sample(len(table), replace=True, random_state=seed)
        impacts.append(by_pandas(drawn["nps"], "nps") - by_pandas(drawn["nps"][~drawn["in"]], "nps"))
    assert (billing.high - billing.low) / 3.92 == pytest.approx(pandas.Series(impacts).std(), rel=0.12)


def test_an_nps_of_few_rows_that_agree_is_not_certain(tmp_path: Path) -> None:
    """Five promoters have an NPS of 100 with an interval, unless they are all rows that there are."""
    rows = [row | {"nps": 10} for row in scored_rows(5)]
    found = score_of(tmp_path, rows, "nps")
    assert found.value == found.high == 100
    assert found.low < 75


@pytest.mark.parametrize(
    ("stars", "ends"),
    [([1, 2, 5], (1, 5)), ([0.5, 1, 5], (0, 5)), ([1, 2, 9], (0, 10)), ([1, 2, 80], (0, 100))],
)
def test_the_interval_of_few_stars_ends_with_the_scale(
    tmp_path: Path, stars: list[float], ends: tuple[float, float]
) -> None:
    """And its standard error stays that of Student's t, so a comparison is not too sure."""
    rows = [row | {"stars": value} for row, value in zip(scored_rows(3), stars, strict=True)]
    found = score_of(tmp_path, rows, "stars")
    assert (found.low, found.high) == ends
    spread = 4.303 * pandas.Series(stars).std() / 3**0.5
    assert found.standard_error == pytest.approx(spread / 1.96, rel=1e-3)
    assert found.sentence().endswith("3 rows with a score")
    assert score_of(tmp_path, rows[:1], "stars").sentence().endswith(", 1 row with a score")


@pytest.mark.parametrize(("highest", "satisfied"), [(5, 2), (7, 2), (10, 2)])
def test_satisfied_are_the_two_highest_values_of_the_scale(tmp_path: Path, highest: int, satisfied: int) -> None:
    """The scale is the smallest usual one with all values."""
    rows = [row | {"csat": number} for number, row in enumerate(scored_rows(highest), 1)]
    found = score_of(tmp_path, rows, "csat")
    assert found.value == pytest.approx(100 * satisfied / highest)
    assert found.parts[0][1] == satisfied
    assert 0 <= found.low < found.value < found.high <= 100


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("NPS", "nps"),
        ("nps_score", "nps"),
        ("Likelihood to recommend", "nps"),
        ("CSAT", "csat"),
        ("Star rating", "stars"),
    ],
)
def test_a_column_is_recognised_by_its_name(tmp_path: Path, column: str, kind: ScoreKind) -> None:
    """Case, spaces and underscores do not matter; without a flag it is the score of the report."""
    assert recognised_kind(column) == kind
    rows = [
        {name: value for name, value in row.items() if name not in ("nps", "csat", "stars")} for row in scored_rows(30)
    ]
    found = figures_of(tmp_path, [row | {column: 5} for row in rows]).score
    assert found is not None
    assert (found.kind, found.column) == (kind, column)
    assert figures_of(tmp_path, rows).score is None


def test_values_off_the_scale_are_counted_and_said(tmp_path: Path) -> None:
    """A word, a fraction, a truth value and an 11 are no NPS; a column without any score is refused."""
    rows = scored_rows(40)
    for row, value in zip(rows[1:], ("ten", 7.5, True, 11, "9", "9,0"), strict=False):
        row["nps"] = value
    figures = figures_of(tmp_path, rows, ReportOptions(score=("nps", "nps")))
    assert figures.score is not None
    assert figures.score.unreadable == 4
    assert "nps: 4 values not read as a score" in figures.notes
    with pytest.raises(InputError, match="no value of 'channel' is a score"):
        figures_of(tmp_path, rows, ReportOptions(score=("nps", "channel")))
    with pytest.raises(InputError, match="no column 'npss'") as error:
        figures_of(tmp_path, rows, ReportOptions(score=("nps", "npss")))
    assert "--score nps 'nps'" in error.value.hint


def test_two_scores_of_a_kind_are_compared(tmp_path: Path) -> None:
    """The interval of the difference holds both uncertainties; another kind cannot be compared."""
    old, new = (score_of(tmp_path, scored_rows(seed=seed), "nps") for seed in (3, 4))
    found = score_change(old, new)
    assert found is not None
    assert found.change == pytest.approx(new.value - old.value)
    assert found.high - found.low > new.high - new.low
    assert found.low < 0 < found.high
    assert score_change(old, score_of(tmp_path, scored_rows(), "stars")) is None
    assert score_change(old, None) is None


def test_satisfaction_on_two_scales_is_not_compared(tmp_path: Path) -> None:
    """A 5 is the best value of one scale and not of the other, so a difference would say nothing."""
    old, new = (
        [row | {"csat": 1 + number % highest} for number, row in enumerate(scored_rows(70))] for highest in (5, 7)
    )
    with (
        open_results(str(write_rows(tmp_path / "old.jsonl", old))) as before,
        open_results(str(write_rows(tmp_path / "new.jsonl", new))) as after,
    ):
        comparison = compare(before, after, score=("csat", "csat"))
    assert comparison.score is None
    (note,) = [note for note in theme_notes(comparison) if "CSAT" in note]
    assert "satisfied (4 or 5 of 5)" in note
    assert "satisfied (6 or 7 of 7)" in note


def test_the_json_of_a_report_has_score_and_impacts(tmp_path: Path) -> None:
    """With all figures under their names."""
    from mellea_cli.report.figures import figures_to_json

    figures: Figures = figures_of(tmp_path, scored_rows())
    told = json.loads(figures_to_json(figures))["score"]
    assert (told["kind"], told["column"], told["rows"]) == ("nps", "nps", 376)
    assert {"group", "name", "rows", "score", "impact", "low", "high", "holds"} == set(told["impacts"][0])
