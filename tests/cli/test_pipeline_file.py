"""`mellea pipeline`: a file is written, checked, shown and tried."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from loopback import ModelServer
from mellea_cli.cli.pipeline_file import TEMPLATES, template_path
from mellea_cli.pipelines.own_fields import own_pipeline
from mellea_cli.pipelines.pipeline_spec import load_pipeline
from rowfiles import Process, Run, write_rows

SAMPLES = Path(__file__).parents[2] / "samples" / "templates"
SHOP = """\
context = "Reviews of a bicycle shop"

[fields.team]
type = "category"
choices = ["workshop", "delivery"]

[fields.evidence]
type = "quote"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(SHOP, encoding="utf-8")
    return path


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [{"id": n, "text": f"The door of car {n} is stuck. Please call.", "channel": "web"} for n in range(8)]
    return write_rows(tmp_path / "reviews.jsonl", rows)


def tried(done: Process) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_without_a_command_the_help_is_shown(mellea: Run) -> None:
    """The four commands, each with its line."""
    shown = mellea("pipeline")
    assert shown.returncode == 0
    commands = shown.stdout.split("Commands:\n")[1].split("\n\n")[0]
    assert [line.split()[0] for line in commands.splitlines()] == ["new", "check", "show", "try"]
    assert "..." not in commands


@pytest.mark.parametrize("name", [None, *TEMPLATES])
def test_what_new_writes_can_be_used(mellea: Run, name: str | None, tmp_path: Path) -> None:
    """The starter and each template are without problems, on stdout and in a file."""
    arguments = ["pipeline", "new", *([name] if name else [])]
    printed = mellea(*arguments)
    written = mellea(*arguments, "-o", "own.toml")
    assert (printed.returncode, written.returncode) == (0, 0)
    assert (tmp_path / "own.toml").read_text(encoding="utf-8") == printed.stdout
    assert "mellea pipeline try own.toml INPUT" in written.stderr
    assert own_pipeline(load_pipeline(tmp_path / "own.toml")).columns


def test_new_never_replaces_a_file(mellea: Run, shop: Path) -> None:
    """Exit code 2, and the file stays as it was."""
    done = mellea("pipeline", "new", "-o", shop.name)
    assert (done.returncode, shop.read_text(encoding="utf-8")) == (2, SHOP)
    assert "exists already" in done.stderr


@pytest.mark.parametrize(
    ("name", "near"), [("nps", "'nps-reasons'"), ("bug-report", "'bug-reports'"), ("x", "there are")]
)
def test_an_unknown_template_is_refused_with_the_nearest(mellea: Run, name: str, near: str) -> None:
    """A mistyped name finds its neighbour."""
    done = mellea("pipeline", "new", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert near in done.stderr


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_has_labelled_rows(name: str) -> None:
    """At least 60, each text once, and every label is a choice of its field."""
    fields = load_pipeline(template_path(name)).fields
    rows = [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["text"] for row in rows}) == len(rows) >= 60
    assert not rows[0].keys() & fields.keys()
    for row in rows:
        for field, label in row["expected"].items():
            assert fields[field].problem(label, row["text"]) is None, (row, field)
    labelled = {field for field, spec in fields.items() if spec.type == "category"}
    assert labelled <= rows[0]["expected"].keys()
    for field in labelled:
        assert {row["expected"][field] for row in rows} == set(fields[field].choices)


def test_the_examples_of_a_template_are_not_among_its_rows() -> None:
    """What is measured was not shown."""
    for name in TEMPLATES:
        shown = {example.text for example in load_pipeline(template_path(name)).examples}
        lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert not any(json.loads(line)["text"] in shown for line in lines)


def test_check_names_every_problem_with_its_line(mellea: Run, shop: Path) -> None:
    """One line each, the exit code 2; a good file is described."""
    (shop.parent / "bad.toml").write_text(
        SHOP.replace('["workshop", "delivery"]', "[]") + "one_sentence = true\n", encoding="utf-8"
    )
    done = mellea("pipeline", "check", "shop.toml", "bad.toml", "missing.toml")
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "shop.toml: 2 fields: team (category), evidence (quote)",
        'bad.toml:4: the type category needs choices; add choices = ["billing", "delivery", "other"]',
        "bad.toml:9: one_sentence is for the type text, not for quote; remove one_sentence, or change type",
        "missing.toml: there is no such file; write a first one with: mellea pipeline new -o missing.toml",
    ]


def test_check_notes_labels_without_a_definition(mellea: Run, tmp_path: Path) -> None:
    """With their line; they are no problem, so the exit code is 0."""
    (tmp_path / "p.toml").write_text('extends = "single"\nlabels = { vexed = "", glad = "praise", negative = "" }\n')
    done = mellea("pipeline", "check", "p.toml")
    assert done.returncode == 0, done.stdout
    assert "p.toml:2: note: vexed has no definition" in done.stdout
    assert 'labels = { "vexed" = "if …", … }' in done.stdout
    assert "vexed" in json.loads(mellea("pipeline", "check", "--json", "p.toml").stdout)["notes"][0]


