"""A circuit breaker for one endpoint of a pool: pure state, the clock's reading comes from outside.

After M. Nygard, "Release It!" (2007): closed while all is well, open after failures in a row, half open once a probe
has got through. Here half open has two steps: a short question of our own first, which no row can spoil, and then one
request of the run alone. The intervals between probes grow, and go back to the first one only when a request of the
run has been answered.
"""

from __future__ import annotations

from enum import Enum


class Standing(Enum):
    """How an endpoint stands."""

    SERVING = "serving"
    """It takes whatever it has room for."""
    ASIDE = "set aside"
    """It takes nothing; it is asked now and then whether it is back."""
    TRIAL = "on trial"
    """It is back, and takes one request at a time until one is answered."""
    GONE = "left out"
    """It takes nothing more in this run: what is wrong with it does not pass."""


class Breaker:
    """Sets an endpoint aside when it fails, and lets it back.

    Args:
        after: failures in a row that set a serving endpoint aside; on trial a single one does.
        first_s: seconds until it is first asked whether it is back.
        longest_s: the longest time between two such questions, in seconds.
    """

    def __init__(self, *, after: int = 3, first_s: float = 0.5, longest_s: float = 30.0) -> None:
        self.standing = Standing.SERVING
        self.probe_at = 0.0
        """When an endpoint that is aside is to be asked again."""
        self._after = after
        self._first_s = first_s
        self._longest_s = longest_s
        self._wait_s = first_s
        self._row = 0

    @property
    def open(self) -> bool:
        """Whether nothing may be sent."""
        return self.standing in (Standing.ASIDE, Standing.GONE)

    def answered(self) -> None:
        """A request of the run was answered, if only with a word about that request."""
        self._row = 0
        if self.standing is Standing.TRIAL:
            self.standing = Standing.SERVING
            self._wait_s = self._first_s
        elif self.standing is Standing.ASIDE:
            # One that was under way when the others failed: it shows as much as a probe does.
            self.standing = Standing.TRIAL

    def failed(self, now: float) -> bool:
        """A request of the run failed, and the endpoint may be to blame.

        Returns:
            Whether the endpoint is out of service, so that the request is not to blame.
        """
        self._row += 1
        if not self.open and (self.standing is Standing.TRIAL or self._row >= self._after):
            self.set_aside(now)
        return self.open

    def set_aside(self, now: float) -> None:
        """Send nothing more until a probe gets through; each time in a row the next one comes later."""
        self.standing = Standing.ASIDE
        self._row = 0
        self.probe_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, self._longest_s)

    def probed(self) -> None:
        """The endpoint has answered a question of our own."""
        if self.standing is Standing.ASIDE:
            self.standing = Standing.TRIAL

    def leave_out(self) -> None:
        """Send nothing more at all."""
        self.standing = Standing.GONE
