"""The built-in pipelines."""

from __future__ import annotations

import json

import pytest

from mellea_cli.pipelines.default_prompts import (
    PIPELINES,
    SINGLE,
    STEPS,
    Analysis,
    Issues,
    Judgement,
    Summary,
    Wording,
    built_in,
)
from mellea_cli.pipelines.pipeline import Pipeline
from mellea_cli.requirements.requirement import Answered

ANALYSIS = {
    "positive_aspect": "support",
    "main_complaint": "billing",
    "urgency": "high",
    "sentiment": "mixed",
    "summary": "Billing failed but support helped.",
}


def analysis(**changes: object) -> Analysis:
    return SINGLE.steps[0].output.parse(json.dumps({**ANALYSIS, **changes}))


def test_single_commits_to_the_facts_first() -> None:
    """The schema's order is the order in which the model writes: issues, sentiment, summary."""
    assert list(SINGLE.steps[0].output.schema["properties"]) == list(ANALYSIS)


def test_a_small_model_does_not_write_a_summary_that_is_the_text() -> None:
    """It writes the other fields as before, and code adds the sentence; both answers have one key."""
    (step,) = SINGLE.writing_less().steps
    output = step.output_for({"text": " The router is the\nwrong model. "})
    assert list(output.schema["properties"]) == list(ANALYSIS)[:-1]
    written = {name: value for name, value in ANALYSIS.items() if name != "summary"}
    answer = output.parse(json.dumps(written))
    assert answer == Analysis(**written, summary="The router is the wrong model.")
    assert all(requirement.validation_fn is not None for requirement in step.requirements)
    assert SINGLE.writing_less().definition() == SINGLE.definition()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("It broke. Nobody answers.", "en"),
        (" ".join(["word"] * 30), "en"),
        ("w" * 320, "en"),
        ("Die Lieferung kam viel zu spät.", "en"),
        ("Zu teuer und schlecht", "en"),
        ("写得很好", "en"),
        ("The router is wrong.", "de"),
    ],
)
def test_other_summaries_are_written(text: str, language: str) -> None:
    """Those of several sentences, of long ones, and of texts in another language than the answers."""
    (step,) = built_in("single", Wording(language=language)).writing_less().steps
    assert step.output_for({"text": text}) is step.output


def test_answers_in_the_language_of_the_feedback_are_shorter_in_all_languages() -> None:
    """The sentence is in the right language as it stands."""
    (step,) = built_in("single", Wording(language="same")).writing_less().steps
    assert "summary" not in step.output_for({"text": "Zu teuer und schlecht"}).schema["properties"]


def test_steps_ask_for_the_sentiment_after_the_summary() -> None:
    """Summary and issues are independent; the sentiment waits for the summary and is asked from it."""
    needs = {step.name: step.needs for step in STEPS.steps}
    assert needs == {"summary": (), "issues": (), "sentiment": ("summary",)}
    last = STEPS.steps[2].prompt.messages({"text": "raw", "summary": Summary(summary="It was short.")})[-1]
    assert "It was short." in last.content
    assert "raw" not in last.content


@pytest.mark.parametrize("word", ["", "none", "None.", "N/A", "null", "no complaint", " Not mentioned. "])
def test_words_for_nothing_become_null(word: str) -> None:
    """Small models say nothing in many ways."""
    assert analysis(main_complaint=word).main_complaint is None


@pytest.mark.parametrize("written", ["positive", "negative", "mixed"])
@pytest.mark.parametrize(
    ("praise", "complaint", "sentiment"),
    [("support", "billing", "mixed"), ("support", None, "positive"), (None, "billing", "negative"), (None, None, None)],
)
def test_the_sentiment_follows_from_the_facts(
    praise: str | None, complaint: str | None, sentiment: str | None, written: str
) -> None:
    """The written one counts only where nothing is praised and nothing complained about."""
    answer = analysis(positive_aspect=praise, main_complaint=complaint, sentiment=written)
    columns = SINGLE.assemble({"analysis": answer})
    assert columns["sentiment"] == (sentiment or written)
    urgency = "low" if columns["sentiment"] == "positive" else "high"
    assert columns["issues"] == {"main_complaint": complaint, "positive_aspect": praise, "urgency": urgency}


@pytest.mark.parametrize(
    ("changes", "shorter"),
    [
        ({"summary": "It broke. It is back."}, {"summary": "It broke."}),
        ({"summary": "It broke\ntwice, in May."}, {"summary": "It broke twice, in May."}),
        ({"summary": "word " * 50}, {"summary": "word " * 28 + "word…"}),
        ({"summary": "x" * 900}, {"summary": "x" * 318 + "…"}),
        ({"main_complaint": "late again " * 40}, {"main_complaint": "late again " * 17 + "late again…"}),
    ],
    ids=["two sentences", "two lines", "many words", "no blank", "complaint"],
)
async def test_a_text_that_stays_too_long_is_shortened(changes: dict[str, str], shorter: dict[str, str]) -> None:
    """The answer parses, breaks a requirement, and keeps all of them once code has shortened it."""
    for step in (SINGLE.steps[0], *STEPS.steps[:2]):
        names = set(step.output.schema["properties"])
        if not changes.keys() <= names or step.fallback is None:
            continue
        parsed = step.output.parse(json.dumps({name: {**ANALYSIS, **changes}[name] for name in names}))
        assert not all([await one.check(Answered("", parsed)) for one in step.requirements])
        better = step.fallback(parsed, "")
        assert all([await one.check(Answered("", better)) for one in step.requirements])
        assert {name: getattr(better, name) for name in shorter} == shorter


def test_both_pipelines_give_the_same_columns() -> None:
    """An output does not depend on how it was asked for."""
    answers = {
        "summary": Summary(summary=str(ANALYSIS["summary"])),
        "issues": Issues(positive_aspect="support", main_complaint="billing", urgency="high"),
        "sentiment": Judgement(sentiment="mixed"),
    }
    assert STEPS.assemble(answers) == SINGLE.assemble({"analysis": analysis()})
    assert STEPS.columns == SINGLE.columns


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=lambda pipeline: pipeline.name)
async def test_every_worked_example_is_a_good_answer(pipeline: Pipeline) -> None:
    """What the model is shown keeps every requirement that its own answers must keep."""
    for step in pipeline.steps:
        assert len(step.prompt.examples) == 6
        for example in step.prompt.examples:
            parsed = step.output.parse(example.answer)
            for requirement in step.requirements:
                verdict = await requirement.check(Answered(example.answer, parsed))
                assert verdict, (step.name, example.answer, verdict.reason)


def test_the_examples_are_balanced() -> None:
    """Two of each sentiment and of each urgency: with one high example a small model calls most things high."""
    answers = [json.loads(example.answer) for example in SINGLE.steps[0].prompt.examples]
    assert sorted(answer["sentiment"] for answer in answers) == ["mixed"] * 2 + ["negative"] * 2 + ["positive"] * 2
    assert sorted(answer["urgency"] for answer in answers) == ["high"] * 2 + ["low"] * 2 + ["medium"] * 2


async def test_a_long_summary_is_refused_with_the_reason() -> None:
    """Fewer than 30 words, one sentence: checked in code."""
    parsed = analysis(summary="word " * 31)
    reasons = [(await one.check(Answered("", parsed))).reason for one in SINGLE.steps[0].requirements]
    assert any("31 words" in (reason or "") for reason in reasons)
