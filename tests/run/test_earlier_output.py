"""What a person made is kept: foreign files, finished outputs, cells edited by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from inprocess import run_in_process
from mellea_cli.errors import OutputError
from mellea_cli.io.journal import Journal
from mellea_cli.io.sink import OrderedSink
from mellea_cli.run.earlier_output import canonical
from rowfiles import Process, Run, read_rows, write_rows

TEXTS = (
    "The parcel came four days late.",
    "Nobody picked up the phone, twice.",
    "The colours are lovely; thank you.",
    "-5 stars if I could.",
    "Die Lieferung kam zu spät, schade.",
)
MINE = "Corrected by me: refund on 3 March."


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the configuration or the state of whoever runs it."""
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


@pytest.fixture
def mellea(tmp_path: Path) -> Run:
    """Run `mellea ARGS` in this process, in a folder of its own."""

    def run(*arguments: str, stdin: bytes | None = None) -> Process:
        return run_in_process(arguments, tmp_path, stdin)

    return run


@pytest.fixture
def summarise(mellea: Run, tmp_path: Path) -> Callable[..., Process]:
    """Run `mellea summarise in.jsonl -o OUTPUT -b scripted`, on five rows."""
    rows = [{"id": n, "text": text, "date": f"2024-05-0{n}", "n": 1.50} for n, text in enumerate(TEXTS, 1)]
    write_rows(tmp_path / "in.jsonl", rows)

    def run(output: str = "out.jsonl", *more: str, code: int = 0, source: str = "in.jsonl") -> Process:
        done = mellea("summarise", source, "-o", output, "-b", "scripted", *more)
        assert done.returncode == code, done.stderr
        return done

    return run


def add_row(tmp_path: Path, number: int = 6, text: str = "One more row, all fine.") -> None:
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write(json.dumps({"id": number, "text": text, "date": "2024-05-06", "n": 1.50}) + "\n")


