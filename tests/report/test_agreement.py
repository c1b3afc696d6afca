"""Corrected totals, evaluation, agreement and the bootstrap, against figures that are known from elsewhere."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from mellea_cli.io.corrections import Correction, Corrections, CorrectionsFile, corrections_path, sample_rank
from mellea_cli.report.aggregate import Aggregator
from mellea_cli.report.agreement import (
    Judged,
    ReviewedTotals,
    ReviewField,
    agreements,
    bootstrap,
    cohen_kappa,
    corrected_share,
    evaluate,
    evaluation_to_json,
    evidence,
    krippendorff_alpha,
    macro_f1,
)
from mellea_cli.report.figures import Figures
from mellea_cli.report.intervals import share_interval
from mellea_cli.report.results import Record, open_results
from rowfiles import write_rows


def _cells(sample: list[tuple[bool, bool]]) -> tuple[int, int, int, int]:
    both, person, model, neither = (
        sample.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    return both, person, model, neither


def _population(share: float, right: float, rows: int = 2_000) -> list[tuple[bool, bool]]:
    chance = random.Random(1)  # noqa: S311 - made-up rows
    truths = [at < share * rows for at in range(rows)]
    return [(truth, truth == (chance.random() < right)) for truth in truths]


@pytest.mark.parametrize(("share", "right"), [(0.4, 0.9), (0.4, 0.75), (0.1, 0.95), (0.5, 0.5)])
def test_the_interval_holds_the_truth(share: float, right: float) -> None:
    """In about 95 of 100 samples, whatever the model's errors are; it is never wider than the sample alone gives."""
    rows = _population(share, right)
    truth, model = sum(one for one, _ in rows) / len(rows), sum(said for _, said in rows)
    chance = random.Random(2)  # noqa: S311 - made-up rows
    held = width = alone = 0.0
    for _ in range(400):
        cells = _cells(chance.sample(rows, 150))
        _, ends = corrected_share(len(rows), model, cells)
        sample = share_interval(cells[0] + cells[1], 150, len(rows))
        held += ends.low <= truth <= ends.high
        width += ends.high - ends.low
        alone += sample.high - sample.low
    assert 0.92 <= held / 400 <= 0.985
    assert width <= 1.03 * alone
    if right >= 0.9:
        assert width < 0.8 * alone


def test_a_biased_model_is_corrected() -> None:
    """A model that overstates a share by ten points is brought back."""
    value, ends = corrected_share(1_000, 500, (60, 0, 15, 75))
    assert value == pytest.approx(0.4, abs=0.01)
    assert not ends.low <= 0.5 <= ends.high


def test_a_useless_model_changes_nothing() -> None:
    """Its answers get no weight, and the sample alone is left."""
    value, _ = corrected_share(1_000, 900, (20, 20, 30, 30))
    assert value == pytest.approx(0.4)


def test_a_sample_without_errors_claims_no_certainty() -> None:
    """The interval has a width; when all rows are reviewed it has none."""
    _, ends = corrected_share(1_000, 400, (40, 0, 0, 60))
    assert ends.high - ends.low > 0.01
    value, whole = corrected_share(100, 40, (40, 0, 0, 60))
    assert (value, whole.low, whole.high) == pytest.approx((0.4, 0.4, 0.4))


def _row(number: int, sentiment: str) -> dict[str, object]:
    issues = {"main_complaint": None, "positive_aspect": None, "urgency": "low"}
    return {"id": number, "text": f"Text {number}.", "summary": "S.", "sentiment": sentiment, "issues": issues}


def _figures(path: Path) -> Figures:
    with open_results(str(path)) as results:
        aggregator = Aggregator(None, ReviewedTotals(results.corrections, results.own))
        for record in results:
            aggregator.add(record)
        return aggregator.figures(results)


def test_the_report_has_corrected_totals(tmp_path: Path) -> None:
    """Random rows correct the totals, others only themselves; the model's shares stay those of the model."""
    path = write_rows(tmp_path / "out.jsonl", [_row(n, "negative" if n % 2 else "positive") for n in range(1, 101)])
    order = sorted(range(1, 101), key=lambda n: sample_rank(5, str(n), f"Text {n}."))
    judged = [
        Correction(str(n), f"Text {n}.", "sentiment", "negative" if n % 2 else "positive", "mixed", "eva", seed=5)
        for n in order[:30]
    ]
    other = Correction(str(order[60]), f"Text {order[60]}.", "sentiment", "negative", "mixed", "eva", sample="doubtful")
    CorrectionsFile(corrections_path(path)).add([*judged[:10], *judged[11:], other])
    figures = _figures(path)
    review = figures.review
    assert review is not None
    assert (review.sampled, review.others, review.unreviewed) == (29, 1, 1)
    assert figures.mix.sentiment["mixed"] == 30
    by_name = {one.name: one for one in review.fields[0].values}
    assert by_name["mixed"].model == 0
    assert by_name["negative"].model == by_name["positive"].model == 0.5
    assert by_name["mixed"].corrected > 0.8
    assert (review.fields[0].reviewed, review.fields[0].right) == (29, 0)


