"""How long servers ask to wait, in headers, error bodies and words."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest

from loopback import ModelServer
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.backends.rate_limits import (
    RateLimitStatus,
    ReportsRateLimits,
    duration_s,
    read_rate_limits,
    retry_after_s,
    until_s,
    wait_in_details,
    wait_in_words,
)

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": formatdate(1_000_030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(1_000_030, usegmt=True), "date": formatdate(1_000_020, usegmt=True)}, 10.0),
        ({"retry-after": formatdate(5, usegmt=True)}, 0.0),
        ({"retry-after": "5 seconds"}, 5.0),
        ({"retry-after": "5, 5"}, 5.0),
        ({"retry-after": '"5"'}, 5.0),
        ({"retry-after": "PT1M5S"}, 65.0),
        ({"retry-after": "00:01:05"}, 65.0),
        ({"ratelimit": '"default";r=0;t=12'}, 12.0),
        ({"ratelimit": "limit=10, remaining=0, reset=12"}, 12.0),
        ({"x-ratelimit-remaining-minute": "0", "ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset-requests": "12", "x-ratelimit-reset-tokens": "3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e99"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates are read; nonsense is no answer."""
    assert retry_after_s(headers, now=lambda: 1_000_000.0) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("250ms", 0.25), ("1h2m3.5s", 3723.5), ("12", 12), (" 0 ", 0), ("2d", 172_800)],
)
def test_durations_as_providers_write_them(text: str, seconds: float) -> None:
    """Units that add up, or a plain number of seconds."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1s later", "2024-01-01T00:00:00Z", "nan", "1e99"])
def test_what_is_no_duration_is_none(text: str) -> None:
    """A header that cannot be read is no reason to wait."""
    assert duration_s(text) is None


def test_nothing_left_means_waiting_for_the_longest_reset() -> None:
    """Requests or tokens at zero wait for their own reset; what is left of others does not matter."""
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1.5s",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    status = read_rate_limits(headers)
    assert status == RateLimitStatus(((0, 1.5), (900, 360)))
    assert status.wait_s() == 1.5
    plain = read_rate_limits({"ratelimit-remaining": "0", "ratelimit-reset": "7"})
    assert plain is not None
    assert plain.wait_s() == 7


@pytest.mark.parametrize("headers", [{}, {"x-ratelimit-remaining-requests": "many"}, {"ratelimit-remaining": "0"}])
def test_headers_that_say_nothing(headers: dict[str, str]) -> None:
    """Absent or unreadable headers are no status."""
    assert read_rate_limits(headers) is None


def test_who_is_metered(server: ModelServer) -> None:
    """OpenAI-compatible servers tell what is left, an Ollama does not."""
    assert isinstance(OpenAIBackend(base_url=server.openai_url, api_key=""), ReportsRateLimits)
    assert not isinstance(OllamaBackend(base_url=server.url), ReportsRateLimits)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"llm_provider-retry-after": "60"}, 60.0),
        ({"x-retry-after": "5"}, 5.0),
        ({"x-ms-retry-after-ms": "1200", "retry-after": "9"}, 1.2),
        ({"Retry-After": "2s"}, 2.0),
        ({"retry-after": "1m30s"}, 90.0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:30Z",
            },
            10.0,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.2s"}, 1.2),
        ({"llm_provider-x-ratelimit-remaining-requests": "0", "llm_provider-x-ratelimit-reset-requests": "3s"}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000004"}, 4.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000004000"}, 4.0),
        ({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "60"}, None),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "60"}, None),
    ],
)
def test_headers_of_vendors_and_proxies(headers: dict[str, str], seconds: float | None) -> None:
    """Prefixes, units and points in time are read; a limit that is not used up asks for nothing."""
    assert retry_after_s(headers, now=lambda: NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("part", "seconds"),
    [
        ({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.2s"}, 1.2),
        ({"retry_after": 7}, 7.0),
        ({"headers": {"X-RateLimit-Reset": "1700000001000", "X-RateLimit-Remaining": "0"}}, 1.0),
        ({"headers": {"Retry-After": "3"}}, 3.0),
        ({"headers": "none"}, None),
        ({}, None),
    ],
)
def test_waits_in_the_details_of_an_error(part: dict[str, Any], seconds: float | None) -> None:
    """Google's retry delay, plain fields and headers that a gateway repeats."""
    assert wait_in_details(part, now=lambda: NOW) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 1.27s.", 1.27),
        ("Please try again in 9m38.016s. Visit the page", 578.016),
        ("Please try again in 1120ms.", 1.12),
        ("Please retry after 2 seconds.", 2.0),
        ("Please retry in 1.207338s.", 1.207338),
        ("Please wait 40 seconds before retrying.", 40.0),
        ("Try again in 5 minutes", 300.0),
        ("Limit 6000, Used 5034, Requested 1443", None),
        ("try again later", None),
    ],
)
def test_waits_in_words(message: str, seconds: float | None) -> None:
    """A message's words count where no header says it."""
    assert wait_in_words(message) == pytest.approx(seconds)


def test_a_point_in_time_is_no_duration() -> None:
    """Numbers since 1970 are read as such, in seconds and milliseconds."""
    assert until_s("1700000010", now=lambda: NOW) == 10
    assert until_s("1699999999000", now=lambda: NOW) == 0
    assert until_s("6m0s", now=lambda: NOW) == 360
    assert until_s("soon", now=lambda: NOW) is None
