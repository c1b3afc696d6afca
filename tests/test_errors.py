"""The error tree's helpers."""

from __future__ import annotations

import pytest

from mellea_cli.errors import nearest


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("feedbak", ["id", "feedback"], "feedback"),
        (" TEXT ", ["Review  text", "Text"], "Text"),
        ("review text", ["Review\nText"], "Review\nText"),
        ("text", ["Text", "TEXT"], "Text"),
        ("colour", ["id", "text"], ""),
        ("text", [], ""),
    ],
)
def test_nearest_name_is_found_in_its_own_spelling(name: str, known: list[str], found: str) -> None:
    """Case and white space do not count; nothing is suggested when nothing is close."""
    assert nearest(name, known) == found
