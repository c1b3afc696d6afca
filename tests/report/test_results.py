"""Reading what a run wrote: every format, renamed columns, failed rows, and files that are something else."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mellea_cli.cli.app import app
from mellea_cli.errors import InputError
from mellea_cli.io.source import SourceOptions
from mellea_cli.report.results import Record, Sample, is_non_answer, open_results
from resultrows import figures_of, result_row, result_rows
from rowfiles import write_rows

SAMPLES = Path(__file__).parents[2] / "samples"


def read(path: Path, **options: Any) -> list[Record]:
    with open_results(str(path), SourceOptions(**options)) as results:
        return list(results)


def summarised(source: Path, output: Path) -> Path:
    command = ["summarise", str(source), "-o", str(output), "--backend", "scripted", "-m", "scripted", "--quiet"]
    assert CliRunner().invoke(app, command).exit_code == 0
    return output


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".csv.gz"])
def test_every_format_of_a_real_run_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    """What summarise writes as JSONL and in any other format is the same to a report."""
    plain = read(summarised(SAMPLES / "feedback.jsonl", tmp_path / "out.jsonl"))
    other = read(summarised(SAMPLES / "feedback.jsonl", tmp_path / f"out{suffix}"))
    assert len(plain) == 14
    assert other == plain


def test_a_row_is_answered_blank_or_failed(tmp_path: Path) -> None:
    """A sentiment is an answer, a reason is a failure, neither is a row without text."""
    rows = read(write_rows(tmp_path / "r.jsonl", result_rows(40)))
    assert [row.state for row in rows if row.number in (1, 10, 13)] == ["answered", "blank", "failed"]
    assert rows[12].error == "parse: no JSON"
    assert rows[12].error_kind == "parse"


def test_added_columns_are_found_under_their_other_names(tmp_path: Path) -> None:
    """The input's own summary, sentiment and error stay the input's; the run's come after them."""
    row = {"text": "t", "summary": "mine", "sentiment": "9", "error": "E7", "issues": "none"}
    ours = {"mellea_summary": "s", "mellea_sentiment": "mixed", "mellea_issues": {"urgency": "high"}}
    (found,) = read(write_rows(tmp_path / "r.jsonl", [row | ours]))
    assert (found.summary, found.sentiment, found.urgency, found.state) == ("s", "mixed", "high", "answered")
    assert found.rest == {"summary": "mine", "sentiment": "9", "error": "E7", "issues": "none"}


def test_the_last_of_several_candidates_is_ours(tmp_path: Path) -> None:
    """An input that brought mellea_sentiment keeps it when ours is plain sentiment behind it."""
    row = {"text": "t", "mellea_sentiment": "old", "summary": "s", "sentiment": "positive", "issues": None}
    (found,) = read(write_rows(tmp_path / "r.jsonl", [row]))
    assert found.sentiment == "positive"
    assert found.rest == {"mellea_sentiment": "old"}


def test_an_error_column_of_the_input_is_no_failure(tmp_path: Path) -> None:
    """A blank row of an input with its own column called error has not failed."""
    (found,) = read(write_rows(tmp_path / "r.jsonl", [{"text": "", "error": "E7", "summary": None, "sentiment": None}]))
    assert found.state == "blank"


def test_themes_come_as_lists_or_as_one_cell(tmp_path: Path) -> None:
    """JSON holds a list and an object, CSV a joined cell and a JSON cell; both read the same."""
    row = {"id": "1", "text": "late and kind", "summary": "s", "sentiment": "mixed"}
    inside = {"themes": ["Late", "Kind, mostly"], "theme_quotes": {"Late": "late"}}
    nested = read(write_rows(tmp_path / "r.jsonl", [row | {"issues": {"urgency": "low"}} | inside]))
    table = tmp_path / "r.csv"
    head = "id,text,summary,sentiment,main_complaint,positive_aspect,urgency,error,themes,theme_quotes\n"
    cells = '1,late and kind,s,mixed,,,low,,"Late | Kind, mostly","{""Late"": ""late""}"\n'
    table.write_text(head + cells, encoding="utf-8")
    assert read(table) == nested
    assert nested[0].themes == ("Late", "Kind, mostly")
    assert nested[0].quotes == {"Late": "late"}