def change(path: Path, *changes: tuple[int, str, Any]) -> None:
    """Change cells of a JSONL file."""
    rows = read_rows(path)
    for row, column, value in changes:
        rows[row][column] = value
    write_rows(path, rows)


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def save_table(path: Path, rows: list[dict[str, str]], *, encoding: str = "utf-8", **dialect: Any) -> None:
    """Write a CSV file as a spreadsheet does."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0], **dialect)
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, ""),
        (True, "TRUE"),
        (1.5, "1.50"),
        ("007", 7),
        ("2024-05-01", "01.05.2024"),
        ("2024-05-01T00:00:00", "5/1/24"),
        ("a\r\nb", "a\nb"),
        ("=SUM(A1)", "'=SUM(A1)"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ("cafe\u0301", "caf\u00e9"),
        (" padded ", "padded"),
        (float("nan"), None),
    ],
)
def test_what_a_spreadsheet_rewrites_is_no_edit(one: Any, other: Any) -> None:
    """Forms of the same cell are equal."""
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), [("positive", "negative"), ("1.5", "1.6"), ("2024-05-01", "2024-06-01")])
def test_another_value_is_an_edit(one: str, other: str) -> None:
    """Other cells are not."""
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "dialect",
    [
        {"encoding": "utf-8-sig", "delimiter": ";", "quoting": csv.QUOTE_ALL},
        {"encoding": "utf-16", "delimiter": "\t"},
        {"encoding": "cp1252", "delimiter": ";"},
        {"lineterminator": "\r\n"},
    ],
)
def test_an_edit_survives_a_spreadsheet(
    dialect: dict[str, Any], summarise: Callable[..., Process], tmp_path: Path
) -> None:
    """Quoting, byte order mark, encoding, delimiter, line ends, dates and numbers change; two cells are edited."""
    summarise("out.csv")
    path = tmp_path / "out.csv"
    rows = table(path)
    rows[1]["summary"], rows[4]["sentiment"] = MINE, "mixed"
    for row in rows:
        row["date"], row["n"] = ".".join(reversed(row["date"].split("-"))), "1,5".replace(",", ".")
    save_table(path, rows, **dialect)
    add_row(tmp_path)
    said = summarise("out.csv").stderr
    found = table(path)
    assert [row["id"] for row in found] == list("123456")
    assert (found[1]["summary"], found[4]["sentiment"]) == (MINE, "mixed")
    assert found[0]["date"] == "2024-05-01"
    assert "2 cells edited in 2 rows (2, 5), kept" in said


def test_names_in_another_case_and_empty_rows_are_no_news(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """The columns are the same ones, and an empty row holds nothing."""
    summarise("out.csv")
    path = tmp_path / "out.csv"
    rows = table(path)
    header = list(rows[0])
    rows[1]["summary"] = MINE
    save_table(
        path, [{name.upper(): value for name, value in row.items()} for row in [*rows, dict.fromkeys(rows[0], "")]]
    )
    said = summarise("out.csv").stderr
    assert "1 cell edited in 1 row" in said
    assert list(table(path)[0]) == header
    assert table(path)[1]["summary"] == MINE


def test_a_remark_among_the_rows_stops_the_run(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """It is no row, so it would be gone."""
    summarise("out.csv")
    path = tmp_path / "out.csv"
    path.write_text(before := path.read_text() + "\nChecked by Ann\n")
    assert "has 1 line below the rows (line 8), which this run would remove" in summarise("out.csv", code=2).stderr
    assert path.read_text() == before
    summarise("out.csv", "--overwrite")


def test_edits_survive_sorting_and_deleting(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """Rows come back in the order of the input, a deleted one too, which is said."""
    summarise()
    path = tmp_path / "out.jsonl"
    change(path, (3, "summary", MINE))
    write_rows(path, list(reversed(read_rows(path)[1:])))
    said = summarise().stderr
    assert [row["id"] for row in read_rows(path)] == [1, 2, 3, 4, 5]
    assert read_rows(path)[3]["summary"] == MINE
    assert "1 row deleted by hand, written again" in said


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_a_column_of_one_s_own_is_kept(output: str, summarise: Callable[..., Process], tmp_path: Path) -> None:
    """On every later run, in its rows."""
    summarise(output)
    path = tmp_path / output
    if output == "out.csv":
        rows = [{**row, "owner": "Kim" if row["id"] == "2" else ""} for row in table(path)]
        save_table(path, rows)
    else:
        change(path, (1, "owner", "Kim"))
    for number in (6, 7):
        add_row(tmp_path, number)
        assert "'owner' added by hand" in summarise(output).stderr
    found: list[dict[str, Any]] = table(path) if output == "out.csv" else read_rows(path)
    assert [row.get("owner") or "" for row in found] == ["", "Kim", "", "", "", "", ""]


def test_of_equal_rows_the_edited_one_keeps_its_edit(mellea: Run, tmp_path: Path) -> None:
    """Two rows without an id and with one text: the second was edited."""
    write_rows(tmp_path / "in.jsonl", [{"text": "Same."}, {"text": "Same."}, {"text": "Other."}])
    command = ("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "scripted")
    mellea(*command)
    change(tmp_path / "out.jsonl", (1, "summary", MINE))
    assert mellea(*command).returncode == 0
    assert [row["summary"] == MINE for row in read_rows(tmp_path / "out.jsonl")] == [False, True, False]


@pytest.mark.parametrize("name", ["id", "ID"])
def test_an_edit_stays_with_its_id_among_rows_with_one_text(name: str, mellea: Run, tmp_path: Path) -> None:
    """Rows with the same text stand before the edited one: a known one, and one that is new."""
    rows = [{name: 1, "text": "Same."}, {name: 2, "text": "Same."}, {name: 3, "text": "Other."}]
    write_rows(tmp_path / "in.jsonl", rows)
    command = ("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "scripted")
    mellea(*command)
    change(tmp_path / "out.jsonl", (1, "summary", MINE))
    for source in (rows, [{name: 9, "text": "Same."}, *rows]):
        write_rows(tmp_path / "in.jsonl", source)
        assert mellea(*command).returncode == 0
        assert [row[name] for row in read_rows(tmp_path / "out.jsonl") if row["summary"] == MINE] == [2]


@pytest.mark.parametrize("output", ["out.json", "out.jsonl.gz"])
def test_nested_cells_and_packed_files(output: str, summarise: Callable[..., Process], tmp_path: Path) -> None:
    """A part of the issues is edited in an array, and in a packed file."""
    summarise(output)
    path = tmp_path / output
    packed = output.endswith(".gz")
    text = gzip.decompress(path.read_bytes()).decode() if packed else path.read_text()
    rows = [json.loads(line) for line in text.splitlines()] if packed else json.loads(text)
    rows[2]["issues"] = {**rows[2]["issues"], "urgency": "high"}
    text = "\n".join(map(json.dumps, rows)) if packed else json.dumps(rows, indent=4)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    add_row(tmp_path)
    assert "1 cell edited in 1 row (3), kept" in summarise(output).stderr
    text = gzip.decompress(path.read_bytes()).decode() if packed else path.read_text()
    rows = [json.loads(line) for line in text.splitlines()] if packed else json.loads(text)
    assert rows[2]["issues"]["urgency"] == "high"
    assert len(rows) == 6


def test_an_edited_input_cell_is_kept_and_an_edit_undone_is_none(
    summarise: Callable[..., Process], tmp_path: Path
) -> None:
    """Cells of the input's columns count as well; what says the same as the model again is the model's."""
    summarise()
    path = tmp_path / "out.jsonl"
    before = read_rows(path)
    change(path, (0, "text", "The parcel came five days late."), (1, "sentiment", "mixed"))
    assert "2 cells edited in 2 rows" in summarise().stderr
    assert read_rows(path)[0]["text"] == "The parcel came five days late."
    write_rows(path, before)
    assert "edited" not in summarise().stderr


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_the_counts_of_a_run_have_the_edited_values(
    output: str, summarise: Callable[..., Process], tmp_path: Path
) -> None:
    """An edit leaves the count of the model's value and joins that of its own; the JSON says which row it is."""
    flags = (output, "--json", "--category", "tags[]=price,staff")
    before = json.loads(summarise(*flags).stderr.splitlines()[-1])["values"]
    path = tmp_path / output
    if output == "out.csv":
        rows = table(path)
        rows[1] |= {"sentiment": "mixed", "urgency": "", "tags": "price | staff"}
        save_table(path, rows)
    else:
        issues = read_rows(path)[1]["issues"] | {"urgency": None}
        change(path, (1, "sentiment", "mixed"), (1, "issues", issues), (1, "tags", ["price", "staff"]))
    edited = json.loads(summarise(*flags).stderr.splitlines()[-1])
    found = table(path) if output == "out.csv" else [row | row["issues"] for row in read_rows(path)]
    for name in ("sentiment", "urgency"):
        assert edited["values"][name] == Counter(row[name] for row in found if row[name])
        assert edited["values"][name] != before[name]
    assert sum(edited["values"]["tags"].values()) > sum(before.get("tags", {}).values())
    assert set(edited["values"]["tags"]) == {"price", "staff"}
    assert (edited["edited_cells"], edited["edited_rows"], edited["edited_ids"]) == (3, 1, ["2"])