def test_check_for_scripts(mellea: Run, shop: Path) -> None:
    """A line of JSON for each file."""
    shop.write_text(SHOP + "typ = 1\n", encoding="utf-8")
    done = mellea("pipeline", "check", "--json", "shop.toml")
    problem = {
        "line": 9,
        "key": "fields.evidence.typ",
        "message": "there is no key 'typ'",
        "hint": "did you mean 'type'?",
    }
    assert json.loads(done.stdout) == {
        "file": "shop.toml",
        "ok": False,
        "problems": [problem],
        "notes": [],
        "fields": {},
    }
    assert done.returncode == 2


def test_show_has_prompt_schema_and_columns(mellea: Run, shop: Path) -> None:
    """What is sent for a row, as text and as JSON."""
    shown = mellea("pipeline", "show", "shop.toml").stdout
    assert shown.startswith("columns team, evidence\n")
    assert "Reviews of a bicycle shop" in shown
    told = json.loads(mellea("pipeline", "show", "shop.toml", "--json").stdout)
    assert list(told["columns"]) == ["team", "evidence"]
    assert told["steps"][0]["row"] == "<feedback>\n(the row's text)\n</feedback>"
    assert set(told["steps"][0]["schema"]["properties"]) == {"team", "evidence"}


def test_show_names_needs_and_conditions(mellea: Run, shop: Path) -> None:
    """A step says what it needs and when it is asked, and its prompt has a place for each value."""
    steps = """
[fields.call]
type = "bool"
[[steps]]
name = "first"
fields = ["team", "evidence"]
[[steps]]
name = "second"
fields = ["call"]
needs = ["first"]
when = 'team == "workshop"'
prompt = "{{ text }} by {{ row.channel }} for {{ team }}"
"""
    shop.write_text(SHOP + steps, encoding="utf-8")
    shown = mellea("pipeline", "show", "shop.toml").stdout
    assert 'needs first\n  when team == "workshop"\n' in shown
    assert "by (channel) for (team)" in shown


@pytest.mark.parametrize("command", [["show"], ["try", "reviews.jsonl"]])
def test_a_malformed_file_ends_in_one_line(mellea: Run, shop: Path, reviews: Path, command: list[str]) -> None:
    """Before anything is asked, with the line of the file."""
    shop.write_text(SHOP + "[fields.team]\n", encoding="utf-8")
    done = mellea("pipeline", command[0], "shop.toml", *command[1:])
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error == "mellea: error: shop.toml:9: it is not TOML: a table is written twice"
    assert hint.startswith("mellea: try: ")


def test_the_run_over_all_rows_has_the_flags_of_the_try(mellea: Run, shop: Path, reviews: Path) -> None:
    """What is to be typed next reads the same column and asks the same model; which rows were tried is left out."""
    flags = ("--format", "jsonl", "--text-field", "text", "--backend", "scripted", "--redact")
    done = mellea("pipeline", "try", "shop.toml", "reviews.jsonl", *flags, "--sample", "--fresh")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(f"all rows: mellea run shop.toml reviews.jsonl {' '.join(flags)} -o OUT\n")


def test_try_asks_about_five_rows(mellea: Run, shop: Path, reviews: Path) -> None:
    """Text, answers and what was asked stand next to each other; the last lines say what to type next."""
    done = mellea("pipeline", "try", "shop.toml", "reviews.jsonl", "-b", "scripted")
    assert done.returncode == 0
    assert done.stdout.count("asked: team, evidence") == 5
    assert "The door of car 4 is stuck." in done.stdout
    assert "5 rows asked with 5 calls" in done.stderr
    assert all(len(line) < 80 for line in done.stderr.splitlines()[-2:])
    assert "mellea run shop.toml reviews.jsonl --backend scripted -o OUT" in done.stderr


def test_an_edit_asks_only_what_it_changes(mellea: Run, shop: Path, reviews: Path) -> None:
    """The second try remembers; a new field, a reworded one and a removed one ask themselves or nothing."""

    def again(source: str) -> list[dict[str, Any]]:
        shop.write_text(source, encoding="utf-8")
        return tried(mellea("pipeline", "try", "shop.toml", "reviews.jsonl", "-b", "scripted", "-n", "3", "--json"))

    assert [row["asked"] for row in again(SHOP)] == [["team", "evidence"]] * 3
    assert [row["asked"] for row in again(SHOP)] == [[]] * 3
    assert [row["asked"] for row in again(SHOP + "[fields.urgent]\ntype = 'bool'\n")] == [["urgent"]] * 3
    reworded = SHOP.replace('type = "quote"', 'type = "quote"\ndescription = "the complaint"')
    assert [row["asked"] for row in again(reworded)] == [["evidence"]] * 3
    assert [row["asked"] for row in again(SHOP)] == [[]] * 3
    answers = again(SHOP.partition("[fields.evidence]")[0])
    assert [(row["asked"], list(row["answers"])) for row in answers] == [([], ["team"])] * 3


