"""Fields of an answer that is still on its way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.ui.run_state import Field, fields

WHOLE = '{"positive_aspect": null, "main_complaint": "CSV \\"export\\" crashes", "urgency": "high"}'


def test_fields_fill_as_the_text_grows() -> None:
    """Each prefix shows what is there, in order, with the last value growing."""
    seen = [fields(WHOLE[:end]) for end in range(len(WHOLE) + 1)]
    assert seen[0] is None
    assert seen[1] == []
    assert seen[-1] == [Field("praise", ""), Field("complaint", 'CSV "export" crashes'), Field("urgency", "high")]
    counts = [len(found) for found in seen if found is not None]
    assert counts == sorted(counts)
    values = [found[1].value for found in seen if found is not None and len(found) > 1]
    assert all(values[-1].startswith(value) for value in values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('```json\n{"a": 1}\n```', [Field("a", "1")]),
        ('{"a": 1} and that is that {', [Field("a", "1")]),
        ('{"issues": {"urgency": "low", "tags": ["x", "y"], "deep": {"k": true}}}',
         [Field("urgency", "low"), Field("tags", "x, y"), Field("deep", "k yes")]),
        ("The customer is happy.", None),
        ('Here: {"a": 1}', None),
        ("[1, 2]", None),
        ("{nonsense", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_is_json_is_read_and_what_is_not_is_left(text: str, expected: list[Field] | None) -> None:
    """Fences and trailing remarks do not hide the object; prose is not taken for one."""
    assert fields(text) == expected


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), _TREES, max_size=6), st.data())
def test_any_prefix_of_any_object_is_survived(value: dict[str, object], data: st.DataObject) -> None:
    """A cut anywhere gives fields or nothing, never an error."""
    text = json.dumps(value)
    found = fields(text[: data.draw(st.integers(0, len(text)))])
    assert found is None or len(found) <= 24