def forget_hashes(journal: Path) -> None:
    """Make the journal one of version 0.1."""
    with closing(sqlite3.connect(journal)) as db:
        db.execute("DROP TABLE outputs")
        db.execute("DROP TABLE written")
        db.execute("DELETE FROM facts")
        db.commit()


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_an_output_of_version_0_1_goes_on(output: str, summarise: Callable[..., Process], tmp_path: Path) -> None:
    """Its journal has no hashes: the answers tell what is the model's; nothing is asked again."""
    summarise(output)
    path = tmp_path / output
    forget_hashes(path.with_name(path.name + ".journal"))
    before = path.read_bytes()
    assert "edited" not in summarise(output).stderr
    assert path.read_bytes() == before
    forget_hashes(path.with_name(path.name + ".journal"))
    if output == "out.csv":
        rows = table(path)
        rows[1]["sentiment"] = "mixed"
        save_table(path, rows)
    else:
        change(path, (1, "sentiment", "mixed"))
    assert "1 cell edited in 1 row (2), kept" in summarise(output).stderr
    found: list[dict[str, Any]] = table(path) if output == "out.csv" else read_rows(path)
    assert found[1]["sentiment"] == "mixed"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_dies_around_the_rename_loses_no_edit(
    when: str, summarise: Callable[..., Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two outputs are noted then: the cells of both are the model's, and the edit is still an edit."""
    summarise()
    path = tmp_path / "out.jsonl"
    change(path, (1, "summary", MINE))
    add_row(tmp_path)

    def dies(*_: object) -> None:
        raise OutputError("the disk is gone")

    with monkeypatch.context() as patch:
        if when == "before":
            patch.setattr(OrderedSink, "finish", dies)
        else:
            patch.setattr(Journal, "forget_outputs", dies)
        summarise(code=5)
    assert len(read_rows(path)) == (5 if when == "before" else 6)
    for _ in range(2):
        assert "1 cell edited in 1 row (2), kept" in summarise().stderr
        assert read_rows(path)[1]["summary"] == MINE
        change(path, (2, "note", "more"))


def test_equal_rows_are_told_apart_after_a_run_that_died(
    mellea: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two outputs are noted, rows without an id and with one text are as many as in the file."""
    write_rows(tmp_path / "in.jsonl", [{"text": "Same."}, {"text": "Same."}, {"text": "Other."}])
    command = ("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "scripted")
    mellea(*command)
    change(tmp_path / "out.jsonl", (2, "summary", MINE))

    def dies(*_: object) -> None:
        raise OutputError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "forget_outputs", dies)
        assert mellea(*command).returncode == 5
    change(tmp_path / "out.jsonl", (1, "note", "more"))
    done = mellea(*command)
    assert done.returncode == 0, done.stderr
    found = read_rows(tmp_path / "out.jsonl")
    assert ([row["summary"] == MINE for row in found], found[1]["note"]) == ([False, False, True], "more")


def test_an_edited_row_that_left_the_input_stops_the_run(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """The number of rows is the same, but the edit would be lost; --overwrite allows that."""
    summarise()
    change(tmp_path / "out.jsonl", (0, "summary", MINE))
    rows = read_rows(tmp_path / "in.jsonl")
    write_rows(tmp_path / "in.jsonl", [*rows[1:], {"id": 9, "text": "New."}])
    refused = summarise(code=2)
    assert "1 row that a person has changed is not in in.jsonl (number 1)" in refused.stderr
    summarise("out.jsonl", "--overwrite")
    assert MINE not in (tmp_path / "out.jsonl").read_text()


def test_an_edited_row_whose_text_changed_stops_the_run(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """Without ids the message names the row; --overwrite gives this edit up and keeps the others."""
    write_rows(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    summarise()
    change(tmp_path / "out.jsonl", (0, "summary", MINE), (2, "sentiment", "mixed"))
    change(tmp_path / "in.jsonl", (0, "text", "Another text now."))
    refused = summarise(code=2).stderr
    assert "the text of row 1 changed in in.jsonl, and a person has edited the answers; --overwrite" in refused
    summarise("out.jsonl", "--overwrite")
    found = read_rows(tmp_path / "out.jsonl")
    assert (found[0]["summary"] == MINE, found[2]["sentiment"]) == (False, "mixed")


def test_a_stopped_run_replaces_nothing_by_less(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """With other settings and a limit of time the finished output stays; edits stay in it."""
    summarise()
    before = (tmp_path / "out.jsonl").read_bytes()
    summarise("out.jsonl", "-p", "steps", "--yes", "--max-tokens-total", "1", code=4)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_rows_from_a_pipe_replace_nothing_by_less(
    summarise: Callable[..., Process], mellea: Run, tmp_path: Path
) -> None:
    """A pipe shows only at its end how many rows it has; the answers are still in the journal."""
    summarise()
    before = (tmp_path / "out.jsonl").read_bytes()
    one = (tmp_path / "in.jsonl").read_bytes().splitlines(keepends=True)[0]
    done = mellea("summarise", "-", "-o", "out.jsonl", "-b", "scripted", stdin=one)
    assert done.returncode == 2
    assert "holds 5 rows, and this run would leave 1" in done.stderr
    assert "--overwrite" in done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_an_edit_from_a_pipe_is_no_row_s_with_another_id(mellea: Run, tmp_path: Path) -> None:
    """A new row with the text of the edited one comes first: which row is meant cannot be known, so its id decides."""
    rows = [{"id": 2, "text": "Same."}, {"id": 3, "text": "Other."}]
    command = ("summarise", "-", "-o", "out.jsonl", "-b", "scripted")
    mellea(*command, stdin=write_rows(tmp_path / "in.jsonl", rows).read_bytes())
    change(tmp_path / "out.jsonl", (0, "summary", MINE))
    source = write_rows(tmp_path / "in.jsonl", [{"id": 9, "text": "Same."}, *rows])
    assert mellea(*command, stdin=source.read_bytes()).returncode == 0
    assert [row["id"] for row in read_rows(tmp_path / "out.jsonl") if row["summary"] == MINE] == [2]


def test_edits_are_found_in_a_pipe(summarise: Callable[..., Process], mellea: Run, tmp_path: Path) -> None:
    """Rows that can be read only once are compared as they come."""
    summarise()
    change(tmp_path / "out.jsonl", (1, "summary", MINE))
    done = mellea("summarise", "-", "-o", "out.jsonl", "-b", "scripted", stdin=(tmp_path / "in.jsonl").read_bytes())
    assert done.returncode == 0, done.stderr
    assert read_rows(tmp_path / "out.jsonl")[1]["summary"] == MINE


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.jsonl", "no rows at all, only notes\n"),
        ("out.csv", "a,b\n1,2\n"),
        ("out.csv", "only,a,header\n"),
        ("out.json", '{"my": "settings"}'),
        ("out.jsonl", "\x00\x01binary"),
    ],
)
def test_a_foreign_file_stays(name: str, content: str, summarise: Callable[..., Process], tmp_path: Path) -> None:
    """Also when it is no table, or has no rows; nothing is left next to it."""
    (tmp_path / name).write_text(content)
    assert "--overwrite" in summarise(name, code=2).stderr
    assert (tmp_path / name).read_text() == content
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"in.jsonl", name}


def test_a_foreign_file_in_the_place_of_an_output_stays(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """Its name has a journal, but the file is another one; so is one with rows of a person's own."""
    summarise()
    path = tmp_path / "out.jsonl"
    ours = path.read_text()
    path.write_text('{"id": 1, "note": "mine"}\n')
    assert "1 of its 1 rows were not written by mellea" in summarise(code=2).stderr
    path.write_text(ours + '{"id": 77, "text": "A row of my own."}\n')
    assert "(row 6)" in summarise(code=2).stderr
    path.write_text(ours)
    summarise()


def test_another_command_or_format_is_foreign(summarise: Callable[..., Process], mellea: Run, tmp_path: Path) -> None:
    """An output is replaced by one of the same kind only."""
    summarise("out")
    summarise("out", "--output-format", "csv", code=2)
    summarise("rows.jsonl")
    done = mellea("themes", "rows.jsonl", "-o", "out", "-b", "scripted")
    assert done.returncode == 2
    assert "was written by mellea summarise as jsonl" in done.stderr


def test_links_and_write_protection(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """A link that leads nowhere is filled, one to a foreign file protects it."""
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "there.jsonl")
    summarise("link.jsonl")
    assert len(read_rows(tmp_path / "there.jsonl")) == 5
    (tmp_path / "notes.jsonl").write_text("mine\n")
    (tmp_path / "other.jsonl").symlink_to(tmp_path / "notes.jsonl")
    summarise("other.jsonl", code=2)
    assert (tmp_path / "notes.jsonl").read_text() == "mine\n"


def test_an_errors_file_that_was_corrected_stays(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """Rows that are input again that a person may have changed stay; the tool's own are replaced."""
    summarise("out.jsonl", "--errors-file", "bad.jsonl")
    row = read_rows(tmp_path / "in.jsonl")[0]
    write_rows(tmp_path / "bad.jsonl", [row])
    summarise("out.jsonl", "--errors-file", "bad.jsonl")
    write_rows(tmp_path / "bad.jsonl", [{**row, "text": "Corrected."}])
    assert "bad.jsonl: exists" in summarise("out.jsonl", "--errors-file", "bad.jsonl", code=2).stderr
    summarise("out.jsonl", "--errors-file", "bad.jsonl", "--overwrite")


@pytest.mark.parametrize(
    "flags",
    [
        ("--summary-file", "x.json"),
        ("--export-batch", "x.json", "-b", "openai", "-m", "m", "--base-url", "http://127.0.0.1:9/v1"),
    ],
)
def test_summary_and_export_do_not_replace_foreign_files(
    flags: tuple[str, ...], summarise: Callable[..., Process], tmp_path: Path
) -> None:
    """They replace what they wrote themselves, and an empty file."""
    path = tmp_path / "x.json"
    path.write_text("")
    summarise("out.jsonl", *flags)
    assert path.read_text()
    summarise("out.jsonl", *flags)
    path.write_text('{"mine": true}\n')
    assert f"was not written by {flags[0]}" in summarise("out.jsonl", *flags, code=2).stderr
    summarise("out.jsonl", *flags, "--overwrite")


def test_labels_edited_by_hand_are_kept(summarise: Callable[..., Process], mellea: Run, tmp_path: Path) -> None:
    """The figures of a themes run count what is in its output, also where a person has changed it."""
    summarise()
    command = ("themes", "out.jsonl", "-o", "labels.csv", "-b", "scripted")
    assert mellea(*command).returncode == 0
    rows = table(tmp_path / "labels.csv")
    rows[0]["themes"], rows[1]["themes"] = "other", "Something of my own"
    save_table(tmp_path / "labels.csv", rows)
    done = mellea(*command)
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "labels.csv")
    assert (found[0]["themes"], found[1]["themes"]) == (rows[0]["themes"], "Something of my own")
    assert "edited in" in done.stderr


def test_fresh_keeps_edits(summarise: Callable[..., Process], tmp_path: Path) -> None:
    """--fresh forgets the model's answers, not a person's; without the file there is nothing to keep."""
    summarise()
    change(tmp_path / "out.jsonl", (1, "summary", MINE))
    summarise("out.jsonl", "--fresh")
    assert read_rows(tmp_path / "out.jsonl")[1]["summary"] == MINE
    (tmp_path / "out.jsonl").unlink()
    summarise()
    assert MINE not in (tmp_path / "out.jsonl").read_text()
