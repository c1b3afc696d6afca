"""What the names of themes say."""

from __future__ import annotations

import pytest

from mellea_cli.pipelines.theme_prompts import distinct, is_general, is_vague, stems


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Long waits", "Long wait"),
        ("Poor communication", "Miscommunication"),
        ("Quick service", "Quick"),
        ("Cancelled appointments", "Cancelled appointment"),
    ],
)
def test_names_that_say_the_same(one: str, other: str) -> None:
    """Plurals, praise and blame, and mis- make no difference."""
    assert stems(one) == stems(other)
    assert [name for name, _ in distinct([(one, "a"), (other, "b")])] == [one]


@pytest.mark.parametrize(("one", "other"), [("Mistakes", "Takes"), ("Rude staff", "Friendly staff"), ("Food", "Rooms")])
def test_names_that_do_not(one: str, other: str) -> None:
    """They stay side by side."""
    assert [name for name, _ in distinct([(one, "a"), (other, "b")])] == [one, other]


def test_general_and_vague_names() -> None:
    """All there is would belong to them."""
    assert is_general("Very poor service")
    assert not is_general("Rude staff")
    assert is_vague("Patient issues")
    assert not is_vague("Patient transport")


def test_a_known_name_is_not_found_again() -> None:
    """And one that is general is enough."""
    found = distinct([("Waiting", "a"), ("Bad overall", "b"), ("Parking", "c")], ["Long waits", "Poor service"])
    assert [name for name, _ in found] == ["Parking"]
