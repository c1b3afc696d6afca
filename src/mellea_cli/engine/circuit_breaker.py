"""Circuit breaker for one endpoint.

After M. Nygard, "Release It!" (2007): closed while requests succeed, open after failures in a row, half-open once a
probe has succeeded. The probe is a short question of the program's own, so no row can spoil it; half-open then lets one
request of the run through at a time. The breaker is plain state: callers pass the clock's reading.
"""

from __future__ import annotations

from enum import Enum


class BreakerState(Enum):
    """Health of an endpoint."""

    CLOSED = "closed"  # Requests are sent
    OPEN = "open"  # No request is sent; a probe asks at growing intervals whether the endpoint is back
    HALF_OPEN = "half-open"  # A probe has succeeded: one request at a time is sent until one is answered
    DISABLED = "disabled"  # Nothing is sent for the rest of the run: the fault does not pass


class CircuitBreaker:
    """Stops requests to an endpoint that keeps failing, and lets them through again after a probe.

    Args:
        threshold: failures in a row that open the breaker; `None` never opens it. In the half-open state one is enough.
        first_s: seconds from opening to the first probe.
        longest_s: longest wait between two probes, in seconds. Each wait is twice the one before.
    """

    def __init__(self, *, threshold: int | None = 4, first_s: float = 0.5, longest_s: float = 15.0) -> None:
        self.state = BreakerState.CLOSED
        self.probe_at = 0.0  # When an open breaker's next probe is due
        self.failures = 0  # Failures since the last answer
        self.threshold = threshold
        self._first_s = first_s
        self._longest_s = longest_s
        self._wait_s = first_s

    @property
    def blocks(self) -> bool:
        """Whether no request may be sent."""
        return self.state is BreakerState.OPEN or self.state is BreakerState.DISABLED

    def record_success(self) -> None:
        """Record an answer to a request of the run; an error that is about the request alone counts as one."""
        self.failures = 0
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.CLOSED
        elif self.state is BreakerState.OPEN:
            # The request was in flight when others failed: its answer shows as much as a probe does.
            self.probe_succeeded()

    def record_failure(self, now: float) -> bool:
        """Record a failed request of the run.

        Returns:
            Whether the breaker was open already, so that the failure must not be charged to the request.
        """
        if self.blocks:
            return True
        self.failures += 1
        if self.state is BreakerState.HALF_OPEN or (self.threshold and self.failures >= self.threshold):
            self.open(now)
        return False

    def open(self, now: float, *, at_least_s: float = 0.0) -> None:
        """Send nothing until a probe succeeds; each time in a row the probe comes later, `at_least_s` from `now`."""
        self.state = BreakerState.OPEN
        self.failures = 0
        self.probe_at = now + max(self._wait_s, at_least_s)
        self._wait_s = min(2 * self._wait_s, self._longest_s)

    def probe_succeeded(self) -> None:
        """Let one request at a time through."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
            # The endpoint is there. If requests still fail, they are to blame and need not wait long for it.
            self._wait_s = self._first_s

    def disable(self) -> None:
        """Send nothing more in this run."""
        self.state = BreakerState.DISABLED
