"""The one attempt loop: generate, parse, validate, ask again with the reason."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from streams import Stream, Streams, asking, raising, saying, thinking

from mellea_cli.engine.attempts import Question, ask, validate
from mellea_cli.engine.circuit_breaker import CircuitBreaker
from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.generate import CallObserver
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.errors import (
    BadOutput,
    ContentFiltered,
    CutAnswer,
    EmptyAnswer,
    ParseError,
    RequirementFailed,
    RunawayAnswer,
    ServerFault,
)
from mellea_cli.messages import GenerateRequest, Usage
from mellea_cli.requirements.requirement import Answered, Requirement, ValidationResult, req, simple_validate


def client(backend: Any) -> ModelClient:
    return ModelClient(
        [EndpointConfig("s", backend, "m", 8)],
        policy=RetryPolicy(base_s=0.001, cap_s=0.001),
        breaker=lambda: CircuitBreaker(threshold=None),
    )


def number(text: str) -> int:
    try:
        return int(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ParseError("it is not a number", text=text) from error


def question(**more: Any) -> Question[int]:
    return Question(asking("give a number"), number, **more)


small = req("below 10", simple_validate(lambda text: int(text) < 10, reason="it is not below 10"))


async def test_a_good_answer_is_one_call() -> None:
    """Nothing is asked twice."""
    answer = await ask(question(requirements=(small,)), client(Streams(saying("7"))))
    assert (answer.ok, answer.last.value, answer.calls, len(answer.tries)) == (True, 7, 1, 1)


async def test_an_answer_in_the_reasoning_field_counts() -> None:
    """Where a type is asked for and the text is empty; thoughts that hold no answer are none."""
    asked = dataclasses.replace(asking("give a number"), output_schema={"type": "integer"})
    for thoughts, tries in (("7", 1), ("hm, seven", 2)):
        answer = await ask(Question(asked, number), client(Streams(thinking(thoughts), saying("7"))))
        assert (answer.last.value, len(answer.tries)) == (7, tries)
    plain = await ask(question(), client(Streams(thinking("7"), saying("8"))))
    assert plain.last.value == 8


async def test_output_that_the_server_refuses_is_a_bad_answer() -> None:
    """The model is asked again, unless its answer is good nevertheless."""
    refused = BadOutput("Failed to generate JSON", status=400)
    answer = await ask(question(), client(Streams(raising(refused), saying("7"))))
    assert (answer.last.value, answer.calls, answer.tries[0].error.kind) == (7, 2, "parse")
    held = BadOutput("Failed to generate JSON", status=400, partial="7")
    answer = await ask(question(), client(Streams(raising(held))))
    assert (answer.last.value, answer.calls) == (7, 1)


@pytest.mark.parametrize(
    ("bad", "kind", "reason"),
    [
        (saying(), EmptyAnswer, "empty"),
        (saying("  \n "), EmptyAnswer, "empty"),
        (saying("1", finish="length"), CutAnswer, "cut off"),
        (saying("Sure! Seven."), ParseError, "not a number"),
        (saying("70"), RequirementFailed, "not below 10"),
        (saying(*["9 "] * 400), RunawayAnswer, "repeats itself"),
    ],
)
async def test_a_bad_answer_is_asked_again_with_the_reason(bad: Stream, kind: type, reason: str) -> None:
    """Each kind of bad answer costs one of the budget; the next request says what was wrong."""
    backend = Streams(bad, saying("7"))
    answer = await ask(question(requirements=(small,)), client(backend))
    assert answer.ok
    assert type(answer.tries[0].error) is kind
    assert reason in backend.requests[1].messages[-1].content
    assert backend.requests[1].messages[0] == backend.requests[0].messages[0]
    assert answer.calls == 2


async def test_the_budget_of_answers_is_kept() -> None:
    """After three bad answers the last one's error stands, with the number of tries."""
    backend = Streams(saying("none"))
    answer = await ask(question(), client(backend))
    assert not answer.ok
    assert answer.last.error is not None
    assert (answer.last.error.attempts, len(backend.requests), answer.calls) == (3, 3, 3)
    assert answer.usage == Usage(30, 3)


