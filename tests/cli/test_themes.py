"""`mellea themes`, run as its users run it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loopback import Fault, ModelServer, faults
from mellea_cli.io.files import resolve_output
from mellea_cli.io.journal import Journal
from mellea_cli.io.themes_file import read_themes, write_themes
from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.results import OWN_FIELDS
from rowfiles import Process, Run, read_rows, write_rows
from themed import KIND, LATE, RUDE, reply, row, rows

ROWS = 50
ASKED = 40
"""Rows with something to ask about: every fifth one says nothing."""
Themes = Callable[..., Process]


@pytest.fixture
def model(serve: Callable[..., ModelServer]) -> ModelServer:
    """A model that finds and labels themes by their words."""
    return serve(models=("m",), reply=reply)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Fifty summarised rows."""
    return write_rows(tmp_path / "results.jsonl", rows(ROWS))


@pytest.fixture
def themes(mellea: Run, model: ModelServer, tmp_path: Path) -> Themes:
    """Run `mellea themes results.jsonl -o themes.jsonl` with the model, and further flags."""

    def run(*flags: str, source: str = "results.jsonl", output: str = "themes.jsonl", **more: Any) -> Process:
        where = ("-m", "m", "--base-url", model.openai_url, "-b", "openai")
        return mellea("themes", source, "-o", output, *where, *flags, **more)

    return run


def figures(done: Process) -> dict[str, Any]:
    """What `--json` said about the themes."""
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["reconciled"]
    return told


def edit(path: Path, *changed: Theme) -> None:
    """Put these themes into a themes file."""
    path.unlink(missing_ok=True)
    write_themes(path, changed)


def test_rows_get_themes_that_add_up(themes: Themes, results: Path, tmp_path: Path) -> None:
    """Every column stays, each row has its themes with a quote from its text, and the figures are printed."""
    done = themes()
    assert done.returncode == 0, done.stderr
    out = read_rows(tmp_path / "themes.jsonl")
    before = read_rows(results)
    assert [{name: one[name] for name in old} for one, old in zip(out, before, strict=True)] == before
    assert list(out[0]) == [*before[0], "themes", "theme_quotes"]
    assert [one["themes"] for one in out[:5]] == [
        ["Late delivery"],
        ["Late delivery", "Rude staff"],
        ["Kind people"],
        ["other"],
        ["none"],
    ]
    assert out[1]["theme_quotes"] == {"Late delivery": "late", "Rude staff": "rude"}
    assert "rows: 30 with themes + 10 other + 10 none + 0 failed = 50 rows" in done.stderr
    assert "theme: Late delivery: 20 (40%)" in done.stderr
    assert "40 labels, 40 quotes verbatim, read back from the output" in done.stderr
    found = read_themes(tmp_path / "themes.jsonl.toml")
    assert found is not None
    assert [(theme.name, theme.kind) for theme in found] == [
        ("Late delivery", "complaint"),
        ("Rude staff", "complaint"),
        ("Kind people", "praise"),
    ]
    assert "themes.jsonl.toml" in done.stderr


def test_a_second_run_asks_nothing(themes: Themes, results: Path, model: ModelServer, tmp_path: Path) -> None:
    """Neither for themes nor for rows, and not for the themes either when their file was deleted."""
    first = figures(themes("--json"))
    asked, wrote = model.state.requests, (tmp_path / "themes.jsonl").read_bytes()
    again = figures(themes("--json"))
    assert model.state.requests == asked
    assert again == first
    written = (tmp_path / "themes.jsonl.toml").read_bytes()
    (tmp_path / "themes.jsonl.toml").unlink()
    figures(themes("--json"))
    assert model.state.requests == asked
    assert (tmp_path / "themes.jsonl.toml").read_bytes() == written
    assert (tmp_path / "themes.jsonl").read_bytes() == wrote


