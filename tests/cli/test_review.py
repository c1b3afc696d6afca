"""`mellea review` and `mellea evaluate` as their users have them, and corrections in runs, reports and prompts."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mellea_cli.io.corrections import (
    Correction,
    Corrections,
    CorrectionsFile,
    corrections_path,
    read_lines,
    sample_rank,
)
from rowfiles import Run, read_rows, write_rows

LABELS = ("positive", "negative", "mixed")


def _row(number: int) -> dict[str, Any]:
    label = LABELS[number % 3]
    issues = {
        "main_complaint": None if label == "positive" else "late",
        "positive_aspect": None if label == "negative" else "kind staff",
        "urgency": "low",
    }
    more = {"channel": "web" if number % 2 else "mail", "confidence": round(number / 40, 3)}
    return {
        "id": number,
        "text": f"Text {number}.",
        "summary": f"S{number}.",
        "sentiment": label,
        "issues": issues,
        **more,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Forty answered rows with a confidence."""
    return write_rows(tmp_path / "out.jsonl", [_row(number) for number in range(1, 41)])


def _said(number: int, person: Any, field: str = "sentiment", **more: Any) -> Correction:
    model = _row(number)
    value = model[field] if field in model else model["issues"][field]
    return Correction(str(number), f"Text {number}.", field, value, person, more.pop("who", "eva"), seed=1, **more)


def test_a_review_needs_a_terminal(mellea: Run, results: Path) -> None:
    """One clear line, what to type, exit 2, and nothing is written."""
    done = mellea("review", str(results))
    assert done.returncode == 2
    assert "mellea review needs a terminal" in done.stderr
    assert f"mellea review {results} --html review.html" in done.stderr
    assert not corrections_path(results).exists()


def _facts(page: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    text = page.read_text(encoding="utf-8")
    parts = [text.split(f'id="{name}">')[1].split("</script>")[0] for name in ("facts", "data")]
    return json.loads(parts[0]), json.loads(parts[1])


def test_the_page_keeps_the_samples_apart(mellea: Run, results: Path, tmp_path: Path) -> None:
    """Random rows first, then the least confident others below the limit; the seed stands with each random row."""
    done = mellea(
        "review", str(results), "--html", "r.html", "-n", "10", "--doubtful", "4", "--seed", "5", "--who", "eva"
    )
    assert done.returncode == 0, done.stderr
    facts, rows = _facts(tmp_path / "r.html")
    assert [row["sample"] for row in rows] == ["random"] * 10 + ["doubtful"] * 4
    assert {row["seed"] for row in rows} == {5, None}
    drawn = {row["item"] for row in rows[:10]}
    wanted = [str(n) for n in range(1, 24) if str(n) not in drawn][:4]
    assert [row["item"] for row in rows[10:]] == wanted
    assert [field["name"] for field in facts["fields"]] == [
        "sentiment",
        "urgency",
        "main_complaint",
        "positive_aspect",
        "summary",
    ]
    assert facts["fields"][0]["choices"] == ["positive", "negative", "mixed"]
    assert f"mellea review {results} --import" in done.stderr


def test_the_same_seed_goes_on(mellea: Run, results: Path, tmp_path: Path) -> None:
    """Judged rows are not shown again, the seed is that of the file, and a larger sample contains the smaller one."""
    flags = ("--html", "r.html", "--doubtful", "0", "--fields", "sentiment", "--who", "eva")
    mellea("review", str(results), "-n", "10", "--seed", "5", *flags)
    first = [row["item"] for row in _facts(tmp_path / "r.html")[1]]
    judged = [Correction(item, f"Text {item}.", "sentiment", "x", "mixed", "eva", seed=5) for item in first[:6]]
    CorrectionsFile(corrections_path(results)).add(judged)
    mellea("review", str(results), "-n", "14", *flags)
    rest = [row["item"] for row in _facts(tmp_path / "r.html")[1]]
    assert len(rest) == 8
    assert rest[:4] == first[6:]
    mellea("review", str(results), "-n", "14", *flags[:-1], "ben")
    assert len(_facts(tmp_path / "r.html")[1]) == 14


def test_a_doubtful_row_that_is_drawn_later_is_not_asked_again(mellea: Run, results: Path, tmp_path: Path) -> None:
    """Its judgement counts for the random sample from then on."""
    CorrectionsFile(corrections_path(results)).add([_said(n, "mixed", sample="doubtful") for n in range(1, 41)])
    done = mellea("review", str(results), "-n", "40", "--fields", "sentiment", "--who", "eva", "--html", "r.html")
    assert "nothing to judge: 40 rows are judged already" in done.stderr
    assert {one.sample for one in Corrections(read_lines(corrections_path(results)))} == {"random"}
    assert not (tmp_path / "r.html").exists()


def test_judgements_are_imported_once(mellea: Run, results: Path, tmp_path: Path) -> None:
    """A second import adds nothing; a bad line is named and nothing is taken."""
    file = tmp_path / "saved.jsonl"
    CorrectionsFile(file).add([_said(1, "mixed", when="a"), _said(2, "mixed", when="a")])
    assert "2 judgements added" in mellea("review", str(results), "--import", str(file)).stderr
    again = mellea("review", str(results), "--import", str(file)).stderr
    assert "0 judgements added; 2 were there already" in again
    file.write_text("{}\n", encoding="utf-8")
    done = mellea("review", str(results), "--import", str(file))
    assert (done.returncode, f"{file}:1: is no correction" in done.stderr) == (2, True)
    assert len(read_lines(corrections_path(results))) == 2


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--fields", "sentimnt"), "did you mean 'sentiment'?"),
        (("--html", "out.jsonl"), "is the output and the page at once"),
    ],
)
def test_flags_that_do_not_fit(mellea: Run, results: Path, flags: tuple[str, ...], why: str) -> None:
    """Say what to type; exit 2."""
    more = () if "--html" in flags else ("--html", "r.html")
    done = mellea("review", str(results), *flags, *more)
    assert done.returncode == 2
    assert why in done.stderr


