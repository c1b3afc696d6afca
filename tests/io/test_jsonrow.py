"""JSON rows: the input's letters first, ours behind them, always one line of valid JSON."""

from __future__ import annotations

import json
import math

import pytest

from mellea_cli.io.writers import JsonRows
from mellea_cli.items import Item, Row


def render(item: Item, **added: object) -> str:
    return JsonRows().render(Row(item, added)).decode()


@pytest.mark.parametrize(
    "raw",
    [
        '{"text":"a","n":1.10,"e":1e400,"big":123456789012345678901234567890}',
        '{ "text" : "\\u00e9\\ud83d",   "k": {"b": [1,  2]} }',
        '{"text": "a", "text": "b"}',
        '{  "text": "a"   }',
    ],
)
def test_input_object_is_kept_letter_by_letter(raw: str) -> None:
    """Numbers, escapes, spacing and even repeated keys stay as they stood."""
    line = render(Item(0, 1, "a", json.loads(raw), raw=raw), summary="é")
    assert line == raw[:-1].rstrip() + ', "summary": "é"}'
    assert json.loads(line)["summary"] == "é"


def test_nothing_added_is_the_raw_row() -> None:
    """A dead letter is its input row."""
    assert render(Item(0, 1, "a", {"text": "a"}, raw='{ "text":"a" }')) == '{ "text":"a" }'


def test_clash_is_resolved_by_row() -> None:
    """Only the rows that have the column get the other name; theirs stays."""
    notes: list[str] = []
    rows = JsonRows(notes.append)
    raw = '{"summary": "mine", "text": "a"}'
    clash = rows.render(Row(Item(0, 1, "a", json.loads(raw), raw=raw), {"summary": "ours", "error": None}))
    plain = rows.render(Row(Item(1, 2, "a", {"text": "a"}), {"summary": "ours"}))
    assert clash == b'{"summary": "mine", "text": "a", "mellea_summary": "ours", "error": null}'
    assert plain == b'{"text": "a", "summary": "ours"}'
    assert len(notes) == 1


@pytest.mark.parametrize("fields", [{}, {"text": "a", "x": float("nan")}])
def test_values_that_json_has_no_words_for_become_null(fields: dict[str, object]) -> None:
    """NaN and infinities never reach the output, nested or not."""
    line = render(Item(0, 1, "a", fields), a=math.inf, b={"c": [math.nan, 1.5]})
    again = json.loads(line, parse_constant=pytest.fail)
    assert again["a"] is None
    assert again["b"] == {"c": [None, 1.5]}


def test_half_a_surrogate_pair_is_escaped() -> None:
    """Text that UTF-8 cannot hold still comes out, as an escape, on one line."""
    line = render(Item(0, 1, "a", {"text": "a\ud83d"}), summary="é\n\udc00")
    assert json.loads(line) == {"text": "a\ud83d", "summary": "é\n\udc00"}
    assert "\n" not in line


def test_row_without_any_input_column_is_an_object_too() -> None:
    """No stray comma."""
    assert render(Item(0, 1, "a", {}, raw="{ }"), summary="b") == '{"summary": "b"}'
