"""The question that labels a text: what the model sees, what it may say, and what is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.engine.client import Sender
from mellea_cli.engine.concurrency import ConcurrencyLimiter
from mellea_cli.engine.pipeline_runner import PipelineRunner
from mellea_cli.errors import ParseError
from mellea_cli.events import nobody
from mellea_cli.items import Failure, Item, Outcome, Success
from mellea_cli.messages import GenerateRequest, Options
from mellea_cli.pipelines.theme_prompts import label_pipeline
from themed import KIND, LATE, RUDE

THEMES = (LATE, RUDE, KIND)


def said(*labels: tuple[str, str]) -> str:
    return json.dumps({"labels": [{"quote": quote, "theme": theme} for quote, theme in labels]})


async def labelled(text: str, *answers: str) -> tuple[Outcome, list[GenerateRequest]]:
    """Label `text` with a model that gives these answers, the last one again and again."""
    asked: list[GenerateRequest] = []

    def reply(request: GenerateRequest) -> str:
        asked.append(request)
        return answers[min(len(asked), len(answers)) - 1]

    sender = Sender(ScriptedBackend(reply), ConcurrencyLimiter(1))
    worker = PipelineRunner(label_pipeline(THEMES), "m", Options(), sender, observer=nobody)
    return await worker.work(Item(0, 1, text)), asked


def values(outcome: Outcome) -> Any:
    assert isinstance(outcome, Success), outcome
    return outcome.values


def test_all_prompts_begin_alike() -> None:
    """Everything but the item's own message is the same, byte for byte, and the item comes last."""
    prompt = label_pipeline(THEMES).steps[0].prompt
    one, other = prompt.messages({"text": "First."}), prompt.messages({"text": "Second."})
    assert one[:-1] == other[:-1] == prompt.prefix
    assert one[-1].content == "<feedback>\nFirst.\n</feedback>"
    assert all(theme.definition in one[0].content for theme in THEMES)


def test_the_worked_examples_are_answers_that_would_hold() -> None:
    """Each one parses under the schema, and its quotes stand in its text."""
    step = label_pipeline(THEMES).steps[0]
    assert len(step.prompt.examples) >= 4
    for example in step.prompt.examples:
        for label in step.output.parse(example.answer).labels:
            assert label.quote in dict(example.variables)["text"]


def test_only_themes_other_and_none_can_be_said() -> None:
    """The names are a closed list, in the schema for the server and when the answer is read."""
    output = label_pipeline(THEMES).steps[0].output
    assert "'enum': ['Late delivery', 'Rude staff', 'Kind people', 'other', 'none']" in str(output.schema)
    with pytest.raises(ParseError):
        output.parse(said(("x", "Prices")))


async def test_themes_stand_in_their_own_order_with_the_texts_letters() -> None:
    """Each theme once, in the order of the list, quoted as the text has it."""
    text = "So KIND,\nbut rude at first. And late, and late."
    outcome, _ = await labelled(
        text, said(("so kind, but", "Kind people"), ("late", "Late delivery"), ("And late", "Late delivery"))
    )
    assert values(outcome) == {
        "themes": ["Late delivery", "Kind people"],
        "theme_quotes": {"Late delivery": "late", "Kind people": "So KIND,\nbut"},
    }


@pytest.mark.parametrize(
    ("labels", "themes"),
    [
        ([("Blue", "other")], ["other"]),
        ([("Blue", "none")], ["none"]),
        ([("Blue", "none"), ("Blue", "other")], ["other"]),
        ([("invented", "none")], ["none"]),
    ],
)
async def test_other_and_none_stand_alone(labels: list[tuple[str, str]], themes: list[str]) -> None:
    """They are there only where no theme is, and have no quote."""
    outcome, asked = await labelled("Blue.", said(*labels))
    assert values(outcome) == {"themes": themes, "theme_quotes": {}}
    assert len(asked) == 1


async def test_a_quote_that_is_not_in_the_text_is_asked_again_with_the_reason() -> None:
    """The model hears which quote it was; a better answer is taken."""
    outcome, asked = await labelled(
        "It was late.", said(("delayed parcel", "Late delivery")), said(("late", "Late delivery"))
    )
    assert values(outcome)["theme_quotes"] == {"Late delivery": "late"}
    assert '"delayed parcel" does not stand in the feedback' in asked[1].messages[-1].content


async def test_the_last_resort_is_a_sentence_of_the_text() -> None:
    """A model that goes on inventing gets the closest sentence instead: never its invention."""
    outcome, asked = await labelled(
        "Blue sky. The parcel was very late. Bye.", said(("parcel delayed badly", "Late delivery"))
    )
    assert values(outcome)["theme_quotes"] == {"Late delivery": "The parcel was very late."}
    assert len(asked) == 3


async def test_an_answer_that_is_none_fails_alone() -> None:
    """What never parses is a failure with its reason."""
    outcome, _ = await labelled("Late.", "no JSON")
    assert isinstance(outcome, Failure)
    assert outcome.kind == "parse"


async def test_a_text_that_is_blank_is_none_without_a_call() -> None:
    """Nothing is asked, and the columns are not null."""
    outcome, asked = await labelled("  ", said(("x", "other")))
    assert values(outcome) == {"themes": ["none"], "theme_quotes": {}}
    assert asked == []
