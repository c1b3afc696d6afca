"""JSON out of a model's text: reasoning, prose, small slips of form, and no guess between two."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from mellea_cli.errors import ParseError
from mellea_cli.pipelines.parse import _Reader, without_reasoning
from mellea_cli.pipelines.pipeline import OutputType


class Verdict(BaseModel):
    sentiment: Literal["positive", "negative", "very negative"]
    summary: str
    praise: str | None = None


ANSWER = '{"sentiment": "negative", "summary": "It was late.", "praise": null}'
OTHER = '{"sentiment": "positive", "summary": "It was early.", "praise": null}'
VERDICT = Verdict(sentiment="negative", summary="It was late.")
THOUGHT = "Let me see. {not JSON} It's late, so that is negative."


def parsed(text: str, type_: Any = Verdict) -> tuple[Any, bool]:
    """The value, and whether the text was repaired."""
    repaired: list[bool] = []
    value = OutputType(type_).parse(text, lambda: repaired.append(True))
    return value, bool(repaired)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>{THOUGHT}</think>{ANSWER}",
        f"{THOUGHT}</think>\n{ANSWER}",
        f"<Thinking>\n{THOUGHT}\n</Thinking>\n{ANSWER}",
        f"<seed:think>{THOUGHT}</seed:think>{ANSWER}",
        f"<mm:think>{THOUGHT}</think>{ANSWER}",
        f"[THINK]{THOUGHT}[/THINK]{ANSWER}",
        f"<reasoning>{OTHER}</reasoning><reflection>{OTHER}</reflection>{ANSWER}",
        f"{ANSWER}\n<think>{OTHER}</think>",
        f"{OTHER}</think><think>{OTHER}</think>{ANSWER}",
        f"<|START_THINKING|>{OTHER}<|END_THINKING|>{ANSWER}",
        f"◁think▷{OTHER}◁/think▷{ANSWER}",
        f"<|channel|>analysis<|message|>{OTHER}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}",
        f"<|channel|>final <|constrain|>json<|message|>{ANSWER}",
        f"analysis{OTHER}assistantfinal{ANSWER}",
        f"<|think|>{OTHER}<|end|><|begin|>assistant<|content|>{ANSWER}",
        f'<think time="3s">{OTHER}</ think>{ANSWER}',
        f'<details type="reasoning"><summary>Thought</summary>{OTHER}</details>{ANSWER}',
        f"<|cot_start|>{OTHER}<|cot_end|>{ANSWER}",
        f"<unused94>thought\n{OTHER}<unused95>{ANSWER}",
        f"<plan>{OTHER}</plan>{ANSWER}",
        f"<|channel|>analysis<|message|>{OTHER}<|end|><|channel|>commentary to=f <|constrain|>json<|message|>{ANSWER}",
    ],
)
def test_reasoning_is_dropped(text: str) -> None:
    """Whatever its tag, also with drafts inside, and that is no repair."""
    assert parsed(text) == (VERDICT, False)


@pytest.mark.parametrize(
    "text",
    [
        f"<|channel|>analysis<|message|>{OTHER}",
        "<think>",
        f"<think>{OTHER} {ANSWER}</think>",
        f"<think>{OTHER[:-9]}",
        "",
    ],
)
def test_nothing_but_reasoning_is_no_answer(text: str) -> None:
    """A block that was cut off holds no answer, and one with several objects neither."""
    assert without_reasoning(text).strip() == ""
    with pytest.raises(ParseError):
        parsed(text)


@pytest.mark.parametrize("text", [f"<think>\n{ANSWER}", f"<think>{THOUGHT} {ANSWER}</think>\n"])
def test_an_answer_among_the_reasoning_counts(text: str) -> None:
    """Where nothing follows a block, its only object is the answer, as one in the reasoning field is."""
    assert parsed(text) == (VERDICT, True)


def test_tags_inside_an_answer_stay() -> None:
    """An answer that is right as it stands is not searched for tags."""
    text = json.dumps({"sentiment": "positive", "summary": "They like the <think> tag, </think> and [THINK]."})
    assert parsed(text)[0].summary == "They like the <think> tag, </think> and [THINK]."


@pytest.mark.parametrize("text", [f" \n{ANSWER}\n", f"```json\n{ANSWER}\n```", f"\ufeff{ANSWER}", f"```\n{ANSWER}```"])
def test_what_is_no_repair(text: str) -> None:
    """White space and a fence around the whole answer do not count."""
    assert parsed(text) == (VERDICT, False)


_PYTHON = "{'sentiment': 'negative', 'summary': 'It was late.', 'praise': None,}"


@pytest.mark.parametrize(
    "text",
    [
        f"Here it is:\n```json\n{ANSWER}\n```\nIs that fine?",
        f"```json {ANSWER} ```",
        f"```json\n{ANSWER}",
        f"```python\nprint(1)\n```\n```json\n{ANSWER}\n```",
        f"The form {{like this}}: {ANSWER} :-}}",
        f"It's [nearly] done: {ANSWER}",
        f"{ANSWER}\n{ANSWER}",
        f"{ANSWER}<|im_end|>\n<|im_start|>user\n{OTHER}",
        f"{ANSWER}</s>",
        f"<|assistant|>{ANSWER}<end_of_turn>",
        f"<｜Assistant｜>{ANSWER}<｜end▁of▁sentence｜>",  # noqa: RUF001 - DeepSeek's own marks
        ANSWER.replace("}", ",\n}"),
        _PYTHON,
        ANSWER.replace("null", "None"),
        ANSWER.replace('"sentiment"', "sentiment"),
        ANSWER.replace('"sentiment"', "“sentiment”"),
        ANSWER.replace("It was", "It\nwas"),
        f'{{"result": {ANSWER}}}',
        f'{{"response": {{"data": {ANSWER}}}}}',
        f'{{"name": "verdict", "arguments": {ANSWER}}}',
        f'{{"name": "verdict", "arguments": {json.dumps(ANSWER)}}}',
        f'{{"type": "object", "properties": {ANSWER}}}',
        f"[{ANSWER}]",
        json.dumps(ANSWER),
        ANSWER.replace("negative", "Negative."),
        ANSWER.replace("negative", "**negative** (late)"),
        ANSWER.replace('"negative"', '["negative"]'),
        ANSWER.replace('"sentiment"', '"Sentiment"'),
        ANSWER.replace('{"', '{ // the answer\n"'),
        ANSWER[:-1],
        f"{{{ANSWER}}}",
        f"[{ANSWER}, {ANSWER}]",
        ANSWER.replace("negative", " NEGATIVE\\n"),
        f"Sure:\n```\n{_PYTHON.replace('negative', 'Negative')}\n```",
    ],
)
def test_slips_of_form_are_repaired(text: str) -> None:
    """Prose, marks, literals, wrappers and the case of labels: there is one value, and the repair is counted."""
    assert parsed(text) == (VERDICT, True)


@pytest.mark.parametrize(
    "text",
    [
        f"It could be {OTHER} or rather {ANSWER}.",
        f"```json\n{OTHER}\n```\nor\n```json\n{ANSWER}\n```",
        f'{{"first": {OTHER}, "second": {ANSWER}}}',
        f"[{OTHER}, {ANSWER}]",
        f"{OTHER.replace('null', 'None')} {ANSWER.replace('null', 'None')}",
        ANSWER.replace("negative", "neutral"),
        ANSWER.replace("negative", "neg"),
        "The customer is not happy.",
        ANSWER[:30],
        '{"sentiment": "negative"}',
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    """Two different values, an unknown label, or half a value: the model is asked again."""
    with pytest.raises(ParseError) as caught:
        parsed(text)
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{OTHER} or {ANSWER}", "it holds 2 different JSON answers; give exactly one"),
        ('Sure: {"sentiment": "negative"}', "summary: Field required"),
        ("no", "it is not valid JSON"),
    ],
)
def test_the_model_is_told_what_is_wrong(text: str, message: str) -> None:
    """The reason is that of the only object where there is one."""
    with pytest.raises(ParseError, match=message):
        parsed(text)


def test_labels_with_blanks_and_inside_lists() -> None:
    """Underscores and blanks are alike, at any depth."""
    labels = list[Literal["very negative", "positive"]]
    assert parsed('["Very_Negative", "POSITIVE"]', labels) == (["very negative", "positive"], True)


def test_scalars_and_lists() -> None:
    """Other types than objects are found as well."""
    assert parsed("<think>hm</think> 3", int) == (3, False)
    assert parsed("3<|im_end|>", int) == (3, True)
    assert parsed('The list: ["a", "b"]', list[str]) == (["a", "b"], True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 'say \"hi\"', 'b': True}", {"a": 'say "hi"', "b": True}),
        (r"{'a': 'it\'s'}", {"a": "it's"}),
        ('{"a": "None, True,}", "b": [1, 2,]}', {"a": "None, True,}", "b": [1, 2]}),
        ('{a: 1, "b:": undefined}', {"a": 1, "b:": None}),
        ('{"a": "one\ntwo\nthree\tx"}', {"a": "one\ntwo\nthree\tx"}),
        ('{"a": "// no", /* yes */ "b": "c"\n "d": null, # yes\n "e": 1}', {"a": "// no", "b": "c", "d": None, "e": 1}),
        (r'{"a\_b": "c\*d"}', {"a_b": "c*d"}),
        ('{"a":\u00a01\uff0c"b"\uff1a2}', {"a": 1, "b": 2}),
    ],
)
def test_the_form_of_a_value_is_repaired(text: str, value: Any) -> None:
    """What stands inside strings is left alone."""
    assert _Reader(text).value() == value


class Order(BaseModel):
    """A type with a field of each kind."""

    stars: int | None = None
    price: float | None = None
    again: bool | None = None
    topics: list[Literal["price", "quality"]] | None = None
    names: list[str] = []
    note: str | None = None


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"stars": "4 stars"}, {"stars": 4}),
        ({"stars": "Four"}, {"stars": 4}),
        ({"stars": {"value": 4, "reason": "kind staff"}}, {"stars": 4}),
        ({"price": "€ 12,50"}, {"price": 12.5}),
        ({"again": "Yes."}, {"again": True}),
        ({"topics": "Price"}, {"topics": ["price"]}),
        ({"names": None}, {"names": []}),
        ({"note": ["late", "cold"]}, {"note": "late; cold"}),
        ({"note": []}, {"note": None}),
        ({"note": 5}, {"note": "5"}),
    ],
)
def test_values_in_another_form(given: dict[str, Any], read: dict[str, Any]) -> None:
    """A number with its unit, a single entry without its list, a list in place of a text."""
    value, repaired = parsed(json.dumps(given), Order)
    assert (value.model_dump(include=set(read)), repaired) == (read, True)


@pytest.mark.parametrize(
    "given",
    [{"stars": "4/5"}, {"stars": "3 or 4"}, {"price": "1,200.50"}, {"again": "maybe"}, {"note": True}],
)
def test_no_value_is_guessed(given: dict[str, Any]) -> None:
    """Two numbers, signs for thousands, several values: the model is asked again."""
    with pytest.raises(ParseError):
        parsed(json.dumps(given), Order)


def test_quotes_inside_a_string_need_not_be_escaped() -> None:
    """What follows a quote tells whether it ends the string."""
    assert _Reader('{"a": "It was "too" late", "b": "c"}').value() == {
        "a": 'It was "too" late',
        "b": "c",
    }


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{[" * 50_000 + "}" * 50_000, "<think></think>" * 20_000, "'\"“" * 50_000]
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    """Endless brackets, tags and quotes are given up at once."""
    with pytest.raises(ParseError):
        parsed(text)
