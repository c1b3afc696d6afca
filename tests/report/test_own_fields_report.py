"""Reports and comparisons of own fields: counts, charts and filters of choices, mean and distribution of numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inprocess import run_in_process
from mellea_cli.io.journal import Journal
from mellea_cli.report.aggregate import Aggregator
from mellea_cli.report.figures import FieldFigures, Figures
from mellea_cli.report.results import OWN_FIELDS, open_results
from rowfiles import write_rows

COLUMNS = [
    ["team", "category", ""],
    ["topics", "categories", " | "],
    ["refund", "bool", ""],
    ["stars", "int", ""],
    ["price", "number", ""],
    ["product", "text", ""],
    ["said", "quote", ""],
]
ROWS: list[dict[str, Any]] = [
    {
        "id": number,
        "text": f"Text {number}.",
        "team": ("billing", "delivery", "delivery")[number % 3],
        "topics": [["price"], ["price", "speed"], []][number % 3],
        "refund": number % 2 == 0,
        "stars": number % 5 + 1,
        "price": number * 1.5,
        "product": None if number == 0 else "pump" if number % 2 else f"thing {number}",
        "said": f"Text {number}",
    }
    for number in range(30)
]


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """An output with own fields only, and its journal."""
    write_rows(path, rows)
    journal = Journal.open(Path(f"{path}.journal"))
    journal.note_facts({OWN_FIELDS: json.dumps(COLUMNS)})
    journal.close()
    return path


def test_a_field_that_had_to_be_renamed_is_still_the_run_s(tmp_path: Path) -> None:
    """From a pipe the input's columns are not known before, so a field may have the name of one of them."""
    rows = [{"id": n, "text": f"Text {n}.", "team": "north", "mellea_team": "billing"} for n in range(3)]
    team = figures_of(written(tmp_path / "r.jsonl", rows)).fields[0]
    assert (team.name, team.values) == ("team", [("billing", 3)])


def figures_of(path: Path) -> Figures:
    """The figures of an output."""
    aggregator = Aggregator()
    with open_results(str(path)) as results:
        for record in results:
            aggregator.add(record)
        return aggregator.figures(results)


def test_the_figures_of_each_type(tmp_path: Path) -> None:
    """Choices by frequency, several in a row each; numbers in their order or in round ranges; texts that repeat."""
    figures = figures_of(written(tmp_path / "out.jsonl"))
    assert (figures.answered, figures.judged) == (30, False)
    fields = {field.name: field for field in figures.fields}
    assert fields["team"].values == [("delivery", 20), ("billing", 10)]
    assert fields["topics"].values == [("price", 20), ("speed", 10)]
    assert fields["topics"].empty == 10
    assert fields["refund"].values == [("false", 15), ("true", 15)]
    assert fields["stars"].values == [(str(stars), 6) for stars in range(1, 6)]
    assert fields["stars"].summary() == "mean 3, from 1 to 5"
    assert fields["price"].values[0] == ("0 to 5", 4)
    assert sum(rows for _, rows in fields["price"].values) == 30
    assert fields["product"].values[0] == ("pump", 15)
    assert (fields["product"].empty, fields["product"].other_values) == (1, 3)
    assert (fields["said"].has_chart, fields["said"].summary()) == (False, "30 different values")


def test_without_a_journal_own_fields_are_columns_like_others(tmp_path: Path) -> None:
    """The output of summarise with a lost journal is still reported; one with own fields only is refused."""
    path = written(tmp_path / "out.jsonl", [{**row, "sentiment": "positive"} for row in ROWS])
    Path(f"{path}.journal").unlink()
    assert figures_of(path).fields == []
    with pytest.raises(Exception, match="no column 'sentiment'"):
        figures_of(write_rows(tmp_path / "other.jsonl", ROWS))


