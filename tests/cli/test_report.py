"""`mellea report` as its users have it: one screen, a page, Markdown, figures, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resultrows import result_rows
from rowfiles import Run, write_rows


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Sixty rows with themes."""
    return write_rows(tmp_path / "themes.jsonl", result_rows(60, themed=True))


def test_one_screen_says_what_matters(mellea: Run, results: Path) -> None:
    """Off a terminal too: the sum, sentiment, urgency, every theme, the urgent quotes, the next command."""
    done = mellea("report", str(results))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("60 rows = 50 answered + 6 without text + 4 failed\n")
    for word in ("sentiment  negative", "urgency high", "themes     ", "urgent     [R-", "by month   2026-01"):
        assert word in done.stdout
    assert f"mellea report {results} -o report.html" in done.stdout
    split = mellea("report", str(results), "--by", "channel")
    assert f"mellea report {results} --by channel -o report.html" in split.stdout
    assert "\x1b" not in done.stdout


def test_a_page_is_written_whole(mellea: Run, results: Path, tmp_path: Path) -> None:
    """Nothing is said, nothing else is left behind, and an older page is replaced."""
    page = tmp_path / "report.html"
    page.write_text("old")
    done = mellea("report", str(results), "-o", "report.html", "--by", "channel", "--title", "Autumn <1>")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = page.read_text(encoding="utf-8")
    assert "<title>Autumn &lt;1&gt;</title>" in text
    assert text.endswith("</html>")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"themes.jsonl", "report.html"}


def test_markdown_and_figures_go_to_stdout_or_a_file(mellea: Run, results: Path, tmp_path: Path) -> None:
    """The suffix says the format, --format overrules it, - is stdout."""
    shown = mellea("report", str(results), "--format", "md").stdout
    assert mellea("report", str(results), "-o", "-", "--format", "md").stdout == shown
    mellea("report", str(results), "-o", "report.md")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == shown
    told = json.loads(mellea("report", str(results), "--format", "json", "--by", "channel").stdout)
    assert (told["rows"], told["answered"], told["blank"], told["failed"]) == (60, 50, 6, 4)
    assert told["labels"]["themed"] + told["labels"]["other"] + told["labels"]["none"] == 50
    mellea("report", str(results), "-o", "report.txt")
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == mellea("report", str(results)).stdout


def test_rows_come_from_a_pipe_too(mellea: Run, results: Path) -> None:
    """- is stdin."""
    done = mellea("report", "-", stdin=results.read_bytes())
    assert done.stdout.startswith("60 rows = ")


