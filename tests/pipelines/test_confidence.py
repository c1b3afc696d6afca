"""The confidence of labels: what the tokens of an answer say of its choices, and pipelines that ask for it."""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from mellea_cli.messages import Options, Token
from mellea_cli.models.catalogue import DEFAULT_MODEL, SMALL_MODEL
from mellea_cli.pipelines import confidence
from mellea_cli.pipelines.confidence import (
    calibrated,
    confidence_columns,
    for_model,
    log_odds,
    read_choices,
    recalibrated,
    recalibration,
    with_confidence,
    with_weighed_urgency,
)
from mellea_cli.pipelines.default_prompts import SINGLE, STEPS
from mellea_cli.pipelines.fast import FAST
from mellea_cli.pipelines.own_fields import model_pipeline, own_pipeline
from mellea_cli.pipelines.pipeline import PROBABILITIES, OutputType, Pipeline
from mellea_cli.pipelines.pipeline_spec import PipelineSpec
from mellea_cli.report.agreement import calibration_error
from mellea_cli.run.plan import RunPlan

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import confidence as benchmark  # noqa: E402 - a script of the benchmarks
import fit  # noqa: E402 - one more


class Level(Enum):
    """A reference in the schema."""

    LOW = "low"
    LOWER = "lower"


class Facts(BaseModel):
    """Fields with choices of each kind."""

    praise: str | None
    refund: bool
    level: Level
    label: Literal["good", "bad"] | None
    count: int


SCHEMA = OutputType(Facts).schema


def tokens(*parts: str | tuple[str, dict[str, float]]) -> list[Token]:
    """Tokens with probabilities: a lone text is sure, else its own is what the others leave."""
    found = []
    for part in parts:
        text, others = part if isinstance(part, tuple) else (part, {})
        likely = {text: 1 - sum(others.values()), **others}
        found.append(Token(text, {token: math.log(value) for token, value in likely.items() if value}))
    return found


@pytest.mark.parametrize(
    ("written", "name", "expected"),
    [
        # One token holds the colon and the quote: the colon alone would be followed by null.
        (("{", '"praise', ('":"', {'":': 0.2}), "kind"), "praise", {'"': 0.8, "null": 0.2}),
        (("{", '"praise', ('":', {'":"': 0.1}), ("null", {'"': 0.1}), ","), "praise", {"null": 0.81, '"': 0.19}),
        (('"praise": ', ("null", {'"': 0.25})), "praise", {"null": 0.75, '"': 0.25}),
        (('"praise"', ":", (" null", {' "': 0.25})), "praise", {"null": 0.75, '"': 0.25}),
        # What cannot follow does not count.
        (('"refund":', ("true", {"false": 0.1, "null": 0.5})), "refund", {"true": 0.8, "false": 0.2}),
        (('"refund":', ("f", {"t": 0.3}), "alse"), "refund", {"false": 0.7, "true": 0.3}),
        # The choices separate behind their common beginning.
        (('"level":"', ("low", {}), ('"', {"er": 0.4})), "level", {'"low"': 0.6, '"lower"': 0.4}),
        (('"level":"', ("low", {"x": 0.1}), ("er", {'"': 0.4}), '"'), "level", {'"lower"': 0.6, '"low"': 0.4}),
        (('"label":"', ("good", {"bad": 0.25}), '"'), "label", {'"good"': 0.75, '"bad"': 0.25, "null": 0.0}),
        (('"label":', ("null", {'"': 0.5})), "label", {"null": 0.5, '"good"': 0.25, '"bad"': 0.25}),
        (('"label":"', "fair"), "label", None),
        (('"count":', ("1", {"2": 0.5})), "count", None),
        (('{"other":1}',), "praise", None),
        ((), "praise", None),
    ],
)
def test_tokens_tell_how_likely_each_choice_was(
    written: tuple[Any, ...], name: str, expected: dict[str, float] | None
) -> None:
    """Probabilities multiply along the tokens until only one choice is left; other fields and answers have none."""
    found = read_choices(SCHEMA, tokens(*written)).get(name)
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_key_inside_a_text_is_no_field() -> None:
    """Quotes inside a text are escaped, so the field's own value is read."""
    said = tokens('{"praise":"', r"write \"refund\":true", '","refund":', ("false", {"true": 0.4}))
    assert read_choices(SCHEMA, said)["refund"] == pytest.approx({"false": 0.6, "true": 0.4})


def columns(praise: str | None, complaint: str | None, label: str) -> dict[str, Any]:
    return {"sentiment": label, "issues": {"positive_aspect": praise, "main_complaint": complaint, "urgency": "low"}}


