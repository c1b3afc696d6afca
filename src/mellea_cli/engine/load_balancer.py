"""Which endpoint of a pool a request goes to, and who waits while none has room."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mellea_cli.engine.circuit_breaker import BreakerState, ServerAway
from mellea_cli.engine.endpoint import Lane
from mellea_cli.errors import BackendError, Scope
from mellea_cli.events import Observer, Paused, nobody

MUCH_SLOWER = 2.0
"""An endpoint is spared, or relieved, only if it is slower than others by more than this factor."""


class NoEndpointLeft(BackendError):
    """Every endpoint of the pool is out for good: wrong keys, missing models, wrong addresses."""

    kind = "no-endpoint-left"
    scope = Scope.RUN


@dataclass(eq=False)
class _Waiting:
    """A request that waits for room somewhere."""

    shy: dict[Lane, float]
    turn: asyncio.Future[Lane] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class LoadBalancer:
    """Gives each request the endpoint with the most free capacity, as late as possible.

    Nothing is queued at an endpoint: a request waits here until one has room, so a slow one holds up only what it works
    on. While there is a choice, the one with the least expected work is taken: requests under way, over weight and
    places, times the mean time of its answers. That is "least outstanding requests" weighted by latency, as Finagle's
    Peak EWMA balancer has it. Balancers that see only a part of the load, or have thousands of endpoints, look at two
    drawn by chance (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001); this one knows all
    there is to know about a few, and looks at each.

    When `left` tells that the end is near, an endpoint that would need longer for one answer than the faster ones for
    everything that is left is spared, as otherwise the run would end with waiting for it.

    Args:
        lanes: the endpoints.
        most: requests under way at most, over all of them; `None` leaves that to each one's own limit.
        max_wait_s: how long to wait while none is there, in seconds; then every request fails with `ServerAway`.
        observer: hears when everything waits.
    """

    def __init__(
        self, lanes: Sequence[Lane], *, most: int | None = None, max_wait_s: float = 300.0, observer: Observer = nobody
    ) -> None:
        self.lanes = tuple(lanes)
        self.left: Callable[[], int | None] = lambda: None
        """Requests that have not been asked for yet, or `None` while nobody knows."""
        self.peak = 0
        """The most requests that were under way at once."""
        self._most = math.inf if most is None else most
        self._max_wait_s = max_wait_s
        self._observer = observer
        self._waiting: deque[_Waiting] = deque()
        self._load = 0
        self._timer: asyncio.TimerHandle | None = None
        self._none_since: float | None = None
        self._told_until = -math.inf

    async def place(self, shy: dict[Lane, float], *, again: bool = False) -> Lane:
        """Wait for room, and take it; `leave` gives it back.

        Args:
            shy: endpoints that the request must not go to before a time; it may change while the request waits.
            again: the request was sent before, and goes before those that were not.

        Raises:
            ServerAway: no endpoint has been there for too long.
            NoEndpointLeft: none will be there any more.
        """
        if not self._waiting and (lane := self._best(shy, _now())) is not None:
            return self._take(lane)
        waiting = _Waiting(shy)
        if again:
            self._waiting.appendleft(waiting)
        else:
            self._waiting.append(waiting)
        self.look()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.exception() is None:
                # The room came at the same moment: somebody else shall have it.
                self.leave(waiting.turn.result())
            raise

    def leave(self, lane: Lane) -> None:
        """The request that was given this endpoint is over, however it ended."""
        lane.load -= 1
        self._load -= 1
        self.look()

    def answered(self) -> None:
        """A request of the run was answered: the pool as a whole is there."""
        self._none_since = None

    def look(self) -> None:
        """Give room to whoever waits; call it whenever an endpoint's standing has changed."""
        if not self._waiting:
            self._set_timer(math.inf)
            return
        now = _now()
        passed: list[_Waiting] = []
        while self._waiting and self._load < self._most and any(lane.has_room(now) for lane in self.lanes):
            waiting = self._waiting.popleft()
            if waiting.turn.done():
                continue
            lane = self._best(waiting.shy, now)
            if lane is None:
                passed.append(waiting)
            else:
                waiting.turn.set_result(self._take(lane))
        self._waiting.extendleft(reversed(passed))
        if self._waiting:
            self._wait_on(now)

    def lost(self) -> None:
        """An endpoint is out for good: who would not go to those that are left goes there all the same."""
        alive = self._alive()
        for waiting in self._waiting:
            if all(waiting.shy.get(lane, 0.0) == math.inf for lane in alive):
                waiting.shy.clear()
        self.look()

    def _alive(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.breaker.standing is not BreakerState.GONE]

    def idle(self) -> list[Lane]:
        """Endpoints that have room while nobody waits for any."""
        now = _now()
        return [] if self._waiting else [lane for lane in self.lanes if lane.has_room(now)]

    def free_elsewhere(self, lane: Lane) -> bool:
        """Whether another endpoint has room right now."""
        now = _now()
        return any(other.has_room(now) for other in self.lanes if other is not lane)

    def _take(self, lane: Lane) -> Lane:
        lane.load += 1
        self._load += 1
        self.peak = max(self.peak, self._load)
        return lane

    def _best(self, shy: Mapping[Lane, float], now: float) -> Lane | None:
        if self._load >= self._most:
            return None
        free = [lane for lane in self.lanes if lane.has_room(now) and shy.get(lane, now) <= now]
        free = self._worthwhile(free, now)
        # What is not measured counts as being as fast as the fastest: it is tried, but not flooded.
        known = [pace for lane in free if (pace := lane.pace_s(now)) is not None]
        fastest = min(known, default=1.0)
        return min(free, key=lambda lane: _work(lane, lane.pace_s(now) or fastest), default=None)

    def _worthwhile(self, free: list[Lane], now: float) -> list[Lane]:
        """Those of `free` that do not make the run wait for them at its end."""
        left = self.left()
        if left is None:
            return free
        paces = {lane: pace for lane in self.lanes if lane.places and (pace := lane.pace_s(now)) is not None}
        return [lane for lane in free if lane not in paces or not self._too_late(lane, paces, left, now)]

    def _too_late(self, lane: Lane, paces: Mapping[Lane, float], left: int, now: float) -> bool:
        faster = [
            other
            for other, pace in paces.items()
            if pace * MUCH_SLOWER < paces[lane] and other.rests_until <= now and not other.breaker.open
        ]
        if not faster:
            return False
        a_second = sum(other.places / paces[other] for other in faster)
        ahead = left + len(self._waiting) + 1
        return ahead / a_second + max(paces[other] for other in faster) < paces[lane]

    def _wait_on(self, now: float) -> None:
        """Nobody who waits can be sent now: see to it that this is looked at again, or end it."""
        alive = self._alive()
        if not alive:
            self._fail(lambda: no_endpoint_left(self.lanes))
            return
        serving = [lane for lane in alive if not lane.breaker.open]
        times = [lane.rests_until for lane in serving]
        near = [time for time in times if time - now <= self._max_wait_s]
        if near:
            wake = self._next_time(now, times)
            if min(times) > now:
                self._tell("every endpoint asks to be left alone", min(times), now)
        else:
            # Those that ask for a longer rest than anybody will wait are as good as away.
            self._none_since = now if self._none_since is None else self._none_since
            give_up = self._none_since + self._max_wait_s
            aside = [lane.breaker.probe_at for lane in alive if lane.breaker.open]
            if now >= give_up or not aside:
                self._fail(lambda: self._away(alive))
                return
            wake = give_up
            self._tell(f"no endpoint is there: {_reasons(alive)}", max(now, min(aside)), now)
        self._set_timer(wake)

    def _next_time(self, now: float, times: Iterable[float]) -> float:
        """When somebody who waits may be sent without any answer coming in before that."""
        later = [time for time in times if time > now]
        later += [time for waiting in self._waiting for time in waiting.shy.values() if now < time < math.inf]
        return min(later, default=math.inf)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() == when and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if when < math.inf:
            self._timer = asyncio.get_running_loop().call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.look()

    def _tell(self, reason: str, until: float, now: float) -> None:
        if until > self._told_until + 0.05:
            self._told_until = until
            self._observer(Paused(reason, until - now))

    def _fail(self, error: Callable[[], BackendError]) -> None:
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.turn.done():
                one.turn.set_exception(error())
        self._set_timer(math.inf)

    def _away(self, alive: Sequence[Lane]) -> ServerAway:
        return ServerAway(
            f"no endpoint of the pool has been there for {self._max_wait_s:.0f} s: {_reasons(alive)}",
            hint="start one and run the same command again: finished items are kept (--max-wait waits longer)",
        )


def no_endpoint_left(lanes: Sequence[Lane]) -> NoEndpointLeft:
    """The error of a pool of which no endpoint can be used."""
    hints = [lane.error.hint for lane in lanes if lane.error is not None and lane.error.hint]
    return NoEndpointLeft(f"no endpoint of the pool can be used: {_reasons(lanes)}", hint=hints[0] if hints else "")


def _work(lane: Lane, pace_s: float) -> float:
    """The work that stands before one more request, relative to what the endpoint takes."""
    return pace_s * (lane.load + 1) / (lane.endpoint.weight * lane.places)


def _reasons(lanes: Sequence[Lane]) -> str:
    told = (f"{lane.endpoint.name}: {lane.error.message}" for lane in lanes if lane.error is not None)
    return "; ".join(told) or "no answer"


def _now() -> float:
    return asyncio.get_running_loop().time()
