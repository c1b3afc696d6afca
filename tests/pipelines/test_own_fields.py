"""Own fields: prompts, types, checks and repairs of an answer, narrowing, and cells that come back as they were."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from mellea_cli.errors import MelleaError, ParseError, UsageError
from mellea_cli.io.files import resolve_output
from mellea_cli.io.sink import open_sink
from mellea_cli.io.source import open_source
from mellea_cli.io.writers import Added, AddedColumns
from mellea_cli.items import Item, Success
from mellea_cli.pipelines.default_prompts import SINGLE, STEPS
from mellea_cli.pipelines.own_fields import (
    BUILT_IN_UNIT,
    flag_category,
    flag_field,
    model_pipeline,
    own_pipeline,
    pipeline_of,
    read_cell,
)
from mellea_cli.pipelines.pipeline import Pipeline, compact_json
from mellea_cli.pipelines.pipeline_spec import FieldSpec, PipelineSpec
from mellea_cli.requirements.requirement import Answered

TEXT = "The pump leaks,  and nobody answers.\nI want my money back."


def made(fields: Mapping[str, Mapping[str, Any]], **more: Any) -> Pipeline:
    """The pipeline of some fields, which is checked before."""
    spec = PipelineSpec.model_validate({"fields": fields, **more})
    assert spec.problems() == []
    return own_pipeline(spec, "shop")


def parsed(pipeline: Pipeline, answer: Mapping[str, Any], step: int = 0) -> Any:
    """An answer as the pipeline reads it."""
    return pipeline.steps[step].output.parse(compact_json(answer))


def complaints(pipeline: Pipeline, answer: Mapping[str, Any], text: str = TEXT) -> list[str]:
    """What the pipeline's requirements say about an answer."""

    async def check() -> list[str]:
        subject = Answered("", parsed(pipeline, answer), (), text)
        verdicts = [await one.check(subject) for one in pipeline.steps[0].requirements]
        return [verdict.reason or "" for verdict in verdicts if not verdict]

    return asyncio.run(check())


# Prompts.


def test_the_prompt_defines_each_field_facts_first() -> None:
    """One line for each field; quotes and texts before judgements; the columns keep the order of the file."""
    pipeline = made(
        {
            "team": {"type": "category", "choices": {"billing": "invoices", "other": ""}},
            "refund": {"type": "bool", "description": "The customer wants money back"},
            "product": {"description": "The product.", "nullable": True, "max_words": 4},
            "said": {"type": "quote"},
            "stars": {"type": "int", "minimum": 1, "maximum": 5},
        },
        context="Reviews of a bicycle shop.",
        language="de",
    )
    (step,) = pipeline.steps
    head, *lines = step.prompt.system.split("\n")
    assert "Context: Reviews of a bicycle shop. The feedback stands" in head
    assert "answer in German with one line" in head
    assert lines.pop() == "Write every text in German, whatever the feedback's language; quotes stay as they are."
    assert lines == [
        "Fields:",
        "- said: said; copied from the feedback letter by letter.",
        "- product: The product; at most 4 words; null if the feedback does not say.",
        "- stars: stars; a whole number from 1 to 5.",
        "- refund: The customer wants money back; true or false.",
        '- team: team. One of: "billing" for invoices; "other" for anything else.',
    ]
    assert [column.name for column in pipeline.columns] == ["team", "refund", "product", "said", "stars"]
    assert list(step.output.schema["properties"]) == ["said", "product", "stars", "refund", "team"]


def test_examples_are_earlier_turns_of_the_fields_that_are_asked() -> None:
    """A narrower pipeline shows its own fields only; a field that no example answers is not shown."""
    pipeline = made(
        {"product": {"nullable": True}, "team": {"type": "category", "choices": ["A", "B"]}, "new": {"nullable": True}},
        examples=[{"text": "Late.", "answer": {"team": "a"}}, {"text": "x", "answer": {"product": "y", "team": "B"}}],
    )
    answers = [json.loads(example.answer) for example in pipeline.steps[0].prompt.examples]
    assert answers == [{"product": None, "team": "A"}, {"product": "y", "team": "B"}]
    only = pipeline.narrowed({"product": None, "new": None}).steps[0].prompt
    assert [example.answer for example in only.examples] == ['{"team":"A"}', '{"team":"B"}']
    assert pipeline.narrowed({"product": None, "team": None}).steps[0].prompt.examples == ()