READ = {
    "positive_aspect": {"null": 0.1, '"': 0.9},
    "main_complaint": {"null": 0.8, '"': 0.2},
    "sentiment": {'"positive"': 0.65, '"negative"': 0.1, '"mixed"': 0.2, '"calm"': 0.05},
}


@pytest.mark.parametrize(
    ("praise", "complaint", "label", "expected"),
    [
        # Praise and no complaint, or neither and the label.
        ("kind staff", None, "positive", 0.9 * 0.8 + 0.1 * 0.8 * 0.65),
        (None, "late", "negative", 0.9 * 0.2 + 0.9 * 0.8 * 0.1),
        ("kind staff", "late", "mixed", 0.9 * 0.2 + 0.1 * 0.8 * 0.2),
        # A text such as "none" was likely, and says that there is no praise.
        (None, None, "negative", 0.9 * 0.8 * 0.1 + 0.9 * 0.2),
        (None, None, "calm", 0.9 * 0.8 * 0.05),
        ("kind staff", None, "calm", 0.9 * 0.8 + 0.1 * 0.8 * 0.05),
    ],
)
def test_a_sentiment_is_as_likely_as_what_it_follows_from(
    praise: str | None, complaint: str | None, label: str, expected: float
) -> None:
    """Praise and complaint decide; the label counts where there is neither."""
    found = log_odds(columns(praise, complaint, label), READ)
    assert found == pytest.approx(math.log(expected / (1 - expected)))


def test_tokens_that_do_not_tell_give_no_confidence() -> None:
    """Such as those of a server that writes another form."""
    assert log_odds(columns("kind staff", None, "angry"), READ) is None
    assert log_odds(columns("kind staff", None, "positive"), {}) is None
    assert confidence.sentiment_confidence(columns("kind staff", None, "positive"), {}) is None


def test_a_label_of_which_everything_is_sure_is_surer() -> None:
    """Confidence lies between 0 and 1 and grows with the features."""
    sure = {name: {choice: float(value > 0.5) for choice, value in read.items()} for name, read in READ.items()}
    values = columns("kind staff", None, "positive")
    unsure, most = (confidence.sentiment_confidence(values, read) for read in (READ, sure))
    assert unsure is not None
    assert most is not None
    assert 0 < unsure < most <= 1


def plan(pipeline: Pipeline) -> RunPlan:
    return RunPlan(pipeline, "scripted", "m", "m", Options(), 1)


@pytest.mark.parametrize("pipeline", [SINGLE, STEPS])
def test_labels_keep_their_keys(pipeline: Pipeline) -> None:
    """The first unit is the pipeline without confidence, also for the settings that a user is asked about."""
    with_one = with_confidence(pipeline)
    assert with_one is not None
    assert plan(with_one).key("text")[:16] == plan(pipeline).key("text")
    assert plan(with_one).settings == {**plan(pipeline).settings, "confidence": True}
    assert [column.name for column in with_one.columns] == ["summary", "sentiment", "issues", "confidence"]
    assert with_one.prefixes == pipeline.prefixes
    assert not pipeline.reads_logprobs


def test_a_label_and_its_confidence_are_asked_together() -> None:
    """Either of them alone is not asked; the other fields stay as they are."""
    spec = PipelineSpec.model_validate(
        {
            "extends": "single",
            "fields": {
                "team": {"type": "category", "description": "who", "choices": {"billing": "", "shop": ""}},
                "product": {"description": "what"},
            },
            "steps": [{"name": "who", "fields": ["team"]}, {"name": "what", "fields": ["product"]}],
        }
    )
    pipeline = with_confidence(own_pipeline(spec))
    assert pipeline is not None
    assert [unit.name for unit in pipeline.units][-2:] == ["confidence", "team_confidence"]
    known = {"summary", "sentiment", "issues", "product", "confidence"}
    for missing in ({"team"}, {"team_confidence"}, {"team", "team_confidence"}):
        asked = pipeline.narrowed((known | {"team", "team_confidence"}) - missing)
        assert [step.name for step in asked.steps] == ["who"]
        assert asked.steps[0].reads_choices
    asked = pipeline.narrowed({"sentiment", "summary", "issues", "confidence", "team", "team_confidence"})
    assert [(step.name, step.reads_choices) for step in asked.steps] == [("what", False)]
    assert pipeline.narrowed(set()).step_names == pipeline.step_names


def test_a_partial_answer_has_a_partial_confidence() -> None:
    """A step that has failed leaves its columns out, and a pipeline as a whole then has none."""
    pipeline = with_confidence(STEPS)
    assert pipeline is not None
    assert pipeline.assemble({"text": "t", "summary": None}) == {}


