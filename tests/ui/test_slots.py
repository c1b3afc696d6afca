"""Which item stands in which panel."""

from __future__ import annotations

from mellea_cli.ui.run_state import Fate, ItemState, Slots


def item(position: int, *, finished_at: float | None = None) -> ItemState:
    made = ItemState(position, f"id{position}", "text", ("step",))
    if finished_at is not None:
        made.fate = Fate.OK
        made.finished_at = finished_at
    return made


def positions(shown: list[ItemState | None]) -> list[int | None]:
    return [one.position if one is not None else None for one in shown]


def test_finished_items_leave_half_of_the_panels_to_those_whose_tokens_arrive() -> None:
    """With quick answers the oldest results give way at once; the newest may be read."""
    slots = Slots()
    first = {number: item(number) for number in range(4)}
    assert positions(slots.arrange(4, first, now=10.0)) == [0, 1, 2, 3]
    for number, one in first.items():
        one.fate = Fate.OK
        one.finished_at = 10.1 + number / 100
    running = {number: item(number) for number in range(4, 8)}
    shown = positions(slots.arrange(4, running, now=10.2))
    assert shown[2:] == [2, 3]
    assert set(shown[:2]) <= {4, 5, 6, 7}


def test_a_single_result_may_be_read() -> None:
    """One finished item among running ones keeps its panel for a moment, then gives way."""
    slots = Slots()
    first = {number: item(number) for number in range(4)}
    slots.arrange(4, first, now=10.0)
    done = first.pop(1)
    done.fate, done.finished_at = Fate.OK, 10.1
    first[4] = item(4)
    assert positions(slots.arrange(4, first, now=10.2)) == [0, 1, 2, 3]
    assert positions(slots.arrange(4, first, now=11.5)) == [0, 4, 2, 3]
