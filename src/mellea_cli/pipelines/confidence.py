"""How sure a sentiment is: a small classifier over log-probabilities, whose coefficients `benchmarks/fit.py` fits.

Softmax regression over a few features: the log-odds of positive and negative in the whole text and in its most positive
and most negative clause, and how likely "mixed" and "neutral" are. The probability of the chosen label is its
confidence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LABELS = ("positive", "negative", "mixed", "neutral")
"""The words that the model writes. A text's sentiment is one of the first three."""
SENTIMENTS = LABELS[:3]

Logprobs = Sequence[float]
"""Log-probabilities of the labels, in their order."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A sentiment and its probability."""

    label: str
    confidence: float


def polarity(logprobs: Logprobs) -> float:
    """Log-odds of positive against negative."""
    return logprobs[0] - logprobs[1]


def _against(logprobs: Logprobs, label: int) -> float:
    """Log-odds of another label against positive and negative together."""
    high, low = max(logprobs[:2]), min(logprobs[:2])
    return logprobs[label] - high - math.log1p(math.exp(low - high))


def _squash(value: float) -> float:
    """Extreme log-odds say no more than large ones."""
    return 6 * math.tanh(value / 6)


def features(clauses: Sequence[Logprobs]) -> list[float]:
    """The features of a text from the readings of its clauses."""
    polarities = [_squash(polarity(one)) for one in clauses]
    return [
        max(polarities),
        min(polarities),
        sum(polarities) / len(polarities),
        max(_squash(_against(one, 2)) for one in clauses),
        min(_squash(_against(one, 3)) for one in clauses),
        float(len(clauses) > 1),
    ]


def features_of_second_look(first: Sequence[float], whole: Logprobs) -> list[float]:
    """The features of a text that both models have read; `first` has the first classifier's log-probabilities."""
    return [*first, _squash(polarity(whole)), _squash(_against(whole, 2)), _squash(_against(whole, 3))]


def log_softmax(weights: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Log-probabilities of the sentiments. Each row of `weights` has a label's coefficients, and its intercept last."""
    scores = [row[-1] + sum(weight * value for weight, value in zip(row, values, strict=False)) for row in weights]
    most = max(scores)
    total = most + math.log(sum(math.exp(score - most) for score in scores))
    return [score - total for score in scores]


def read(clauses: Sequence[Logprobs], whole: Logprobs | None = None) -> Reading:
    """The sentiment of a text.

    Args:
        clauses: what the small model says of each clause.
        whole: what the default model says of the whole text; `None` where it was not asked.
    """
    fitted = coefficients()
    found = log_softmax(fitted["first"], features(clauses))
    if whole is not None:
        found = log_softmax(fitted["second"], features_of_second_look(found, whole))
    best = max(range(len(SENTIMENTS)), key=lambda place: found[place])
    return Reading(SENTIMENTS[best], math.exp(found[best]))


@cache
def coefficients() -> dict[str, Any]:
    """The coefficients that `benchmarks/fit.py` has written."""
    fitted: dict[str, Any] = json.loads(Path(__file__).with_name("confidence.json").read_text(encoding="utf-8"))
    return fitted
