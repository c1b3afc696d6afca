"""When to send a request again: pure arithmetic, the random numbers come from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class RetryBudget:
    """What one question has used up so far, over every request that was sent for it; no two are the same."""

    sent: int = 0
    """Requests, first attempts included."""
    faults: int = 0
    """Failures of the transport that count against the question."""
    refusals: int = 0
    """Times the server asked for fewer requests; they count too, but less soon."""
    _spared: list[bool] = field(default_factory=list)
    _era: int = 0

    def count(self, *, rate_limited: bool) -> None:
        """A request failed, and it counts."""
        if rate_limited:
            self.refusals += 1
        else:
            self.faults += 1

    def spare(self, *, rate_limited: bool, era: int) -> None:
        """A request failed while the server counted as away: that is not charged, unless it turns out to be there.

        Args:
            rate_limited: as in `count`.
            era: how often the server has been seen to be away for certain; what failed before that stays free.
        """
        if era != self._era:
            self._spared.clear()
            self._era = era
        self._spared.append(rate_limited)

    def charge_spared(self, policy: RetryPolicy, era: int) -> None:
        """The server is there after all: the request itself failed; count that, but leave it one more retry."""
        while era == self._era and self._spared and policy.leaves_one(self, rate_limited=self._spared[-1]):
            self.count(rate_limited=self._spared.pop())
        self._spared.clear()


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
    max_rate_limited: int = 9
    """Times a request is sent again in all when some of its failures were 429s: being asked to slow down says nothing
    against the request."""
    max_elapsed_s: float | None = None
    """No wait for a retry ends later than so many seconds after the request was first sent; `None` sets no bound."""

    def allows(self, spent: RetryBudget) -> bool:
        """Whether a question that has used up so much may have a request sent again."""
        most = max(self.max_retries, self.max_rate_limited) if self.max_retries else 0
        return spent.faults <= self.max_retries and spent.faults + spent.refusals <= most

    def leaves_one(self, spent: RetryBudget, *, rate_limited: bool) -> bool:
        """Whether one failure more would still leave a question a retry after the next one."""
        faults, refusals = spent.faults + (not rate_limited), spent.refusals + rate_limited
        return self.allows(RetryBudget(faults=faults + (not rate_limited), refusals=refusals + rate_limited))

    def delay_s(self, retry: int, retry_after_s: float | None, random: Callable[[], float]) -> float | None:
        """How long to wait before retry number `retry`, counted from 1.

        Args:
            retry: the retry to come.
            retry_after_s: how long the server asked for, in seconds.
            random: gives a number from 0 up to 1.

        Returns:
            Seconds, or `None` when the server asks for longer than anybody will wait.
        """
        if retry_after_s is not None and retry_after_s > self.retry_after_cap_s:
            return None
        jittered = random() * min(self.cap_s, self.base_s * 2.0 ** min(max(retry, 1) - 1, 30))
        return jittered if retry_after_s is None else retry_after_s + min(jittered, 1.0)
