"""Figures that do not add up are an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mellea_cli.errors import ExitCode
from mellea_cli.items import Failure, Item, Success
from mellea_cli.run.theme_labels import Figures, Unreconciled, audit

NAMES = ("Late", "Rude")
Read = tuple[Item, Sequence[str] | None, Mapping[str, str]]
ROWS: list[Read] = [
    (Item(0, "a", "So late and rude."), ["Late", "Rude"], {"Late": "late", "Rude": "rude"}),
    (Item(1, "b", "late"), ["Late"], {"Late": "late"}),
    (Item(2, "c", "blue"), ["other"], {}),
    (Item(3, "d", ""), ["none"], {}),
    (Item(4, "e", "?"), None, {}),
]


def ledger() -> Figures:
    figures = Figures(NAMES)
    for item, labels, quotes in ROWS:
        outcome = Failure("x", "y") if labels is None else Success({"themes": labels, "theme_quotes": quotes})
        figures.enter(item, outcome)
    return figures


def test_every_row_is_accounted_for_once() -> None:
    """Labelled, other, none and failed add up; a row with two themes counts for both."""
    figures = ledger()
    assert (figures.labelled, figures.other, figures.none, figures.failed, figures.rows) == (2, 1, 1, 1, 5)
    assert figures.themes == {"Late": 2, "Rude": 1}
    assert figures.quotes == 3
    audit(figures, ROWS)


@pytest.mark.parametrize(
    ("labels", "quotes", "said"),
    [
        ([], {}, "no label"),
        (["Blue"], {"Blue": "late"}, "not themes"),
        (["Rude", "Late"], {"Late": "late", "Rude": "late"}, "in their order"),
        (["Late", "Late"], {"Late": "late"}, "in their order"),
        (["Late", "other"], {"Late": "late"}, "in their order"),
        (["Late"], {}, "quotes for 0 of 1"),
        (["other"], {"Late": "late"}, "quotes for 1 of 0"),
        (["Late"], {"Late": "delayed"}, "does not stand in its text"),
        (["Late"], {"Late": ""}, "does not stand in its text"),
    ],
)
def test_a_row_that_does_not_hold_is_an_error(labels: list[str], quotes: dict[str, str], said: str) -> None:
    """The row is named, and the process ends with the code of an output that cannot be trusted."""
    with pytest.raises(Unreconciled, match=said) as caught:
        Figures(NAMES).count(labels, quotes, "It was late.", "row 7")
    assert caught.value.message.startswith("row 7")
    assert caught.value.exit_code is ExitCode.CANNOT_WRITE


@pytest.mark.parametrize("missing", range(len(ROWS)))
def test_an_output_that_lacks_a_row_is_an_error(missing: int) -> None:
    """Whichever row it is, some figure is not what was counted."""
    with pytest.raises(Unreconciled):
        audit(ledger(), [one for place, one in enumerate(ROWS) if place != missing])