def test_without_a_confidence_only_the_random_sample_is_there(mellea: Run, tmp_path: Path) -> None:
    """The user is told."""
    rows = [{name: value for name, value in _row(n).items() if name != "confidence"} for n in range(1, 9)]
    path = write_rows(tmp_path / "plain.jsonl", rows)
    done = mellea("review", str(path), "--html", "r.html", "-n", "3")
    assert "no column confidence" in done.stderr
    assert len(_facts(tmp_path / "r.html")[1]) == 3


def test_corrections_win_in_runs_and_reports(mellea: Run, tmp_path: Path) -> None:
    """In the output of the next run, also nested and in a table; without the file the model's values are back."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"Text {n}."} for n in (1, 2, 3)])
    for name in ("out.jsonl", "out.csv"):
        run = ("summarise", str(source), "-o", name, "-b", "scripted", "-q")
        assert mellea(*run).returncode == 0
        before = (tmp_path / name).read_text(encoding="utf-8")
        facts = {"text": "Text 2.", "model": "low", "person": "high", "who": "eva"}
        CorrectionsFile(corrections_path(tmp_path / name)).add(
            [
                Correction("2", field="urgency", **facts),
                Correction("2", "Text 2.", "sentiment", "positive", "mixed", "eva"),
                Correction("3", "Another text.", "sentiment", "positive", "mixed", "eva"),
            ]
        )
        assert "mixed 1" in _sentiments(mellea, name)
        assert mellea(*run).returncode == 0
        after = (tmp_path / name).read_text(encoding="utf-8")
        assert after.count("mixed") == after.count("high") == 1
        assert "mixed 1" in _sentiments(mellea, name)
        corrections_path(tmp_path / name).unlink()
        assert mellea(*run).returncode == 0
        assert (tmp_path / name).read_text(encoding="utf-8") == before


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_corrections_are_shown_and_selected_before_the_next_run(suffix: str, mellea: Run, tmp_path: Path) -> None:
    """In show, export and --where, as the next run writes them; rows are told apart by their ids."""
    field = ("--field", "tags(list): the tags", "-b", "scripted", "-q")
    write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"Text {n}."} for n in (7, 8, 9)])
    output = f"out.{suffix}"
    assert mellea("summarise", "in.jsonl", "-o", output, *field).returncode == 0
    said = {"sentiment": "mixed", "urgency": "high", "main_complaint": None, "tags": ["a", "b"]}
    judged = [Correction("8", "Text 8.", name, "x", value, "eva") for name, value in said.items()]
    CorrectionsFile(corrections_path(tmp_path / output)).add(judged)
    where = ("--where", 'urgency == "high" and sentiment == "mixed"')
    shown = json.loads(mellea("show", output, *where, "--json", "id,sentiment,main_complaint").stdout)
    assert [(int(row["id"]), row["sentiment"], row["main_complaint"] or None) for row in shown] == [(8, "mixed", None)]
    assert json.loads(mellea("report", output, *where, "--json").stdout)["rows"] == 1
    assert json.loads(mellea("report", output, "--where", 'urgency == "low"', "--json").stdout)["rows"] == 2
    assert mellea("export", output, "-o", f"copy.{suffix}").returncode == 0
    assert mellea("summarise", "in.jsonl", "-o", output, *field).returncode == 0
    assert (tmp_path / f"copy.{suffix}").read_text() == (tmp_path / output).read_text()


def _sentiments(mellea: Run, name: str) -> list[str]:
    told = json.loads(mellea("report", name, "--format", "json").stdout)
    return [f"{value} {count}" for value, count in told["mix"]["sentiment"].items()]


def test_compare_uses_corrections(mellea: Run, results: Path, tmp_path: Path) -> None:
    """The corrected side has the person's label."""
    old = write_rows(tmp_path / "old.jsonl", [_row(n) for n in range(1, 41)])
    CorrectionsFile(corrections_path(results)).add([_said(3, "negative")])
    told = json.loads(mellea("compare", str(old), str(results), "--format", "json").stdout)
    moved = {one["name"]: one["new"] - one["old"] for one in told["changes"] if one["group"] == "sentiment"}
    assert moved == {"negative": 1, "mixed": 0, "positive": -1}