def test_without_a_review_there_is_no_block(tmp_path: Path) -> None:
    """Nothing is said about it."""
    assert _figures(write_rows(tmp_path / "out.jsonl", [_row(1, "negative")])).review is None


def test_an_evaluation_by_hand() -> None:
    """Accuracy, opposite labels, confusion, groups."""
    pairs = [("positive", "positive")] * 6 + [("positive", "negative")] * 2 + [("mixed", "negative"), ("negative",) * 2]
    judged = [Judged("sentiment", "label", p, m, {"shop": "a" if at < 5 else "b"}) for at, (p, m) in enumerate(pairs)]
    (found,) = evaluate(judged, {"sentiment": ["positive", "neutral", "mixed", "negative"]})
    assert found.labels == ["positive", "mixed", "negative"]
    assert [cell[:2] for cell in found.confusion] == [
        ("positive", "positive"),
        ("positive", "negative"),
        ("mixed", "negative"),
        ("negative", "negative"),
    ]
    assert found.right is not None
    assert (found.right.number, found.right.size) == (7, 10)
    assert found.opposite is not None
    assert (found.opposite.number, found.opposite.size) == (2, 9)
    assert ("positive", "negative", 2) in found.confusion
    assert [(column, value, share.number, share.size) for column, value, share in found.groups] == [
        ("shop", "a", 5, 5),
        ("shop", "b", 2, 5),
    ]
    assert found.macro_f1 is not None
    # F1: positive 12/14, mixed 0, negative 2/5.
    assert found.macro_f1.value == pytest.approx((12 / 14 + 0 + 0.4) / 3)
    assert found.macro_f1.interval.low < found.macro_f1.value < found.macro_f1.interval.high


def test_labels_that_are_not_declared_are_after_those_that_are() -> None:
    """And nothing is last."""
    pairs = [("Z", "a"), ("c", None), ("b", "Z"), (None, "b")]
    (found,) = evaluate([Judged("team", "category", *pair) for pair in pairs], {"team": ["Z", "b"]})
    assert found.labels == ["z", "b", "a", "c", "(null)"]


def test_nulls_are_judged_by_themselves() -> None:
    """Free text is right in many forms, so only null against value counts."""
    pairs = [(None, None), (None, "late"), ("late", "too late"), ("rude", None), ("rude", "rude")]
    (found,) = evaluate(Judged("main_complaint", "text", person, model) for person, model in pairs)
    assert (found.right, found.macro_f1) == (None, None)
    assert found.null_found is not None
    assert found.value_found is not None
    assert (found.null_found.number, found.null_found.size) == (1, 2)
    assert (found.value_found.number, found.value_found.size) == (2, 3)


def test_lists_numbers_and_case() -> None:
    """Lists are right as sets, 3 is 3.0, and the case of a label does not count."""
    assert evaluate([Judged("tags", "categories", ["a", "b"], ["b", "a"])])[0].right.number == 1  # type: ignore[union-attr]
    assert evaluate([Judged("stars", "number", 3, 3.0)])[0].right.number == 1  # type: ignore[union-attr]
    assert evaluate([Judged("team", "category", "Billing", "billing")])[0].right.number == 1  # type: ignore[union-attr]


def test_the_calibration_error_before_and_after() -> None:
    """Confidences that are off are better after a cross-validated calibration; right ones are left; few say nothing."""
    chance = random.Random(3)  # noqa: S311 - made-up rows

    def judged(sure: float, right: float, rows: int = 100) -> list[Judged]:
        return [
            Judged("a", "bool", True, chance.random() < right, confidence=sure + chance.random() / 50)
            for _ in range(rows)
        ]

    (off,) = evaluate([*judged(0.95, 0.75), *judged(0.6, 0.4)])
    assert off.calibration is not None
    assert off.calibration["before"] > 0.15
    assert off.calibration["after"] < 0.1
    assert off.calibration["weights"][0] > 0
    (fine,) = evaluate([*judged(0.95, 0.96), *judged(0.6, 0.6)])
    assert fine.calibration is not None
    assert fine.calibration["weights"] == []
    assert fine.calibration["after"] < 0.06
    (few,) = evaluate(judged(0.95, 0.5, 29))
    assert few.calibration is None
    record = json.loads(evaluation_to_json({"fields": [off]}))["fields"][0]
    assert record["calibration"] == off.calibration
    assert record["confusion"][0] == {"person": "true", "model": "false", "rows": off.confusion[0][2]}


