"""What a provider's headers say is left."""

from __future__ import annotations

import pytest

from loopback import ModelServer
from mellea_cli.backends.http_errors import RateLimitStatus, ReportsRateLimits, duration_s, read_rate_limits
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend


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