def test_edits_are_adopted(mellea: Run, tmp_path: Path) -> None:
    """With --adopt-edits an edited cell becomes a correction with the model's value, typed as its field is."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"Text {n}."} for n in (1, 2, 3)])
    run = ("summarise", str(source), "-o", "out.csv", "-b", "scripted", "--field", "refund(bool): a refund", "-q")
    assert mellea(*run).returncode == 0
    output = tmp_path / "out.csv"
    text = output.read_text(encoding="utf-8")
    lines = text.splitlines()
    cells = lines[2].split(",")
    at = lines[0].split(",").index("urgency")
    refund = lines[0].split(",").index("refund")
    model = cells[refund]
    cells[at], cells[refund] = "high", "true" if model == "false" else "false"
    output.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n", encoding="utf-8")
    assert mellea(*run).returncode == 0
    assert not corrections_path(output).exists()
    assert "2 edits adopted into out.csv.corrections.jsonl\n" in mellea(*run[:-1], "--adopt-edits").stderr
    found = {one.field: (one.item, one.model, one.person, one.sample) for one in read_lines(corrections_path(output))}
    assert found == {
        "urgency": ("2", "low", "high", "edited"),
        "refund": ("2", model == "true", model != "true", "edited"),
    }
    assert output.read_text(encoding="utf-8").splitlines()[2] == ",".join(cells)


@pytest.mark.parametrize("ids", [True, False])
def test_an_adopted_edit_stays_the_edit_of_one_row(ids: bool, mellea: Run, tmp_path: Path) -> None:
    """With ids only the edited row of two with one text has it; without them it is still found by its text."""
    rows = [{"id": n, "text": text} for n, text in ((1, "Late again."), (2, "Late again."), (3, "Fine."))]
    rows = [row if ids else {"text": row["text"]} for row in rows]
    run = ("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "scripted", "-q")
    write_rows(tmp_path / "in.jsonl", rows)
    mellea(*run)
    output = tmp_path / "out.jsonl"
    found = read_rows(output)
    write_rows(output, [found[0], found[1] | {"sentiment": "mixed"}, found[2]])
    assert mellea(*run, "--adopt-edits").returncode == 0
    write_rows(tmp_path / "in.jsonl", rows[::-1])
    assert mellea(*run).returncode == 0
    labels = [row["sentiment"] == "mixed" for row in read_rows(output)]
    assert labels == [False, True, not ids]
    told = json.loads(mellea("report", str(output), "--format", "json").stdout)
    assert told["mix"]["sentiment"]["mixed"] == sum(labels)


def test_an_edit_after_a_correction_is_the_newer_one(mellea: Run, tmp_path: Path) -> None:
    """It joins the corrections by itself; a correction that was made of an edit wins over it."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Text 1."}])
    run = ("summarise", str(source), "-o", "out.jsonl", "-b", "scripted", "-q")
    output = tmp_path / "out.jsonl"
    file = CorrectionsFile(corrections_path(output))
    mellea(*run)
    file.add([Correction("1", "Text 1.", "sentiment", "positive", "mixed", "eva")])
    mellea(*run)
    row = read_rows(output)[0]
    write_rows(output, [row | {"sentiment": "negative"}])
    mellea(*run)
    assert [(one.person, one.sample) for one in read_lines(file.path)] == [("mixed", "random"), ("negative", "edited")]
    assert read_rows(output)[0]["sentiment"] == "negative"
    write_rows(output, [read_rows(output)[0] | {"summary": "By hand."}])
    file.add([Correction("1", "Text 1.", "summary", "By hand.", "Reviewed.", "eva")])
    mellea(*run)
    assert read_rows(output)[0]["summary"] == "Reviewed."
    assert len(read_lines(file.path)) == 3