def test_kappa_of_a_known_table() -> None:
    """Twenty and fifteen alike, five and ten not: 0.4."""
    cells = Counter({("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15})
    assert cohen_kappa(cells) == pytest.approx(0.4)
    assert cohen_kappa({("yes", "yes"): 3}) == 1.0


def test_alpha_of_krippendorffs_example() -> None:
    """His four observers and twelve units, some of them not judged: 0.743."""
    observers = ("123321412...", "1233224125.3", ".33323422 51.".replace(" ", ""), "1233244125 1.".replace(" ", ""))
    units = Counter(tuple(one for one in unit if one != ".") for unit in zip(*observers, strict=True))
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=0.0005)
    assert krippendorff_alpha({("a", "a"): 5}) == 1.0


def test_two_people_and_three(tmp_path: Path) -> None:
    """Each pair has its kappa; all of them together have an alpha."""
    lines = [
        Correction(str(n), f"Text {n}.", "sentiment", "x", "positive" if n % 3 else "negative", who)
        for n in range(30)
        for who in ("ada", "ben")
    ]
    lines += [Correction(str(n), f"Text {n}.", "sentiment", "x", "positive", "cy") for n in range(12)]
    found = agreements(Corrections(lines), ["sentiment"])
    assert [one.people for one in found] == [("ada", "ben"), ("ada", "cy"), ("ben", "cy"), ("ada", "ben", "cy")]
    assert [one.rows for one in found] == [30, 12, 12, 30]
    assert found[0].kappa is not None
    assert found[0].kappa.value == 1.0
    assert found[1].same is not None
    assert (found[1].same.number, found[1].same.size) == (8, 12)
    assert found[3].kappa is None


def test_the_bootstrap_is_about_as_wide_as_theory_says() -> None:
    """A share of rows, for which the width is known; the same one in each run."""
    cells = Counter({"hit": 400, "miss": 600})
    found = bootstrap(cells, lambda drawn: drawn.get("hit", 0) / sum(drawn.values()))
    wanted = share_interval(400, 1_000)
    assert found.interval.low == pytest.approx(wanted.low, abs=0.008)
    assert found.interval.high == pytest.approx(wanted.high, abs=0.008)
    assert found == bootstrap(cells, lambda drawn: drawn.get("hit", 0) / sum(drawn.values()))
    rare = bootstrap(Counter({"hit": 3, "miss": 97}), lambda drawn: drawn.get("hit", 0) / sum(drawn.values()))
    assert rare.interval.low <= 0.01
    assert 0.05 <= rare.interval.high <= 0.08


def test_macro_f1_counts_labels_that_people_use() -> None:
    """A label that only the model uses is an error of the others, and has no score of its own."""
    assert macro_f1({(frozenset({"a"}), frozenset({"b"})): 1, (frozenset({"a"}), frozenset({"a"})): 1}) == (
        pytest.approx(2 / 3)
    )


def test_evidence_is_where_the_words_stand() -> None:
    """Quotes as a whole, complaint and praise by the words that they share with the text, nothing twice."""
    text = "Delivered late again, but the friendly driver was great."
    record = Record(
        1, "1", text, "answered", complaint="late delivery", praise="friendly drivers", quotes={"x": "was great."}
    )
    found = [(text[start:end], kind) for start, end, kind in evidence(record, text)]
    assert found == [
        ("Delivered", "complaint"),
        ("late", "complaint"),
        ("friendly", "praise"),
        ("driver", "praise"),
        ("was great.", "quote"),
    ]


@pytest.mark.parametrize(
    ("kind", "choices", "typed", "wanted"),
    [
        ("label", ("positive", "negative"), " Negative ", "negative"),
        ("categories", ("a", "b"), "b | A", ["b", "a"]),
        ("list", (), "", []),
        ("int", (), "3", 3),
        ("number", (), "2.5", 2.5),
        ("bool", ("true", "false"), "true", True),
        ("date", (), "2026-01-31", "2026-01-31"),
        ("text", (), "", None),
    ],
)
def test_typed_values_have_the_fields_type(kind: str, choices: tuple[str, ...], typed: str, wanted: object) -> None:
    """And are shown as they can be typed again."""
    field = ReviewField("f", kind, choices)
    assert field.typed(typed) == wanted
    assert field.typed(field.shown(wanted)) == wanted


@pytest.mark.parametrize(
    ("kind", "typed", "why"), [("int", "x", "number"), ("date", "31.1.", "date such as"), ("category", "c", "one of a")]
)
def test_what_does_not_fit_is_refused(kind: str, typed: str, why: str) -> None:
    """With what to type instead."""
    with pytest.raises(ValueError, match=why):
        ReviewField("f", kind, ("a", "b") if kind == "category" else ()).typed(typed)
