"""Intervals and tests of shares and means, at 95 %. docs/figures.md says what each assumes and when not to trust it.

Shares are from 0 to 1. `population` is the number of rows that a random sample was drawn from without replacement,
and makes the interval one about these rows; `None` makes it one about all rows of the kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
Z = 1.959963984540054  # The normal distribution's quantile for `LEVEL`
FALSE_DISCOVERY_RATE = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of a 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two shares: the second minus the first."""

    value: float
    interval: Interval
    p: float  # Of Fisher's exact test, two-sided


def correction(size: int, population: int | None) -> float:
    """The finite-population correction: the factor of a variance, 1 for an unlimited population, 0 for all rows."""
    if population is None or population <= 1:
        return 1.0
    return max(0.0, (population - size) / (population - 1))


def share_interval(number: int, size: int, population: int | None = None) -> Interval:
    """Wilson's interval for the share `number / size`; all from 0 to 1 for no rows."""
    if size <= 0:
        return Interval(0.0, 1.0)
    share = number / size
    # The score interval with the variance of a draw without replacement: z² shrinks by the correction.
    square = Z * Z * correction(size, population) / size
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square * square / 4) / (1 + square)
    # Rounding must not move an end past the share itself.
    return Interval(max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def share_difference(old: int, old_size: int, new: int, new_size: int) -> Difference:
    """How far the share `new / new_size` lies above `old / old_size`, with Newcombe's interval (his method 10).

    It takes both as samples of their kind, also where they were drawn from a file: two files that were read completely
    differ always, and the question is whether customers do.
    """
    if old_size <= 0 or new_size <= 0:
        return Difference(0.0, Interval(-1.0, 1.0), 1.0)
    before, after = old / old_size, new / new_size
    first, second = share_interval(old, old_size), share_interval(new, new_size)
    value = after - before
    low = value - math.hypot(after - second.low, first.high - before)
    high = value + math.hypot(second.high - after, before - first.low)
    return Difference(value, Interval(max(-1.0, low), min(1.0, high)), fisher(old, old_size, new, new_size))


def fisher(old: int, old_size: int, new: int, new_size: int) -> float:
    """The two-sided p-value of Fisher's exact test: of all tables as likely as this one or less."""
    hits, size = old + new, old_size + new_size
    lowest, highest = max(0, hits - new_size), min(hits, old_size)

    def log_chance(number: int) -> float:
        return _log_choose(old_size, number) + _log_choose(new_size, hits - number) - _log_choose(size, hits)

    def tail(start: int, step: int) -> float:
        """The chance of `start` and everything beyond it; the terms fall, so it ends where they stop to matter."""
        total, number = 0.0, start
        while lowest <= number <= highest:
            term = math.exp(log_chance(number))
            total += term
            if term <= total * 1e-13:
                break
            number += step
        return total

    # Chances rise up to the most likely table and fall after it, so on each side there is one place from which
    # tables are as unlikely as this one.
    most_likely = min(max((hits + 1) * (old_size + 1) // (size + 2), lowest), highest)
    limit = log_chance(old) + 1e-7

    def first_unlikely(end: int) -> int:
        """The table next to the most likely one, towards `end`, that is unlikely; beyond `end` if none is."""
        likely, unlikely = most_likely, end
        while abs(unlikely - likely) > 1:
            middle = (likely + unlikely) // 2
            likely, unlikely = (likely, middle) if log_chance(middle) <= limit else (middle, unlikely)
        return unlikely

    if log_chance(most_likely) <= limit:
        return 1.0
    return min(1.0, tail(first_unlikely(lowest - 1), -1) + tail(first_unlikely(highest + 1), 1))


def benjamini_hochberg(p_values: Sequence[float], rate: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Which of the tests hold when at most this share of those that hold may be chance."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    last = 0
    for place, index in enumerate(order, 1):
        if p_values[index] <= rate * place / len(p_values):
            last = place
    kept = set(order[:last])
    return [index in kept for index in range(len(p_values))]


def mean_interval(size: int, total: float, squares: float, population: int | None = None) -> Interval | None:
    """Student's interval for a mean, from the sum of the numbers and of their squares; `None` below two numbers."""
    if size < 2:
        return None
    mean = total / size
    variance = max(0.0, squares - total * mean) / (size - 1)
    half = student_quantile(size - 1) * math.sqrt(variance / size * correction(size, population))
    return Interval(mean - half, mean + half)


def normal_p(z: float) -> float:
    """The two-sided p-value of a standard normal figure."""
    return math.erfc(abs(z) / math.sqrt(2))


def student_quantile(freedom: int) -> float:
    """The quantile of Student's t for `LEVEL`, two-sided: exact for 1 and 2, else within 0.005."""
    upper = (1 + LEVEL) / 2
    if freedom == 1:
        return math.tan(math.pi * (upper - 0.5))
    if freedom == 2:
        return (2 * upper - 1) * math.sqrt(2 / (4 * upper * (1 - upper)))
    # Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return float(Z + sum(term / freedom**power for power, term in enumerate(terms, 1)))


def _log_choose(size: int, number: int) -> float:
    return math.lgamma(size + 1) - math.lgamma(number + 1) - math.lgamma(size - number + 1)