def test_without_themes_it_says_how_to_get_them(mellea: Run, tmp_path: Path) -> None:
    """The report still works."""
    path = write_rows(tmp_path / "results.jsonl", result_rows(20))
    assert f"next       mellea themes {path} -o themes.jsonl\n" in mellea("report", str(path)).stdout
    mellea("report", str(path), "-o", "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "These rows have no themes yet." in page
    assert str(tmp_path) not in page


def test_definitions_come_from_the_themes_file(mellea: Run, results: Path, tmp_path: Path) -> None:
    """They stand in the page and in Markdown."""
    (tmp_path / "themes.toml").write_text(
        '[[theme]]\nname = "Price"\ndefinition = "What it costs."\n', encoding="utf-8"
    )
    told = mellea("report", str(results), "--themes-file", "themes.toml", "--format", "md").stdout
    assert "**Price**: What it costs." in told


def test_a_dumb_terminal_gets_lines_instead_of_the_pager(
    mellea: Run, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot move its cursor, so nothing is drawn on it."""
    monkeypatch.setattr("mellea_cli.ui.terminal.is_terminal", lambda *_: True)
    done = mellea("show", str(results), "-n", "2", "--columns", "id", env={"TERM": "dumb"})
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("nothing.jsonl",), "nothing.jsonl: no such file", "did you mean themes.jsonl?"),
        (("themes.jsonl", "--by", "chanel"), "no column 'chanel'", "did you mean --by 'channel'?"),
        (("themes.jsonl", "-o", "x.pdf"), "x.pdf: cannot be written as .pdf", "name it .html or .md or .json"),
        (("themes.jsonl", "-o", "x"), "x: has no suffix that names a format", "or use --format"),
        (("themes.jsonl", "-o", "themes.jsonl", "--format", "md"), "is the input and the output at once", "another"),
        (("themes.jsonl", "-o", "no/x.md"), "there is no folder", "mkdir -p"),
        (("themes.jsonl", "--themes-file", "t.toml"), "t.toml: cannot be read", "--themes-file"),
        (("input.csv",), "input.csv:1: is not an output of mellea summarise", "next to it: input.csv.journal"),
    ],
)
def test_errors_are_one_line_and_what_to_type(
    mellea: Run, results: Path, tmp_path: Path, arguments: tuple[str, ...], said: str, hint: str
) -> None:
    """Nothing is written, and the input is as it was."""
    (tmp_path / "input.csv").write_text("id,text\n1,late\n", encoding="utf-8")
    before = results.read_bytes()
    done = mellea("report", *arguments)
    assert done.returncode in (2, 5)
    error, try_ = done.stderr.splitlines()
    assert error.startswith("mellea: error: ")
    assert said in error
    assert hint in try_
    assert results.read_bytes() == before
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv", "empty.json"])
def test_an_empty_file_makes_a_report_of_nothing(mellea: Run, tmp_path: Path, name: str) -> None:
    """Exit 0, and every face says that there are no rows."""
    (tmp_path / name).touch()
    assert mellea("report", name).stdout == "no rows: there is nothing to report\n"
    assert "No rows" in mellea("report", name, "--format", "md").stdout
    assert mellea("report", name, "-o", "empty.html").returncode == 0
    assert "there is nothing to report" in (tmp_path / "empty.html").read_text(encoding="utf-8")


def test_a_reader_that_leaves_is_a_normal_end(mellea: Run, results: Path) -> None:
    """`| head` closes the pipe: exit 141 or 0, and no complaint."""
    import subprocess
    import sys

    command = f"{sys.executable} -m mellea_cli report {results} --format html | head -c 10"
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (len(done.stdout), done.stderr) == (10, "")


def test_a_renamed_column_of_the_results_is_noted(mellea: Run, tmp_path: Path) -> None:
    """What the reader changed about the file is in the report."""
    (tmp_path / "out.csv").write_text("id,text,n,n,summary,sentiment\n1,late,1,2,It is late.,negative\n")
    assert "column 4 repeats the name 'n' and is called 'n_2'" in mellea("report", "out.csv").stdout


def test_a_comparison_shows_what_moved(mellea: Run, tmp_path: Path) -> None:
    """Both sums, the rows, and a line for each judgement and theme."""
    rows = result_rows(120, themed=True)
    write_rows(tmp_path / "old.jsonl", rows[:80])
    write_rows(tmp_path / "new.jsonl", rows[30:])
    done = mellea("compare", "old.jsonl", "new.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert "rows       rows by id: 40 new, 30 gone, 50 in both" in done.stdout
    for word in ("old        old.jsonl: 80 rows = ", "sentiment  negative", "urgency    high", "complaints "):
        assert word in done.stdout
    assert all(len(line) < 80 for line in done.stdout.splitlines())


def test_a_comparison_as_markdown_json_and_files(mellea: Run, tmp_path: Path) -> None:
    """The same figures in each form; the suffix says which."""
    write_rows(tmp_path / "old.jsonl", result_rows(20, themed=True))
    write_rows(tmp_path / "new.jsonl", result_rows(40, themed=True))
    assert mellea("compare", "old.jsonl", "new.jsonl", "-o", "change.md").returncode == 0
    assert (tmp_path / "change.md").read_text(encoding="utf-8").startswith("# What changed\n")
    told = json.loads(mellea("compare", "old.jsonl", "new.jsonl", "--format", "json").stdout)
    assert told["rows"]["added"] == 20
    assert told["themes_compared"] is True


def test_errors_of_a_comparison_name_the_file(mellea: Run, tmp_path: Path) -> None:
    """Whichever of the two is wrong; an input is never written over."""
    good = write_rows(tmp_path / "good.jsonl", result_rows(3))
    write_rows(tmp_path / "bad.jsonl", [{"text": "x"}])
    done = mellea("compare", "good.jsonl", "bad.jsonl")
    assert done.returncode == 2
    assert "bad.jsonl:1: is not an output of mellea summarise" in done.stderr
    before = good.read_bytes()
    assert mellea("compare", "good.jsonl", "bad.jsonl", "-o", "good.jsonl", "--format", "md").returncode == 2
    assert good.read_bytes() == before
    assert "two files cannot come from stdin" in mellea("compare", "-", "-", stdin="").stderr


# Rows: `mellea show` and `mellea export`.

ROWS = [
    {
        "id": "R-1",
        "text": "Never again,\nrefund me",
        "Order number": 17,
        "summary": "A refund.",
        "sentiment": "negative",
        "issues": {"main_complaint": "price", "positive_aspect": None, "urgency": "high"},
        "themes": ["Billing", "Mobile app"],
    },
    {
        "id": "R-2",
        "text": "=fine",
        "Order number": 4,
        "summary": "Fine.",
        "sentiment": "positive",
        "issues": {"main_complaint": None, "positive_aspect": "all", "urgency": "low"},
        "themes": ["other"],
    },
    {
        "id": "R-3",
        "text": "broken",
        "Order number": None,
        "summary": None,
        "sentiment": None,
        "issues": None,
        "themes": None,
        "error": {"kind": "parse", "message": "not JSON", "attempts": 3},
    },
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Three rows: an urgent one, a good one and a failed one."""
    return write_rows(tmp_path / "out.jsonl", ROWS)


def test_rows_are_lines_off_a_terminal(mellea: Run, output: Path) -> None:
    """A header and a line for each row, with tabs; every column unless some are chosen; no control characters."""
    done = mellea("show", str(output))
    assert (done.returncode, done.stderr) == (0, "")
    head, first, _, last = done.stdout.splitlines()
    assert head.split("\t")[:4] == ["id", "text", "Order number", "summary"]
    assert head.split("\t")[-3:] == ["urgency", "themes", "error"]
    assert first.split("\t")[:3] == ["R-1", "Never again, refund me", "17"]
    assert "Billing | Mobile app" in first
    assert last.endswith("parse: not JSON")
    chosen = mellea("show", str(output), "--columns", "urgency, `Order number`", "--columns", "issues.main_complaint")
    assert chosen.stdout.splitlines()[:2] == ["urgency\tOrder number\tissues.main_complaint", "high\t17\tprice"]


@pytest.mark.parametrize(
    ("flags", "ids"),
    [
        (("--where", 'urgency == "high" or error is not null'), ["R-1", "R-3"]),
        (("--search", "REFUND"), ["R-1"]),
        (("--search", "main_complaint"), []),
        (("--sort", "order number"), ["R-2", "R-1", "R-3"]),
        (("--sort", "-Order number"), ["R-1", "R-2", "R-3"]),
        (("--sort", "urgency"), ["R-1", "R-2", "R-3"]),
        (("-n", "2"), ["R-1", "R-2"]),
        (("-n", "1", "--search", "broken"), ["R-3"]),
        (("-n", "2", "--sort", "order number"), ["R-2", "R-1"]),
        (("--where", "text is null"), []),
    ],
)
def test_rows_are_selected_searched_and_sorted(
    mellea: Run, output: Path, flags: tuple[str, ...], ids: list[str]
) -> None:
    """Numbers by value, what has no value last."""
    done = mellea("show", str(output), *flags, "--json", "id")
    assert done.returncode == 0
    assert [row["id"] for row in json.loads(done.stdout)] == ids
    if "--search" not in flags and ids:
        done = mellea("export", str(output), *flags, "--output-format", "json", "--columns", "id")
        assert [row["id"] for row in json.loads(done.stdout)] == ids


def test_json_has_the_named_fields(mellea: Run, output: Path) -> None:
    """As the file has them; all of them for `all`; the same rows from stdin."""
    told = json.loads(mellea("show", str(output), "--json", "id,urgency,themes").stdout)
    assert told[0] == {"id": "R-1", "urgency": "high", "themes": ["Billing", "Mobile app"]}
    assert told[2] == {"id": "R-3", "urgency": None, "themes": None}
    assert json.loads(mellea("show", "-", "--json", "all", stdin=output.read_bytes()).stdout) == ROWS


def test_a_wrong_column_is_named_with_its_flag(mellea: Run, output: Path) -> None:
    """Each flag that names a column suggests the nearest one."""
    for flag in ("--columns", "--sort", "--json", "--where"):
        value = "urgncy is null" if flag == "--where" else "urgncy"
        done = mellea("show", str(output), flag, value)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{flag}: no column 'urgncy'" in done.stderr
        assert "did you mean issues.urgency?" in done.stderr


def test_an_export_is_a_table_like_the_runs_own(mellea: Run, output: Path, tmp_path: Path) -> None:
    """Parts of answers are columns, lists are joined, an error is text, a formula is escaped."""
    done = mellea("export", str(output), "-o", "out.csv")
    assert (done.returncode, done.stderr) == (0, "mellea: out.csv: 3 rows\n")
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "id,text,Order number,summary,sentiment,main_complaint,positive_aspect,urgency,themes,error",
        'R-1,"Never again,',
        'refund me",17,A refund.,negative,price,,high,Billing | Mobile app,',
        "R-2,'=fine,4,Fine.,positive,,all,low,other,",
        "R-3,broken,,,,,,,,parse: not JSON",
    ]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"out.jsonl", "out.csv"}


