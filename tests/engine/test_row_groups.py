"""Several rows in one request: what is sent, what is answered again, and what it counts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from inprocess import run_in_process
from loopback import ModelServer
from mellea_cli.engine import row_groups
from mellea_cli.engine.row_groups import GroupPrompt, GroupRunner
from mellea_cli.errors import ParseError
from mellea_cli.items import Item, Outcome, Success
from mellea_cli.messages import Completion, GenerateRequest, Options, Usage
from mellea_cli.pipelines.pipeline import Column, Example, OutputType, Pipeline, Prompt, Step
from rowfiles import Process, Run, read_rows, write_rows


@pytest.fixture
def mellea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `mellea ARGUMENTS` in the test's folder."""
    # On a busy machine the rows of a group may come late. Only the last, smaller group of a run waits this long.
    monkeypatch.setattr(row_groups, "_LINGER_S", 2.0)

    def run(*arguments: str, **more: Any) -> Process:
        return run_in_process(arguments, tmp_path, **more)

    return run


class Judged(BaseModel):
    """An answer."""

    mood: Literal["good", "bad"]


EXAMPLES = tuple(Example((("text", text),), f'{{"mood":"{mood}"}}') for text, mood in (("a", "good"), ("b", "bad")))
STEP = Step("judge", Prompt("Judge it.", "{{ text | fence }}", EXAMPLES), OutputType(Judged), 40)


def test_the_prefix_is_the_same_for_every_group() -> None:
    """Worked examples come in groups, too; rows stand under their keys."""
    prompt = GroupPrompt(STEP, 2)
    two, one = (prompt.messages([{"text": text} for text in texts]) for texts in (["x", "y"], ["z"]))
    assert two[:-1] == one[:-1] == prompt.prefix
    assert prompt.prefix[0].content.startswith("Judge it.\nSeveral pieces of feedback")
    assert prompt.prefix[2].content == '{"row_1":{"mood":"good"},"row_2":{"mood":"bad"}}'
    assert two[-1].content == ("row_1:\n<feedback>\nx\n</feedback>\nrow_2:\n<feedback>\ny\n</feedback>")
    assert list(prompt.output(2).schema["properties"]) == ["row_1", "row_2"]


@pytest.mark.parametrize(
    "text",
    [
        '{"row_1":{"mood":"good"}}',
        '{"row_2":{"mood":"bad"},"row_1":{"mood":"good"}}',
        '{"row_1":{"mood":"good"},"row_2":{"mood":"so-so"}}',
        '{"mood":"good"}',
    ],
)
def test_other_rows_than_asked_are_refused(text: str) -> None:
    """One is missing, they have another order, one is of another type, or there are no rows."""
    with pytest.raises(ParseError):
        GroupPrompt(STEP, 2).parse(2, text, lambda: None)


def said(text: str) -> dict[str, Any]:
    """An answer about a text, which repeats its words."""
    words = " ".join(text.split())
    return {
        "positive_aspect": None,
        "main_complaint": words,
        "urgency": "low",
        "sentiment": "negative",
        "summary": f"The customer says: {words}.",
    }


def texts_of(prompt: str) -> list[str]:
    return re.findall(r"<feedback>\n(.*?)\n</feedback>", prompt, re.DOTALL)


class Model:
    """Answers groups and single rows by their texts; `refused` tells which groups it answers wrongly."""

    def __init__(self, refused: str = "") -> None:
        self.groups: list[int] = []
        self._refused = refused

    def __call__(self, prompt: str, schema: Mapping[str, Any] | None) -> str:
        texts = texts_of(prompt)
        keys = list((schema or {})["properties"])
        if not keys[0].startswith("row_"):
            self.groups.append(0)
            return json.dumps(said(texts[0]))
        assert len(keys) == len(texts)
        self.groups.append(len(keys))
        answers = [said(text) for text in texts]
        if len(keys) > 1 and self._refused and any(self._refused in text for text in texts):
            answers.reverse()
            keys.reverse()
        for answer in answers:
            if "LONG" in str(answer["summary"]):
                answer["summary"] = "word " * 60
        return json.dumps(dict(zip(keys, answers, strict=True)))


def run(mellea: Run, server: ModelServer, *flags: str) -> dict[str, Any]:
    """Run the default pipeline over `in.jsonl` with one request in flight; return the closing summary."""
    where = ("-m", "m", "--base-url", server.openai_url, "-b", "openai", "-c", "1", "--json")
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", *where, *flags)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return told


def test_rows_share_a_request(mellea: Run, serve: Any, tmp_path: Path) -> None:
    """Ten rows in groups of four are three requests; every row has its own answer, and calls and tokens add up."""
    model = Model()
    server = serve(models=("m",), reply=model)
    write_rows(tmp_path / "in.jsonl", [{"id": number, "text": f"Item {number} broke."} for number in range(10)])
    told = run(mellea, server, "--rows-per-call", "4")
    assert model.groups == [4, 4, 2]
    assert (told["calls"], told["done"]) == (3, 10)
    messages = [str(message["content"]) for body in server.state.bodies for message in body["messages"]]
    assert told["prompt_tokens"] == sum(len(message.split()) for message in messages)
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["issues"]["main_complaint"] for row in rows] == [f"Item {number} broke." for number in range(10)]
    assert run(mellea, server)["calls"] == 0


