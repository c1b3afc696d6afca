"""When to send a request again: pure arithmetic, the random numbers come from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a request is sent again when the transport was at fault.

    The wait before retry n is a random share of `base_s * 2**(n-1)`, at most `cap_s` ("full jitter": many clients
    that failed together do not come back together). A server's Retry-After is a lower bound for it.

    Args:
        max_retries: times a request is sent again after its first attempt; 0 turns retries off.
        base_s: scale of the first wait, in seconds.
        cap_s: the longest wait that is ours to choose, in seconds.
        retry_after_cap_s: the longest Retry-After that is waited for, in seconds; a longer one fails the request.
    """

    max_retries: int = 5
    base_s: float = 0.5
    cap_s: float = 20.0
    retry_after_cap_s: float = 300.0
    max_rate_limited: int = 12
    """Times a request is sent again after a 429: being asked to slow down says nothing against the request."""
    max_elapsed_s: float | None = None
    """No wait for a retry ends later than so many seconds after the request was first sent; `None` sets no bound."""

    def budget(self, *, rate_limited: bool) -> int:
        """How often a request may be sent again."""
        if rate_limited and self.max_retries:
            return max(self.max_retries, self.max_rate_limited)
        return self.max_retries

    def delay_s(
        self, retry: int, retry_after_s: float | None, random: Callable[[], float], *, rate_limited: bool = False
    ) -> float | None:
        """How long to wait before retry number `retry`, counted from 1.

        Args:
            retry: the retry to come.
            retry_after_s: how long the server asked for, in seconds.
            random: gives a number from 0 up to 1.
            rate_limited: the failures so far were the server asking for fewer requests.

        Returns:
            Seconds, or `None` when the request is not to be sent again.
        """
        if retry > self.budget(rate_limited=rate_limited):
            return None
        if retry_after_s is not None and retry_after_s > self.retry_after_cap_s:
            return None
        jittered = random() * min(self.cap_s, self.base_s * 2.0 ** min(retry - 1, 30))
        return jittered if retry_after_s is None else retry_after_s + min(jittered, 1.0)
