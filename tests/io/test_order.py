"""Rows in input order, whatever the order of arrival, in bounded memory."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.io.sink import ReorderBuffer
from mellea_cli.items import Item, Row


class Kept:
    """A sink that keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def write(self, row: Row) -> None:
        self.rows.append(row)

    def flush(self) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def row(position: int) -> Row:
    if position % 2:
        fields = {"text": f"ä{position}\ud83d", "n": str(position)}
        return Row(Item(position, f"id{position}", "ä", fields, position + 2), {"summary": None, "x": {"y": [1]}})
    raw = json.dumps({"text": f"t{position}", "big": 10**40}, indent=None)
    return Row(Item(position, position, "t", json.loads(raw), None, raw), {"summary": "s"})


@settings(deadline=None)
@given(st.permutations(range(40)), st.integers(0, 45))
def test_any_order_of_arrival_gives_the_input_order(order: list[int], bound: int) -> None:
    """Held in memory or spilled, each row comes out once, unchanged, and as soon as it can."""
    kept = Kept()
    ordered = ReorderBuffer(kept, bound)
    seen: set[int] = set()
    for position in order:
        ordered.add(row(position))
        seen.add(position)
        ready = next(n for n in range(41) if n not in seen)
        assert len(kept.rows) == ordered.rows_written == ready
        assert ordered.held == len(seen) - ready
    assert kept.rows == [row(position) for position in range(40)]
    ordered.close()


@settings(deadline=None)
@given(st.sets(st.integers(0, 60)), st.integers(0, 30), st.randoms())
def test_finish_writes_what_waits_behind_gaps(positions: set[int], bound: int, chance: random.Random) -> None:
    """A stopped run's rows come out in order though some never came."""
    kept = Kept()
    ordered = ReorderBuffer(kept, bound)
    shuffled = sorted(positions)
    chance.shuffle(shuffled)
    for position in shuffled:
        ordered.add(row(position))
    ordered.finish()
    assert [each.item.position for each in kept.rows] == sorted(positions)
    assert ordered.held == 0
    ordered.close()


@pytest.mark.parametrize("bound", [0, 1000])
def test_slow_head_holds_many_rows_back(bound: int) -> None:
    """Ten thousand early rows wait for the first one and then come at once."""
    kept = Kept()
    ordered = ReorderBuffer(kept, bound)
    for position in range(10_000, 0, -1):
        ordered.add(row(position))
    assert (ordered.held, kept.rows) == (10_000, [])
    ordered.add(row(0))
    assert [each.item.position for each in kept.rows] == list(range(10_001))
    ordered.close()


def test_closing_drops_what_waits() -> None:
    """An aborted run leaves nothing behind."""
    ordered = ReorderBuffer(Kept(), 1)
    for position in (5, 4, 3):
        ordered.add(row(position))
    ordered.close()
    assert ordered.held == 0
