"""Which item stands in which panel."""

from __future__ import annotations

from mellea_cli.ui.itemstate import Fate, ItemState

_DWELL_S = 0.9
"""A finished item keeps its panel for at least this long, so that its result can be read: in half of the panels."""


class Slots:
    """A fixed number of places. An item that has one keeps it until it is over, and then until another needs it."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: list[ItemState | None] = []

    def arrange(self, places: int, active: dict[int, ItemState], now: float) -> list[ItemState | None]:
        """Bring the places up to date and return what stands in each.

        Args:
            places: how many there are now; the screen may have changed since the last call.
            active: the items that are being worked on, by position, in the order in which they were started.
            now: the time, in seconds.
        """
        self._resize(places)
        seated = {id(item) for item in self._places if item is not None}
        waiting = [item for item in active.values() if id(item) not in seated]
        # With quick answers finished items must not take every place from those whose tokens arrive.
        over = sorted(item.finished_at for item in self._places if item is not None and _is_over(item, active))
        surplus = len(over) - len(self._places) // 2
        stale = max(now - _DWELL_S, over[surplus - 1] if surplus > 0 else 0.0)
        for index, item in enumerate(self._places):
            if not waiting:
                break
            if item is None:
                self._places[index] = waiting.pop(0)
            elif _is_over(item, active) and item.finished_at <= stale:
                self._places[index] = waiting.pop()
        return list(self._places)

    def _resize(self, places: int) -> None:
        if len(self._places) > places:  # those who are still busy move up into places of those who are not
            leaving = [item for item in self._places[places:] if item is not None and item.fate is Fate.RUNNING]
            self._places = self._places[:places]
            for index, item in enumerate(self._places):
                if leaving and (item is None or item.fate is not Fate.RUNNING):
                    self._places[index] = leaving.pop(0)
        self._places += [None] * (places - len(self._places))


def _is_over(item: ItemState, active: dict[int, ItemState]) -> bool:
    return item.fate is not Fate.RUNNING or active.get(item.position) is not item
