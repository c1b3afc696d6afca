"""The row model: what it learns, what a learned row has, and how both kinds of rows live in one journal."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from run_io import Listed, plan

from inprocess import run_in_process
from loopback import ModelServer
from mellea_cli.errors import UsageError
from mellea_cli.io.journal import MemoryAnswers
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Item, Outcome, Row, Success
from mellea_cli.pipelines.default_prompts import PIPELINES
from mellea_cli.pipelines.own_fields import own_pipeline
from mellea_cli.pipelines.pipeline_spec import PipelineSpec
from mellea_cli.run.batch import RunIO
from mellea_cli.run.row_model import Audit, LearnedFields, RowLearner, RowModel, audit_share
from rowfiles import Process, read_rows, write_rows

WORDS = {
    "positive": ["great", "love", "excellent", "friendly", "perfect", "wonderful"],
    "negative": ["broken", "awful", "rude", "refund", "terrible", "useless"],
}
FILLER = "the order parcel room team app door week train shop staff print phone city light garden".split()  # noqa: SIM905 - words


def feedback(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of praise and complaint, each text once."""
    chance, rows = random.Random(seed), []  # noqa: S311 - made-up rows
    for number in range(count):
        label = chance.choice(sorted(WORDS))
        said = [*chance.sample(WORDS[label], 2), *chance.sample(FILLER, 6)]
        chance.shuffle(said)
        rows.append({"id": number, "text": f"It was {' '.join(said)} number {number}."})
    return rows


def label_of(text: str) -> str:
    """The label of a text, by its words."""
    said = text.replace(".", " ").split()
    return max(WORDS, key=lambda label: sum(word in said for word in WORDS[label]))


def answer(prompt: str, _: Mapping[str, Any] | None) -> str:
    """The full reading: what a model would say about the text of the prompt."""
    text = prompt.rsplit("<feedback>", maxsplit=1)[-1].split("</feedback>", maxsplit=1)[0].strip()
    label = label_of(text)
    good, bad = label == "positive", label == "negative"
    return json.dumps(
        {
            "positive_aspect": "what was good" if good else None,
            "main_complaint": "what was bad" if bad else None,
            "urgency": "medium" if bad else "low",
            "sentiment": label,
            "summary": "The customer says something.",
        }
    )


