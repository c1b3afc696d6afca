"""Rate limiter: spreads requests and tokens evenly over time, for limits per minute."""

from __future__ import annotations

from mellea_cli.messages import Usage, estimate_tokens

_MINUTE_S = 60.0
# A request that starts late may be made up for within this time, so that a timer's delay costs no speed.
_SLACK_S = 0.1
_FIRST_ANSWER_TOKENS = 100.0
_NEWEST = 0.1


class RateLimiter:
    """Says when the next request may start; plain state, callers pass the clock's reading.

    The tokens of a request are known only once it is answered. Until then the mean of earlier answers stands for them,
    and the difference is made up for afterwards.

    Args:
        rpm: highest number of requests per minute; `None` sets no limit.
        tpm: highest number of tokens per minute, prompts and answers together; `None` sets no limit.

    Raises:
        ValueError: a limit is not above 0.
    """

    def __init__(self, rpm: float | None = None, tpm: float | None = None) -> None:
        for limit in (rpm, tpm):
            if limit is not None and limit <= 0:
                raise ValueError(f"a limit per minute must be above 0, not {limit}")
        self.set_rpm(rpm)
        self._token_s = _MINUTE_S / tpm if tpm else 0.0
        self._next_token = 0.0
        self._answer_tokens = _FIRST_ANSWER_TOKENS

    def set_rpm(self, rpm: float | None) -> None:
        """Change the highest number of requests per minute; the next request may start at once."""
        self.rpm = rpm
        self._request_s = _MINUTE_S / rpm if rpm else 0.0
        self._next_request = 0.0

    def expected_tokens(self, prompt_characters: int) -> float:
        """Tokens that a request with a prompt of this length is expected to take; 0 where tokens are not limited."""
        return estimate_tokens(prompt_characters) + self._answer_tokens if self._token_s else 0.0

    def wait_s(self, now: float) -> float:
        """Seconds from `now` until the next request may start; 0 or less when it may start now."""
        return max(self._next_request, self._next_token) - now

    def start(self, now: float, tokens: float = 0.0) -> None:
        """Record that a request starts, which is expected to take this many tokens."""
        if self._request_s:
            self._next_request = max(self._next_request, now - _SLACK_S) + self._request_s
        if self._token_s:
            self._next_token = max(self._next_token, now - _SLACK_S) + tokens * self._token_s

    def settle(self, expected: float, usage: Usage) -> None:
        """Correct the `expected` tokens of a request by what it has used."""
        if not self._token_s or not usage.total_tokens:
            return  # the server does not count tokens, so the expected number has to do
        self._answer_tokens += _NEWEST * (usage.completion_tokens - self._answer_tokens)
        self._next_token += (usage.total_tokens - expected) * self._token_s
