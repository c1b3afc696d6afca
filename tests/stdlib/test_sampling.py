"""How a session asks again, and what it falls back to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loopback import ModelServer, faults
from loopback.plan import Call, Fault
from mellea_cli import (
    MelleaSession,
    MultiTurnStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    req,
    simple_validate,
)
from mellea_cli.stdlib.sampling import BaseSamplingStrategy, SamplingStrategy

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

NAMES_BLUE = req("It names blue.", simple_validate(lambda text: ("blue" in text, f"it says {text} and not blue")))


def saying(*texts: str) -> Callable[[Call], Fault | None]:
    """Answer these texts one after the other, the last one for ever."""
    return lambda call: faults.says(texts[min(call.index, len(texts) - 1)])


def sent(server: ModelServer) -> list[list[tuple[str, str]]]:
    """The messages of every request."""
    return [[(one["role"], one["content"]) for one in body["messages"]] for body in server.state.bodies]


def test_rejection_sampling_asks_the_same_again(serve: Serve, open_session: Open) -> None:
    """Every request is equal to the first one."""
    server = serve(fault=saying("red", "green", "blue"))
    result = open_session(server).instruct(
        "Name a colour.",
        requirements=[NAMES_BLUE],
        strategy=RejectionSamplingStrategy(loop_budget=5),
        return_sampling_results=True,
    )
    assert (result.success, result.result_index, str(result)) == (True, 2, "blue")
    assert [thunk.value for thunk in result.sample_generations] == ["red", "green", "blue"]
    first, second, third = sent(server)
    assert first == second == third
    assert [[bool(verdict) for _, verdict in checked] for checked in result.sample_validations] == [
        [False],
        [False],
        [True],
    ]


def test_the_repair_template_shows_the_reasons(serve: Serve, open_session: Open) -> None:
    """The reasons for the last failure stand at the end of the one user message."""
    server = serve(fault=saying("red", "green", "blue"))
    m = open_session(server)
    strategy = RepairTemplateStrategy(loop_budget=3)
    assert m.instruct("Name a colour.", requirements=[NAMES_BLUE], strategy=strategy).value == "blue"
    first, second, third = sent(server)
    assert [len(messages) for messages in (first, second, third)] == [1, 1, 1]
    assert second[0][1] == first[0][1] + (
        "\n\nAn earlier answer was not accepted. Correct this:\n* it says red and not blue"
    )
    assert third[0][1].endswith("\n* it says green and not blue")
    assert "red" not in third[0][1].removeprefix(first[0][1])


def test_several_turns_grow_the_conversation(serve: Serve, open_session: Open) -> None:
    """Each bad answer and its reasons are turns that the next request goes on from."""
    server = serve(fault=saying("red", "green", "blue"))
    m = open_session(server)
    strategy = MultiTurnStrategy(loop_budget=3)
    assert m.instruct("Name a colour.", requirements=[NAMES_BLUE], strategy=strategy).value == "blue"
    last = sent(server)[-1]
    assert [role for role, _ in last] == ["user", "assistant", "user", "assistant", "user"]
    assert [content for role, content in last if role == "assistant"] == ["red", "green"]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (RejectionSamplingStrategy(loop_budget=3), "red"),
        (RepairTemplateStrategy(loop_budget=3), "red"),
        (MultiTurnStrategy(loop_budget=3), "pink"),
    ],
)
def test_when_all_fail_the_best_effort_comes_back_with_a_warning(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture, strategy: SamplingStrategy, expected: str
) -> None:
    """No exception for requirements: the first answer, or the last one of a conversation, and a line in the log."""
    server = serve(fault=saying("red", "green", "pink"))
    m = open_session(server)
    with caplog.at_level(logging.WARNING, "mellea_cli"):
        thunk = m.instruct("Name a colour.", requirements=[NAMES_BLUE], strategy=strategy)
    assert thunk.value == expected
    assert thunk.sampling is not None
    assert not thunk.sampling.success
    assert thunk.attempts == 3
    assert any("no answer met the requirements in 3 attempts" in record.getMessage() for record in caplog.records)


def test_an_answer_that_is_none_is_never_fallen_back_to(serve: Serve, open_session: Open) -> None:
    """Among an empty and a bad answer the bad one counts: it is one."""
    server = serve(fault=saying("", "red"))
    m = open_session(server)
    result = m.instruct("Name a colour.", requirements=[NAMES_BLUE], return_sampling_results=True)
    assert (result.success, result.result_index, result.value) == (False, 1, "red")
    assert result.sample_validations[0] == []
    assert result.result_validations[0][0] is NAMES_BLUE


def test_all_attempts_are_shown_even_when_none_is_an_answer(serve: Serve, open_session: Open) -> None:
    """With `return_sampling_results` a cut answer is a result without success, not an exception."""
    server = serve(fault=faults.always(faults.length("The cust")))
    result = open_session(server).instruct("Say something.", return_sampling_results=True)
    assert (result.success, result.value, result.result.finish_reason) == (False, "The cust", "length")


def test_a_strategy_s_requirements_replace_the_call_s(serve: Serve, open_session: Open) -> None:
    """Requirements of the strategy are the ones that are checked."""
    server = serve(fault=saying("red"))
    strategy = RejectionSamplingStrategy(requirements=[req("Red.", simple_validate(lambda text: text == "red"))])
    result = open_session(server).instruct(
        "Name a colour.", requirements=[NAMES_BLUE], strategy=strategy, return_sampling_results=True
    )
    assert result.success
    assert len(result.result_validations) == 1


def test_a_strategy_of_one_s_own(serve: Serve, open_session: Open) -> None:
    """A subclass decides what to fall back to."""

    class Longest(SamplingStrategy):
        """Falls back to the longest answer."""

        def select_from_failure(self, tries: Sequence[Any]) -> int:
            """The longest."""
            return max(range(len(tries)), key=lambda place: len(tries[place].text))

    server = serve(fault=saying("red", "magenta", "pink"))
    m = open_session(server)
    assert m.instruct("Name it.", requirements=[NAMES_BLUE], strategy=Longest(loop_budget=3)).value == "magenta"


def test_the_judge_is_asked_for_each_requirement_side_by_side(serve: Serve, open_session: Open) -> None:
    """Requirements without a function cost one short request each, all of an attempt at once."""

    def reply(prompt: str, schema: object) -> str:
        return "Yes." if "yes or no" in prompt else "An answer."

    server = serve(latency_s=0.2, reply=reply)
    thunk = open_session(server).instruct("Say something.", requirements=["It is polite.", "It is short."])
    assert thunk.value == "An answer."
    assert server.state.requests == 3
    assert server.state.max_in_flight == 2
    assert thunk.attempts == 1
    assert thunk.usage is not None
    judged = sum(len(body["messages"][-1]["content"].split()) for body in server.state.bodies)
    assert thunk.usage.prompt_tokens == judged


@pytest.mark.parametrize("strategy", [RejectionSamplingStrategy, RepairTemplateStrategy, MultiTurnStrategy])
def test_a_budget_below_one_is_refused(strategy: type[SamplingStrategy]) -> None:
    """There is always one answer to judge."""
    assert strategy().loop_budget == 1
    with pytest.raises(ValueError, match="at least 1"):
        strategy(loop_budget=0)


def test_a_repair_with_the_reference_s_arguments_is_refused() -> None:
    """At the class's definition, with the form that works here; strategies print readably."""
    with pytest.raises(TypeError, match=r"Mine\.repair takes no arguments"):

        class Mine(BaseSamplingStrategy):
            @staticmethod
            def repair(old: object, new: object) -> None:  # type: ignore[override]
                """Not a repair of this library."""

    assert repr(SamplingStrategy(loop_budget=3)) == "SamplingStrategy(loop_budget=3)"
    assert repr(SamplingStrategy(requirements="short")) == (
        "SamplingStrategy(loop_budget=1, requirements=[Requirement('short')])"
    )
    with pytest.raises(TypeError, match="loop_budget is an int"):
        SamplingStrategy(loop_budget="3")  # type: ignore[arg-type]
