"""Errors on the wire: which class a status, an error object or a failed connection gets, and rate-limit headers."""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol, runtime_checkable

from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    ContentFiltered,
    ContextTooLong,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    QuotaSpent,
    RateLimited,
    RequestRefused,
    ServerFault,
)

MAX_MESSAGE = 300
"""Characters of a server's text that a message repeats."""

# Codes come before statuses, as one status has several meanings (429: slow down, or the account is empty). The words
# of a message decide nothing that stops a run: servers put them into hints as well.
_BY_CODE: dict[str, type[BackendError]] = {
    "insufficient_quota": QuotaSpent,
    "billing_hard_limit_reached": QuotaSpent,
    "billing_not_active": QuotaSpent,
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "content_filter": ContentFiltered,
    "content_policy_violation": ContentFiltered,
    "invalid_api_key": NotAuthorized,
    "authentication_error": NotAuthorized,
    "model_not_found": ModelMissing,
    "rate_limit_exceeded": RateLimited,
    "rate_limit_error": RateLimited,
    "overloaded_error": ServerFault,
    "server_error": ServerFault,
}

_BY_STATUS: dict[int, type[BackendError]] = {
    401: NotAuthorized,
    402: QuotaSpent,
    403: NotAuthorized,
    404: EndpointMissing,
    405: EndpointMissing,
    408: ServerFault,
    409: ServerFault,
    425: ServerFault,
    429: RateLimited,
}


Hints = Mapping[type[BackendError], str]
"""Hints by class of error; `{model}` becomes the model's name."""

DEFAULT_HINTS: Hints = {
    BackendUnavailable: "is the server running, and is the address right?",
    EndpointMissing: "is the address right?",
    QuotaSpent: "top up the account behind the key, or use --backend local, which costs nothing",
}


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """A server's error in any shape: `{"error": {...}}`, `{"error": "..."}`, `{"detail": ...}`, or no JSON."""

    message: str = ""
    codes: tuple[str, ...] = ()
    """The error's `code` and `type` where they are texts."""
    param: str = ""
    status: int | None = None
    """The `code` where it is an HTTP status."""

    @classmethod
    def parse(cls, text: str) -> ErrorObject:
        """Parse the body of a response."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return cls(message="" if text.lstrip().startswith("<") else text)
        return cls.read(value)

    @classmethod
    def read(cls, value: object) -> ErrorObject:
        """Read an error from a JSON value."""
        inner = value.get("error", value) if isinstance(value, Mapping) else value
        if not isinstance(inner, Mapping):
            return cls(message=inner if isinstance(inner, str) else json.dumps(inner))
        code = inner.get("code")
        status = code if isinstance(code, int) and 400 <= code <= 599 else None
        codes = tuple(str(inner[key]) for key in ("code", "type") if isinstance(inner.get(key), str))
        message = inner.get("message") or inner.get("detail") or ""
        return cls(
            message if isinstance(message, str) else json.dumps(message), codes, str(inner.get("param") or ""), status
        )


def classify(status: int, error: ErrorObject, headers: Mapping[str, str]) -> type[BackendError]:
    """Return the class of an error; an error object inside a stream has its own code as status, or 500."""
    for code in error.codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    if status == 404 and "model" in error.message.lower():
        return ModelMissing
    # Only the label depends on these words: both classes fail this item alone.
    if status == 400 and "maximum context length" in error.message:
        return ContextTooLong
    if status == 503 and retry_after_s(headers) is not None:
        return RateLimited
    by_hundred = EndpointMissing if status < 400 else RequestRefused if status < 500 else ServerFault
    return _BY_STATUS.get(status, by_hundred)


def describe_failure(exc: BaseException) -> str:
    """Return the reason of a failed connection in a few words, from the innermost cause that is known."""
    import aiohttp

    chain = [exc]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    hung_up = "the server closed the connection without an answer"
    reasons = {
        ssl.SSLCertVerificationError: "the server's TLS certificate is not trusted",
        ssl.SSLError: "TLS failed: does the server speak https?",
        socket.gaierror: "the host's name cannot be resolved",
        ConnectionRefusedError: "connection refused",
        aiohttp.ServerDisconnectedError: hung_up,
        ConnectionResetError: hung_up,
        TimeoutError: "no connection in time",
    }
    for kind, reason in reasons.items():
        if any(isinstance(link, kind) for link in chain):
            return reason
    # When all addresses of a host refuse, the one error for them has the number but not the class.
    if any(getattr(link, "errno", None) == errno.ECONNREFUSED for link in chain):
        return "connection refused"
    return one_line(str(exc)) or type(exc).__name__


def retry_after_s(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the pause that a response asks for, in seconds, or `None`.

    `retry-after-ms` wins over `Retry-After`, which is a number of seconds or an HTTP date.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    until = _date(text)
    # The server's own `Date` is the reference where there is one: its clock may be wrong.
    return None if until is None else max(0.0, until - (_date(headers.get("date", "")) or now()))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Shorten `text` to one line of at most `limit` characters without control characters."""
    # Cut before cleaning too: a body may be long, and only its beginning is shown.
    plain = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def reason_phrase(status: int) -> str:
    """Return a status with its name, such as `503 Service Unavailable`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


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


_LIMIT_HEADERS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("ratelimit-remaining", "ratelimit-reset"),
)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def read_rate_limits(headers: Mapping[str, str]) -> RateLimitStatus | None:
    """Read the rate limits from a response's headers; `None` when there are none.

    Known are OpenAI's `x-ratelimit-remaining-requests` and `-tokens` with their `-reset-` times (`1s`, `6m0s`,
    `250ms`), and `ratelimit-remaining` with `ratelimit-reset` in seconds. Unreadable values are ignored.
    """
    limits = []
    for remaining_name, reset_name in _LIMIT_HEADERS:
        remaining, reset = _number(headers.get(remaining_name, "")), duration_s(headers.get(reset_name, ""))
        if remaining is not None and reset is not None:
            limits.append((remaining, reset))
    return RateLimitStatus(tuple(limits)) if limits else None


def duration_s(text: str) -> float | None:
    """Return the seconds in `1m30s`, `250ms` or a plain number of seconds, or `None` when it is neither."""
    text = text.strip()
    plain = _number(text)
    if plain is not None:
        return plain
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