def test_the_models_newer_values_count_in_totals(mellea: Run, tmp_path: Path) -> None:
    """A report compares a person with what the model says now, not with what it said at the review."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"Text {n}."} for n in range(1, 5)])
    run = ("summarise", str(source), "-o", "out.jsonl", "-b", "scripted", "-q")
    judged = [Correction(str(n), f"Text {n}.", "sentiment", "negative", "positive", "eva", seed=1) for n in range(1, 5)]
    CorrectionsFile(corrections_path(tmp_path / "out.jsonl")).add(judged)
    mellea(*run)
    review = json.loads(mellea("report", "out.jsonl", "--format", "json").stdout)["review"]
    assert (review["fields"][0]["reviewed"], review["fields"][0]["right"]) == (4, 4)


def test_a_bad_corrections_file_stops_a_run(mellea: Run, tmp_path: Path) -> None:
    """Before anything is sent: file, line, exit 2."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Text 1."}])
    (tmp_path / "out.jsonl.corrections.jsonl").write_text("oops\n", encoding="utf-8")
    done = mellea("summarise", str(source), "-o", "out.jsonl", "-b", "scripted", "-q")
    assert done.returncode == 2
    assert "out.jsonl.corrections.jsonl:1: is no correction" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_gold_labels_by_id(mellea: Run, results: Path, tmp_path: Path) -> None:
    """A gold file in another format, with a column of another name; what does not match is said."""
    lines = [f"{n},{_row(n)['sentiment'] if n > 4 else 'mixed'}" for n in range(1, 39)] + ["99,mixed"]
    (tmp_path / "gold.csv").write_text("\n".join(["id,label", *lines]) + "\n", encoding="utf-8")
    flags = ("evaluate", str(results), "--gold", "gold.csv", "--gold-column", "sentiment=label", "--by", "channel")
    told = json.loads(mellea(*flags, "--json").stdout)
    assert (told["rows"], told["unmatched"], told["gold_unmatched"], told["matched_by"]) == (38, 2, 1, "id")
    (field,) = told["fields"]
    assert field["right"]["number"] == 35
    assert field["right"]["low"] < 35 / 38 < field["right"]["high"]
    assert sum(one["right"]["of"] for one in field["groups"]) == 38
    shown = mellea(*flags).stdout
    for words in ("38 rows matched by id", "2 rows of the output without gold", "right", "macro F1", "channel web"):
        assert words in shown