def test_an_export_of_some_rows_and_columns(mellea: Run, output: Path, tmp_path: Path) -> None:
    """In the named order; JSON rows are written unchanged when no columns are chosen."""
    where = ("--where", "urgency == 'high'")
    assert mellea("export", str(output), "-o", "a.tsv", *where, "--columns", "urgency,id").returncode == 0
    assert (tmp_path / "a.tsv").read_text() == "urgency\tid\nhigh\tR-1\n"
    first = output.read_text().splitlines()[0]
    assert mellea("export", str(output), *where).stdout == first + "\n"
    assert json.loads(mellea("export", str(output), "--output-format", "json", "--columns", "id").stdout) == [
        {"id": "R-1"},
        {"id": "R-2"},
        {"id": "R-3"},
    ]
    mellea("export", "a.tsv", "-o", "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == '{"urgency": "high", "id": "R-1"}\n'


def test_an_export_is_sorted_like_show(mellea: Run, output: Path) -> None:
    """From the end with a minus, rows without a value last; a wrong column is named with the flag."""
    ids = ("--columns", "id", "--output-format", "csv")
    assert mellea("export", str(output), "--sort", "Order number", *ids).stdout.split() == ["id", "R-2", "R-1", "R-3"]
    assert mellea("export", str(output), "--sort", "-urgency", *ids).stdout.split() == ["id", "R-2", "R-1", "R-3"]
    wrong = mellea("export", str(output), "--sort", "urgncy", *ids)
    assert wrong.returncode == 2
    assert "--sort: no column 'urgncy'" in wrong.stderr


def test_an_export_of_the_rows_with_a_text(mellea: Run, output: Path) -> None:
    """The same rows as show has with the same search."""
    for text, ids in (("REFUND", ["R-1"]), ("mobile", ["R-1"]), ("r-", ["R-1", "R-2", "R-3"]), ("nowhere", [])):
        shown = mellea("show", str(output), "--search", text, "--columns", "id")
        found = mellea("export", str(output), "--search", text, "--columns", "id", "--output-format", "csv")
        assert (found.returncode, found.stdout.split()) == (0, ["id", *ids])
        assert shown.stdout.split() == ["id", *ids]


@pytest.mark.parametrize("name", ["none.csv", "none.xlsx", "none.parquet"])
def test_an_export_without_hits_has_its_header(mellea: Run, output: Path, tmp_path: Path, name: str) -> None:
    """Of a table and of JSON, all columns or those that were named."""
    nothing = ("--where", "urgency == 'never'")
    assert mellea("export", str(output), "-o", name, *nothing).returncode == 0
    assert mellea("export", str(output), "-o", f"named-{name}", *nothing, "--columns", "urgency,id").returncode == 0
    shown = mellea("export", name, "--output-format", "csv").stdout
    assert shown.startswith("id,text,Order number,summary,sentiment,")
    assert mellea("export", f"named-{name}", "--output-format", "csv").stdout == "urgency,id\n"
    assert mellea("export", str(output), *nothing, "--output-format", "json").stdout == "[]\n"


def test_an_export_replaces_nothing_unasked(mellea: Run, output: Path, tmp_path: Path) -> None:
    """An existing file needs --overwrite, the input itself is never replaced, and a refused one leaves nothing."""
    (tmp_path / "old.csv").write_text("mine")
    done = mellea("export", str(output), "-o", "old.csv")
    assert (done.returncode, (tmp_path / "old.csv").read_text()) == (2, "mine")
    assert "old.csv: exists" in done.stderr
    assert mellea("export", str(output), "-o", "old.csv", "--overwrite", "--json").returncode == 0
    assert (tmp_path / "old.csv").read_text().startswith("id,")
    assert mellea("export", str(output), "-o", str(output), "--overwrite").returncode == 2
    assert mellea("export", str(output), "-o", "new.csv", "--columns", "idd").returncode == 2
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"out.jsonl", "old.csv"}


