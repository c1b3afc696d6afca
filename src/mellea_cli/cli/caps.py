"""Reads the limits that a user sets a run: durations, times of the day, shares of errors, money."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from mellea_cli.cli.flags import Flags
    from mellea_cli.run.budget import Caps, ErrorLimit, Prices

Number = TypeVar("Number", int, float)

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")


def seconds(text: str | float) -> float:
    """Read a duration: `90`, `90s`, `15m`, `6h`, `1h30m`, `2d`.

    Raises:
        UsageError: it is none.
    """
    found = _DURATION.fullmatch(str(text).strip().lower())
    if found is None or not any(found.groups()):
        raise UsageError(f"{text!r} is not a duration", hint="write it as 90, 90s, 15m, 6h or 1h30m")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def deadline_s(text: str, now: datetime) -> float:
    """Read a deadline: a duration from `now` on, or a time of the day such as `06:30`, the next one there is.

    Raises:
        UsageError: it is neither, or no time at all.
    """
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        duration = seconds(text)
        if duration <= 0:
            raise UsageError(f"--deadline {text}: leaves no time to do anything", hint="write it as 90s, 15m or 6h")
        return duration
    hour, minute = int(clock[1]), int(clock[2])
    if hour > 23 or minute > 59:
        raise UsageError(f"--deadline {text}: there is no such time of the day", hint="write it as 06:30")
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((at if at > now else at + timedelta(days=1)) - now).total_seconds()


def error_limit(text: str) -> ErrorLimit:
    """Read how many items may fail: `20`, or `5%` of those that were asked about.

    Raises:
        UsageError: it is neither.
    """
    from mellea_cli.run.budget import ErrorLimit

    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) if percent else int(number)
    except ValueError:
        value = 0
    if value <= 0 or (percent and value > 100):
        raise UsageError(f"--max-errors {text}: is no number of items", hint="write it as 20, or as 5%")
    return ErrorLimit(share=value / 100) if percent else ErrorLimit(count=int(value))


def caps(flags: Flags, now: datetime | None = None) -> Caps:
    """The limits on a run that the flags set.

    Raises:
        UsageError: one cannot be read or allows nothing, or `--max-cost` stands without prices.
    """
    from mellea_cli.run.budget import Caps, ErrorLimit

    return Caps(
        deadline_s=deadline_s(flags.deadline, now or datetime.now().astimezone()) if flags.deadline else None,
        errors=error_limit(flags.max_errors) if flags.max_errors else ErrorLimit(),
        tokens=_above_zero("--max-tokens-total", flags.max_tokens_total),
        cost=_above_zero("--max-cost", flags.max_cost),
        prices=_prices(flags),
    )


def _above_zero(flag: str, limit: Number | None) -> Number | None:
    # Not a number is not above zero either.
    if limit is not None and not limit > 0:
        raise UsageError(f"{flag} {limit:g}: allows no request at all", hint="set more than 0, or leave it out")
    return limit


def _prices(flags: Flags) -> Prices | None:
    from mellea_cli.run.budget import Prices

    if flags.max_cost is None:
        return None
    if flags.price_in is None or flags.price_out is None:
        raise UsageError(
            "--max-cost needs to know what tokens cost",
            hint="add --price-in and --price-out, each for a million tokens, or set them in the configuration file",
        )
    return Prices(flags.price_in, flags.price_out)
