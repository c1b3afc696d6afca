"""Rate limits as servers state them: how long to wait after a refusal, and what is left of each limit."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, runtime_checkable

Clock = Callable[[], float]

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?) ?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
_DURATION_PART = re.compile(_PART, re.IGNORECASE)
_DURATION = re.compile(rf"(?:P?T?{_PART}(?:,? (?:and )?)?)+", re.IGNORECASE)
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d)")
_IN_WORDS = re.compile(
    r"(?:try again|retry|wait|resets?|available|cooldown)(?: again)?(?:[ -]in|[ -]after| for)?:? (?:about )?(?=\d)",
    re.IGNORECASE,
)
_BARE_END = re.compile(r"\d+(?:\.\d+)?(?=[.)]?\s*$)")
_IN_CHINESE = re.compile(r"(等待 ?)?(\d+(?:\.\d+)?) ?(秒|分)钟?(?(1)|之?后)")
# The one header of the draft for rate limits: `"default";r=0;t=12`, or with the words in full.
_ONE_HEADER = re.compile(r"\b(?:r|remaining)=(\d+)\b[^\"]*?\b(?:t|reset)=(\d+)\b")
# A header's value without what may stand around it: `in 5 seconds`, `5, 5`, `120 (seconds)`.
_VALUE = re.compile(r"\"?(?:in )?((?:PT?)?\d[^,;()\"]*)")
# A number this large counts seconds since 1970, not until then.
_EPOCH_S = 1e9
_EPOCH_MS = 1e12


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """Rate limits as one response's headers state them.

    Args:
        limits: for each limit, the remaining amount and the seconds until it is full again.
    """

    limits: tuple[tuple[float, float], ...]

    def wait_s(self) -> float:
        """Seconds until the next request makes sense; 0 while no limit is used up."""
        return max((reset for remaining, reset in self.limits if remaining <= 0), default=0.0)


@runtime_checkable
class ReportsRateLimits(Protocol):
    """A backend that reads rate-limit headers."""

    @property
    def rate_limit_status(self) -> RateLimitStatus | None:
        """Status from the latest response with such headers, or `None`."""


def retry_after_s(headers: Mapping[str, str], now: Clock = time.time) -> float | None:
    """Return the pause that a response's headers ask for, in seconds, or `None`.

    A header in milliseconds wins over `Retry-After`, which is a number of seconds, a duration or an HTTP date. Vendors
    and proxies put prefixes before both names. Without them the reset of a limit that is used up counts.
    """
    texts = {name.lower(): text.strip() for name, text in headers.items()}
    for ending, scale in (
        ("retry-after-ms", 0.001),
        ("retry-after", 1.0),
        ("after-seconds", 1.0),
        ("reset-after", 1.0),
    ):
        named = sorted((name for name in texts if name.endswith(ending)), key=len)
        for name in named:
            # Two proxies each add theirs: `5, 5`. A date has a comma too.
            found = _VALUE.match(texts[name])
            if found and (number := until_s(found[1], now)) is not None:
                return number * scale
            if (until := _date(texts[name])) is not None:
                # The server's own `Date` is the reference where there is one: its clock may be wrong.
                return max(0.0, until - (_date(texts.get("date", "")) or now()))
    if wait := max((reset for remaining, reset in _limits(texts, now) if remaining <= 0), default=0.0):
        return wait
    resets = [name for name in texts if "limit" in name and name.endswith("reset")]
    alone = len(resets) == 1 and not any("remaining" in name for name in texts)
    return until_s(texts[resets[0]], now) if alone else None


def read_rate_limits(headers: Mapping[str, str], now: Clock = time.time) -> RateLimitStatus | None:
    """Read the rate limits from a response's headers; `None` when there are none.

    Known are all pairs of a `…ratelimit…remaining…` with its `…reset…` header, whatever the vendor puts around these
    words. A reset is a duration (`6m0s`, `250ms`, seconds) or a point in time. Unreadable values are ignored.
    """
    limits = tuple(_limits({name.lower(): text.strip() for name, text in headers.items()}, now))
    return RateLimitStatus(limits) if limits else None


def _limits(texts: Mapping[str, str], now: Clock) -> Iterator[tuple[float, float]]:
    for name, text in texts.items():
        if "remaining" in name and "limit" in name:
            # Kong names the periods of what remains, and has one reset for the shortest.
            at = texts.get(name.replace("remaining", "reset")) or texts.get("ratelimit-reset", "")
            remaining, reset = _number(text), until_s(at, now)
            if remaining is not None and reset is not None:
                yield remaining, reset
        elif name in ("ratelimit", "x-ratelimit"):
            yield from ((float(remaining), float(reset)) for remaining, reset in _ONE_HEADER.findall(text))


_WAIT_KEYS = {"retrydelay": 1.0, "retryafter": 1.0, "retryafterseconds": 1.0, "retryafterms": 0.001}
_WAIT_KEYS |= {"resetsinseconds": 1.0, "quotaresetdelay": 1.0}


def wait_in_details(part: Mapping[str, Any], now: Clock = time.time) -> float | None:
    """Return the seconds to wait that one object of an error names next to its message, or `None`."""
    for key, value in part.items():
        scale = _WAIT_KEYS.get(re.sub(r"[\W_]", "", str(key)).lower())
        if scale and (seconds := until_s(str(value), now)) is not None:
            return seconds * scale
    headers = part.get("headers")
    if not isinstance(headers, Mapping):
        return None
    texts = {str(name).lower(): str(text) for name, text in headers.items()}
    bare = until_s(texts.get("x-ratelimit-reset", ""), now)
    asked = retry_after_s(texts, now)
    return bare if asked is None else asked


def wait_in_words(message: str) -> float | None:
    """Return the seconds to wait that a message names, such as `try again in 9m38.016s`, or `None`."""
    if found := _IN_CHINESE.search(message):
        return float(found[2]) * (60 if found[3] == "分" else 1)
    for found in _IN_WORDS.finditer(message):
        for form in (_DURATION, _CLOCK, _BARE_END):
            if duration := form.match(message, found.end()):
                return duration_s(duration[0])
    return None


def until_s(text: str, now: Clock = time.time) -> float | None:
    """Return the seconds until the time that a duration or a point in time names, or `None` when it is neither."""
    text = text.strip()
    seconds = duration_s(text)
    if seconds is not None and seconds >= _EPOCH_S:
        return max(0.0, seconds / (1000 if seconds >= _EPOCH_MS else 1) - now())
    if seconds is None and ("-" in text or "," in text) and (at := _date(text)) is not None:
        return max(0.0, at - now())
    return seconds


def duration_s(text: str) -> float | None:
    """Return the seconds in `1m30s`, `250ms`, `5 minutes`, `PT5S`, `00:01:30` or a plain number, else `None`."""
    text = text.strip()
    plain = _number(text)
    if plain is not None:
        return plain
    if clock := _CLOCK.fullmatch(text):
        return int(clock[1]) * 3600.0 + int(clock[2]) * 60.0 + int(clock[3])
    # A blank ends the last part, as it may end every part.
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS_S[_unit(unit)] for number, unit in _DURATION_PART.findall(text))


def _unit(name: str) -> str:
    name = name.lower()
    return "ms" if name.startswith(("ms", "milli")) else name[0]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None


def _date(text: str) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return read(text).timestamp()
        except (ValueError, TypeError, OverflowError):
            continue
    return None