def test_rows_that_cannot_be_read_are_said(mellea: Run, output: Path) -> None:
    """The others are shown and written, and the exit code says that some are missing."""
    with output.open("a") as file:
        file.write("{broken\n" * 5)
    for command in ("show", "export"):
        done = mellea(command, str(output))
        assert done.returncode == 3
        assert done.stderr.count("skipped: ") == 4
        assert "skipped: 5 rows in all" in done.stderr
        assert "R-3" in done.stdout


def test_a_report_of_some_rows(mellea: Run, results: Path) -> None:
    """--where counts only what it selects; --json is --format json."""
    told = json.loads(mellea("report", str(results), "--json", "--where", 'urgency == "high"').stdout)
    assert 0 < told["rows"] == told["mix"]["urgency"]["high"] < 60
    done = mellea("report", str(results), "--json", "--format", "md")
    assert done.returncode == 2
    assert json.loads(done.stderr)["error"]["message"] == "--json and --format md ask for two formats"


def test_a_run_with_own_labels_has_no_others(mellea: Run, tmp_path: Path) -> None:
    """Those of the run are there even at 0; without its journal only those that occur."""
    write_rows(tmp_path / "in.jsonl", [{"id": 1, "channel": "web", "text": "The staff were lovely."}])
    labels = ("--labels", "positive,vexed=if somebody shouts")
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "scripted", *labels)
    assert done.returncode == 0, done.stderr
    for form in ("md", "html", "json"):
        text = mellea("report", "out.jsonl", "--format", form, "--by", "channel", "-o", "-").stdout
        assert "vexed" in text
        if form == "md":
            assert "negative" not in text
            assert "mixed" not in text
        elif form == "html":
            assert "<dt>Negative" not in text
            assert "<dt>Positive" in text
        else:
            assert json.loads(text)["sentiments"] == ["positive", "vexed"]
    shown = mellea("report", "out.jsonl", "--by", "channel").stdout
    assert "vexed" in shown
    assert "negative" not in shown
    rows = [{**row, "sentiment": "vexed"} for row in result_rows(40) if row["sentiment"]]
    write_rows(tmp_path / "bare.jsonl", rows)
    told = json.loads(mellea("report", "bare.jsonl", "--format", "json").stdout)
    assert told["sentiments"] == ["vexed"]
    assert [one["name"] for one in told["shares"] if one["group"] == "sentiment"] == ["vexed"]