def test_gold_that_is_not_used_is_said(mellea: Run, results: Path, tmp_path: Path) -> None:
    """A column that is neither label, text nor column of the output, and ids that are all others."""
    (tmp_path / "gold.csv").write_text("id,words,channel,label,sentiment\n1,Text 1.,web,x,mixed\n", encoding="utf-8")
    done = mellea("evaluate", str(results), "--gold", "gold.csv")
    assert (done.returncode, done.stderr) == (
        0,
        "mellea: gold.csv: not used: column label; --gold-column FIELD=label names its field\n",
    )
    (tmp_path / "gold.csv").write_text("id,sentiment\nA1,mixed\nA2,mixed\n", encoding="utf-8")
    done = mellea("evaluate", str(results), "--gold", "gold.csv")
    assert done.returncode == 2
    assert f"gold.csv: no id of it is in {results}: it has 'A1', the output has '1'" in done.stderr
    assert "--id-field COLUMN" in done.stderr


def test_a_run_over_a_reviewed_output_reads_the_corrections(mellea: Run, results: Path, tmp_path: Path) -> None:
    """The columns of the earlier run have the person's values, and --where sees them."""
    CorrectionsFile(corrections_path(results)).add([_said(3, "mixed"), _said(4, "high", "urgency")])
    flags = ("-b", "scripted", "-q", "--where", "id == 3 or issues.urgency == 'high'")
    assert mellea("summarise", str(results), "-o", "again.jsonl", *flags).returncode == 0
    found = {one["id"]: (one["sentiment"], one["issues"]["urgency"]) for one in read_rows(tmp_path / "again.jsonl")}
    assert (found[3][0], found[4][1]) == ("mixed", "high")


def test_an_input_with_a_long_name_is_read(mellea: Run, tmp_path: Path) -> None:
    """No file next to it can have corrections."""
    source = write_rows(tmp_path / f"{'x' * 240}.jsonl", [{"id": 1, "text": "Late."}])
    assert mellea("summarise", source.name, "-b", "scripted", "-q").returncode == 0
    assert mellea("show", source.name).returncode == 0


def test_themes_are_evaluated(mellea: Run, tmp_path: Path) -> None:
    """By a review and by gold labels; a row is right with exactly the person's themes, in any order."""
    labels = [["Price", "Staff"], ["Price"], ["other"], ["none"]]
    rows = [{**_row(n), "themes": labels[n % 4], "theme_quotes": {}} for n in range(8)]
    results = write_rows(tmp_path / "themes.jsonl", rows)
    said = [replace(_said(n, ["Price"]), field="themes", model=labels[n % 4]) for n in range(8)]
    CorrectionsFile(corrections_path(results)).add(said)
    (found,) = json.loads(mellea("evaluate", str(results), "--corrections", "--json").stdout)["fields"]
    assert (found["name"], found["right"]["number"], found["right"]["of"]) == ("themes", 2, 8)
    (tmp_path / "gold.csv").write_text("id,themes\n0,Staff | Price\n1,Price\n2,Staff\n3,\n", encoding="utf-8")
    (found,) = json.loads(mellea("evaluate", str(results), "--gold", "gold.csv", "--json").stdout)["fields"]
    assert (found["name"], found["right"]["number"], found["right"]["of"]) == ("themes", 2, 3)