def test_only_new_rows_are_asked_about(themes: Themes, results: Path, model: ModelServer) -> None:
    """Next week's rows are labelled with the same themes."""
    themes()
    asked = model.state.requests
    write_rows(results, rows(ROWS + 5))
    told = figures(themes("--json"))
    assert model.state.requests == asked + 4
    assert (told["rows"], told["accounted"]) == (ROWS + 5, ROWS + 5)


def test_an_edited_file_asks_again_only_what_it_must(
    themes: Themes, results: Path, model: ModelServer, tmp_path: Path
) -> None:
    """A name: nothing. A theme less: its rows. Taken back: nothing. Another definition or one more: every row."""
    path = tmp_path / "week.toml"
    flags = ("--themes-file", str(path), "--json")

    def counted(*changed: Theme) -> tuple[int, dict[str, Any]]:
        edit(path, *changed)
        before = model.state.requests
        told = figures(themes(*flags))
        return model.state.requests - before, told

    asked, told = counted(LATE, RUDE, KIND)
    assert (asked, told["themes"]) == (ASKED, {"Late delivery": 20, "Rude staff": 10, "Kind people": 10})
    slow = Theme("Slow", LATE.definition, LATE.kind, LATE.examples)
    asked, told = counted(KIND, slow, RUDE)
    assert (asked, told["themes"]) == (0, {"Kind people": 10, "Slow": 20, "Rude staff": 10})
    assert read_rows(tmp_path / "themes.jsonl")[1]["theme_quotes"] == {"Slow": "late", "Rude staff": "rude"}
    below = replace(RUDE, parent="Service")
    assert counted(KIND, slow, below)[0] == 0
    asked, told = counted(slow, KIND)
    assert (asked, told["themes"]) == (10, {"Slow": 20, "Kind people": 10})
    asked, _ = counted(LATE, RUDE, KIND)
    assert asked == 0
    asked, _ = counted(Theme(LATE.name, "Later than said.", LATE.kind, LATE.examples), RUDE, KIND)
    assert asked == ASKED
    asked, told = counted(LATE, RUDE, KIND, Theme("Quick help", "Help came soon.", "praise"))
    assert (asked, told["themes"]["Quick help"]) == (ASKED, 0)


