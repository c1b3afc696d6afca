"""Numbers for people: one place, so that every display writes them alike."""

from __future__ import annotations

import math


def count(number: int) -> str:
    """A whole number with thousands separators: `48,210`."""
    return f"{number:,}"


def plural(number: int, one: str, several: str) -> str:
    """A number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {one if number == 1 else several}"


def rate(per_second: float) -> str:
    """A rate with about two significant digits: `0.08`, `2.4`, `31`, `1,240`."""
    if per_second >= 9.95:
        return f"{per_second:,.0f}"
    if per_second >= 0.095 or per_second == 0:
        return f"{per_second:.1f}"
    return f"{per_second:.2f}"


def duration(seconds: float) -> str:
    """A length of time, coarser the longer it is: `4.2s`, `38s`, `2m 38s`, `1h 05m`, `2d 3h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def remaining(seconds: float) -> str:
    """A time still to come: rounded up to whole seconds, and to steps of 10 s from five minutes on. Never `0s`."""
    whole = max(1, math.ceil(seconds))
    if whole >= 300:
        whole = math.ceil(whole / 10) * 10
    return f"{whole}s" if whole < 60 else duration(whole)


def money(amount: float, currency: str = "") -> str:
    """An amount with its cents, and with three digits below a hundredth: `$12.40`, `0.0042`."""
    if amount >= 0.995:
        return f"{currency}{amount:,.2f}"
    return f"{currency}{amount:.3g}" if amount else f"{currency}0"
