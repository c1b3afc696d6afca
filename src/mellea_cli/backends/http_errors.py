"""What a provider's headers say about the requests and tokens that are left."""

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

# What a server's status, error object or silence means: the one place where trouble on the wire gets its class.
#
# Codes come before statuses, as the same status carries different news (429: slow down, or nothing left to spend), and
# words in a message decide nothing that stops a run: servers put them into hints as well.

MAX_MESSAGE = 300
"""Characters of a server's own words that a message repeats."""

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


_HUNG_UP = "the server closed the connection without an answer"


@dataclass(frozen=True, slots=True)
class ErrorHints:
    """What a backend tells the user to do next, by what went wrong. `{model}` stands for the model's name."""

    unreachable: str = "is the server running, and is the address right?"
    not_authorized: str = ""
    endpoint_missing: str = "is the address right?"
    model_missing: str = ""

    def hint(self, kind: type[BackendError], model: str) -> str:
        """Return the next step for an error of this class."""
        by_kind = {
            BackendUnavailable: self.unreachable,
            NotAuthorized: self.not_authorized,
            EndpointMissing: self.endpoint_missing,
            ModelMissing: self.model_missing,
            QuotaSpent: "top up the account behind the key, or use --backend local, which costs nothing",
        }
        return by_kind.get(kind, "").replace("{model}", model)


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """A server's error, whatever its shape: `{"error": {...}}`, `{"error": "..."}`, `{"detail": ...}`, or no JSON."""

    message: str = ""
    codes: tuple[str, ...] = ()
    """The error's `code` and `type`, as text."""
    param: str = ""
    number: int | None = None
    """The `code` when it is an HTTP status."""

    @classmethod
    def parse(cls, text: str) -> ErrorObject:
        """Read an error from a response's body."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return cls(message="" if text.lstrip().startswith("<") else text)
        return cls.read(value)

    @classmethod
    def read(cls, value: object) -> ErrorObject:
        """Read an error from decoded JSON."""
        inner = value.get("error", value) if isinstance(value, Mapping) else value
        if not isinstance(inner, Mapping):
            return cls(message=inner if isinstance(inner, str) else json.dumps(inner))
        code = inner.get("code")
        number = code if isinstance(code, int) and 400 <= code <= 599 else None
        codes = tuple(str(inner[key]) for key in ("code", "type") if isinstance(inner.get(key), str))
        message = inner.get("message") or inner.get("detail") or ""
        return cls(
            message if isinstance(message, str) else json.dumps(message), codes, str(inner.get("param") or ""), number
        )


def class_of(status: int, error: ErrorObject, headers: Mapping[str, str]) -> type[BackendError]:
    """Return the class that a refusal belongs to.

    Args:
        status: the HTTP status; for an error object inside a stream its own code, or 500.
        error: what the server said.
        headers: the response's headers.
    """
    for code in error.codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    if status == 404 and "model" in error.message.lower():
        return ModelMissing
    # Only the label depends on these words: either class fails this item alone.
    if status == 400 and "maximum context length" in error.message:
        return ContextTooLong
    if status == 503 and retry_after_s(headers) is not None:
        return RateLimited
    by_hundred = EndpointMissing if status < 400 else RequestRefused if status < 500 else ServerFault
    return _BY_STATUS.get(status, by_hundred)


def describe(exc: BaseException) -> str:
    """Return one sentence about a failed connection, from the innermost cause that says something."""
    import aiohttp

    chain = [exc]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    kinds = {
        ssl.SSLCertVerificationError: "the server's TLS certificate is not trusted",
        ssl.SSLError: "TLS failed: does the server speak https?",
        socket.gaierror: "the host's name cannot be resolved",
        ConnectionRefusedError: "connection refused",
        aiohttp.ServerDisconnectedError: _HUNG_UP,
        ConnectionResetError: _HUNG_UP,
        TimeoutError: "no connection in time",
    }
    for kind, sentence in kinds.items():
        if any(isinstance(link, kind) for link in chain):
            return sentence
    # Several addresses that fail alike come as one error that has the number but not the class.
    if any(getattr(link, "errno", None) == errno.ECONNREFUSED for link in chain):
        return "connection refused"
    return one_line(str(exc)) or type(exc).__name__


def retry_after_s(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return how long a response asks to be left alone, in seconds, or `None` when it does not.

    `retry-after-ms` wins over `Retry-After`, which is a number of seconds or an HTTP date. A date is read against the
    server's own `Date` where there is one, so that its clock may be wrong.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    until = _date(text)
    return None if until is None else max(0.0, until - (_date(headers.get("date", "")) or now()))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Shorten `text` to one line of at most `limit` characters without control characters."""
    # Cut before cleaning as well: a body may be long, and only its beginning is shown.
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * limit])
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def reason_phrase(status: int) -> str:
    """Return the status with its name, such as `503 Service Unavailable`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NAMES = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("ratelimit-remaining", "ratelimit-reset"),
)


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """What one response said is left.

    Args:
        limits: for each limit that was named, how much is left and in how many seconds it is whole again.
    """

    limits: tuple[tuple[float, float], ...]

    def wait_s(self) -> float:
        """Seconds until a request makes sense again; 0 when something is left of everything."""
        return max((reset for left, reset in self.limits if left <= 0), default=0.0)


@runtime_checkable
class ReportsRateLimits(Protocol):
    """A backend whose server tells what is left."""

    @property
    def allowance(self) -> RateLimitStatus | None:
        """What the latest response said, or `None` when it said nothing."""


def read_rate_limits(headers: Mapping[str, str]) -> RateLimitStatus | None:
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
        number, seconds = _header_number(left), duration_s(headers.get(reset, ""))
        if number is not None and seconds is not None:
            limits.append((number, seconds))
    return RateLimitStatus(tuple(limits)) if limits else None


def duration_s(text: str) -> float | None:
    """Return the seconds in `1m30s`, `250ms` or a plain number of seconds, or `None` when it is neither."""
    text = text.strip()
    plain = _header_number(text)
    if plain is not None:
        return plain
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _header_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None
