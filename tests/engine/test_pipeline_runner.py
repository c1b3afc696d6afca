"""One item through a pipeline's steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic import BaseModel
from streams import Streams, raising, saying

from mellea_cli.engine.circuit_breaker import CircuitBreaker
from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.pipeline_runner import PipelineRunner
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.errors import ContextTooLong, NotAuthorized, ServerFault, TemplateError
from mellea_cli.events import AttemptFailed, Event, ItemStarted, RetryScheduled, StepFinished, StepStarted
from mellea_cli.items import Failure, Item, Success
from mellea_cli.messages import Chunk, GenerateRequest, Options, Usage
from mellea_cli.pipelines.pipeline import Column, OutputType, Pipeline, Prompt, ShorterAnswer, Step


class Word(BaseModel):
    """One word."""

    word: str


def step(name: str, *needs: str, template: str = "") -> Step:
    source = template or f"{name}: {{{{ text }}}}" + "".join(f" {{{{ {need}.word }}}}" for need in needs)
    return Step(name, Prompt("", source), OutputType(Word), 50, needs)


def pipeline(*steps: Step) -> Pipeline:
    def joined(values: Any) -> dict[str, Any]:
        return {"words": [values[one.name].word for one in steps]}

    return Pipeline("p", steps, (Column("words"),), joined)


DIAMOND = pipeline(step("left"), step("right"), step("end", "left", "right"))
ITEM = Item(0, "a", "hello")


class ByName(Streams):
    """Answers a step with its own name, or as told; a told exception is raised."""

    def __init__(self, **told: Any) -> None:
        super().__init__()
        self.told = told
        self.asked: list[str] = []

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        name = request.messages[0].content.split(":")[0]
        self.asked.append(name)
        told = self.told.get(name)
        if isinstance(told, Exception):
            raise told
        if isinstance(told, asyncio.Event):
            await told.wait()
        text = told if isinstance(told, str) else json.dumps({"word": name})
        async for chunk in saying(text)(request):
            yield chunk


def runner(
    backend: Streams, steps: Pipeline = DIAMOND, heard: list[Event] | None = None, **more: Any
) -> PipelineRunner:
    client = ModelClient(
        [EndpointConfig("s", backend, "m", 8)],
        policy=RetryPolicy(base_s=0.001, cap_s=0.001),
        breaker=lambda: CircuitBreaker(threshold=None),
    )
    events: list[Event] = [] if heard is None else heard
    return PipelineRunner(steps, "m", Options(temperature=0.0), client, observer=events.append, **more)


async def test_steps_run_as_their_needs_say_and_see_the_answers_before_them() -> None:
    """Two steps, then the one that needs both; its prompt holds their answers, each request its own length limit."""
    heard: list[Event] = []
    backend = ByName()
    outcome = await runner(backend, heard=heard).run(ITEM)
    assert isinstance(outcome, Success)
    assert outcome.values == {"words": ["left", "right", "end"]}
    assert (outcome.attempts, outcome.usage) == (3, Usage(30, 3))
    assert backend.requests[-1].messages[0].content == "end: hello left right"
    assert {request.options.max_tokens for request in backend.requests} == {50}
    assert isinstance(heard[0], ItemStarted)
    assert [one.step for one in heard if isinstance(one, StepStarted)][:2] == ["left", "right"]
    assert len([one for one in heard if isinstance(one, StepFinished)]) == 3


async def test_independent_steps_run_side_by_side() -> None:
    """The second request is out before the first is answered."""
    gate = asyncio.Event()
    backend = ByName(left=gate, right=gate)
    working = asyncio.ensure_future(runner(backend).run(ITEM))
    async with asyncio.timeout(10):
        while len(backend.asked) < 2:  # noqa: ASYNC110 - it looks at another task's list
            await asyncio.sleep(0)
    gate.set()
    assert isinstance(await working, Success)


async def test_what_code_knows_is_neither_asked_nor_written() -> None:
    """The masked text is what is known."""

    class Pair(Word):
        said: str

    known = ShorterAnswer(OutputType(Word), lambda text: {"said": text} if text == "HELLO" else None)
    one = Step("left", Prompt("", "left: {{ text }}"), OutputType(Pair), 50, shorter=known)
    shorter = Pipeline("p", (one,), (Column("said"),), lambda values: {"said": values["left"].said})
    backend = ByName()
    outcome = await runner(backend, shorter, mask=str.upper).run(ITEM)
    assert isinstance(outcome, Success)
    assert outcome.values == {"said": "HELLO"}
    assert list((backend.requests[0].output_schema or {})["properties"]) == ["word"]
    failed = await runner(backend, shorter).run(ITEM)
    assert isinstance(failed, Failure), "the answer lacks what only the model knows"


async def test_a_step_that_fails_fails_the_item_with_its_name() -> None:
    """The dead letter says which step, what kind, how often and what it cost."""
    outcome = await runner(ByName(right="no json")).run(ITEM)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.step) == ("parse", "right")
    assert "3 tries" in outcome.message
    assert outcome.attempts >= 3


async def test_what_the_server_refuses_keeps_its_status() -> None:
    """An item whose prompt does not fit fails alone, after one request."""
    backend = ByName(only=ContextTooLong("does not fit", status=400))
    outcome = await runner(backend, pipeline(step("only"))).run(ITEM)
    assert outcome == Failure("context-too-long", "does not fit", "only", 1, 400, Usage(), outcome.latency_s)


async def test_retries_and_bad_answers_are_told() -> None:
    """The screen hears of each failed attempt and of the next one."""
    heard: list[Event] = []
    steps = pipeline(step("only"))
    outcome = await runner(ByName(only=ServerFault("crashed", status=500)), steps, heard).run(ITEM)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.attempts, outcome.status) == ("server-fault", 6, 500)
    assert len([one for one in heard if isinstance(one, AttemptFailed)]) == 6
    assert [one.attempt for one in heard if isinstance(one, RetryScheduled)] == [2, 3, 4, 5, 6]


async def test_a_re_prompt_is_no_retry() -> None:
    """An unusable answer schedules re-prompts only; a fault schedules as many retries as the client counts."""
    for answer, reprompts in (("no json", True), (ServerFault("crashed", status=500), False)):
        heard: list[Event] = []
        one_step = runner(ByName(only=answer), pipeline(step("only")), heard)
        await one_step.run(ITEM)
        scheduled = [one.reprompt for one in heard if isinstance(one, RetryScheduled)]
        assert set(scheduled) == {reprompts}
        assert one_step._client.retries == scheduled.count(False)


async def test_what_no_item_survives_is_raised() -> None:
    """A wrong key ends the run, also when another step of the item failed for a reason of its own."""
    backend = ByName(left=ContextTooLong("does not fit", status=400), right=NotAuthorized("wrong key", status=401))
    with pytest.raises(NotAuthorized):
        await runner(backend).run(ITEM)


async def test_a_template_that_names_what_is_not_there_is_raised() -> None:
    """It would fail for every item alike."""
    with pytest.raises(TemplateError):
        await runner(ByName(), pipeline(step("only", template="only: {{ nothing }}"))).run(ITEM)


async def test_a_bug_harms_one_item() -> None:
    """An unexpected exception becomes that item's failure and says that it is a bug."""
    outcome = await runner(ByName(only=ZeroDivisionError("oops")), pipeline(step("only"))).run(ITEM)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "bug"
    assert "ZeroDivisionError: oops" in outcome.message


@pytest.mark.parametrize("text", ["", "  \n\t"])
async def test_a_blank_text_asks_nothing(text: str) -> None:
    """Its columns are there and empty."""
    backend = ByName()
    outcome = await runner(backend).run(Item(0, 1, text))
    assert outcome == Success({"words": None}, attempts=0)
    assert not backend.requests


async def test_only_what_the_mask_lets_through_is_sent() -> None:
    """The model sees the masked text, and the row keeps its own."""
    backend = ByName()
    await runner(backend, mask=lambda text: text.replace("hello", "[hidden]")).run(ITEM)
    assert all("hello" not in message.content for request in backend.requests for message in request.messages)
    assert "[hidden]" in backend.requests[0].messages[0].content


async def test_what_a_failed_item_has_cost_is_counted() -> None:
    """A bad answer that came before the transport's failure was paid for: its tokens and calls are in the figures."""
    backend = Streams(saying("no JSON", usage=Usage(100, 7)), raising(ContextTooLong("too long", status=400)))
    outcome = await runner(backend, pipeline(step("only"))).run(ITEM)
    assert isinstance(outcome, Failure)
    assert (outcome.attempts, outcome.usage) == (2, Usage(100, 7))
