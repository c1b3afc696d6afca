"""The classifier over log-probabilities, and the coefficients that are shipped."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from mellea_cli.pipelines import fast
from mellea_cli.pipelines.fast import features, log_softmax, read

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import fit  # noqa: E402 - a script next to the benchmarks

GOOD, BAD = (-0.02, -5.0, -5.0, -6.0), (-5.0, -0.02, -5.0, -6.0)


@pytest.mark.parametrize(
    ("clauses", "label"),
    [
        ([GOOD], "positive"),
        ([BAD], "negative"),
        ([GOOD, BAD], "mixed"),
        ([BAD, GOOD, GOOD], "mixed"),
    ],
)
def test_both_signs_are_mixed(clauses: list[tuple[float, ...]], label: str) -> None:
    """A clear clause decides alone; a good and a bad one together are mixed."""
    found = read(clauses)
    assert found.label == label
    assert 1 / 3 < found.confidence <= 1


def test_a_text_between_the_labels_is_less_sure() -> None:
    """Confidence falls where the log-odds do."""
    unsure = read([(-0.9, -0.95, -2.0, -3.0)])
    assert unsure.confidence < read([GOOD]).confidence
    assert unsure.confidence < read([BAD]).confidence


def test_the_second_look_counts() -> None:
    """What the default model says moves a label that is in doubt."""
    doubtful = [(-0.9, -0.95, -2.0, -3.0)]
    assert read(doubtful, GOOD).label == "positive"
    assert read(doubtful, BAD).label == "negative"


def test_shipped_coefficients_are_the_optimum_of_the_stored_readings() -> None:
    """The penalized loss, which is convex, has no gradient there: the script would write the same again."""
    rows = fit.readings()
    shipped = fast.coefficients()
    assert max(map(abs, fit.gradient(shipped["first"], fit.first_samples(rows)))) < 1e-6
    assert max(map(abs, fit.gradient(shipped["second"], fit.second_samples(rows, shipped["first"])))) < 1e-6


def test_stored_readings_belong_to_labelled_texts() -> None:
    """Each has the source and label of its text, and there are at least four sources with enough rows."""
    labelled = {(row.source, row.text): row.label for row in fit.labelled_rows()}
    rows = fit.readings()
    assert all(labelled[row["source"], row["text"]] == row["label"] for row in rows)
    assert sum(count >= 30 for count in Counter(row["source"] for row in rows).values()) >= 4


def test_a_solved_system_is_solved() -> None:
    """The elimination needs no lucky order of the rows."""
    assert fit.solved([[0.0, 2.0], [4.0, 1.0]], [4.0, 6.0]) == pytest.approx([1.0, 2.0])


def test_the_calibration_error_is_the_gap() -> None:
    """Ten answers that are 0.9 sure and right eight times are off by a tenth."""
    assert fit.calibration_error([(0.9, number < 8) for number in range(10)]) == pytest.approx(0.1)
    assert fit.surest([(0.9, True)] * 8 + [(0.4, False)] * 2) == 1.0


def test_weights_that_differ_only_in_the_intercept_give_its_odds() -> None:
    """The softmax is one of scores with an intercept."""
    weights = [[0.0] * 7 + [1.0], [0.0] * 8, [0.0] * 8]
    found = log_softmax(weights, features([GOOD]))
    assert found[0] - found[1] == pytest.approx(1.0)