def test_an_apostrophe_before_a_formula_is_taken_off(tmp_path: Path) -> None:
    """Our CSV puts it there for spreadsheets; the customer did not write it."""
    table = tmp_path / "r.csv"
    table.write_text("text,summary,sentiment\n'=1+1 is wrong,'tis fine,negative\n", encoding="utf-8")
    (found,) = read(table)
    assert (found.text, found.summary) == ("=1+1 is wrong", "'tis fine")


def test_half_a_surrogate_pair_becomes_a_replacement(tmp_path: Path) -> None:
    """What cannot be written as UTF-8 does not reach a report."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "\\ud83d", "sentiment": "mixed", "urgency": "\\udc00"}\n', encoding="utf-8")
    (found,) = read(path)
    assert found.text == "\ufffd"


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_an_empty_file_has_no_rows(tmp_path: Path, content: str) -> None:
    """Nothing in it is not an error."""
    path = tmp_path / "r.json"
    path.write_text(content, encoding="utf-8")
    assert read(path) == []


def test_a_file_without_our_columns_says_which_it_has(tmp_path: Path) -> None:
    """The error names the columns that were seen and the command that makes such a file."""
    path = write_rows(tmp_path / "feedback.jsonl", [{"id": 1, "text": "late"}])
    with pytest.raises(InputError) as caught:
        read(path)
    assert "no column 'sentiment'; columns seen: id, text" in caught.value.message
    assert f"{path}:1:" in caught.value.message
    first, _, second = caught.value.hint.partition("; ")
    assert first == f"make one first: mellea summarise {path} -o results.jsonl"
    # An output of own fields that was copied alone looks the same.
    assert second == f"the output of own fields needs its journal next to it: {path}.journal"


def test_rows_that_cannot_be_used_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    """A broken line and a row without our columns cost only themselves."""
    path = tmp_path / "r.jsonl"
    good = json.dumps(result_rows(1)[0])
    path.write_text(f'{good}\n{{"broken\n{{"text": "no answers"}}\n{good}\n', encoding="utf-8")
    with open_results(str(path)) as results:
        assert [row.number for row in results] == [1, 2]
        assert results.unreadable == 2
        assert results.bad[0].line == 2


def test_a_text_column_can_be_named(tmp_path: Path) -> None:
    """A wrong name is an error with the nearest right one."""
    path = write_rows(tmp_path / "r.jsonl", [{"Q 1": "late", "sentiment": "mixed", "summary": "s"}])
    assert read(path)[0].words == "s"
    assert read(path, text_field="q  1")[0].words == "late"
    with pytest.raises(InputError) as caught:
        read(path, text_field="q1")
    assert "did you mean --text-field 'Q 1'?" in caught.value.hint


def test_rows_of_ever_other_columns_do_not_fill_the_memory(tmp_path: Path) -> None:
    """What is found for a set of columns is remembered for a bounded number of sets."""
    rows = [{"text": f"Text {number}.", "sentiment": "mixed", f"c{number}": 1} for number in range(2_500)]
    with open_results(str(write_rows(tmp_path / "r.jsonl", rows))) as results:
        assert sum(row.sentiment == "mixed" for row in results) == 2_500
        assert len(results._known_columns) <= 1_000


def test_packed_input_is_known_by_its_bytes(tmp_path: Path) -> None:
    """A file packed with gzip under any name is read."""
    path = tmp_path / "r.data"
    path.write_bytes(gzip.compress(json.dumps(result_rows(1)[0]).encode()))
    assert read(path)[0].id == "R-1"


@pytest.mark.parametrize(
    "text",
    [
        "n/a",
        "N/A.",
        "-",
        "---",
        ".",
        "...",
        "?",
        "none",
        "None!",
        "asdf",
        "ASDFGH",
        "asdfasdf",
        "qwertz",
        "xxx",
        "k.A.",
        "x",
        "no comment",
    ],
)
def test_a_non_answer_is_a_class_of_its_own(tmp_path: Path, text: str) -> None:
    """Whatever the model said about it, it has no judgement, no theme and no part in any share."""
    row = result_row(1, themed=True) | {"text": text}
    (record,) = read(write_rows(tmp_path / "rows.jsonl", [row | {"sentiment": "negative"}]))
    assert (record.state, record.sentiment, record.urgency, record.themes) == ("non-answer", "", "", ("none",))
    assert record.text == text


@pytest.mark.parametrize(
    "text",
    [
        "👍",
        ":(",
        ":-)",
        "!!!",
        "10",
        "ok",
        "good",
        "Nothing",
        "nothing works",
        "No",
        "bad",
        "aa",
        "NaN values in my export",
        "great",
        "tree",
        "wer",
        "A+++ seller",
    ],
)
def test_a_short_answer_is_an_answer(text: str) -> None:
    """Faces, numbers, words and shouts say something."""
    assert not is_non_answer(text)


def test_non_answers_leave_the_shares(tmp_path: Path) -> None:
    """The sum names them, and no figure counts them among the answered."""
    rows = [
        result_row(1) | {"text": "fine", "sentiment": "positive"},
        result_row(2) | {"text": "n/a", "sentiment": "negative"},
    ]
    figures = figures_of(tmp_path, rows)
    assert (figures.answered, figures.non_answers, figures.mix.share("positive")) == (1, 1, 1.0)
    assert figures.reconciliation() == '2 rows = 1 answered + 1 non-answer such as "n/a"'


def test_a_sampled_run_narrows_the_intervals(tmp_path: Path) -> None:
    """The journal knows of how many rows the sample is, a run over its rows too, and a full run forgets it."""
    rows = write_rows(
        tmp_path / "in.jsonl", [{"id": number, "text": f"It is slow, case {number}."} for number in range(40)]
    )
    output = tmp_path / "out.jsonl"
    run = ["summarise", str(rows), "-o", str(output), "-b", "scripted", "-m", "scripted", "-q"]
    themes = tmp_path / "themes.toml"
    themes.write_text('[[theme]]\nname = "Speed"\ndefinition = "Slow or fast."\n')
    assert CliRunner().invoke(app, [*run, "--sample", "30"]).exit_code == 0
    with open_results(str(output)) as results:
        assert results.sample == Sample(30, 40)
    labelled = ["themes", str(output), "-o", str(tmp_path / "labelled.jsonl"), "--themes-file", str(themes), *run[4:]]
    assert CliRunner().invoke(app, labelled).exit_code == 0
    with open_results(str(tmp_path / "labelled.jsonl")) as results:
        assert results.sample == Sample(30, 40)
    assert CliRunner().invoke(app, ["report", str(output), "-o", str(tmp_path / "report.md")]).exit_code == 0
    assert "The 30 rows were drawn at random from 40." in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert CliRunner().invoke(app, [*run, "--sample", "30", "--limit", "10", "--overwrite"]).exit_code == 0
    with open_results(str(output)) as results:
        assert results.sample is None
    assert CliRunner().invoke(app, [*run, "--overwrite"]).exit_code == 0
    with open_results(str(output)) as results:
        assert results.sample is None


def test_the_interval_of_a_sample_is_about_its_input(tmp_path: Path) -> None:
    """Of all but ten rows little is open; without the sample the same rows say less."""
    figures = figures_of(tmp_path, result_rows(90))
    sampled = replace(figures, sample=Sample(90, 100))
    whole, part = (one.share(30, one.answered) for one in (figures, sampled))
    assert part.share == whole.share
    assert (part.high - part.low) < 0.5 * (whole.high - whole.low)