@pytest.mark.parametrize("suffix", ["txt", "md", "html", "json"])
def test_every_form_of_a_report_shows_them(tmp_path: Path, suffix: str) -> None:
    """Without a sentiment there is no chart of it; --by splits by an own field."""
    written(tmp_path / "out.jsonl")
    done = run_in_process(["report", "out.jsonl", "--by", "team", "-o", f"r.{suffix}"], tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / f"r.{suffix}").read_text()
    for part in ("billing", "delivery", "speed", "pump", "5 to 10"):
        assert part in text
    if suffix == "json":
        found = json.loads(text)["fields"]
        assert [field["name"] for field in found] == [name for name, _, _ in COLUMNS]
        return
    assert "mean 3, from 1 to 5" in text
    assert "high urgency" not in text.lower()
    if suffix == "html":
        assert 'data-filter="field team" data-value="billing"' in text
        assert '"fields":[{"name":"team","values":["delivery","billing"]}' in text


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("number", [1.0], "mean 1.00, from 1.00 to 1.00"),
        ("number", [0.25, 0.875], "mean 0.56, from 0.25 to 0.88"),
        ("number", [0.001, 0.003], "mean 0.002, from 0.001 to 0.003"),
        ("number", [0.5, 2.5], "mean 1.5, from 0.5 to 2.5"),
        ("int", [1, 1], "mean 1, from 1 to 1"),
    ],
)
def test_shares_have_two_decimals(kind: str, values: list[float], said: str) -> None:
    """Numbers from 0 to 1, such as a confidence; very small ones and others keep their digits."""
    counts = [(str(value), 1) for value in values]
    mean = sum(values) / len(values)
    assert FieldFigures("f", kind, len(values), 0, counts, 0, mean, min(values), max(values)).summary() == said


def test_two_outputs_are_compared(tmp_path: Path) -> None:
    """Choices as groups of their own, numbers by their means."""
    written(tmp_path / "old.jsonl")
    changed = [{**row, "team": "billing", "stars": 5} for row in ROWS]
    written(tmp_path / "new.jsonl", changed)
    done = run_in_process(["compare", "old.jsonl", "new.jsonl"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "team       billing   10 → 30  33 % → 100 %  +66.7 points (45.5 to 80.8)    up\n" in done.stdout
    assert "delivery  20 →  0  67 % → 0 %    -66.7 points (-80.8 to -45.5)  gone\n" in done.stdout
    assert "stars: mean 3, from 1 to 5; now mean 5, from 5 to 5" in done.stdout
    assert "sentiment" not in done.stdout
    told = run_in_process(["compare", "old.jsonl", "new.jsonl", "--format", "md"], tmp_path).stdout
    assert "| team | old | new | share | change | beyond chance |" in told


def test_types_survive_a_table_and_themes(tmp_path: Path) -> None:
    """A run writes them down; a CSV output has the same figures as a JSONL one."""
    fields = ["--field", "stars(int): stars", "--category", "topics[]=price,speed", "--category", "team=a,b"]
    write_rows(tmp_path / "in.jsonl", [{"text": f"Text {number} is bad."} for number in range(12)])
    found: list[list[FieldFigures]] = []
    for suffix in ("jsonl", "csv", "tsv", "json"):
        command = ["summarise", "in.jsonl", "-o", f"out.{suffix}", "-b", "scripted", *fields]
        assert run_in_process(command, tmp_path).returncode == 0
        found.append(list(figures_of(tmp_path / f"out.{suffix}").fields))
    assert [field.name for field in found[0]] == ["stars", "topics", "team"]
    assert found.count(found[0]) == 4
    themed = ["themes", "out.csv", "-o", "themes.csv", "-b", "scripted", "--themes-file", "t.toml"]
    (tmp_path / "t.toml").write_text('[[theme]]\nname = "Bad"\ndefinition = "It is bad."\nkind = "complaint"\n')
    done = run_in_process(themed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(figures_of(tmp_path / "themes.csv").fields) == found[0]


def test_rows_without_complaint_and_praise_have_no_themes_to_find(tmp_path: Path) -> None:
    """The report does not name a command that could only fail."""
    written(tmp_path / "out.jsonl")
    told = run_in_process(["report", "out.jsonl"], tmp_path).stdout
    assert "mellea themes" not in told
    assert "mellea report out.jsonl -o report.html" in told
    assert run_in_process(["report", "out.jsonl", "-o", "r.html"], tmp_path).returncode == 0
    assert 'id="themes"' not in (tmp_path / "r.html").read_text()
