"""`mellea run`, and own fields in `mellea summarise`: which fields of which rows are asked, by the server's count."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopback import BatchPlan, ModelServer
from rowfiles import Process, Run, read_rows, write_rows

ROWS = 200
PRODUCT = '[fields.product]\ndescription = "The product"\n'
TEAM = '[fields.team]\ntype = "category"\nchoices = ["billing", "delivery"]\n'
STARS = '[fields.stars]\ntype = "int"\ndescription = "How many stars"\nminimum = 1\nmaximum = 5\n'


def rows_of(count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows with a text of their own."""
    return [{"id": number, "text": f"MARK-{number} The pump {number} leaks.", **more} for number in range(count)]


def where(server: ModelServer) -> tuple[str, ...]:
    """The flags that name the server."""
    return ("-b", "openai", "-m", "test-model", "--base-url", server.openai_url, "-o", "out.jsonl", "-q")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The rows of the issue's promise."""
    return write_rows(tmp_path / "in.jsonl", rows_of(ROWS))


@pytest.fixture
def asked(mellea: Run, server: ModelServer, tmp_path: Path, source: Path) -> Any:
    """Run a pipeline over the rows; return how many requests the server counted."""

    def run(*parts: str, flags: tuple[str, ...] = ()) -> int:
        (tmp_path / "p.toml").write_text("\n".join(parts))
        before = server.state.requests
        done = mellea("run", "p.toml", str(source), *where(server), *flags)
        assert done.returncode == 0, done.stderr
        return server.state.requests - before

    return run


def test_a_change_asks_only_what_it_changes(asked: Any, tmp_path: Path) -> None:
    """Added: one call a row. Removed: none. Reworded: one call a row. Together at first: one call a row."""
    assert asked(PRODUCT, TEAM) == ROWS
    first = {row["id"]: row for row in read_rows(tmp_path / "out.jsonl")}
    assert asked(PRODUCT, TEAM) == 0
    assert asked(PRODUCT, TEAM, STARS) == ROWS
    after = read_rows(tmp_path / "out.jsonl")
    assert [list(row) for row in after] == [["id", "text", "product", "team", "stars"]] * ROWS
    assert all(row["product"] == first[row["id"]]["product"] for row in after)
    assert asked(PRODUCT, STARS) == 0
    assert list(read_rows(tmp_path / "out.jsonl")[0]) == ["id", "text", "product", "stars"]
    assert asked(PRODUCT.replace("The product", "What the customer has bought"), STARS) == ROWS
    # Both are known by now, whichever is in the file.
    assert asked(PRODUCT, TEAM, STARS) == 0


def test_the_order_of_the_file_is_the_order_of_the_columns(asked: Any, tmp_path: Path) -> None:
    """Another order, or another name of the file, asks nothing."""
    assert asked(PRODUCT, TEAM) == ROWS
    assert asked(TEAM, PRODUCT) == 0
    assert list(read_rows(tmp_path / "out.jsonl")[0]) == ["id", "text", "team", "product"]


def test_fields_are_added_to_a_finished_summarise(
    mellea: Run, server: ModelServer, source: Path, tmp_path: Path
) -> None:
    """A flag asks its own field alone; the built-in columns stay as they are."""
    assert mellea("summarise", str(source), *where(server)).returncode == 0
    before = read_rows(tmp_path / "out.jsonl")
    server.state.clear()
    flags = ("--field", "product: the product", "--category", "team=billing,delivery,other")
    assert mellea("summarise", str(source), *where(server), *flags).returncode == 0
    assert server.state.requests == ROWS
    after = read_rows(tmp_path / "out.jsonl")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    assert {row["team"] for row in after} <= {"billing", "delivery", "other"}
    # And away again: plain summarise finds its own answers.
    assert mellea("summarise", str(source), *where(server)).returncode == 0
    assert server.state.requests == ROWS
    assert read_rows(tmp_path / "out.jsonl") == before


def test_a_fresh_run_with_built_in_fields_is_one_call_a_row(asked: Any, tmp_path: Path) -> None:
    """`extends` and own fields come from the same call."""
    assert asked('extends = "single"', PRODUCT, TEAM) == ROWS
    assert list(read_rows(tmp_path / "out.jsonl")[0])[2:] == ["summary", "sentiment", "issues", "product", "team"]


def test_identical_texts_are_asked_once(mellea: Run, server: ModelServer, tmp_path: Path) -> None:
    """Also when a field is added."""
    source = write_rows(tmp_path / "in.jsonl", [{"text": "MARK-1 Same."}] * 30)
    for flags, expected in (((), 1), (("--field", "product: it"), 2), (("--field", "product: it"), 2)):
        assert mellea("summarise", str(source), *where(server), *flags).returncode == 0
        assert server.state.requests == expected