def test_gold_labels_by_text_and_nulls(mellea: Run, results: Path, tmp_path: Path) -> None:
    """Without ids rows are matched by their text, an empty complaint is a null, and an empty label is none."""
    gold = [
        {"review": f"  Text {n}. ", "sentiment": "" if n == 1 else _row(n)["sentiment"], "main_complaint": ""}
        for n in range(1, 11)
    ]
    write_rows(tmp_path / "gold.jsonl", gold)
    told = json.loads(mellea("evaluate", str(results), "--gold", "gold.jsonl", "--json").stdout)
    assert (told["rows"], told["matched_by"]) == (10, "text")
    by_name = {one["name"]: one for one in told["fields"]}
    assert by_name["sentiment"]["rows"] == 9
    assert by_name["main_complaint"]["null_found"]["of"] == 10
    assert by_name["main_complaint"]["null_found"]["number"] == 3


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "name what is right"),
        (("--gold", "gold.csv", "--corrections"), "name what is right"),
        (("--gold", "gold.csv", "--gold-column", "sentiment"), "is no pair"),
        (("--gold", "gold.csv", "--gold-column", "sentiment=lable"), "did you mean 'label'?"),
        (("--gold", "gold.csv", "--by", "chanel", "--gold-column", "sentiment=label"), "did you mean --by 'channel'?"),
        (("--gold", "gold.csv"), "no row has a label"),
        (("--corrections",), "no row of a random sample is judged"),
    ],
)
def test_evaluations_that_cannot_be_made(
    mellea: Run, results: Path, tmp_path: Path, flags: tuple[str, ...], why: str
) -> None:
    """One line each, exit 2."""
    (tmp_path / "gold.csv").write_text("id,label\n1,mixed\n", encoding="utf-8")
    done = mellea("evaluate", str(results), *flags)
    assert done.returncode == 2
    assert why in done.stderr


def test_an_evaluation_by_the_review(mellea: Run, results: Path) -> None:
    """The random sample alone counts; two reviewers have a kappa."""
    lines = [_said(n, _row(n)["sentiment"]) for n in range(1, 19)]
    lines += [_said(n, "mixed", who="ben") for n in range(1, 10)]
    lines += [_said(n, "mixed", sample="doubtful") for n in range(30, 33)]
    CorrectionsFile(corrections_path(results)).add(lines)
    told = json.loads(mellea("evaluate", str(results), "--corrections", "--json").stdout)
    assert (told["rows"], told["others"]) == (18, 3)
    assert told["fields"][0]["right"]["number"] == 12
    (agreement,) = told["agreement"]
    assert (agreement["people"], agreement["rows"], agreement["same"]["number"]) == (["ben", "eva"], 9, 3)
    assert agreement["kappa"]["low"] <= agreement["kappa"]["value"] <= agreement["kappa"]["high"]
    shown = mellea("evaluate", str(results), "--corrections").stdout
    assert "Cohen's kappa 0.00" in shown
    assert re.search(r"person / model +negative +mixed +positive\n", shown)
    assert "3 other judged rows not counted" in shown


