"""Labels and what was said about their row before."""

from __future__ import annotations

from typing import Any

import pytest

from mellea_cli.items import Failure, Item, Success
from mellea_cli.run.theme_labels import agreeing
from themed import row

KINDS = {"Late": "complaint", "Kind": "praise", "Price": "both"}
QUOTES = {"Late": "late", "Kind": "kind", "Price": "price"}


@pytest.mark.parametrize(
    ("complaint", "praise", "kept"),
    [
        ("late", "kind", ["Late", "Kind", "Price"]),
        ("late", None, ["Late", "Price"]),
        (None, "kind", ["Kind", "Price"]),
        (None, None, ["Late", "Kind", "Price"]),
    ],
)
def test_a_row_has_only_themes_of_what_it_says(complaint: str | None, praise: str | None, kept: list[str]) -> None:
    """No complaint, no theme of complaints; a row of which nothing was said is not asked about anyway."""
    fields = row(1, "late, kind, price", complaint, praise)
    outcome = Success({"themes": list(KINDS), "theme_quotes": dict(QUOTES)})
    agreed = agreeing(KINDS, Item(0, 1, fields["text"], fields), outcome)
    assert isinstance(agreed, Success)
    assert agreed.values == {"themes": kept, "theme_quotes": {name: QUOTES[name] for name in kept}}


@pytest.mark.parametrize(("labels", "expected"), [(["Late"], ["other"]), (["other"], ["other"]), (["none"], ["none"])])
def test_what_is_left_of_nothing_is_other(labels: list[str], expected: list[str]) -> None:
    """The row says something, and nothing of it has a theme."""
    fields = row(1, "kind", praise="kind")
    values: dict[str, Any] = {"themes": labels, "theme_quotes": {name: "kind" for name in labels if name in KINDS}}
    agreed = agreeing(KINDS, Item(0, 1, "kind", fields), Success(values))
    assert isinstance(agreed, Success)
    assert agreed.values == {"themes": expected, "theme_quotes": {}}


def test_rows_that_were_never_summarised_keep_their_labels() -> None:
    """Nobody knows what they say; failures stay what they are."""
    outcome = Success({"themes": ["Late"], "theme_quotes": {"Late": "late"}})
    item = Item(0, 1, "late", {"id": 1, "text": "late"})
    assert agreeing(KINDS, item, outcome) is outcome
    failure = Failure("timeout", "too late", "label", 1)
    assert agreeing(KINDS, Item(0, 1, "x", row(1, "x", "late")), failure) is failure
