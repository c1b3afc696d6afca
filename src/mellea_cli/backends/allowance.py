"""What a provider's headers say about the requests and tokens that are left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NAMES = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("ratelimit-remaining", "ratelimit-reset"),
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one response said is left.

    Args:
        limits: for each limit that was named, how much is left and in how many seconds it is whole again.
    """

    limits: tuple[tuple[float, float], ...]

    def wait_s(self) -> float:
        """Seconds until a request makes sense again; 0 when something is left of everything."""
        return max((reset for left, reset in self.limits if left <= 0), default=0.0)


@runtime_checkable
class Metered(Protocol):
    """A backend whose server tells what is left."""

    @property
    def allowance(self) -> Allowance | None:
        """What the latest response said, or `None` when it said nothing."""


def read_allowance(headers: Mapping[str, str]) -> Allowance | None:
    """Read the limits in a response's headers, or return `None` when there are none.

    Known are OpenAI's `x-ratelimit-remaining-requests` and `-tokens` with their `-reset-` times (`1s`, `6m0s`,
    `250ms`), and the plain `ratelimit-remaining` with `ratelimit-reset` in seconds. What cannot be read is left out.
    """
    if not any("ratelimit" in name.lower() for name in headers):
        return None
    limits = []
    for remaining, reset in _NAMES:
        if (left := headers.get(remaining)) is None:
            continue
        number, seconds = _number(left), duration_s(headers.get(reset, ""))
        if number is not None and seconds is not None:
            limits.append((number, seconds))
    return Allowance(tuple(limits)) if limits else None


def duration_s(text: str) -> float | None:
    """Return the seconds in `1m30s`, `250ms` or a plain number of seconds, or `None` when it is neither."""
    text = text.strip()
    plain = _number(text)
    if plain is not None:
        return plain
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None