def test_a_wording_changes_the_built_in_prompts() -> None:
    """Labels, language and context; without any of them the built-in pipeline is what it was, with its key."""
    assert own_pipeline(PipelineSpec.model_validate({"extends": "single"})).definition() == SINGLE.definition()
    pipeline = own_pipeline(
        PipelineSpec.model_validate(
            {"extends": "single", "labels": ["positive", "negative", "neutral"], "language": "same"}
        )
    )
    system = pipeline.steps[0].prompt.system
    assert '"neutral" if there is neither' in system
    assert '"mixed"' not in system
    assert "answer in the language of the feedback" in system
    sentiments = [json.loads(one.answer)["sentiment"] for one in pipeline.steps[0].prompt.examples]
    assert sorted(set(sentiments)) == ["negative", "neutral", "positive"]
    with pytest.raises(ParseError):
        pipeline.steps[0].output.parse(pipeline.steps[0].prompt.examples[0].answer.replace("negative", "mixed"))


@pytest.mark.parametrize("language", ["de", "French", "es", "ja", "same"])
@pytest.mark.parametrize("name", ["single", "steps"])
def test_examples_speak_the_language_that_is_wanted(name: str, language: str) -> None:
    """Their answers are of the right type and keep the requirements; in English nothing has changed."""
    spec = {"extends": name, "language": language, "labels": ["positive", "negative", "mixed", "neutral"]}
    pipeline = own_pipeline(PipelineSpec.model_validate(spec))
    english = (SINGLE if name == "single" else STEPS).steps
    for step, plain in zip(pipeline.steps, english, strict=True):
        assert len(step.prompt.examples) == 7
        for example in step.prompt.examples:
            step.output.parse(example.answer)
        answers = [example.answer for example in step.prompt.examples]
        if "sentiment" not in plain.name:
            assert answers[1] != plain.prompt.examples[1].answer
        assert ("Write every text in" in step.prompt.system) == (language != "same")


def test_own_fields_join_the_call_of_the_built_in_ones() -> None:
    """One step with both; narrowed to the built-in fields it is the built-in pipeline, byte for byte."""
    pipeline = made({"product": {}}, extends="single")
    (step,) = pipeline.steps
    assert list(step.output.schema["properties"])[-2:] == ["summary", "product"]
    built_in = pipeline.narrowed({"product": "pump"})
    assert built_in.definition()["steps"] == SINGLE.definition()["steps"]
    assert built_in.steps[0].prompt.messages({"text": TEXT}) == SINGLE.steps[0].prompt.messages({"text": TEXT})
    own = pipeline.narrowed({"summary": "", "sentiment": "", "issues": {}})
    assert list(own.steps[0].output.schema["properties"]) == ["product"]
    assert [unit.name for unit in pipeline.units] == [BUILT_IN_UNIT, "product"]
    assert pipeline.units[0].definition == SINGLE.definition()


def test_steps_after_the_chain_see_its_answers() -> None:
    """With `extends = "steps"` the chain sends its own messages, and a later step uses its summary as a text."""
    later = {"name": "later", "fields": ["reply"], "needs": ["summary"], "prompt": "{{ summary }}"}
    pipeline = made({"reply": {}}, extends="steps", steps=[later])
    assert pipeline.step_names == ("summary", "issues", "sentiment", "later")
    for ours, theirs in zip(pipeline.steps, STEPS.steps, strict=False):
        before = {"summary": {"summary": "Late."}} if theirs.needs else {}
        given = {"text": TEXT, **({"summary": "Late."} if theirs.needs else {})}
        assert ours.prompt.messages(given) == theirs.prompt.messages({"text": TEXT, **before})
    assert pipeline.steps[3].prompt.messages({"text": TEXT, "summary": "Late."})[-1].content == "Late."