async def test_transport_and_answers_share_no_budget_but_never_multiply() -> None:
    """Three answers may be judged and five faults retried, in one question together: eight requests, not eighteen."""
    fault, bad = raising(ServerFault("crashed", status=500)), saying("none")
    backend = Streams(fault, fault, bad, fault, fault, bad, fault, saying("7"))
    answer = await ask(question(), client(backend))
    assert (answer.ok, answer.calls) == (True, 8)
    backend = Streams(fault, fault, bad, fault, fault, bad, fault, fault, saying("7"))
    with pytest.raises(ServerFault) as caught:
        await ask(question(), client(backend))
    assert (caught.value.attempts, len(backend.requests)) == (8, 8)


async def test_a_filtered_answer_is_not_asked_again() -> None:
    """A content filter will not change its mind."""
    backend = Streams(saying("I", finish="content_filter"))
    with pytest.raises(ContentFiltered):
        await ask(question(), client(backend))
    assert len(backend.requests) == 1


async def test_a_fault_of_the_transport_never_becomes_a_bad_answer() -> None:
    """An answer that is cut half-way is sent again as it was, without a word to the model."""
    backend = Streams(saying("7", finish=None), saying("7"))
    answer = await ask(question(), client(backend))
    assert len(answer.tries) == 1
    assert backend.requests[0] == backend.requests[1]
    assert answer.calls == 2


async def test_the_watch_hears_of_each_bad_answer() -> None:
    """What had streamed of a bad answer is void, and the next attempt is announced."""
    told: list[tuple[str, int]] = []

    class Heard(CallObserver):
        def failed(self, kind: str, message: str) -> None:
            told.append((kind, 0))

        def retry(self, delay_s: float, attempt: int) -> None:
            told.append(("retry", attempt))

    await ask(question(), client(Streams(saying("x"), saying("7"))), Heard())
    assert told == [("parse", 0), ("retry", 2)]


async def test_the_fallback_repairs_what_asking_again_did_not() -> None:
    """A value that code can put right is put right once the budget is spent, and must then hold."""
    seven = question(requirements=(req("is 7", lambda s: ValidationResult(s.last_output().parsed == 7)),), budget=2)
    repaired = await ask(
        Question(seven.request, seven.parse, seven.requirements, budget=2, fallback=lambda _: 7),
        client(Streams(saying("8"))),
    )
    assert (repaired.ok, repaired.last.value) == (True, 7)
    in_vain = await ask(
        Question(seven.request, seven.parse, seven.requirements, budget=2, fallback=lambda _: 9),
        client(Streams(saying("8"))),
    )
    assert not in_vain.ok


class Judges(Streams):
    """Answers judges: yes unless the requirement says no; notes how many were asked at once."""

    def __init__(self) -> None:
        super().__init__()
        self.out = self.most = 0
        self.all_there = asyncio.Event()
        self.expected = 1

    async def stream(self, request: GenerateRequest) -> Any:
        self.requests.append(request)
        self.out += 1
        self.most = max(self.most, self.out)
        if self.out == self.expected:
            self.all_there.set()
        await self.all_there.wait()
        text = "no" if "never" in request.messages[-1].content else "yes"
        async for chunk in saying(text)(request):
            yield chunk


async def test_judges_work_side_by_side_and_verdicts_keep_order_and_duplicates() -> None:
    """Three judged requirements are asked about at once; the verdicts stand as the requirements did."""
    backend = Judges()
    backend.expected = 3
    kind, never = Requirement("is kind"), Requirement("is never kind")
    wanted = (kind, small, never, kind)
    checked = await validate(Answered("7"), wanted, client(backend), "m", lambda _: None)
    assert [one for one, _ in checked] == list(wanted)
    assert [bool(verdict) for _, verdict in checked] == [True, True, False, True]
    assert backend.most == 3


async def test_a_judge_in_trouble_is_the_trouble_itself() -> None:
    """A judge's transport error comes bare, not as a group."""
    backend = Streams(raising(ContentFiltered("refused")))
    with pytest.raises(ContentFiltered):
        await validate(Answered("7"), (Requirement("a"), Requirement("b")), client(backend), "m", lambda _: None)


async def test_judges_are_counted() -> None:
    """Their calls and tokens are part of the answer's cost."""
    backend = Streams(saying("7"), saying("yes"))
    answer = await ask(question(requirements=(Requirement("is kind"),)), client(backend))
    assert (answer.ok, answer.calls, answer.usage) == (True, 2, Usage(20, 2))