def test_fresh_asks_again(mellea: Run, shop: Path, reviews: Path) -> None:
    """Kept answers are dropped."""
    arguments = ("pipeline", "try", "shop.toml", "reviews.jsonl", "-b", "scripted", "-n", "2", "--json")
    tried(mellea(*arguments))
    assert all(row["asked"] for row in tried(mellea(*arguments, "--fresh")))


def test_a_damaged_cache_is_replaced(mellea: Run, shop: Path, reviews: Path, tmp_path: Path) -> None:
    """Kept answers only spare questions: their loss stops nothing."""
    arguments = ("pipeline", "try", "shop.toml", "reviews.jsonl", "-b", "scripted", "-n", "2", "--json")
    tried(mellea(*arguments))
    (journal,) = tmp_path.glob("state/mellea/tries/*.journal")
    journal.write_bytes(b"damaged" * 1000)
    assert all(row["asked"] for row in tried(mellea(*arguments)))


def test_answers_of_tries_stay_for_some_days_only(mellea: Run, shop: Path, reviews: Path, tmp_path: Path) -> None:
    """In the state folder; --forget deletes them at once, and nothing is left in the cache of earlier versions."""
    arguments = ("pipeline", "try", "shop.toml", "reviews.jsonl", "-b", "scripted", "-n", "2", "--json")
    old = tmp_path / "cache" / "mellea" / "tries"
    old.mkdir(parents=True)
    (old / "a.journal").write_text("feedback")
    tries = tmp_path / "state" / "mellea" / "tries"
    tries.mkdir(parents=True)
    for name, age in (("b.journal", 8), ("b.journal-wal", 8), ("c.journal", 6)):
        (tries / name).write_text("feedback")
        os.utime(tries / name, (time.time() - age * 86_400,) * 2)
    tried(mellea(*arguments))
    assert not old.exists()
    (kept,) = (path for path in tries.iterdir() if path.name != "c.journal")
    assert kept.suffix == ".journal"
    assert not any(row["asked"] for row in tried(mellea(*arguments, "--forget")))
    assert [path.name for path in tries.iterdir()] == ["c.journal"]
    assert all(row["asked"] for row in tried(mellea(*arguments)))


def test_a_try_masks_what_is_sent(mellea: Run, shop: Path, tmp_path: Path) -> None:
    """As in a run: the server sees no address, and text and prompt are shown as they were sent."""
    write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "Mail me at ann@example.com, it leaks."}])
    with ModelServer(record=True) as server:
        where = ("-b", "openai", "-m", "test-model", "--base-url", server.openai_url)
        shown = mellea("pipeline", "try", "shop.toml", "in.jsonl", *where, "--redact", "--json")
        sent = json.dumps(server.state.bodies)
    assert "it leaks" in sent
    assert "ann@example.com" not in sent
    (row,) = tried(shown)
    assert "ann@example.com" not in row["text"] + "".join(row["prompts"].values())


def test_a_prompt_of_its_own_is_shown_as_it_is_sent(mellea: Run, shop: Path, reviews: Path) -> None:
    """With the row's columns filled in."""
    step = '[[steps]]\nname = "all"\nfields = ["team", "evidence"]\nprompt = "{{ text }} by {{ row.channel }}"\n'
    shop.write_text(SHOP + step, encoding="utf-8")
    done = mellea("pipeline", "try", "shop.toml", "reviews.jsonl", "-b", "scripted", "-n", "1")
    assert "</feedback> by web" in done.stdout


def test_try_needs_rows_that_can_be_read_again(mellea: Run, shop: Path) -> None:
    """Stdin is refused."""
    done = mellea("pipeline", "try", "shop.toml", "-", "-b", "scripted", stdin="a\n")
    assert done.returncode == 2
    assert "name a file" in done.stderr


def test_a_field_named_like_a_column_is_refused(mellea: Run, shop: Path, reviews: Path) -> None:
    """With the line of the pipeline file."""
    shop.write_text(SHOP + "[fields.channel]\n", encoding="utf-8")
    done = mellea("pipeline", "try", "shop.toml", "reviews.jsonl", "-b", "scripted")
    assert done.returncode == 2
    assert "shop.toml:9: the field 'channel' has the name of the input's column" in done.stderr
