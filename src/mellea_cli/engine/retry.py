"""Retry policy and retry budget: how often and how soon a failed request is sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class RetryBudget:
    """What the requests for one question have used up so far.

    Args:
        sent: requests, first attempts included.
        faults: failures of the transport. Each costs one; a failure at an open circuit breaker costs nothing.
        rate_limited: times the server asked for fewer requests. They have a larger limit.
        refusals: times the server refused the request in a way that may pass (400, 401, 403, 404, a web page).
    """

    sent: int = 0
    faults: int = 0
    rate_limited: int = 0
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a request is sent again.

    The wait before retry n is a random share of `base_s * 2**(n-1)`, at most `cap_s` (full jitter: M. Brooker,
    "Exponential Backoff And Jitter", 2015). A server's Retry-After is a lower bound for it.

    Args:
        max_retries: times a request is sent again after a transport fault; 0 turns all retries off.
        base_s: scale of the first wait, in seconds.
        cap_s: longest wait, in seconds, unless the server names a longer one.
        retry_after_cap_s: longest Retry-After that is waited for, in seconds.
        max_rate_limited: times a request is sent again in all when some failures were rate limits: being asked to slow
            down says nothing against the request.
        max_refusals: times a request is sent again after a refusal that may pass.
        max_elapsed_s: no retry starts later than this many seconds after the first send; `None` sets no limit.
    """

    max_retries: int = 5
    base_s: float = 0.5
    cap_s: float = 20.0
    retry_after_cap_s: float = 300.0
    max_rate_limited: int = 9
    max_refusals: int = 2
    max_elapsed_s: float | None = None

    def allows(self, budget: RetryBudget) -> bool:
        """Whether a question that has used this much may have a request sent again."""
        most = max(self.max_retries, self.max_rate_limited) if self.max_retries else 0
        return (
            budget.faults <= self.max_retries
            and budget.faults + budget.rate_limited + budget.refusals <= most
            and budget.refusals <= min(self.max_refusals, self.max_retries)
        )

    def delay_s(self, retry: int, retry_after_s: float | None, random: Callable[[], float]) -> float | None:
        """Seconds to wait before retry number `retry`, counted from 1.

        Args:
            retry: the retry to come.
            retry_after_s: wait that the server asked for, in seconds.
            random: source of numbers from 0 up to 1.

        Returns:
            Seconds, or `None` when the server asks for more than `retry_after_cap_s`.
        """
        if retry_after_s is not None and retry_after_s > self.retry_after_cap_s:
            return None
        jittered = random() * min(self.cap_s, self.base_s * 2.0 ** min(max(retry, 1) - 1, 30))
        return jittered if retry_after_s is None else retry_after_s + min(jittered, 1.0)
