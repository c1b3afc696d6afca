"""Spreads requests and tokens evenly over time, for servers that count them by the minute."""

from __future__ import annotations

from mellea_cli.messages import estimate_tokens

_MINUTE_S = 60.0
# A start that comes late may be made good within this much, so that a timer's slack does not cost speed.
_SLACK_S = 0.1
_FIRST_ANSWER_TOKENS = 100.0
_WEIGHT = 0.1


class RateLimiter:
    """Says when the next request may start. Pure arithmetic: the clock's reading comes from outside.

    A request's tokens are known only when it has been answered: until then the mean of the answers before it stands
    for them, and the difference is made good afterwards.

    Args:
        rpm: requests a minute at most; `None` sets no limit.
        tpm: tokens a minute at most, prompts and answers together; `None` sets no limit.

    Raises:
        ValueError: a limit is not above 0.
    """

    def __init__(self, rpm: float | None = None, tpm: float | None = None) -> None:
        for limit in (rpm, tpm):
            if limit is not None and limit <= 0:
                raise ValueError(f"a limit by the minute must be above 0, not {limit}")
        self._request_s = _MINUTE_S / rpm if rpm else 0.0
        self._token_s = _MINUTE_S / tpm if tpm else 0.0
        self._next_request = 0.0
        self._next_token = 0.0
        self._answer_tokens = _FIRST_ANSWER_TOKENS

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens a request costs."""
        return self._token_s > 0

    def tokens(self, letters: int) -> float:
        """What a request with a prompt of so many letters is expected to cost, in tokens."""
        return estimate_tokens(letters) + self._answer_tokens

    def start(self, now: float, tokens: float = 0.0) -> float:
        """Take the next free start.

        Args:
            now: the clock, in seconds.
            tokens: what the request is expected to cost.

        Returns:
            Seconds from `now` until the request may be sent.
        """
        at = now
        if self._request_s:
            self._next_request = max(self._next_request, now - _SLACK_S)
            at = max(at, self._next_request)
            self._next_request += self._request_s
        if self._token_s:
            self._next_token = max(self._next_token, now - _SLACK_S)
            at = max(at, self._next_token)
            self._next_token += tokens * self._token_s
        return at - now

    def spent(self, expected: float, prompt_tokens: int, answer_tokens: int) -> None:
        """A request that was expected to cost `expected` tokens has cost these."""
        if prompt_tokens + answer_tokens == 0:
            return  # the server does not count: what was expected has to do
        self._answer_tokens += _WEIGHT * (answer_tokens - self._answer_tokens)
        self._next_token += (prompt_tokens + answer_tokens - expected) * self._token_s