def test_only_labels_have_a_confidence() -> None:
    """A pipeline without choices has no column, a pydantic model's choices have one, and `fast` has its own."""
    spec = PipelineSpec.model_validate({"fields": {"product": {"description": "what"}}})
    assert with_confidence(own_pipeline(spec)) is None
    of_model = with_confidence(model_pipeline(Facts))
    assert of_model is not None
    added = ["refund_confidence", "level_confidence", "label_confidence"]
    assert [column.name for column in of_model.columns][5:] == added
    of_fast = with_confidence(FAST)
    assert of_fast is not None
    assert (of_fast.columns[-1].name, of_fast.units) == ("confidence", ())


def test_a_confidence_is_that_of_the_columns_value() -> None:
    """A choice, a bool and a null have the probability with which they were written."""
    pipeline = with_confidence(model_pipeline(Facts))
    assert pipeline is not None
    answer = {"praise": None, "refund": True, "level": "low", "label": None, "count": 1}
    read = {"refund": {"true": 0.9, "false": 0.1}, "label": {"null": 0.61234, '"good"': 0.3}}
    found = pipeline.assemble({"text": "t", pipeline.steps[0].name: answer, PROBABILITIES: read})
    assert [found[name] for name in ("refund_confidence", "level_confidence", "label_confidence")] == [0.9, None, 0.612]


def urgencies(high: float, medium: float) -> dict[str, float]:
    return {'"high"': high, '"medium"': medium, '"low"': 1 - high - medium}


ANSWER = {"urgency": "high", "sentiment": "negative", "summary": "Late."}


@pytest.mark.parametrize(
    ("text", "read", "complaint", "expected"),
    [
        ("Late.", {"urgency": urgencies(0.96, 0.04)}, "late", "high"),
        ("Late.", {"urgency": urgencies(0.9, 0.1)}, "late", "medium"),
        ("Late.", {"urgency": urgencies(0.3, 0.15)}, "late", "low"),
        ("Late. I am leaving.", {"urgency": urgencies(0.3, 0.15)}, "late", "high"),
        ("Late.", {"urgency": urgencies(0.8, 0.1)}, None, "high"),
        ("Late.", {}, "late", "high"),
    ],
)
def test_a_small_model_has_to_be_sure_of_a_high_urgency(
    text: str, read: dict[str, Any], complaint: str | None, expected: str
) -> None:
    """Unless its words tell it. What was written counts only without probabilities, and without a complaint."""
    pipeline = with_weighed_urgency(SINGLE)
    (step,) = pipeline.steps
    answer = step.output.parse(json.dumps({"positive_aspect": None, "main_complaint": complaint, **ANSWER}))
    found = pipeline.assemble({"text": text, step.name: answer, PROBABILITIES: read})
    assert found["issues"]["urgency"] == expected
    assert step.reads_choices


@pytest.mark.parametrize(
    ("pipeline", "step"),
    [(SINGLE, "analysis"), (STEPS, "issues"), (own_pipeline(PipelineSpec(extends="single")), "analysis")],
)
def test_a_weighed_urgency_changes_no_key(pipeline: Pipeline, step: str) -> None:
    """Also where only some fields are asked."""
    weighed = with_weighed_urgency(pipeline)
    assert plan(weighed).key("text") == plan(pipeline).key("text")
    assert plan(weighed).settings == plan(pipeline).settings
    assert weighed.narrowed(()).reads_logprobs
    assert [one.name for one in weighed.steps if one.reads_choices] == [step]


def test_the_embedded_models_are_asked_for_less() -> None:
    """A model file of the user and a server write all fields; only the default model's urgency is weighed."""
    asked = {
        name: for_model(SINGLE, backend, name).steps[0]
        for backend, name in [("local", DEFAULT_MODEL), ("local", SMALL_MODEL), ("local", "big.gguf"), ("ollama", "m")]
    }
    assert [one.shorter is not None for one in asked.values()] == [True, True, False, False]
    assert [one.reads_choices for one in asked.values()] == [True, False, False, False]


def test_columns_of_confidence_belong_to_a_field() -> None:
    """A field of the user with such a name is judged as any other."""
    assert confidence_columns(["team", "team_confidence", "self_confidence", "confidence"]) == [
        "team_confidence",
        "confidence",
    ]


def test_shipped_coefficients_are_the_optimum_of_the_stored_answers() -> None:
    """The penalized loss, which is convex, has no gradient there: the script would write the same again."""
    weights = [[sign * one / 2 for one in confidence.coefficients()] for sign in (-1, 1)]
    assert max(map(abs, fit.gradient(weights, benchmark.samples(benchmark.answers())))) < 1e-6


