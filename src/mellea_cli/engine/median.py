"""A median over any number of values in a few hundred counters."""

from __future__ import annotations

import math
from collections import Counter

# Neighbouring counters differ by this factor: what comes out is within one per cent of the truth.
_STEP = math.log(1.02)
_LEAST = 1e-6


class RunningMedian:
    """The median of positive values within one per cent; the memory does not grow with their number.

    Values are counted by the logarithm of their size, as in C. Masson, J. Rim and H. Lee, "DDSketch" (VLDB 2019).
    """

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def add(self, value: float) -> None:
        """Take in one value; what is not above zero counts as very small."""
        self._counts[math.floor(math.log(max(value, _LEAST)) / _STEP)] += 1
        self._total += 1

    def value(self) -> float | None:
        """The median of the values so far, or `None` without any."""
        passed = 0
        for place, number in sorted(self._counts.items()):
            passed += number
            if 2 * passed >= self._total:
                return math.exp((place + 0.5) * _STEP)
        return None