def test_a_text_in_an_own_prompt_is_fenced() -> None:
    """It is data: it stands between marks that it cannot close."""
    steps = [{"name": "one", "fields": ["a"], "prompt": "{{ text }}, {{text | upper}}, {{- text | fence }}"}]
    message = made({"a": {}}, steps=steps).steps[0].prompt.messages({"text": "x </feedback> y"})[-1].content
    fenced = "<feedback->\nx </feedback> y\n</feedback->"
    assert message == f"{fenced}, <feedback>\nX </FEEDBACK> Y\n</feedback>,{fenced}"


# Answers.

TYPES: list[tuple[dict[str, Any], Any, Any]] = [
    ({"type": "category", "choices": ["Billing", "other"]}, "BILLING ", "Billing"),
    ({"type": "categories", "choices": ["a", "b", "c"]}, ["C", "a", "c"], ["a", "c"]),
    ({"type": "categories", "choices": ["a", "b"]}, [], []),
    ({"type": "bool"}, True, True),
    ({"type": "int", "minimum": 1}, "4", 4),
    ({"type": "number"}, 2.5, 2.5),
    ({"type": "date"}, "2026-02-03", "2026-02-03"),
    ({"type": "quote"}, "nobody  ANSWERS", "nobody answers"),
    ({"type": "quote"}, "answers. i want", "answers.\nI want"),
    ({"type": "list"}, [" a ", "b"], ["a", "b"]),
    ({"nullable": True}, "None.", None),
    ({"type": "category", "choices": ["yes", "no"], "nullable": True}, "No", "no"),
    ({"type": "category", "choices": ["yes", "no"], "nullable": True}, "none", None),
    ({"type": "int", "nullable": True}, None, None),
    ({}, "  x ", "x"),
    ({}, "'=1+1", "=1+1"),
]


@pytest.mark.parametrize(("field", "answer", "value"), TYPES)
def test_answers_are_read_as_their_types(field: dict[str, Any], answer: Any, value: Any) -> None:
    """Case of choices, white space, words for nothing and the text's own letters of a quote."""
    pipeline = made({"f": field})
    columns = pipeline.assemble({"fields": parsed(pipeline, {"f": answer}), "text": TEXT})
    assert columns == {"f": value}
    assert complaints(pipeline, {"f": answer}) == []


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ({"type": "category", "choices": ["a", "b"]}, "c"),
        ({"type": "category", "choices": ["a", "b"]}, None),
        ({"type": "categories", "choices": ["a", "b"], "minimum": 1}, []),
        ({"type": "bool"}, "perhaps"),
        ({"type": "int"}, 2.5),
        ({"type": "int", "maximum": 5}, 6),
        ({"type": "number"}, "many"),
        ({"type": "date"}, "3 February"),
        ({"type": "date"}, "2026-02-30"),
        ({"type": "list"}, [""]),
        ({}, " "),
    ],
)
def test_answers_of_another_type_do_not_parse(field: dict[str, Any], answer: Any) -> None:
    """The model is asked again, with the field's name in the reason."""
    with pytest.raises(ParseError, match="f"):
        parsed(made({"f": field}), {"f": answer})


@pytest.mark.parametrize(
    ("field", "answer", "reason"),
    [
        ({"type": "quote"}, "nobody replies", "does not stand in the feedback"),
        ({"max_words": 2}, "a b c", "has 3 words; use at most 2"),
        ({"one_sentence": True}, "One. Two.", "has 2 sentences"),
        ({"pattern": "[A-Z]+"}, "abc", "does not match"),
        ({"type": "date", "minimum": "2026"}, "", ""),
        ({"type": "list", "max_words": 1}, ["a b"], "has 2 words"),
        ({"type": "quote", "max_words": 1}, "pump leaks", "has 2 words"),
        ({}, "x" * 600, "was cut off"),
    ],
)
def test_what_an_answer_must_hold_beyond_its_type(field: dict[str, Any], answer: Any, reason: str) -> None:
    """The reason names the field and says what to do."""
    if field.get("minimum"):
        from datetime import date

        field, answer, reason = {**field, "minimum": date(2026, 1, 1)}, "2025-12-31", "must be at least 2026-01-01"
    (said,) = complaints(made({"f": field}), {"f": answer})
    assert "about the field 'f': it " in said
    assert reason in said