def test_a_wrong_group_is_halved(mellea: Run, serve: Any, tmp_path: Path) -> None:
    """The row that spoils its group is asked alone in the end, the others keep their group's answers."""
    model = Model(refused="Item 2")
    server = serve(models=("m",), reply=model)
    write_rows(tmp_path / "in.jsonl", [{"id": number, "text": f"Item {number} broke."} for number in range(4)])
    told = run(mellea, server, "--rows-per-call", "4")
    assert model.groups == [4, 2, 2, 1, 1]
    assert told["calls"] == 5
    assert [row["issues"]["main_complaint"] for row in read_rows(tmp_path / "out.jsonl")] == [
        f"Item {number} broke." for number in range(4)
    ]


def test_a_row_that_breaks_a_requirement_is_asked_alone(mellea: Run, serve: Any, tmp_path: Path) -> None:
    """With the prompt and the attempts of a run without groups."""
    model = Model()
    server = serve(models=("m",), reply=model)
    texts = ["Fine.", "LONG story.", "Good."]
    write_rows(tmp_path / "in.jsonl", [{"id": text, "text": text} for text in texts])
    run(mellea, server, "--rows-per-call", "3")
    assert model.groups == [3, 0]
    assert read_rows(tmp_path / "out.jsonl")[1]["summary"] == "The customer says: LONG story.."


def test_own_steps_are_grouped_too(mellea: Run, serve: Any, tmp_path: Path) -> None:
    """A second run that adds a field asks only that field, in groups."""
    groups: list[list[str]] = []

    def reply(prompt: str, schema: Mapping[str, Any] | None) -> str:
        properties = (schema or {})["properties"]
        answer = {"product": "pump", "team": "shop"}
        shown = str(schema)
        fields = {name: value for name, value in answer.items() if f"'{name}'" in shown}
        groups.append([f"{len(properties)}", *fields])
        return json.dumps(dict.fromkeys(properties, fields))

    server = serve(models=("m",), reply=reply)
    write_rows(tmp_path / "in.jsonl", [{"id": number, "text": f"Item {number} broke."} for number in range(6)])
    (tmp_path / "p.toml").write_text("[fields.product]\n")
    where = ("-m", "m", "--base-url", server.openai_url, "-b", "openai", "-c", "1", "-q", "--rows-per-call", "3")
    assert mellea("run", "p.toml", "in.jsonl", "-o", "out.jsonl", *where).returncode == 0
    (tmp_path / "p.toml").write_text("[fields.product]\n[fields.team]\ntype='category'\nchoices=['shop', 'other']\n")
    assert mellea("run", "p.toml", "in.jsonl", "-o", "out.jsonl", *where).returncode == 0
    assert groups == [["3", "product"], ["3", "product"], ["3", "team"], ["3", "team"]]
    assert {(row["product"], row["team"]) for row in read_rows(tmp_path / "out.jsonl")} == {("pump", "shop")}


@pytest.mark.parametrize("flags", [("--engine", "ray"), ("--offload",)])
def test_what_does_not_go_together_is_refused(mellea: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    write_rows(tmp_path / "in.jsonl", [{"text": "x"}])
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "scripted", "--rows-per-call", "2", *flags)
    assert done.returncode == 2
    assert "--rows-per-call does not work with" in done.stderr


class Slow:
    """A client whose answers come when they are let go."""

    def __init__(self) -> None:
        self.asked: list[GenerateRequest] = []
        self.began, self.go, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def send(self, request: GenerateRequest, *_: Any) -> Completion:
        self.asked.append(request)
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        answers = {key: {"mood": "good"} for key in (request.output_schema or {})["properties"]}
        return Completion(json.dumps(answers), "stop", Usage(100, 7))


def group_of(client: Slow, number: int, rows: int) -> list[asyncio.Task[Outcome]]:
    """Tasks that answer so many items in groups of `rows`."""
    pipeline = Pipeline("judged", (STEP,), (Column("mood"),), lambda answers: {"mood": answers["judge"].mood})
    runner = GroupRunner(pipeline, "m", Options(), client, observer=lambda _: None, rows=rows)
    return [asyncio.create_task(runner.run(Item(place, place, f"text {place}"))) for place in range(number)]


async def test_a_cancelled_row_leaves_its_group() -> None:
    """The others get their answers; the tokens are divided without a rest."""
    client = Slow()
    tasks = group_of(client, 3, 3)
    await client.began.wait()
    tasks[1].cancel()
    client.go.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], asyncio.CancelledError)
    good = [one for one in (done[0], done[2]) if isinstance(one, Success)]
    assert [one.values for one in good] == [{"mood": "good"}] * 2
    assert [one.usage for one in good] == [Usage(34, 3), Usage(33, 2)]
    assert not client.cancelled.is_set()


async def test_a_group_that_nobody_waits_for_is_given_up() -> None:
    """So a run that is stopped at once leaves no request behind; rows that were not sent yet are forgotten."""
    client = Slow()
    tasks = group_of(client, 3, 2)
    await client.began.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.cancelled.wait()
    assert len(client.asked) == 1