def test_rows_of_the_sample_that_were_never_reached_are_missing(mellea: Run, results: Path) -> None:
    """The file keeps the wanted size: a skipped row and those after the last judged one count, in both commands."""
    order = sorted(range(1, 41), key=lambda n: sample_rank(7, str(n), f"Text {n}."))
    for reached, missing in ((1, 19), (18, 2), (20, 0)):
        lines = [replace(_said(n, _row(n)["sentiment"]), seed=7, size=20) for n in order[:reached]]
        corrections_path(results).unlink(missing_ok=True)
        CorrectionsFile(corrections_path(results)).add(lines)
        review = json.loads(mellea("report", str(results), "--format", "json").stdout)["review"]
        assert (review["sampled"], review["unreviewed"]) == (reached, missing)
        told = json.loads(mellea("evaluate", str(results), "--corrections", "--json").stdout)
        assert (told["rows"], told["unreviewed"]) == (reached, missing)
        rows = "1 row" if reached == 1 else f"{reached} rows"
        assert f"{rows} of the random sample judged\n" in mellea("evaluate", str(results), "--corrections").stdout
        part = json.loads(mellea("report", str(results), "--where", "id <= 20", "--format", "json").stdout)["review"]
        assert part is None or part["unreviewed"] == 0
    # New rows join the sample by their place in the random order.
    write_rows(results, [_row(number) for number in range(1, 81)])
    grown = sorted(range(1, 81), key=lambda n: sample_rank(7, str(n), f"Text {n}."))
    review = json.loads(mellea("report", str(results), "--format", "json").stdout)["review"]
    last = max(grown.index(n) for n in order[:20])
    assert review["unreviewed"] == len(set(grown[: last + 1]) - set(order[:20])) > 0


def test_a_review_continues_with_its_size_and_its_counts(mellea: Run, results: Path, tmp_path: Path) -> None:
    """Without -n the sample keeps its size; the page names a file of its own, and its lines have the size."""
    flags = ("--html", "r.html", "--doubtful", "0", "--fields", "sentiment", "--who", "eva")
    done = mellea("review", str(results), "-n", "5", "--seed", "5", *flags)
    assert "r.html: 5 rows to judge" in done.stderr
    assert done.stderr.endswith(f"mellea review {results} --import out.jsonl.judgements.jsonl\n")
    facts, rows = _facts(tmp_path / "r.html")
    assert facts["target"] == "out.jsonl.judgements.jsonl"
    assert {row["size"] for row in rows} == {5}
    first = rows[0]["item"]
    line = replace(_said(int(first), "other"), seed=5, size=5)
    CorrectionsFile(corrections_path(results)).add([line])
    assert "r.html: 4 rows to judge" in mellea("review", str(results), *flags).stderr