@pytest.mark.parametrize(
    ("field", "answer", "repaired"),
    [
        ({"type": "quote"}, "nobody replies", "The pump leaks,  and nobody answers."),
        ({"type": "quote", "max_words": 3}, "nobody replies", "The pump leaks,"),
        ({"type": "quote", "nullable": True}, "nobody replies", None),
        ({"one_sentence": True}, "One. Two.", "One."),
        ({"pattern": "[A-Z]+", "nullable": True}, "abc", None),
        ({"max_words": 1}, "a b", "a b"),
    ],
)
def test_the_last_repair(field: dict[str, Any], answer: Any, repaired: Any) -> None:
    """Null where it may be, the first sentence, the closest passage; else the row fails."""
    step = made({"f": field, "g": {}}).steps[0]
    assert step.fallback is not None
    better = step.fallback({"f": answer, "g": "x"}, TEXT)
    assert better == (None if repaired == answer else {"f": repaired, "g": "x"})


def test_good_fields_of_a_refused_answer_are_kept() -> None:
    """Each field is judged by itself."""
    step = made({"f": {"max_words": 1}, "g": {"type": "quote"}, "h": {"type": "bool"}}).steps[0]
    assert step.salvage is not None
    held = [one.description != "f: it follows its definition." for one in step.requirements]
    assert step.salvage({"f": "a b", "g": "NOBODY answers", "h": True}, TEXT, held) == {
        "g": "nobody answers",
        "h": True,
    }


# What is remembered by itself.


def keys(pipeline: Pipeline) -> dict[str, str]:
    """What the keys of the units cover."""
    return {unit.name: json.dumps(unit.definition, sort_keys=True, default=str) for unit in pipeline.units}


def test_a_field_key_covers_its_own_definition_only() -> None:
    """Not other fields, not their examples; but context, language and the answers that its step uses."""
    fields = {"a": {"description": "A"}, "b": {"type": "bool"}}
    example = {"text": "t", "answer": {"a": "x", "b": True}}
    one = keys(made(fields, examples=[example]))
    more = {"text": "t", "answer": {"a": "x", "b": True, "c": "1"}}
    assert keys(made({"b": {"type": "bool"}, "c": {}, **fields}, examples=[more]))["a"] == one["a"]
    other = keys(made({**fields, "b": {"type": "int"}}, examples=[{**example, "answer": {"a": "x", "b": 1}}]))
    assert other["a"] == one["a"]
    assert other["b"] != one["b"]
    assert keys(made(fields))["a"] != one["a"]
    for change in ({"context": "Shop"}, {"language": "de"}):
        assert keys(made(fields, examples=[example], **change))["a"] != one["a"]


def test_a_step_key_covers_what_it_uses() -> None:
    """A field that its prompt names counts, one that only comes earlier does not; the step's name does not."""

    def steps(name: str = "two", prompt: str = "{{ a }}", **first: Any) -> dict[str, str]:
        fields = {"a": first.get("a", {}), "b": first.get("b", {}), "c": {}}
        asked = [{"name": "one", "fields": ["a", "b"]}]
        asked.append({"name": name, "fields": ["c"], "needs": ["one"], "prompt": prompt, "when": first.get("when", "")})
        return keys(made(fields, steps=asked))

    key = steps()["c"]
    assert steps(name="other")["c"] == key
    assert steps(b={"type": "int"})["c"] == key
    assert steps(a={"type": "int"})["c"] != key
    assert steps(prompt="{{ a }}!")["c"] != key
    assert steps(when="a == 'x'")["c"] != key


# Models and names.


class Order(BaseModel):
    """Orders of a shop."""

    product: str | None = Field(description="The product")
    team: Literal["billing", "delivery"]
    stars: list[int] = Field(min_length=1)


def test_a_model_is_a_pipeline() -> None:
    """Each of its fields is one, with its own type; the docstring is the context."""
    pipeline = model_pipeline(Order)
    assert "Context: Orders of a shop." in pipeline.steps[0].prompt.system
    assert '- team: team; one of "billing", "delivery".' in pipeline.steps[0].prompt.system
    assert "- product: The product; null if the feedback does not say." in pipeline.steps[0].prompt.system
    assert [unit.name for unit in pipeline.units] == ["product", "team", "stars"]
    assert parsed(pipeline, {"product": None, "team": "billing", "stars": [1]})["stars"] == [1]
    with pytest.raises(ParseError, match="stars"):
        parsed(pipeline, {"product": None, "team": "billing", "stars": []})


