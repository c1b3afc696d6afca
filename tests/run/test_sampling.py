"""Which phrases themes are made of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mellea_cli.items import Item
from mellea_cli.run.theme_discovery import sample_phrases, verdict
from themed import row


def as_items(rows: list[dict[str, Any]]) -> list[Item]:
    return [Item(place, place, str(fields["text"]), fields) for place, fields in enumerate(rows)]


@pytest.mark.parametrize(
    "fields",
    [
        {"sentiment": "negative", "issues": {"main_complaint": "late ", "positive_aspect": None, "urgency": "high"}},
        {"sentiment": "negative", "main_complaint": "late", "positive_aspect": "", "urgency": "high"},
        {
            "issues": "theirs",
            "sentiment": "theirs too",
            "mellea_sentiment": "negative",
            "mellea_issues": {"main_complaint": "late", "positive_aspect": None, "urgency": "high"},
        },
    ],
)
def test_what_was_said_is_read_in_every_form(fields: dict[str, Any]) -> None:
    """Nested, flat, or under the names that ours took because the input had those columns."""
    found = verdict(fields)
    assert found is not None
    assert (found.phrases, found.sentiment, found.urgency) == ({"complaint": "late"}, "negative", "high")


@pytest.mark.parametrize("fields", [{}, {"text": "x"}, {"sentiment": None, "issues": None, "error": {"kind": "parse"}}])
def test_a_row_that_failed_says_nothing(fields: dict[str, Any]) -> None:
    """Nobody knows whether it complains: that is not the same as no complaint."""
    assert verdict(fields) is None


def test_small_strata_are_not_lost() -> None:
    """Of 3,000 complaints the three urgent ones are all there, and the sample keeps its size."""
    rows = [row(number, "t", complaint=f"late {number}") for number in range(3000)]
    for place in (7, 1500, 2900):
        rows[place]["issues"]["urgency"] = "high"
    drawn = sample_phrases(as_items(rows), most=100)
    assert {"late 7", "late 1500", "late 2900"} <= set(drawn["complaint"])
    assert 90 <= drawn["complaint"].total() <= 100
    assert drawn["praise"] == Counter()


def test_the_same_seed_draws_the_same_in_the_same_order() -> None:
    """So the questions of a second discovery are those of the first."""
    items = as_items([row(n, "t", complaint=f"c{n % 700}", praise=f"p{n}") for n in range(2000)])
    one, again, other = (sample_phrases(items, most=50, seed=seed) for seed in (1, 1, 2))
    assert list(one["complaint"].items()) == list(again["complaint"].items())
    assert one != other


def test_every_phrase_is_there_when_there_are_few() -> None:
    """Each with how often it was said; a long one is cut, on one line."""
    rows = [row(1, "t", complaint="late"), row(2, "t", complaint="late"), row(3, "t", praise="a\n b" * 100)]
    drawn = sample_phrases(as_items(rows))
    assert drawn["complaint"] == Counter({"late": 2})
    (phrase,) = drawn["praise"]
    assert len(phrase) == 120
    assert "\n" not in phrase