def test_a_dry_run_says_which_fields_of_how_many_rows(
    asked: Any, mellea: Run, server: ModelServer, source: Path
) -> None:
    """By the journal, and with the prompt that would be sent."""
    assert asked(PRODUCT, flags=("-n", "150")) == 150
    flags = ("--field", "stars(int): how many", *where(server)[:-1], "--dry-run")
    told = mellea("run", "p.toml", str(source), *flags).stdout
    assert "stars: asked for 200 rows" in told
    assert "product: asked for 50 rows" in told
    assert "1 per item, 200 in all" in told
    assert "- stars: how many" in told
    assert server.state.requests == 150


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
def test_cells_edited_by_hand_are_kept(mellea: Run, tmp_path: Path, suffix: str) -> None:
    """When fields are added, reworded and removed: a removed column goes, but not what a person wrote in it."""
    source = write_rows(tmp_path / "in.jsonl", rows_of(3))
    output = tmp_path / f"out.{suffix}"

    def run(*fields: str) -> str:
        flags = [part for field in fields for part in ("--field", field)]
        done = mellea("summarise", str(source), "-o", output.name, "-b", "scripted", *flags)
        assert done.returncode == 0, done.stderr
        return output.read_text()

    first = run("product: the product", "code: the code")
    told = "MARK-1 The pump 1 leaks."
    at = first.rindex(told, 0, first.rindex(told))
    output.write_text(first[:at] + "by hand" + first[at + len(told) :])
    assert run("product: the product", "code: the code", "stars(int): stars").count("by hand") == 1
    assert run("product: something else", "code: the code", "stars(int): stars").count("by hand") == 1
    without = run("code: the code")
    assert "stars" not in without
    assert without.count("by hand") == 1
    assert run("code: the code", "product: the product").count("by hand") == 1