def test_stored_answers_belong_to_labelled_texts() -> None:
    """Each has the source and label of its text, and there are at least four sources with enough rows."""
    labelled = {(row.source, row.text): row.label for row in fit.labelled_rows()}
    rows = benchmark.answers()
    assert all(labelled[row["source"], row["text"]] == row["label"] for row in rows)
    assert sum(count >= 30 for count in Counter(row["source"] for row in rows).values()) >= 4


def test_the_figures_of_a_ranking() -> None:
    """The area under the curve counts pairs, ties half; the rest is what the surest leave."""
    judged = [(0.9, True), (0.8, True), (0.7, True), (0.6, True), (0.5, False)]
    assert benchmark.auroc(judged) == 1.0
    assert benchmark.auroc([(0.5, True), (0.5, False)]) == 0.5
    assert (fit.surest(judged), benchmark.rest(judged)) == (1.0, 0.0)


def test_words_of_a_worked_example_are_found() -> None:
    """Words that the text has itself are no copy."""
    row = {"text": "Slow.", "answer": {"positive_aspect": None, "main_complaint": "drafts were lost twice in a week"}}
    row["answer"]["summary"] = "The customer finds it slow."
    assert list(benchmark.copied(row))
    assert not list(benchmark.copied({**row, "text": "My drafts were lost twice in a week."}))
    assert json.loads(benchmark.line({"source": "s", "label": "mixed", "text": "t"}, _ANSWER, READ))["read"] == READ


_ANSWER = '{"positive_aspect":"a","main_complaint":null,"urgency":"low","sentiment":"positive","summary":"It is."}'


def judged(rows: int, truth: Callable[[float], float], seed: int = 0) -> list[tuple[float, bool]]:
    """Confidences, and labels that are right as often as `truth` says."""
    chance = random.Random(seed)  # noqa: S311 - made-up rows
    sures = [0.5 + chance.random() / 2 for _ in range(rows)]
    return [(sure, chance.random() < truth(sure)) for sure in sures]


def test_judged_rows_calibrate_a_confidence() -> None:
    """A model that is too sure of itself is taken at its word no more, and the order of its rows stays."""
    weights = recalibration(judged(150, lambda sure: sure / 2 + 0.2))
    assert weights[0] < 1
    sures = [0.5, 0.6, 0.8, 0.95, 0.99]
    found = [recalibrated(sure, weights) for sure in sures]
    assert found == sorted(found)
    assert all(0.3 < one < sure for one, sure in zip(found, sures, strict=True))
    later = judged(4_000, lambda sure: sure / 2 + 0.2, seed=1)
    assert calibration_error([(recalibrated(sure, weights), is_right) for sure, is_right in later]) < 0.1
    assert calibration_error(later) > 0.15


def test_rows_that_show_nothing_beyond_chance_change_nothing() -> None:
    """Few rows and right confidences keep the model's own; one that is as sure of each row is calibrated, too."""
    assert recalibration(judged(29, lambda _: 0.1)) == []
    assert recalibration(judged(30, lambda _: 0.1))
    assert sum(bool(recalibration(judged(100, lambda sure: sure, seed))) for seed in range(60)) <= 6
    assert recalibration([(1.0, number % 3 > 0) for number in range(90)])
    assert recalibrated(0.71, []) == 0.71


def test_no_rows_turn_the_order() -> None:
    """Where the surer rows are the wrong ones, all become alike."""
    slope, _ = recalibration([(0.99 if number % 4 else 0.6, number % 4 == 0) for number in range(200)])
    assert 0 < slope < 0.3


def test_few_judged_rows_change_little() -> None:
    """The priors hold the weights: ten times as many rows that say the same move them further."""
    few, many = (recalibration([(0.9, number % 2 == 0) for number in range(rows)]) for rows in (30, 300))
    assert 0.9 > recalibrated(0.9, few) > recalibrated(0.9, many) > 0.5


def test_weights_are_the_optimum() -> None:
    """No gradient of the penalized loss is left."""
    rows = judged(150, lambda sure: sure / 2 + 0.2)
    slope, shift = recalibration(rows)
    odds = [math.log(sure / (1 - sure)) for sure, _ in rows]
    errors = [is_right - calibrated(one, (slope, shift)) for one, (_, is_right) in zip(odds, rows, strict=True)]
    along = sum(error * slope * one for error, one in zip(errors, odds, strict=True))
    assert (along, sum(errors)) == pytest.approx((4 * math.log(slope), 4 * shift), abs=1e-6)
