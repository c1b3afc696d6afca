"""Theme labels, quotes and names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.engine.client import Sender
from mellea_cli.engine.concurrency import ConcurrencyLimiter
from mellea_cli.engine.pipeline_runner import PipelineRunner
from mellea_cli.errors import ParseError
from mellea_cli.events import nobody
from mellea_cli.items import Failure, Item, Outcome, Success
from mellea_cli.messages import GenerateRequest, Options
from mellea_cli.pipelines.theme_prompts import (
    QUOTE_LENGTH,
    anchored,
    closest,
    distinct,
    is_general,
    is_vague,
    label_pipeline,
    stems,
)
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
    """Each one parses under the schema, and its quotes are in its text."""
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


async def test_themes_are_in_the_order_of_the_list_with_verbatim_quotes() -> None:
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
async def test_other_and_none_are_alone(labels: list[tuple[str, str]], themes: list[str]) -> None:
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


TEXT = (
    "We waited\n  two hours \u2013 and nobody said \u201cSorry\u201d. "
    "The crew was kind; I can\u2019t complain about them."
)


@pytest.mark.parametrize(
    ("quote", "passage"),
    [
        ("The crew was kind", "The crew was kind"),
        ("waited two hours", "waited\n  two hours"),
        ("WE WAITED", "We waited"),
        ('nobody said "sorry"', "nobody said \u201cSorry"),
        ("I can't complain", "I can\u2019t complain"),
        ("two hours - and", "two hours \u2013 and"),
        ('"The crew was kind."', "The crew was kind"),
        ("the crew was kind!", "The crew was kind"),
    ],
)
def test_a_quote_is_found_in_spite_of_small_differences(quote: str, passage: str) -> None:
    """White space, case, the shape of marks and marks at the ends may differ; the text's characters are returned."""
    assert anchored(quote, TEXT) == passage
    assert passage in TEXT


@pytest.mark.parametrize("quote", ["The crew was rude", "two days", "", " ", "...", "x"])
def test_what_is_not_in_the_text_is_not_found(quote: str) -> None:
    """No passage is made up."""
    assert anchored(quote, TEXT) is None


def test_characters_that_change_their_length_in_lower_case_do_no_harm() -> None:
    """A Turkish capital I with a dot is two characters in lower case: places stay right."""
    text = "\u0130stanbul \u0130\u0130\u0130 was LATE today"
    assert anchored("was late", text) == "was LATE"


def test_the_closest_sentence_shares_the_most_words() -> None:
    """It is verbatim, and the first of equals."""
    assert closest("the crew were all kind people", TEXT) == "The crew was kind"
    assert closest("zzz", "First one. Second one.") in "First one. Second one."


def test_a_long_passage_is_cut_at_a_word() -> None:
    """A text without any sentence end gives a beginning of it, not all of it."""
    text = "late " * 40_000
    for quote in (closest("late", text), anchored("late " * 100, text)):
        assert quote is not None
        assert len(quote) <= QUOTE_LENGTH
        assert quote.endswith("late")
        assert quote in text


@given(st.text(max_size=200), st.text(max_size=400))
def test_every_result_is_in_the_text(quote: str, text: str) -> None:
    """For any quote and any text at all."""
    found = anchored(quote, text)
    assert found is None or found in text
    assert closest(quote, text) in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Long waits", "Long wait"),
        ("Poor communication", "Miscommunication"),
        ("Quick service", "Quick"),
        ("Cancelled appointments", "Cancelled appointment"),
    ],
)
def test_names_that_say_the_same(one: str, other: str) -> None:
    """Plurals, praise and blame, and mis- make no difference."""
    assert stems(one) == stems(other)
    assert [name for name, _ in distinct([(one, "a"), (other, "b")])] == [one]


@pytest.mark.parametrize(("one", "other"), [("Mistakes", "Takes"), ("Rude staff", "Friendly staff"), ("Food", "Rooms")])
def test_names_that_do_not(one: str, other: str) -> None:
    """They stay side by side."""
    assert [name for name, _ in distinct([(one, "a"), (other, "b")])] == [one, other]


def test_general_and_vague_names() -> None:
    """All there is would belong to them."""
    assert is_general("Very poor service")
    assert not is_general("Rude staff")
    assert is_vague("Patient issues")
    assert not is_vague("Patient transport")


def test_a_known_name_is_not_found_again() -> None:
    """And one that is general is enough."""
    found = distinct([("Waiting", "a"), ("Bad overall", "b"), ("Parking", "c")], ["Long waits", "Poor service"])
    assert [name for name, _ in found] == ["Parking"]