def test_columns_that_a_run_leaves_out_are_named(mellea: Run, server: ModelServer, tmp_path: Path) -> None:
    """Once; they come back from the journal without a question."""
    source = write_rows(tmp_path / "in.jsonl", rows_of(2))
    flags = ("--field", "product: the product", "--category", "team=billing,delivery")

    def said(*arguments: str) -> str:
        done = mellea("summarise", str(source), *where(server)[:-1], *arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "left out" not in said(*flags)
    assert "out.jsonl: column team of the earlier run is left out; its answers stay in the journal" in said(*flags[:2])
    assert "column product of the earlier run is left out" in said()
    assert "left out" not in said()
    asked = server.state.requests
    assert "left out" not in said(*flags)
    assert "columns product, team of the earlier run are left out; their answers" in said()
    assert server.state.requests == asked


def test_a_field_that_fails_keeps_the_others(mellea: Run, server: ModelServer, source: Path, tmp_path: Path) -> None:
    """The row fails with the field's reason; once the field is right, only that field is asked again."""
    pattern = '[fields.code]\npattern = "[A-Z]{3}"\n'
    (tmp_path / "p.toml").write_text(f"{PRODUCT}\n{pattern}")
    done = mellea("run", "p.toml", str(source), *where(server), "-n", "3")
    assert done.returncode == 3
    assert "code" in read_rows(tmp_path / "out.jsonl")[0]["error"]["message"]
    (tmp_path / "p.toml").write_text(PRODUCT)
    before = server.state.requests
    assert mellea("run", "p.toml", str(source), *where(server), "-n", "3").returncode == 0
    assert server.state.requests == before


STEPS = """
[fields.product]
[fields.team]
type = "category"
choices = ["billing", "delivery"]
[fields.refund]
type = "bool"
[[steps]]
name = "facts"
fields = ["product", "team"]
[[steps]]
name = "money"
fields = ["refund"]
needs = ["facts"]
when = "team == 'billing'"
prompt = "{{ row.channel }} {{ product }}: {{ text }}"
"""


def test_steps_have_their_own_prompts_and_conditions(mellea: Run, serve: Any, tmp_path: Path) -> None:
    """A step is asked where its condition holds, sees earlier answers and other columns, and is null elsewhere."""
    server = serve(record=True)
    source = write_rows(tmp_path / "in.jsonl", rows_of(20, channel="app"))
    (tmp_path / "p.toml").write_text(STEPS)
    assert mellea("run", "p.toml", str(source), *where(server)).returncode == 0
    rows = read_rows(tmp_path / "out.jsonl")
    billing = [row for row in rows if row["team"] == "billing"]
    assert server.state.requests == 20 + len(billing)
    assert all((row["refund"] is not None) == (row["team"] == "billing") for row in rows)
    shown = [
        body["messages"][-1]["content"] for body in server.state.bodies if "app " in body["messages"][-1]["content"]
    ]
    assert len(shown) == len(billing)
    assert all("<feedback>\nMARK-" in text for text in shown)
    # Another channel is another question, for this step only.
    write_rows(source, rows_of(20, channel="web"))
    before = server.state.requests
    assert mellea("run", "p.toml", str(source), *where(server)).returncode == 0
    assert server.state.requests == before + len(billing)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--field", "my field: x"), "try: write --field 'my_field: x'"),
        (("--field", "2nd(bool): x"), "try: write --field 'field_2nd(bool): x'"),
        (("--category", "and=a,b"), "try: write --category 'field_and=a,b'"),
        (("--category", "team=a"), "try: write --category 'team=billing,delivery,other'"),
        (("--category", "team=a,A"), "has the choice 'a' twice"),
        (("--field", "summary: b"), "try: choose another name\n"),
        (("--field", "id: the id"), "the field 'id' has the name of the input's column 'id'"),
        (("--field", "a(colour): b"), "there is no type 'colour'"),
        (("--field", "team(category): b"), "a category needs choices"),
        (("--category", "team=a"), "one choice is no choice"),
        (("--category", "team"), "is no field with choices"),
        (("--field", "a: b", "--field", "a: c"), "there is a field 'a' already"),
        (("--field", "sentiment: b"), "is a column of the built-in pipeline"),
        (("--labels", "positive"), "one label is no choice"),
        (("-p", "other"), "there is no pipeline 'other'"),
        (("-p", "no_such_module:Name"), "there is no module 'no_such_module'"),
        (("-p", "json:dumps"), "not as a pipeline"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    mellea: Run, server: ModelServer, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    """In one line, before the first request."""
    source = write_rows(tmp_path / "in.jsonl", rows_of(3))
    done = mellea("summarise", str(source), *where(server), *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert server.state.requests == 0


def test_labels_without_a_definition_get_a_note(mellea: Run, server: ModelServer, tmp_path: Path) -> None:
    """It says how to define them; a definition on the command line reaches the prompt, and then there is no note."""
    source = write_rows(tmp_path / "in.jsonl", rows_of(1))
    done = mellea("summarise", str(source), *where(server)[:-1], "--labels", "positive,vexed,leaving", "--dry-run")
    assert "vexed, leaving have no definition" in done.stderr
    assert "write --labels 'vexed=if …,leaving=if …,…'" in done.stderr
    labels = "positive, vexed = if somebody shouts, leaving=cancels"
    done = mellea("summarise", str(source), *where(server)[:-1], "--labels", labels, "--dry-run")
    assert "no definition" not in done.stderr
    assert '"vexed" if somebody shouts; "leaving" cancels.' in done.stdout
    done = mellea("summarise", str(source), *where(server)[:-1], "--labels", "positiv,negativ,mixed", "--dry-run")
    assert "no definition" not in done.stderr


def test_a_field_named_like_a_column_is_refused_with_its_line(mellea: Run, tmp_path: Path) -> None:
    """The line of the pipeline file is named, and so is a column that a prompt wants and the input does not have."""
    write_rows(tmp_path / "in.jsonl", rows_of(1))
    (tmp_path / "p.toml").write_text(f"{PRODUCT}\n[fields.ID]\n")
    done = mellea("run", "p.toml", "in.jsonl", "-b", "scripted")
    assert done.returncode == 2
    assert "p.toml:4: the field 'ID' has the name of the input's column 'id'" in done.stderr
    (tmp_path / "p.toml").write_text(STEPS)
    done = mellea("run", "p.toml", "in.jsonl", "-b", "scripted")
    assert "a prompt shows row.channel, and the input has no such column" in done.stderr


MODULE = """
from typing import Literal
from pydantic import BaseModel, Field

class Order(BaseModel):
    "Orders of a bicycle shop"
    product: str | None = Field(description="The product")
    team: Literal["billing", "delivery"]
    stars: int = Field(ge=1, le=5)
"""


def test_a_pydantic_model_is_a_pipeline(mellea: Run, server: ModelServer, tmp_path: Path) -> None:
    """Its fields are columns, each remembered by itself."""
    (tmp_path / "shop_models.py").write_text(MODULE)
    write_rows(tmp_path / "in.jsonl", rows_of(5))
    assert mellea("run", "shop_models:Order", "in.jsonl", *where(server)).returncode == 0
    rows = read_rows(tmp_path / "out.jsonl")
    assert list(rows[0])[2:] == ["product", "team", "stars"]
    assert server.state.requests == 5


def test_an_exported_batch_holds_only_the_missing_fields(mellea: Run, server: ModelServer, tmp_path: Path) -> None:
    """And its answers come back into the same rows."""
    write_rows(tmp_path / "in.jsonl", rows_of(4))
    (tmp_path / "p.toml").write_text(PRODUCT)
    assert mellea("run", "p.toml", "in.jsonl", *where(server)).returncode == 0
    (tmp_path / "p.toml").write_text(f"{PRODUCT}\n{TEAM}")
    arguments = ("run", "p.toml", "in.jsonl", "-b", "openai", "-m", "test-model", "-o", "out.jsonl")
    assert mellea(*arguments, "--export-batch", "requests.jsonl").returncode == 0
    requests = read_rows(tmp_path / "requests.jsonl")
    assert len(requests) == 4
    replies = []
    for request in requests:
        schema = request["body"]["response_format"]["json_schema"]["schema"]
        assert list(schema["properties"]) == ["team"]
        message = {"role": "assistant", "content": json.dumps({"team": "billing"})}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {}}
        replies.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}})
    write_rows(tmp_path / "replies.jsonl", replies)
    before = server.state.requests
    done = mellea(*arguments, "--base-url", server.openai_url, "--import-batch", "replies.jsonl")
    assert done.returncode == 0, done.stderr
    assert server.state.requests == before
    rows = read_rows(tmp_path / "out.jsonl")
    assert {row["team"] for row in rows} == {"billing"}
    assert all("MARK-" in row["product"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["first", "added", "reworded"])
def test_a_kill_loses_no_answer(mellea: Run, serve: Any, tmp_path: Path, change: str) -> None:
    """SIGKILL in the middle: what was durable is not asked again, and every row has every answer in the end."""
    write_rows(tmp_path / "in.jsonl", rows_of(ROWS))
    server = serve(latency_s=0.02)
    flags = (*where(server), "-c", "8")
    kept = 0
    if change != "first":
        (tmp_path / "p.toml").write_text(PRODUCT)
        assert mellea("run", "p.toml", "in.jsonl", *flags).returncode == 0
        kept = ROWS
    second = {"first": PRODUCT, "added": PRODUCT + TEAM, "reworded": PRODUCT.replace("The", "Which")}[change]
    (tmp_path / "p.toml").write_text(second)
    command = [sys.executable, "-m", "mellea_cli", "run", "p.toml", "in.jsonl", *flags]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    server.wait(lambda state: state.completed >= kept + 80, timeout=60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    told = mellea("run", "p.toml", "in.jsonl", *flags[:-3], "--dry-run").stdout
    missing = int(told.split("asked for ")[1].split()[0].replace(",", ""))
    # Those in flight, and those of the group that was being written.
    assert missing <= ROWS - 80 + 2 * 8
    before = server.state.requests
    done: Process = mellea("run", "p.toml", "in.jsonl", *flags)
    assert done.returncode == 0, done.stderr
    assert server.state.requests - before == missing
    rows = read_rows(tmp_path / "out.jsonl")
    assert len(rows) == ROWS
    assert all(row["product"] and f"MARK-{row['id']} " in row["product"] for row in rows)


def test_a_batch_queue_gets_only_the_missing_fields(mellea: Run, serve: Any, tmp_path: Path) -> None:
    """A request for each row with the fields that it lacks; the answers come back into the same rows."""
    server = serve(batches=BatchPlan())
    write_rows(tmp_path / "in.jsonl", rows_of(6))
    (tmp_path / "p.toml").write_text(PRODUCT)
    assert mellea("run", "p.toml", "in.jsonl", *where(server)).returncode == 0
    (tmp_path / "p.toml").write_text(f"{PRODUCT}\n{TEAM}\n{STARS}")
    before = server.state.requests
    done = mellea("run", "p.toml", "in.jsonl", *where(server), "--offload", "--batch-poll", "1s")
    assert done.returncode == 0, done.stderr
    # The first request is asked live.
    assert server.state.requests - before == 1
    assert server.state.batch_rows.total() == 5
    uploaded = [json.loads(line) for line in b"".join(server.state.uploaded).splitlines()]
    schemas = [one["body"]["response_format"]["json_schema"]["schema"] for one in uploaded]
    assert {tuple(schema["properties"]) for schema in schemas} == {("stars", "team")}
    assert all(row["team"] and row["stars"] and "MARK-" in row["product"] for row in read_rows(tmp_path / "out.jsonl"))