def test_a_killed_run_goes_on(results: Path, model: ModelServer, themes: Themes, tmp_path: Path) -> None:
    """After a kill -9 in the middle the same command asks about the other rows only, but for those in flight."""
    write_rows(results, rows(400))
    edit(tmp_path / "t.toml", LATE, RUDE, KIND)
    flags = ("-c", "4", "-q", "--themes-file", "t.toml")
    arguments = ("themes", "results.jsonl", "-o", "themes.jsonl", "-b", "openai", "-m", "m")
    process = subprocess.Popen(
        [sys.executable, "-m", "mellea_cli", *arguments, "--base-url", model.openai_url, *flags],
        cwd=tmp_path,
        env=os.environ,
        start_new_session=True,
    )
    model.wait(lambda state: state.completed >= 120, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert not (tmp_path / "themes.jsonl").exists()
    told = figures(themes("-c", "4", "--themes-file", "t.toml", "--json"))
    assert told["accounted"] == 400
    twice = sum(count - 1 for count in model.state.attempts.values())
    assert 0 <= twice <= 8
    assert set(model.state.attempts.values()) <= {1, 2}
    assert len(model.state.attempts) == 320


def test_a_kill_while_themes_are_found_loses_no_answer(
    results: Path, themes: Themes, tmp_path: Path, serve: Callable[..., ModelServer], mellea: Run
) -> None:
    """Questions of the discovery that were answered are not asked again."""

    def stall(call: Any) -> Fault | None:
        return faults.stall(0) if call.index == 4 else None

    server = serve(models=("m",), reply=reply, fault=stall)
    where = ("-m", "m", "--base-url", server.openai_url, "-b", "openai", "-c", "1", "-q")
    arguments = ["themes", "results.jsonl", "-o", "themes.jsonl", *where]
    process = subprocess.Popen(
        [sys.executable, "-m", "mellea_cli", *arguments], cwd=tmp_path, env=os.environ, start_new_session=True
    )
    server.wait(lambda state: state.requests == 5 and state.completed == 4, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert mellea(*arguments).returncode == 0
    assert sorted(server.state.attempts.values())[-2:] == [1, 2]


def test_a_failed_row_is_null_with_its_error(
    mellea: Run, results: Path, tmp_path: Path, serve: Callable[..., ModelServer]
) -> None:
    """The others are as they would be; the code says that some failed, and the figures count it."""
    server = serve(
        models=("m",), reply=reply, fault=lambda call: faults.says("{}") if "MARK-6 " in call.prompt else None
    )
    edit(tmp_path / "t.toml", LATE, RUDE, KIND)
    where = ("-m", "m", "--base-url", server.openai_url, "-b", "openai", "--themes-file", "t.toml", "--json")
    done = mellea("themes", "results.jsonl", "-o", "out.jsonl", *where)
    assert done.returncode == 3
    told = json.loads(done.stderr.splitlines()[-1])["reconciled"]
    assert (told["failed"], told["labelled"], told["accounted"]) == (1, 29, 50)
    broken = read_rows(tmp_path / "out.jsonl")[6]
    assert (broken["themes"], broken["theme_quotes"], broken["error"]["kind"]) == (None, None, "parse")


def test_rows_that_failed_before_are_labelled(themes: Themes, tmp_path: Path, model: ModelServer) -> None:
    """They have a text, and nobody knows what it says; their own error stays."""
    failed = {
        "id": 1,
        "text": "Late!! It was late.",
        "summary": None,
        "sentiment": None,
        "issues": None,
        "error": {"kind": "x"},
    }
    write_rows(tmp_path / "results.jsonl", [failed, row(2, "  ", complaint="late")])
    edit(tmp_path / "t.toml", LATE, RUDE)
    assert figures(themes("--themes-file", "t.toml", "--json"))["labelled"] == 1
    assert read_rows(tmp_path / "themes.jsonl")[0]["error"] == {"kind": "x"}
    assert model.state.requests == 1


def test_tables_in_and_out(themes: Themes, results: Path, mellea: Run, tmp_path: Path) -> None:
    """From CSV to CSV: names joined in one cell, quotes as one JSON cell; the same figures as from JSONL."""
    expected = figures(themes("--json"))
    with (tmp_path / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "sentiment", "main_complaint", "positive_aspect", "urgency", "error"])
        for one in read_rows(results):
            parts = one["issues"]
            writer.writerow([one["id"], one["text"], one["sentiment"], *map(parts.get, parts), ""])
    flags = ("--json", "--themes-file", "themes.jsonl.toml")
    told = figures(themes(*flags, source="results.csv", output="themes.csv"))
    assert {**told, "themes_file": ""} == {**expected, "themes_file": ""}
    with (tmp_path / "themes.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert sorted(cells[1]["themes"].split(" | ")) == ["Late delivery", "Rude staff"]
    assert json.loads(cells[1]["theme_quotes"]) == {"Late delivery": "late", "Rude staff": "rude"}
    assert [cells[place]["themes"] for place in (3, 4)] == ["other", "none"]


def test_nasty_rows_change_nothing_but_their_own_cells(themes: Themes, tmp_path: Path, model: ModelServer) -> None:
    """HTML, scripts, template marks, escapes and 100 kB come back letter by letter, quoted as they are."""
    texts = [
        "<script>alert('late')</script> {{7*7}} {% raw %} </feedback> [red]late[/red]",
        "late \x1b[2J\x07 \u202e\u0000 '; DROP TABLE rows; -- | , \" \n\r\n=1+1",
        "\u0130\u0130 late \U0001f600 \u4e0d\u597d " + "very late <b>" * 8_000,
        "\ud83d late",
    ]
    before = [row(number, text, complaint=f"<i>{{{{ {number} }}}}</i> late | x") for number, text in enumerate(texts)]
    plain = [row(100 + number, f"MARK-{number} It was late.", complaint="late") for number in range(3)]
    edit(tmp_path / "t.toml", LATE, RUDE)
    flags = ("--themes-file", "t.toml", "--json")
    write_rows(tmp_path / "plain.jsonl", plain)
    figures(themes(*flags, source="plain.jsonl", output="plain.out.jsonl"))
    write_rows(tmp_path / "results.jsonl", [*before, *plain])
    told = figures(themes(*flags))
    assert (told["labelled"], told["audited"]) == (7, True)
    lines = (tmp_path / "themes.jsonl").read_text(encoding="utf-8").splitlines()
    raw = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith(old[:-1] + ", ") for line, old in zip(lines, raw, strict=True))
    assert lines[4:] == (tmp_path / "plain.out.jsonl").read_text(encoding="utf-8").splitlines()
    figures(themes(*flags, output="themes.csv"))
    figures(themes(*flags, output="themes.json"))


def test_themes_can_be_found_alone(themes: Themes, results: Path, model: ModelServer, tmp_path: Path) -> None:
    """`--find-only` writes the file, shows it, and labels nothing; a path of its own may be named."""
    done = themes("--find-only", "--themes-file", "mine.toml", "--max-themes", "2")
    assert done.returncode == 0, done.stderr
    found = read_themes(tmp_path / "mine.toml")
    assert found is not None
    assert len(found) == 2
    assert re.search(
        r"to label the rows: mellea themes results.jsonl .* --themes-file mine.toml --max-themes 2\n", done.stderr
    )
    assert all(theme.name in done.stderr for theme in found)
    assert not (tmp_path / "themes.jsonl").exists()
    assert "labels" not in str(model.state.bodies[-1]["response_format"])


def test_reports_know_the_themes_file_of_the_labels(themes: Themes, mellea: Run, results: Path, tmp_path: Path) -> None:
    """It need not be named again for the headings in it; a file that is gone does not matter."""
    edit(tmp_path / "mine.toml", replace(LATE, parent="Delivery"), KIND)
    assert themes("--themes-file", "mine.toml").returncode == 0
    assert "Delivery" in mellea("report", "themes.jsonl").stdout
    assert "headings" in mellea("compare", "themes.jsonl", "themes.jsonl").stdout
    assert mellea("watch", "themes.jsonl", "themes.jsonl", "--when", "theme:Delivery x2").returncode == 0
    (tmp_path / "mine.toml").unlink()
    assert "Delivery" not in mellea("report", "themes.jsonl").stdout


def test_a_dry_run_sends_nothing(themes: Themes, results: Path, model: ModelServer, tmp_path: Path) -> None:
    """It shows the first question: for themes, or for a row where the themes are there."""
    first = themes("--dry-run")
    edit(tmp_path / "t.toml", LATE)
    second = themes("--dry-run", "--themes-file", "t.toml")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "found first, in 20 complaints and 20 praises" in first.stdout
    assert "late for 0 days" in first.stdout
    assert "MARK-0 It was late again." in second.stdout
    assert model.state.requests == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["results.jsonl", "t.toml"]
    asked = re.search(r"calls +1 per item, (\d+) in all", second.stdout)
    nothing = re.search(r"items +50: .*?(\d+) with nothing to label", second.stdout)
    assert asked is not None
    assert nothing is not None
    assert int(nothing[1]) > 0
    themes("--themes-file", "t.toml")
    assert model.state.requests == int(asked[1])


def test_what_cannot_work_is_said_before_anything_is_sent(
    mellea: Run, themes: Themes, model: ModelServer, tmp_path: Path, results: Path
) -> None:
    """A pipe without themes, rows that were never summarised, a themes file that is none: code 2 and a way out."""
    piped = mellea("themes", "-", "-b", "scripted", stdin=results.read_bytes())
    write_rows(tmp_path / "raw.jsonl", [{"text": "late"}])
    raw = themes(source="raw.jsonl")
    (tmp_path / "bad.toml").write_text("[[theme]]")
    bad = themes("--themes-file", "bad.toml")
    same = themes("--themes-file", "results.jsonl")
    assert [one.returncode for one in (piped, raw, bad, same)] == [2, 2, 2, 2], same.stderr
    assert "--themes-file" in piped.stderr
    assert "mellea summarise raw.jsonl" in raw.stderr
    assert "theme 1: name is missing" in bad.stderr
    assert model.state.requests == 0


def test_a_pipe_is_labelled_with_themes_that_are_there(
    mellea: Run, results: Path, tmp_path: Path, model: ModelServer
) -> None:
    """Rows in, rows out, in order; the figures are those of the rows that were written."""
    edit(tmp_path / "t.toml", LATE, RUDE, KIND)
    where = ("-m", "m", "--base-url", model.openai_url, "-b", "openai", "--themes-file", "t.toml", "--json")
    done = mellea("themes", *where, stdin=results.read_bytes())
    told = figures(done)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list(range(ROWS))
    assert (told["accounted"], told["audited"], told["rows"]) == (ROWS, False, None)


def test_limits_hold_over_finding_and_labelling(themes: Themes, results: Path, tmp_path: Path) -> None:
    """Tokens that the discovery used are not there for the rows: the run stops early, and types on."""
    done = themes("--max-tokens-total", "2500", "--json", "-c", "1")
    assert done.returncode == 4, done.stderr
    summary = json.loads(done.stderr.splitlines()[-1])
    assert summary["prompt_tokens"] + summary["completion_tokens"] <= 2500
    assert summary["next_command"]


WISHES = ("a late bus", "quick help, a kind word", None, "a quick reply", "")


def wished(count: int) -> list[dict[str, Any]]:
    """Rows with the own fields `wish`, `parts` and `team`, and without built-in columns."""
    made = []
    for number in range(count):
        wish = WISHES[number % len(WISHES)]
        wish = f"{wish} {number}" if wish else wish
        parts = [part.strip() for part in wish.split(",")] if wish else []
        made.append({"id": number, "text": f"MARK-{number}", "wish": wish, "parts": parts, "team": "shop"})
    return made


def note_fields(path: Path) -> None:
    """Write the journal of an output, as a run with these own fields does."""
    with closing(Journal.open(resolve_output(str(path)).journal)) as journal:
        fields = [["wish", "text", ""], ["parts", "list", ""], ["team", "category", ""]]
        journal.note_facts({OWN_FIELDS: json.dumps(fields)})


@pytest.mark.parametrize("column", ["wish", "parts"])
def test_themes_of_an_own_field(themes: Themes, model: ModelServer, tmp_path: Path, column: str) -> None:
    """Its texts are proposed, sorted and labelled; quotes are from them, and an empty one has no theme."""
    write_rows(tmp_path / "results.jsonl", wished(20))
    note_fields(tmp_path / "results.jsonl")
    told = figures(themes("--theme-field", column, "--json"))
    assert (told["rows"], told["none"], told["failed"]) == (20, 8, 0)
    out = read_rows(tmp_path / "themes.jsonl")
    themed = [["Late delivery"], ["Kind people", "Quick help"], ["none"], ["Quick help"], ["none"]]
    assert [sorted(one["themes"]) for one in out[:5]] == themed
    assert out[1]["theme_quotes"] == {"Kind people": "kind", "Quick help": "quick"}
    found = read_themes(tmp_path / "themes.jsonl.toml")
    assert found is not None
    assert {theme.kind for theme in found} == {"both"}
    asked = "".join(str(request) for request in model.state.bodies)
    assert f'about "{column}"' in asked
    assert "MARK-0" not in asked
    before = model.state.requests
    figures(themes("--theme-field", column, "--json"))
    assert model.state.requests == before


def test_themes_of_a_list_in_a_table(themes: Themes, tmp_path: Path) -> None:
    """A cell with JSON is a list, with the journal and without it."""
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text", "parts"])
        writer.writeheader()
        rows = wished(10)
        writer.writerows({"id": one["id"], "text": one["text"], "parts": json.dumps(one["parts"])} for one in rows)
    done = themes("--theme-field", "parts", source="results.csv", output="themes.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "themes.csv").open(newline="") as file:
        cells = [one["themes"].split(" | ") for one in csv.DictReader(file)]
    assert [sorted(names) for names in cells[:3]] == [["Late delivery"], ["Kind people", "Quick help"], ["none"]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("team", "--theme-field team: is of the type category, not text"),
        ("whish", "results.jsonl: has no column 'whish' for --theme-field"),
    ],
)
def test_a_column_without_texts_is_refused(
    themes: Themes, model: ModelServer, tmp_path: Path, name: str, said: str
) -> None:
    """Before anything is asked, with the name that was meant."""
    write_rows(tmp_path / "results.jsonl", wished(5))
    note_fields(tmp_path / "results.jsonl")
    done = themes("--theme-field", name)
    assert (done.returncode, model.state.requests) == (2, 0)
    assert said in done.stderr
    assert "wish" in done.stderr.splitlines()[-1]


def test_a_column_that_is_empty_is_refused(themes: Themes, tmp_path: Path) -> None:
    """There is nothing to find themes in."""
    write_rows(tmp_path / "results.jsonl", [{**one, "wish": ""} for one in wished(5)])
    done = themes("--theme-field", "wish")
    assert done.returncode == 2
    assert "has no text in the column 'wish'" in done.stderr


def test_a_table_keeps_one_column_with_errors(mellea: Run, serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """The reasons of the run that wrote the table and of this one stand together, and a second run keeps them."""
    head = ["id", "text", "summary", "sentiment", "main_complaint", "positive_aspect", "urgency", "error"]
    said = [
        ["1", "It was late.", "Late.", "negative", "late", "", "medium", ""],
        ["2", "They were kind.", "", "", "", "", "", "parse: it is not valid JSON"],
        ["3", "Quite rude.", "", "", "", "", "", "parse: it is empty"],
        ["4", "MARK-4 and late.", "Late.", "negative", "late", "", "medium", ""],
        ["5", "MARK-5 again.", "", "", "", "", "", "parse: it is empty"],
    ]
    with (tmp_path / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *said])
    edit(tmp_path / "themes.csv.toml", LATE, RUDE, KIND)
    model = serve(models=("m",), reply=reply, fault=lambda call: faults.says("{}") if "MARK-" in call.prompt else None)
    where = ("-m", "m", "--base-url", model.openai_url, "-b", "openai")
    for _ in range(2):
        done = mellea("themes", "results.csv", "-o", "themes.csv", *where)
        assert done.returncode == 3, done.stderr
        assert "the input has a column" not in done.stderr
        with (tmp_path / "themes.csv").open(newline="") as file:
            out = list(csv.DictReader(file))
        assert list(out[0]) == [*head[:-1], "themes", "theme_quotes", "error"]
        assert [one["themes"] for one in out] == ["Late delivery", "Kind people", "Rude staff", "", ""]
        assert [one["error"] for one in out[:3]] == ["", "parse: it is not valid JSON", "parse: it is empty"]
        assert out[3]["error"].startswith("parse: ")
        assert out[4]["error"].startswith("parse: it is empty; themes: parse: ")


def missing_theme(count: int) -> list[dict[str, Any]]:
    """Rows of which every third one is about prices, of which the themes file knows nothing."""
    made = []
    for number in range(count):
        words = ("It was late", "They were kind", "A high price")[number % 3]
        said = {"praise" if number % 3 == 1 else "complaint": f"{words.lower()} {number}"}
        made.append(row(number, f"MARK-{number} {words}.", **said))
    return made


def test_rows_without_a_theme_become_proposals_and_these_themes(
    themes: Themes, mellea: Run, model: ModelServer, tmp_path: Path
) -> None:
    """The share of `other` is told; proposals go into a file of their own, and enter the themes file when accepted."""
    write_rows(tmp_path / "results.jsonl", missing_theme(36))
    edit(tmp_path / "themes.jsonl.toml", LATE, KIND)
    mine = (tmp_path / "themes.jsonl.toml").read_bytes()
    told = themes()
    assert "no theme fits 12 of 36 rows (33 %): --propose searches them for new themes, with at most 64 " in told.stderr
    asked = model.state.requests
    done = themes("--propose", "--json")
    assert figures(done)["proposals"] == 1
    assert "looking for proposals for themes.jsonl.toml: at most " in done.stderr
    most = int(done.stderr.split(": at most ")[1].split()[0])
    assert 0 < model.state.requests - asked <= most
    assert "1 new: High prices: 12 of 12 sampled complaints in rows without a theme say this." in done.stderr
    assert (tmp_path / "themes.jsonl.toml").read_bytes() == mine
    proposed = (tmp_path / "themes.jsonl.proposal.toml").read_text()
    assert '["2", "a high price 2"]' in proposed
    asked = model.state.requests
    done = mellea("themes", "--themes-file", "themes.jsonl.toml", "--accept", "ask")
    assert (done.returncode, model.state.requests) == (0, asked)
    assert "High prices (complaint): About high prices." in done.stdout
    assert len(re.findall(r"^      row (\d+): a high price \1$", done.stdout, re.MULTILINE)) == 3
    assert done.stdout.endswith("themes.jsonl.toml: unchanged; --accept 1 takes the first\n")
    done = mellea("themes", "-o", "themes.jsonl", "--accept", "2")
    assert (done.returncode, "the proposals have these numbers: 1" in done.stderr) == (2, True)
    done = mellea("themes", "-o", "themes.jsonl", "--accept", "1")
    assert done.stdout.endswith(
        "themes.jsonl.toml: 3 themes; the next run with it asks again about every row\n"
        "next: mellea themes RESULTS -o themes.jsonl --themes-file themes.jsonl.toml\n"
    )
    assert (tmp_path / "themes.jsonl.toml").read_bytes().startswith(mine)
    assert not (tmp_path / "themes.jsonl.proposal.toml").exists()
    done = themes("--json")
    assert (figures(done)["themes"]["High prices"], figures(done)["other"]) == (12, 0)
    assert "no theme fits" not in done.stderr
    assert mellea("themes", "-o", "themes.jsonl", "--accept", "all").returncode == 2


def test_proposals_without_a_question(themes: Themes, model: ModelServer, tmp_path: Path) -> None:
    """Themes that go together are merged without a request; where nothing is to change, there is no file."""
    made = [row(n, f"MARK-{n} They were rude, and late.", complaint=f"late {n}") for n in range(9)]
    made += [row(n, f"MARK-{n} They were kind.", praise=f"kind {n}") for n in range(9, 18)]
    write_rows(tmp_path / "results.jsonl", made)
    edit(tmp_path / "themes.jsonl.toml", LATE, RUDE, KIND)
    themes()
    asked = model.state.requests
    done = themes("--propose")
    assert done.returncode == 0, done.stderr
    assert "looking for proposals for themes.jsonl.toml: the model is not asked" in done.stderr
    assert "1 merge: Late delivery, Rude staff becomes Late delivery: 9 rows have both" in done.stderr
    assert model.state.requests == asked
    assert (tmp_path / "themes.jsonl.proposal.toml").exists()
    edit(tmp_path / "themes.jsonl.toml", LATE, KIND)
    assert "nothing to propose" in themes("--propose").stderr
    assert not (tmp_path / "themes.jsonl.proposal.toml").exists()


def test_a_handful_of_rows_without_a_theme_is_no_search(themes: Themes, model: ModelServer, tmp_path: Path) -> None:
    """Below ten such rows the model is not asked, and that is said."""
    write_rows(tmp_path / "results.jsonl", missing_theme(27))
    edit(tmp_path / "themes.jsonl.toml", LATE, KIND)
    themes()
    asked = model.state.requests
    done = themes("--propose", "--json")
    assert "no theme fits 9 rows: new themes are searched for in 10 or more" in done.stderr
    assert (figures(done)["other"], figures(done)["proposals"], model.state.requests) == (9, 0, asked)


def corrected(output: Path, *judged: tuple[int, str, Any]) -> None:
    """Write a review of rows of `results.jsonl`: the id, the field and the person's value."""
    texts = {one["id"]: one["text"] for one in read_rows(output.with_name("results.jsonl"))}
    lines = [{"item": str(n), "text": texts[n], "field": name, "model": "?", "person": to} for n, name, to in judged]
    write_rows(output.with_name(f"{output.name}.corrections.jsonl"), lines)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_corrections_of_a_reviewed_output_win(
    themes: Themes, mellea: Run, results: Path, tmp_path: Path, form: str
) -> None:
    """What people have said decides which rows are asked, which meet --where, and what the output has."""
    source = tmp_path / f"results.{form}"
    if form == "csv":
        assert mellea("export", "results.jsonl", "-o", "results.csv").returncode == 0
    edit(tmp_path / f"themes.{form}.toml", LATE, KIND)
    corrected(
        source,
        (0, "main_complaint", None),
        (0, "sentiment", "positive"),
        (4, "main_complaint", "nothing works"),
        (4, "sentiment", "negative"),
    )
    done = themes("--where", "id < 5", source=source.name, output=f"themes.{form}")
    assert "4 judgements of people, which win" in done.stderr
    shown = json.loads(mellea("show", f"themes.{form}", "--json", "id,sentiment,themes").stdout)
    labels = {int(one["id"]): (one["sentiment"], "".join(one["themes"])) for one in shown}
    assert (labels[0], labels[4]) == (("positive", "none"), ("negative", "other"))
    done = themes("--where", "sentiment == 'negative'", "--dry-run", source=source.name, output="-")
    assert "--where selects 20 of 50 rows" in done.stderr


def test_corrected_labels_count_for_proposals(themes: Themes, model: ModelServer, tmp_path: Path) -> None:
    """Rows that a person has given a theme are searched no more."""
    write_rows(tmp_path / "results.jsonl", missing_theme(30))
    edit(tmp_path / "themes.jsonl.toml", LATE, KIND)
    assert "no theme fits 10 of 30 rows" in themes().stderr
    corrected(tmp_path / "themes.jsonl", (2, "themes", ["Late delivery"]))
    asked = model.state.requests
    assert "no theme fits 9 rows" in themes("--propose").stderr
    assert model.state.requests == asked


def test_a_stop_while_proposals_are_found_keeps_the_labels(themes: Themes, tmp_path: Path) -> None:
    """A limit that ends the search says so, with exit code 4; the output is whole, and there is no proposals file."""
    write_rows(tmp_path / "results.jsonl", missing_theme(36))
    edit(tmp_path / "themes.jsonl.toml", LATE, KIND)
    assert themes().returncode == 0
    done = themes("--propose", "--max-tokens-total", "1", "--json")
    assert done.returncode == 4, done.stderr
    told = json.loads(done.stderr.splitlines()[-1])
    assert "there are labels, and no proposals" in told["stopped"]
    assert (told["reconciled"]["other"], told["reconciled"]["proposals"]) == (12, None)
    assert len(read_rows(tmp_path / "themes.jsonl")) == 36
    assert not (tmp_path / "themes.jsonl.proposal.toml").exists()


def test_proposals_need_labels(themes: Themes, results: Path, model: ModelServer) -> None:
    """Nothing is asked before that is said."""
    for flags, said in ((("--find-only",), "omit --find-only"), ((), "name a file with -o")):
        done = themes("--propose", *flags, output="themes.jsonl" if flags else "-")
        assert (done.returncode, model.state.requests) == (2, 0)
        assert said in done.stderr