def test_names_of_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A built-in name, a file, a module's object; anything else is refused with the nearest name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.toml").write_text("[fields.a]\n")
    (tmp_path / "own_module_of_test.py").write_text("from pydantic import BaseModel\nclass M(BaseModel):\n    a: str\n")
    assert pipeline_of("single") is SINGLE
    assert pipeline_of(SINGLE) is SINGLE
    assert pipeline_of("shop.toml").name == "shop"
    assert pipeline_of("own_module_of_test:M").source == "own_module_of_test:M"
    for wrong in ("singel", "gone.toml", "own_module_of_test:N", 7):
        with pytest.raises(MelleaError):
            pipeline_of(wrong)
    with pytest.raises(UsageError):
        model_pipeline(BaseModel)


def test_fields_as_flags() -> None:
    """Texts, numbers, dates and quotes may be null unless `!` says otherwise."""
    assert flag_field("product: the product") == ("product", FieldSpec(description="the product", nullable=True))
    assert flag_field(" refund_wanted ( bool ) : wants: money ") == (
        "refund_wanted",
        FieldSpec(type="bool", description="wants: money"),
    )
    assert flag_field("stars(int!)")[1] == FieldSpec(type="int")
    assert flag_category("team: who=a, b ,c")[1] == FieldSpec(
        type="category", description="who", choices={"a": "", "b": "", "c": ""}
    )
    assert flag_category("team[]=a,b") == ("team", FieldSpec(type="categories", choices={"a": "", "b": ""}))


# Any pipeline: its answers come back from every format.

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=20) | st.text(
    st.sampled_from("a,;|\t\"'\r\n =+-@é\u2028[]{}1"), min_size=1, max_size=12
)
SAID = WORDS.map(str.strip).filter(bool)
# A table has an apostrophe before a formula, so a choice cannot begin with both.
LABELS = SAID.filter(lambda text: text.isprintable() and not text.startswith("'"))
CHOICES = st.lists(LABELS, min_size=2, max_size=4, unique_by=str.casefold)
NAMES = st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True).map(lambda name: f"f_{name}")


@st.composite
def fields_with_answers(draw: st.DrawFn, text: str) -> tuple[dict[str, Any], Any]:
    """A field, and an answer of its type about a text."""
    kind = draw(st.sampled_from(["text", "category", "categories", "bool", "int", "number", "date", "quote", "list"]))
    field: dict[str, Any] = {"type": kind, "nullable": draw(st.booleans())}
    answers: dict[str, Any] = {
        "text": SAID,
        "bool": st.booleans(),
        "int": st.integers(),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "date": st.dates().map(str),
        "list": st.lists(SAID, max_size=4),
        "quote": st.just(text),
    }
    if kind.startswith("categor"):
        choices = draw(CHOICES)
        field["choices"] = choices
        answers["category"] = st.sampled_from(choices)
        answers["categories"] = st.lists(st.sampled_from(choices), max_size=4)
    return field, draw(st.none() | answers[kind] if field["nullable"] else answers[kind])


@st.composite
def pipelines_with_answers(draw: st.DrawFn) -> tuple[Pipeline, dict[str, Any], str]:
    """A pipeline, an answer, and the text that it is about."""
    text = draw(SAID)
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    made_up = {name: draw(fields_with_answers(text)) for name in names}
    pipeline = made({name: field for name, (field, _) in made_up.items()})
    return pipeline, {name: answer for name, (_, answer) in made_up.items()}, text