class Unwritten:
    """A sink that keeps nothing."""

    def add(self, row: Row) -> None: ...
    def flush(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


# What a learned row has.


def own(**fields: dict[str, Any]) -> LearnedFields:
    """The fields of a pipeline of one's own."""
    return LearnedFields.of(own_pipeline(PipelineSpec.model_validate({"fields": fields}), "mine"))


def test_the_fields_of_the_built_in_pipelines_can_be_learned() -> None:
    """Sentiment and urgency by the model, the rest by rule."""
    for pipeline in PIPELINES.values():
        assert LearnedFields.of(pipeline).names == ("sentiment", "urgency")
    assert LearnedFields.of(PIPELINES["single"], ["sentiment"]).names == ("sentiment",)


def test_fields_without_fixed_values_cannot_be_learned() -> None:
    """The message names the field and the flag that leaves it empty."""
    team = {"type": "category", "choices": ["billing", "shipping"], "description": "who has to act"}
    assert own(team=team, late={"type": "bool", "description": "it was late"}).names == ("team", "late")
    with pytest.raises(UsageError, match="product cannot be learned") as refused:
        own(team=team, product={"type": "text", "description": "the product"})
    assert "--learn-fields team" in refused.value.hint
    with pytest.raises(UsageError, match="'summary' has no fixed values") as refused:
        LearnedFields.of(PIPELINES["single"], ["summary"])
    assert "sentiment, urgency" in refused.value.hint


def tone(piece: str) -> float:
    """Praise above complaint, by words."""
    return piece.count("good") - piece.count("bad")


@pytest.mark.parametrize(
    ("text", "sentiment", "praise", "complaint"),
    [
        ("It came late. All good.", "positive", "All good.", None),
        ("All good. A bad knob.", "negative", None, "A bad knob."),
        ("It is good, but the knob is bad.", "mixed", "It is good", "but the knob is bad."),
        ("So-so.", "mixed", None, None),
        ("Is it open on Sunday?", "neutral", None, None),
    ],
)
def test_praise_and_complaint_of_a_learned_row(
    text: str, sentiment: str, praise: str | None, complaint: str | None
) -> None:
    """The most positive and the most negative sentence or clause, as far as the sentiment says that there is one."""
    fields = LearnedFields.of(PIPELINES["single"])
    values = fields.values(text, [json.dumps(sentiment), json.dumps("high")], tone)
    issues = values["issues"]
    assert (values["sentiment"], issues["positive_aspect"], issues["main_complaint"]) == (sentiment, praise, complaint)
    assert issues["urgency"] == ("low" if sentiment == "positive" else "high")
    assert fields.labels(values) == (json.dumps(sentiment), json.dumps(issues["urgency"]))


def test_the_summary_of_a_learned_row_is_its_first_sentence() -> None:
    """Cut below thirty words; a short text unchanged."""
    fields = LearnedFields.of(PIPELINES["single"])
    labels = ['"positive"', '"low"']
    assert fields.values("  Good\n stuff ", labels, tone)["summary"] == "Good stuff"
    assert fields.values("Good one. And more.", labels, tone)["summary"] == "Good one."
    assert len(fields.values("word " * 80, labels, tone)["summary"].split()) < 30


def test_values_of_own_fields_keep_their_types() -> None:
    """Booleans, lists and null come back as they were."""
    choices = {"type": "categories", "choices": ["a", "b"], "description": "which"}
    fields = own(late={"type": "bool", "description": "late"}, which=choices)
    values = {"late": None, "which": ["a", "b"]}
    assert fields.values("text", fields.labels(values), tone) == values


# What the model learns.


def test_the_model_learns_from_rows() -> None:
    """It is right about new rows, and what it says of a row that it has not seen is no echo of that row."""
    rows = [row["text"] for row in feedback(400)]
    labels = [(label_of(text), "same") for text in rows]
    model, unseen = RowModel.fit(rows, labels)
    new = [row["text"] for row in feedback(100, seed=1)]
    guesses = model.guesses(new)
    assert sum(guess.labels == (label_of(text), "same") for guess, text in zip(guesses, new, strict=True)) >= 97
    assert all(0.5 <= guess.score <= 1 for guess in guesses)
    assert sum(guess.labels == label for guess, label in zip(unseen, labels, strict=True)) >= 380
    chance = random.Random(0)  # noqa: S311 - made-up rows
    noise = [(chance.choice("ab"),) for _ in rows]
    _, unseen = RowModel.fit(rows, noise)
    assert 0.3 < sum(guess.labels == label for guess, label in zip(unseen, noise, strict=True)) / 400 < 0.7


def test_the_share_that_is_audited() -> None:
    """About three hundred rows, within limits; a stream has a fixed share."""
    assert [audit_share(rows) for rows in (600, 3_000, 50_000, None)] == [0.15, 0.1, 0.02, 0.05]


async def test_a_change_of_the_rows_is_noticed() -> None:
    """Where the answers turn into their opposite, the model soon takes no more rows, and learns again."""
    chosen = plan()
    fields = LearnedFields.of(chosen.pipeline)
    learner = RowLearner(chosen, fields, Audit(0.95, fields.names, 0.15))
    rows, taken = feedback(1_400), []
    run_io = learner.run_io(RunIO(Listed(()), Unwritten(), AddedColumns.of("sentiment").row, MemoryAnswers()))
    for place, row in enumerate(rows):
        turned = place >= 700

        async def ask(item: Item, turned: bool = turned) -> Outcome:
            said = json.loads(answer(item.text, None))
            label = {"positive": "negative", "negative": "positive"}[said["sentiment"]] if turned else said["sentiment"]
            return Success({"sentiment": label, "issues": {"urgency": "low"}})

        item = Item(place, place, row["text"])
        outcome = await learner.read(ask, item)
        assert outcome is not None
        run_io.to_row(item, outcome)
        taken.append(isinstance(outcome, Success) and outcome.answered_by == "learned")
    assert sum(taken[:700]) > 100
    assert sum(taken[700:]) < 100
    assert learner.figures().rows == sum(taken)


# Whole runs.

ROWS = 800


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the configuration or the state of whoever runs it."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def arguments(server: ModelServer, *flags: str) -> tuple[str, ...]:
    """A run of `in.jsonl` against the server."""
    address = ("-b", "openai", "-m", "test-model", "--base-url", server.openai_url)
    return ("summarise", "in.jsonl", "-o", "out.jsonl", *address, "--json", "-c", "8", *flags)


def summary(done: Process) -> dict[str, Any]:
    """The closing line of JSON."""
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return found


def run(folder: Path, server: ModelServer, *flags: str) -> dict[str, Any]:
    """Run in this process, and return the summary."""
    done = run_in_process(arguments(server, *flags), folder, None, None)
    assert done.returncode == 0, done.stderr
    return summary(done)


def test_a_learned_run_and_the_runs_after_it(tmp_path: Path) -> None:
    """A quarter fewer calls; typed again nothing is asked; without --learn only the learned rows are asked."""
    rows = feedback(ROWS)
    write_rows(tmp_path / "in.jsonl", rows)
    with ModelServer(reply=answer, record=False) as server:
        first = run(tmp_path, server, "--learn")
        calls = server.state.requests
        out = read_rows(tmp_path / "out.jsonl")
        again = run(tmp_path, server, "--learn")
        assert server.state.requests == calls
        whole = run(tmp_path, server)
        asked = server.state.requests - calls
    kinds = Counter(row["answered_by"] for row in out)
    assert set(kinds) == {"model", "learned"}
    assert kinds["learned"] >= ROWS / 4
    assert calls == first["calls"] == ROWS - kinds["learned"]
    learned = [row for row in out if row["answered_by"] == "learned"]
    assert sum(row["sentiment"] == label_of(row["text"]) for row in learned) / len(learned) >= 0.95
    assert all(row["summary"] and row["issues"]["urgency"] for row in learned)
    audit = first["audit"]
    assert (audit["promised"], audit["rows"], audit["kept"]) == (0.95, kinds["learned"], True)
    assert audit["audited"] > 10
    assert [field["field"] for field in audit["fields"]] == ["sentiment", "urgency"]
    assert all(field["low"] <= field["agreement"] <= field["high"] for field in audit["fields"])
    # What was measured is remembered with the answers.
    assert (again["audit"], again["reused"], again["learned"]) == (audit, ROWS, 0)
    assert asked == kinds["learned"]
    assert whole["audit"] is None
    assert "answered_by" not in read_rows(tmp_path / "out.jsonl")[0]


def test_another_promise_decides_again(tmp_path: Path) -> None:
    """Learned answers of a weaker promise are not used for a stronger one; `best` asks for every row."""
    write_rows(tmp_path / "in.jsonl", feedback(ROWS))
    with ModelServer(reply=answer, record=False) as server:
        weak = run(tmp_path, server, "--accuracy", "0.8")
        strong = run(tmp_path, server, "--accuracy", "97%")
        best = run(tmp_path, server, "--accuracy", "best")
        total = server.state.requests
    assert (weak["audit"]["promised"], strong["audit"]["promised"], best["audit"]) == (0.8, 0.97, None)
    assert weak["learned"] > strong["learned"]
    assert total == ROWS


@pytest.mark.timeout(400)
def test_a_killed_run_keeps_both_kinds(tmp_path: Path) -> None:
    """Killed while the row model takes rows: no answer of either kind is lost, and none is asked twice."""
    write_rows(tmp_path / "in.jsonl", feedback(ROWS))
    with ModelServer(reply=answer, latency_s=0.005) as server:
        command = [sys.executable, "-m", "mellea_cli", *arguments(server, "--learn")]
        unfinished = tmp_path / "out.jsonl.partial"
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            server.wait(lambda _: unfinished.exists() and '"learned"' in unfinished.read_text(), timeout=200)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        partial = unfinished.read_text()
        finished = run(tmp_path, server, "--learn")
        asked = Counter(server.state.attempts)
    written = [json.loads(line) for line in partial.splitlines() if line.endswith("}")]
    before = {row["id"]: row for row in written}
    out = {row["id"]: row for row in read_rows(tmp_path / "out.jsonl")}
    assert Counter(row["answered_by"] for row in written).keys() == {"model", "learned"}
    assert all(out[number] == row for number, row in before.items())
    assert finished["audit"]["rows"] == sum(row["answered_by"] == "learned" for row in out.values())
    assert len(out) == ROWS
    # A row in flight at the kill may be asked once more.
    assert sum(count > 1 for count in asked.values()) <= 8


def test_a_small_input_is_asked_as_ever(tmp_path: Path) -> None:
    """Up to five hundred rows there is nothing to learn, and the column is there."""
    write_rows(tmp_path / "in.jsonl", feedback(450))
    with ModelServer(reply=answer, record=False) as server:
        told = run(tmp_path, server, "--learn")
    assert (told["calls"], told["learned"], told["audit"]["rows"]) == (450, 0, 0)
    assert {row["answered_by"] for row in read_rows(tmp_path / "out.jsonl")} == {"model"}


def test_rows_that_cannot_be_learned_are_asked(tmp_path: Path) -> None:
    """Where the answers follow no rule, no threshold holds, and the summary says so."""
    write_rows(tmp_path / "in.jsonl", feedback(700))
    chance = random.Random(0)  # noqa: S311 - made-up rows

    def noise(prompt: str, schema: Mapping[str, Any] | None) -> str:
        return json.dumps(
            {
                **json.loads(answer(prompt, schema)),
                "positive_aspect": None,
                "main_complaint": None,
                "sentiment": chance.choice(["positive", "negative", "mixed"]),
            }
        )

    with ModelServer(reply=noise, record=False) as server:
        done = run_in_process([one for one in arguments(server, "--learn") if one != "--json"], tmp_path, None, None)
        assert server.state.requests == 700
    assert "learned: no rows: the row model was never sure enough for an agreement of 95.0%" in done.stderr


def test_own_categories_are_learned(tmp_path: Path) -> None:
    """A pipeline with units: both kinds of rows are kept, and a further field is asked for the others alone."""
    write_rows(tmp_path / "in.jsonl", feedback(ROWS))

    def team(prompt: str, schema: Mapping[str, Any] | None) -> str:
        text = prompt.rsplit("<feedback>", maxsplit=1)[-1].split("</feedback>", maxsplit=1)[0]
        kind = {"positive": "happy", "negative": "angry"}[label_of(text)]
        wanted = (schema or {}).get("properties", {})
        return json.dumps(
            {**json.loads(answer(prompt, schema)), "mood": kind} if "summary" in wanted else {"mood": kind}
        )

    flags = ("--category", "mood=happy,angry", "--learn")
    with ModelServer(reply=team, record=False) as server:
        first = run(tmp_path, server, *flags)
        calls = server.state.requests
        again = run(tmp_path, server, *flags)
        assert server.state.requests == calls
    out = read_rows(tmp_path / "out.jsonl")
    learned = [row for row in out if row["answered_by"] == "learned"]
    assert first["learned"] == len(learned) > 100
    assert [field["field"] for field in first["audit"]["fields"]] == ["sentiment", "urgency", "mood"]
    assert {row["mood"] for row in learned} == {"happy", "angry"}
    assert again["audit"] == first["audit"]
