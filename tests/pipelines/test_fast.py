"""The pipeline `fast`: its clauses, its rules, and what it asks which model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import pytest

from mellea_cli.engine.client import ModelClient
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.engine.pipeline_runner import PipelineRunner
from mellea_cli.events import nobody
from mellea_cli.items import Failure, Item, Outcome, Success
from mellea_cli.messages import Chunk, GenerateRequest, Options, Token, Usage
from mellea_cli.pipelines.fast import FAST, clauses, summary, urgency
from mellea_cli.pipelines.pipeline import LabelReading, Pipeline, read_labels

SURE, UNSURE = -0.02, -0.9


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Lovely.", ["Lovely."]),
        ("Great food. The waiter was rude!", ["Great food.", "The waiter was rude!"]),
        ("Great food but the waiter was rude", ["Great food", "but the waiter was rude"]),
        ("Nice bag, only the strap broke", ["Nice bag", "only the strap broke"]),
        ("I only wish it were blue", ["I only wish it were blue"]),
        ("Good doctor, awful waiting room", ["Good doctor", "awful waiting room"]),
        ("Then, it broke", ["Then, it broke"]),
        ("While the food was good, the room was loud.", ["While the food was good", "the room was loud."]),
        ("Kind nurses; dirty ward", ["Kind nurses", "dirty ward"]),
        ("Gutes Essen, aber langes Warten", ["Gutes Essen", "aber langes Warten"]),
        ("料理はおいしい。店内はうるさい。", ["料理はおいしい。", "店内はうるさい。"]),
        ("pros: size\n\ncons: price", ["pros: size", "cons: price"]),
        ("Wow. It just works.", ["Wow. It just works."]),
        ("...", ["..."]),
        ("  padded  ", ["padded"]),
    ],
)
def test_a_text_is_cut_where_its_author_turns(text: str, cut: list[str]) -> None:
    """Ends of sentences, semicolons, lines and words of contrast end a clause; a lone word is none."""
    assert clauses(text) == cut


def test_a_long_text_has_at_most_twelve_clauses() -> None:
    """Neighbours are joined, and no word is lost."""
    text = " ".join(f"This is sentence number {number}." for number in range(40))
    cut = clauses(text)
    assert len(cut) == 12
    assert " ".join(cut) == text


def test_a_token_stands_for_the_label_that_it_begins() -> None:
    """Case and blanks do not matter, a short token is nobody's, and a missing label is as likely as the last token."""
    found = read_labels("x", ("positive", "negative"), {" Pos": -0.5, "positive": -1.5, "ne": -2.0, "the": -7.0})
    assert found == LabelReading("x", (-0.5, -7.0))


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("The charger got so hot it burnt my desk.", "high"),
        ("I was charged twice for May.", "high"),
        ("The update deleted all my notes.", "high"),
        ("We are leaving for another bank.", "high"),
        ("Fix this today, or we will cancel.", "high"),
        ("Error 403 when I try to sign in.", "high"),
        ("Ich kann mich nicht mehr anmelden.", "high"),
        ("Mir wurde doppelt abgebucht.", "high"),
        ("J'attends mon remboursement depuis mai.", "high"),
        ("El enchufe es peligroso.", "high"),
        ("The soup was cold.", "medium"),
        ("Der neue Tarif war angekündigt.", "medium"),
        ("La soupe était froide.", "medium"),
        ("The menu takes too many clicks.", "medium"),
    ],
)
def test_urgent_is_who_is_hurt_robbed_or_leaving(text: str, level: str) -> None:
    """Any other complaint is of medium urgency, and praise of low."""
    assert urgency(text, "negative") == level
    assert urgency(text, "positive") == "low"


def test_a_lone_short_sentence_is_its_own_summary() -> None:
    """A longer text has its strongest clauses, in the order of the text."""
    assert summary("The soup  was cold.", None, "The soup was cold") == "The soup was cold."
    text = "We came on Friday. The soup was cold. The waiter was a darling."
    assert (
        summary(text, "The waiter was a darling", "The soup was cold") == "The soup was cold; The waiter was a darling"
    )
    long = " ".join(["word"] * 60)
    assert len(summary(long, None, None).split()) < 30


class TwoModels:
    """A backend whose small model is unsure of what the other one knows."""

    name = "two"
    slots = None

    def __init__(self, small: float = UNSURE, logprobs: Mapping[str, float] | None = None) -> None:
        self._small = small
        self._logprobs = logprobs
        self.asked: list[tuple[bool, str]] = []

    async def prepare(self, model: str) -> None: ...

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        text = request.messages[-1].content
        self.asked.append((request.small, text))
        assert (request.options.max_tokens, request.top_logprobs) == (1, 20)
        label = "negative" if "cold" in text else "positive"
        other = "positive" if "cold" in text else "negative"
        sure = self._small if request.small else SURE
        likely = {label: sure, other: sure - 0.05 if sure == UNSURE else -6.0, "mixed": -7.0, "neutral": -8.0}
        yield Chunk(label, tokens=(Token(label, self._logprobs or likely),))
        yield Chunk(finish_reason="length", usage=Usage(30, 1))

    async def models(self) -> list[str]:
        return ["m"]

    async def aclose(self) -> None: ...


async def answer(backend: TwoModels, text: str, pipeline: Pipeline = FAST) -> Outcome:
    client = ModelClient([EndpointConfig("two", backend, "m", 1)])
    return await PipelineRunner(pipeline, "m", Options(temperature=0.0), client, observer=nobody).run(
        Item(0, "a", text)
    )


async def test_clauses_are_quoted_as_complaint_and_praise() -> None:
    """Each clause is asked about once; the strongest of either kind stand in the row as they are."""
    backend = TwoModels(SURE)
    outcome = await answer(backend, "The waiter was a darling, but the soup was cold.")
    assert isinstance(outcome, Success)
    assert backend.asked == [(True, "The waiter was a darling"), (True, "but the soup was cold.")]
    assert outcome.values["sentiment"] == "mixed"
    assert outcome.values["issues"] == {
        "main_complaint": "the soup was cold",
        "positive_aspect": "The waiter was a darling",
        "urgency": "medium",
    }
    assert outcome.values["summary"] == "The waiter was a darling, but the soup was cold."
    assert 0.5 < outcome.values["confidence"] <= 1
    assert outcome.usage == Usage(60, 2)


async def test_the_default_model_looks_at_what_the_small_one_is_unsure_of() -> None:
    """It reads the whole text; a row of which the small model is sure costs nothing more."""
    backend = TwoModels(UNSURE)
    outcome = await answer(backend, "It is cold soup")
    assert isinstance(outcome, Success)
    assert backend.asked == [(True, "It is cold soup"), (False, "It is cold soup")]
    assert outcome.values["sentiment"] == "negative"
    sure = TwoModels(SURE)
    await answer(sure, "It is cold soup")
    assert sure.asked == [(True, "It is cold soup")]


async def test_one_model_is_not_asked_twice() -> None:
    """Without a small model there is no second look, and its answers have a key of their own."""
    backend = TwoModels(UNSURE)
    alone = FAST.of_one_model()
    await answer(backend, "It is cold soup", alone)
    assert backend.asked == [(False, "It is cold soup")]
    assert alone.definition() != FAST.definition()


async def test_an_answer_that_is_no_label_fails_the_row() -> None:
    """The message says what the model began to write."""
    outcome = await answer(TwoModels(logprobs={"The": -0.1, "An": -3.0}), "It is cold soup")
    assert isinstance(outcome, Failure)
    assert "'The'" in outcome.message
    assert outcome.step == "clauses"