@settings(deadline=None, max_examples=150)
@given(pipelines_with_answers())
def test_every_type_comes_back_from_every_format(case: tuple[Pipeline, dict[str, Any], str]) -> None:
    """An answer is read, put into columns, written and read again: JSONL, JSON, CSV and TSV give the same values."""
    pipeline, answer, text = case
    values = pipeline.assemble({"fields": parsed(pipeline, answer), "text": text})
    assert set(values) == set(answer)
    added = AddedColumns(tuple(Added(column.name, column.parts, column.joint) for column in pipeline.columns))
    row = added.row(Item(0, 1, text, {"text": "x"}), Success(values))
    with tempfile.TemporaryDirectory() as folder:
        for form in ("jsonl", "json", "csv", "tsv"):
            path = Path(folder) / f"out.{form}"
            with open_sink(resolve_output(str(path)), added) as sink:
                sink.write(row)
                sink.finish()
            with open_source(str(path)) as source:
                (item,) = source
            back = {column.name: read_cell(column, item.fields[column.name]) for column in pipeline.columns}
            assert back == values, form
            assert [type(value) for value in back.values()] == [type(values[name]) for name in back], form


@settings(deadline=None, max_examples=60)
@given(pipelines_with_answers())
def test_any_subset_of_any_pipeline_can_be_asked(case: tuple[Pipeline, dict[str, Any], str]) -> None:
    """A narrower pipeline asks the missing fields, parses their answers, and answers nothing else."""
    pipeline, answer, text = case
    for known in answer:
        narrower = pipeline.narrowed({known: None})
        if len(answer) == 1:
            assert narrower.steps == ()
            continue
        rest = {name: value for name, value in answer.items() if name != known}
        values = narrower.assemble({"fields": parsed(narrower, rest), "text": text})
        assert set(values) == set(rest)
        assert narrower.steps[0].prompt.system.count("\n- ") == len(rest)


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ({"happy": "praise", "angry": "only complaint", "torn": "both", "cool": "neither"}, "happy angry torn cool"),
        (["Positiv", "Negativ", "gemischt"], "Positiv Negativ gemischt"),
        ({"loyal": "would buy again", "leaving": "cancels or threatens to", "unclear": ""}, ""),
        ({"calm": "a calm complaint", "furious": "shouts", "positive": ""}, ""),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"product": {"description": "the product"}}])
@pytest.mark.parametrize("name", ["single", "steps"])
def test_own_labels_keep_the_worked_examples(name: str, labels: Any, shown: str, fields: dict[str, Any]) -> None:
    """In the wanted language; the sentiment is in them where each kind of example has a label."""
    spec = {"extends": name, "labels": labels, "language": "de", "fields": fields}
    pipeline = own_pipeline(PipelineSpec.model_validate(spec))
    answers: dict[str, list[dict[str, Any]]] = {}
    for step in pipeline.steps:
        answers[step.name] = [json.loads(one.answer) for one in step.prompt.examples]
        for example in step.prompt.examples if shown or name == "steps" else ():
            if not fields or name == "steps":
                step.output.parse(example.answer)
    summaries = [one["summary"] for one in answers["analysis" if name == "single" else "summary"]]
    assert len(summaries) == (6 if shown.count(" ") == 2 else 7)
    assert all(summary.startswith("Der Kunde") for summary in summaries)
    said = {one["sentiment"] for one in answers["analysis" if name == "single" else "sentiment"] if "sentiment" in one}
    assert said == set(shown.split())
    system = pipeline.steps[0 if name == "single" else 2].prompt.system
    assert ("also where an example leaves it out" in system) == (not shown)


def test_a_label_that_says_no_more_than_a_usual_one_follows_from_the_facts() -> None:
    """One with a definition of its own is what the model says, and so are two that mean the same."""
    facts = {"positive_aspect": "the staff", "main_complaint": None, "urgency": "high", "summary": "Good staff."}

    def sentiment(labels: Any, written: str) -> tuple[str, str]:
        pipeline = own_pipeline(PipelineSpec.model_validate({"extends": "single", "labels": labels}))
        answer = pipeline.steps[0].output.parse(json.dumps({**facts, "sentiment": written}))
        columns = pipeline.assemble({"analysis": answer, "text": ""})
        return columns["sentiment"], columns["issues"]["urgency"]

    assert sentiment({"happy": "if the customer is happy", "angry": "complaint"}, "angry") == ("happy", "low")
    assert sentiment({"loyal": "would buy again", "angry": "complaint"}, "angry") == ("angry", "high")
    assert sentiment({"happy": "praise", "glad": "praise", "angry": "complaint"}, "glad") == ("glad", "high")
    assert sentiment({"happy": "no praise", "angry": "complaint"}, "angry") == ("angry", "high")
