"""A circuit breaker for one endpoint of a pool: pure state, the clock's reading comes from outside.

After M. Nygard, "Release It!" (2007): closed while all is well, open after failures in a row, half open once a probe
has got through. Here half open has two steps: a short question of our own first, which no row can spoil, and then one
request of the run alone. The intervals between probes grow, and go back to the first one only when a request of the
run has been answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import Enum

from mellea_cli.engine.generate import NothingInTime
from mellea_cli.errors import BackendError, BackendUnavailable, RateLimited, Scope
from mellea_cli.events import Observer, Paused, nobody

# A server that goes away: everyone waits, one request at growing intervals asks whether it is back.
#
# A server's outage is never counted against an item. What looks like one: no connection at all, or 502, 503 and 504,
# several times in a row with no answer in between, for different questions as far as there are any; or that it refuses
# several questions one after the other although each was the only one in flight.
#
# One question alone can fail like that too. So while the server is away a short question of our own asks for it in turn
# with those of the run: once that gets through, the others go on and are charged for what fails.

_AWAY_STATUS = frozenset({502, 503, 504})
# After so many failures in a row a question of our own is asked in turn with the run's.
_DOUBT_AFTER = 6


class ServerAway(BackendUnavailable):
    """The server has been away for longer than the user will wait."""

    kind = "server-away"
    scope = Scope.RUN


class Outage:
    """Notices that a server has gone away and holds every request back until one gets through.

    Args:
        after: failures in a row that mean the server is away.
        first_s: seconds until the first attempt to reach it again; each further wait is half as long again.
        longest_s: the longest wait between two attempts, in seconds, unless the server itself names a longer one.
        max_wait_s: how long to wait altogether, in seconds; then every request fails with `ServerAway`.
        observer: hears of the pause.
    """

    def __init__(
        self,
        *,
        after: int = 4,
        first_s: float = 0.5,
        longest_s: float = 15.0,
        max_wait_s: float = 300.0,
        observer: Observer = nobody,
    ) -> None:
        self._after = after
        self._first_s = first_s
        self._longest_s = longest_s
        self._max_wait_s = max_wait_s
        self._observer = observer
        self._row = 0
        self._open = 0
        self._failing: set[object] = set()
        self._asked_ours = False
        self._era = 0
        self._cleared: frozenset[object] = frozenset()
        self._refused: set[object] = set()
        self._since: float | None = None
        self._wait_s = first_s
        self._last: BackendError | None = None
        self._probe = asyncio.Lock()

    @property
    def away(self) -> bool:
        """Whether the server counts as gone."""
        return self._since is not None

    @property
    def era(self) -> int:
        """How often a question of our own has failed as well: each time it was certain that the server was away."""
        return self._era

    @contextmanager
    def question(self) -> Iterator[None]:
        """While this is open there is one more question that wants an answer: only so many can be found failing."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Wait until it makes sense to send: at once while all is well, one request at a time while it is not.

        Yields:
            Whether a question of our own is to be sent first, because those of the run may be what fails.

        Raises:
            ServerAway: the server has been away for too long.
        """
        if self._since is None:
            yield False
            return
        async with self._probe:
            # The request that held the lock before may have found the server back.
            if self.away:
                await self._pause(self._since)
                yield self._in_doubt()
                return
        yield False

    def _in_doubt(self) -> bool:
        # Silence until our own deadline may be slowness as well: then there is no waiting for more of it.
        lasting = self._row >= _DOUBT_AFTER or isinstance(self._last, NothingInTime)
        self._asked_ours = self._row > 0 and lasting and not self._asked_ours
        return self._asked_ours

    async def _pause(self, since: float) -> None:
        left = since + self._max_wait_s - asyncio.get_running_loop().time()
        if left <= 0:
            raise self._given_up()
        asked = self._last.retry_after_s if self._last else None
        wait = min(max(self._wait_s, asked or 0.0), left)
        self._wait_s = min(self._wait_s * 1.5, self._longest_s)
        self._observer(Paused(f"{self._reason()}; waiting for it to come back", wait))
        await asyncio.sleep(wait)

    def _reason(self) -> str:
        return self._last.message if self._last else "the model server is away"

    def _given_up(self) -> ServerAway:
        return ServerAway(
            f"the model server has been away for {self._max_wait_s:.0f} s: {self._reason()}",
            status=self._last.status if self._last else None,
            hint="start it and run the same command again: finished items are kept (--max-wait waits longer)",
        )

    def answered(self) -> None:
        """The server has answered a request, if only with a word about that request."""
        if self._row or self._refused or self._since is not None:
            self._row = 0
            self._failing.clear()
            self._asked_ours = False
            self._refused.clear()
            self._cleared = frozenset()
            self._since = None
            self._wait_s = self._first_s

    def failed(self, error: BackendError, *, question: object | None = None, alone: object | None = None) -> bool:
        """A request failed.

        Args:
            error: how.
            question: tells the question behind it from others; `None` for one that stands for itself.
            alone: it was the only request in flight, and could not be refused for being one too many: then what tells
                the question behind it from others. One question that is refused again and again proves nothing.

        Returns:
            Whether it was the server's absence, so that the request itself is not to blame.

        Raises:
            ServerAway: the server asks, again and again, to be left alone for longer than anybody will wait.
        """
        asked_s = error.retry_after_s or 0.0
        if isinstance(error, RateLimited) and asked_s > self._max_wait_s:
            self._row += 1
            if self._row >= self._after:
                raise ServerAway(
                    f"{error.message}; it asks to be left alone for {asked_s:.0f} s",
                    status=error.status,
                    retry_after_s=asked_s,
                    hint="run the same command again then: finished items are kept (--max-wait waits longer)",
                ) from error
            return False
        if _looks_away(error):
            self._last = error
            self._row += 1
            if self._since is None:
                self._failing.add(object() if question is None else question)
        elif isinstance(error, RateLimited):
            self._last = error
            self._refused |= set() if alone is None else {alone}
        elif error.status is not None:
            # Whatever it said, it is there.
            self.answered()
        if self._since is None and (self._all_fail() or len(self._refused) >= self._after):
            self._since = asyncio.get_running_loop().time()
        return self._since is not None

    def _all_fail(self) -> bool:
        """Whether enough failures in a row are those of different questions, as far as there are so many.

        Those that failed while the server was there prove nothing without another one.
        """
        if self._failing <= self._cleared:
            return False
        return self._row >= self._after and len(self._failing) >= min(self._after, self._open)

    def ours_failed(self, error: BackendError) -> None:
        """The question of our own failed."""
        if _looks_away(error):
            self._last = error
            self._era += 1
        else:
            self.ours_answered()

    def ours_answered(self) -> None:
        """The question of our own got through: the server is there, whatever else fails."""
        failing = frozenset(self._failing)
        self.answered()
        self._cleared = failing


def _looks_away(error: BackendError) -> bool:
    if error.status is not None:
        return error.status in _AWAY_STATUS
    return isinstance(error, BackendUnavailable)


class BreakerState(Enum):
    """How an endpoint stands."""

    SERVING = "serving"
    """It takes whatever it has room for."""
    ASIDE = "set aside"
    """It takes nothing; it is asked now and then whether it is back."""
    TRIAL = "on trial"
    """It is back, and takes one request at a time until one is answered."""
    GONE = "left out"
    """It takes nothing more in this run: what is wrong with it does not pass."""


class CircuitBreaker:
    """Sets an endpoint aside when it fails, and lets it back.

    Args:
        after: failures in a row that set a serving endpoint aside; on trial a single one does.
        first_s: seconds until it is first asked whether it is back.
        longest_s: the longest time between two such questions, in seconds.
    """

    def __init__(self, *, after: int = 3, first_s: float = 0.5, longest_s: float = 30.0) -> None:
        self.standing = BreakerState.SERVING
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
        return self.standing in (BreakerState.ASIDE, BreakerState.GONE)

    def answered(self) -> None:
        """A request of the run was answered, if only with a word about that request."""
        self._row = 0
        if self.standing is BreakerState.TRIAL:
            self.standing = BreakerState.SERVING
            self._wait_s = self._first_s
        elif self.standing is BreakerState.ASIDE:
            # One that was under way when the others failed: it shows as much as a probe does.
            self.standing = BreakerState.TRIAL

    def failed(self, now: float) -> bool:
        """A request of the run failed, and the endpoint may be to blame.

        Returns:
            Whether the endpoint is out of service, so that the request is not to blame.
        """
        self._row += 1
        if not self.open and (self.standing is BreakerState.TRIAL or self._row >= self._after):
            self.set_aside(now)
        return self.open

    def set_aside(self, now: float) -> None:
        """Send nothing more until a probe gets through; each time in a row the next one comes later."""
        self.standing = BreakerState.ASIDE
        self._row = 0
        self.probe_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, self._longest_s)

    def probed(self) -> None:
        """The endpoint has answered a question of our own."""
        if self.standing is BreakerState.ASIDE:
            self.standing = BreakerState.TRIAL

    def leave_out(self) -> None:
        """Send nothing more at all."""
        self.standing = BreakerState.GONE