def test_a_review_is_continued_by_the_same_command(
    results: Path, tmp_path: Path, mellea: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be typed next has the flags that were given, in the review and in the report."""
    flags = ("review", str(results), "-n", "5", "--fields", "sentiment", "--id-field", "id")
    refused = mellea(*flags)
    assert refused.stderr.endswith(f"mellea {' '.join(flags)} --html review.html\n")
    monkeypatch.setattr("mellea_cli.ui.terminal.can_draw", lambda *_: True)
    monkeypatch.setattr("mellea_cli.ui.full_screen.ReviewScreen.run", lambda *_: None)
    done = mellea(*flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(
        f"continue: mellea {' '.join(flags)}; corrected totals: mellea report {results} --id-field id;"
        f" corrected rows: mellea show {results}\n"
    )

    def judge_all(screen: Any) -> None:
        while screen._review.row is not None:
            screen._review.accept()

    monkeypatch.setattr("mellea_cli.ui.full_screen.ReviewScreen.run", judge_all)
    last = mellea(*flags).stderr.splitlines()[-1]
    assert last.startswith(f"mellea: corrected totals: mellea report {results}")


def test_a_runs_summary_counts_what_is_written(mellea: Run, tmp_path: Path) -> None:
    """People's values in place of the model's, by the fields of the output."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"Text {n}."} for n in (1, 2, 3)])
    run = ("summarise", str(source), "-o", "out.jsonl", "-b", "scripted", "--json")
    assert mellea(*run).returncode == 0
    facts = {"text": "Text 2.", "model": "low", "person": "high", "who": "eva"}
    CorrectionsFile(corrections_path(tmp_path / "out.jsonl")).add(
        [Correction("2", field="urgency", **facts), Correction("2", "Text 2.", "sentiment", "positive", "mixed", "eva")]
    )
    told = json.loads(mellea(*run).stderr.splitlines()[-1])["values"]
    written = read_rows(tmp_path / "out.jsonl")
    assert told["sentiment"] == Counter(row["sentiment"] for row in written)
    assert told["urgency"] == Counter(row["issues"]["urgency"] for row in written)
    assert told["sentiment"]["mixed"] == told["urgency"]["high"] == 1


def _reviewed(path: Path) -> None:
    for n in range(1, 13):
        label = LABELS[(n + (n == 3)) % 3]
        values = {
            "sentiment": label,
            "urgency": "medium",
            "main_complaint": None if label == "positive" else "late",
            "positive_aspect": None if label == "negative" else "kind staff",
            "summary": f"The customer writes {n}.",
        }
        CorrectionsFile(path).add([_said(n, value, name) for name, value in values.items()])


@pytest.mark.parametrize("pipeline", ["single", "steps"])
def test_corrected_rows_become_examples(mellea: Run, tmp_path: Path, pipeline: str) -> None:
    """The prompt shows them after the usual ones, with the person's answers; the key is another one."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Something new."}])
    _reviewed(tmp_path / "c.jsonl")
    run = ("summarise", str(source), "-o", "out.jsonl", "-b", "scripted", "-p", pipeline)
    shown = mellea(*run, "--dry-run", "--examples-from", "c.jsonl").stdout
    assert "Text 3." in shown
    assert shown.index("I was billed twice") < shown.index("Text 3.") < shown.index("Something new.")
    assert "Text 3." not in mellea(*run, "--dry-run").stdout
    assert mellea(*run, "-q").returncode == 0
    again = mellea(*run, "--examples-from", "c.jsonl")
    assert again.returncode == 2
    assert "other prompts" in again.stderr
    assert mellea(*run, "--examples-from", "c.jsonl", "--yes").returncode == 0
    assert "nothing was sent" in mellea(*run, "--examples-from", "c.jsonl").stderr


def test_examples_of_an_own_pipeline(mellea: Run, tmp_path: Path) -> None:
    """Each choice is shown, and what the field would refuse is not."""
    (tmp_path / "p.toml").write_text(
        '[fields.team]\ntype = "category"\nchoices = ["billing", "delivery"]\n', encoding="utf-8"
    )
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Something new."}])
    lines = [("Charged twice.", "delivery", "billing"), ("Late.", "delivery", "delivery"), ("Odd.", "billing", "sales")]
    CorrectionsFile(tmp_path / "c.jsonl").add(
        [Correction(text, text, "team", model, person) for text, model, person in lines]
    )
    shown = mellea("run", "p.toml", str(source), "-b", "scripted", "--dry-run", "--examples-from", "c.jsonl").stdout
    assert shown.count("[assistant]") == 2
    assert "Charged twice." in shown
    assert "Late." in shown


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([("sentiment", "mixed")], "in no row are all fields judged"),
        (
            [
                ("sentiment", "mixed"),
                ("urgency", "low"),
                ("main_complaint", None),
                ("positive_aspect", None),
                ("summary", "S."),
            ],
            "no row is complete",
        ),
        (
            [
                ("sentiment", "positive"),
                ("urgency", "low"),
                ("main_complaint", None),
                ("positive_aspect", "kind staff"),
                ("summary", "S3."),
            ],
            "the model was right in every row",
        ),
    ],
)
def test_nothing_to_show(mellea: Run, tmp_path: Path, lines: list[tuple[str, Any]], why: str) -> None:
    """Say why; exit 2."""
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Something new."}])
    CorrectionsFile(tmp_path / "c.jsonl").add([_said(3, person, field) for field, person in lines])
    done = mellea("summarise", str(source), "-b", "scripted", "--examples-from", "c.jsonl", "--dry-run")
    assert done.returncode == 2
    assert why in done.stderr
