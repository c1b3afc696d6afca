"""Load balancer: assigns each request to the endpoint with the least expected work."""

from __future__ import annotations

import asyncio
import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mellea_cli.engine.circuit_breaker import BreakerState
from mellea_cli.engine.endpoint import Endpoint
from mellea_cli.errors import BackendError, BackendUnavailable, Scope
from mellea_cli.events import Observer, Paused, nobody

MUCH_SLOWER = 2.0
"""An endpoint is spared, or relieved of a request, only when it is slower than others by more than this factor."""


class ServerAway(BackendUnavailable):
    """No endpoint has answered for longer than the user waits."""

    kind = "server-away"
    scope = Scope.RUN


class NoEndpointLeft(BackendError):
    """Every endpoint of the pool is disabled: wrong keys, missing models, wrong addresses."""

    kind = "no-endpoint-left"
    scope = Scope.RUN


class EndpointRefuses(BackendError):
    """The endpoint refuses every request, a probe too, with an error that could have been about one request."""

    kind = "endpoint-refuses"
    scope = Scope.RUN


@dataclass(eq=False)
class _Waiting:
    """A request that waits for an endpoint."""

    avoid: dict[Endpoint, float]
    turn: asyncio.Future[Endpoint] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class LoadBalancer:
    """Gives each request an endpoint as late as possible.

    No request is queued at an endpoint: it waits here until one has room, so a slow endpoint holds up only what it
    works on. While there is a choice, the endpoint with the least expected work gets the request: requests in flight
    over weight and limit, times the mean latency. That is "least outstanding requests" weighted by latency, as in
    Finagle's Peak EWMA balancer. Balancers that see only a part of the load look at two endpoints drawn at random
    (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001); this one sees all of it.

    Near the end of the run (`remaining`) an endpoint is spared that would need longer for one answer than the faster
    ones need for all the rest, because the run would end with waiting for it.

    Args:
        endpoints: at least one.
        limit: highest number of requests in flight over all endpoints; `None` sets no limit but each one's own.
        max_wait_s: how long to wait while no endpoint is available, in seconds; then every request fails.
        observer: receives an event when all requests wait.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        limit: int | None = None,
        max_wait_s: float = 300.0,
        observer: Observer = nobody,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.remaining: Callable[[], int | None] = lambda: None
        """Requests that are still to come, or `None` while that is unknown."""
        self.peak = 0  # Most requests that were in flight at once
        self._most = math.inf if limit is None else limit
        # What counts: nothing while the user has paused the run, so the path of a request has no check of its own.
        self._limit = self._most
        self.resumed = asyncio.Event()  # Set unless the user has paused the run
        self.resumed.set()
        self._max_wait_s = max_wait_s
        self._observer = observer
        self._waiting: deque[_Waiting] = deque()
        # Those that avoid an endpoint: few, while a session may have thousands of waiting requests.
        self._avoiding: set[_Waiting] = set()
        self._in_flight = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._unavailable_since: float | None = None
        self._told_until = -math.inf

    async def acquire(self, avoid: dict[Endpoint, float], *, first: bool = False) -> Endpoint:
        """Wait for an endpoint with room and take it; `release` gives it back.

        Args:
            avoid: endpoints that the request must not go to before a time.
            first: whether the request goes before those that were never sent.

        Raises:
            ServerAway: no endpoint has been available for too long.
            NoEndpointLeft: every endpoint is disabled.
        """
        if not self._waiting and (endpoint := self._take_best(avoid, asyncio.get_running_loop().time())) is not None:
            return endpoint
        waiting = _Waiting(avoid)
        if avoid:
            self._avoiding.add(waiting)
        if first:
            self._waiting.appendleft(waiting)
        else:
            self._waiting.append(waiting)
        self.assign()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.exception() is None:
                # The endpoint came at the moment of the cancellation: another request gets it.
                self.release(waiting.turn.result(), answered=False)
            raise
        finally:
            self._avoiding.discard(waiting)

    def release(self, endpoint: Endpoint, *, answered: bool) -> None:
        """Give an endpoint's place back once its request is over.

        Args:
            endpoint: the endpoint that `acquire` returned.
            answered: whether the server gave an answer, so that the time without an available endpoint starts again.
        """
        endpoint.in_flight -= 1
        self._in_flight -= 1
        if answered:
            self._unavailable_since = None
        if self._waiting:
            self.assign()

    @property
    def paused(self) -> bool:
        """Whether the user has paused the run."""
        return not self.resumed.is_set()

    @property
    def limit(self) -> float:
        """Highest number of requests in flight over all endpoints, paused or not."""
        return self._most

    def pause(self) -> None:
        """Assign no endpoint until `resume`; requests in flight go on. No endpoint is blamed for the wait."""
        self.resumed.clear()
        self._limit = 0
        self._set_timer(math.inf)

    def resume(self) -> None:
        """Assign endpoints again."""
        self.resumed.set()
        self._limit = self._most
        self._unavailable_since = None
        self.assign()

    def set_limit(self, limit: int) -> None:
        """Change the highest number of requests in flight over all endpoints."""
        self._most = limit
        if not self.paused:
            self._limit = limit
            self.assign()

    def probe_succeeded(self) -> None:
        """Start the time without an available endpoint again, and assign waiting requests."""
        self._unavailable_since = None
        self.assign()

    def assign(self) -> None:
        """Assign endpoints to waiting requests; call it whenever an endpoint's state has changed."""
        if not self._waiting:
            self._set_timer(math.inf)
            return
        now = asyncio.get_running_loop().time()
        passed: list[_Waiting] = []
        while self._waiting and self._in_flight < self._limit and any(one.has_room(now) for one in self.endpoints):
            waiting = self._waiting.popleft()
            if waiting.turn.done():
                continue
            endpoint = self._take_best(waiting.avoid, now)
            if endpoint is None:
                passed.append(waiting)
            else:
                waiting.turn.set_result(endpoint)
        self._waiting.extendleft(reversed(passed))
        if self._waiting:
            self._wait_on(now)

    def disabled(self) -> None:
        """Assign again after an endpoint was disabled: a request may now go to one that it was to avoid for good."""
        enabled = self._enabled()
        for waiting in self._avoiding:
            if all(waiting.avoid.get(endpoint, 0.0) == math.inf for endpoint in enabled):
                waiting.avoid.clear()
        self.assign()

    def idle(self) -> list[Endpoint]:
        """Endpoints with room while no request waits."""
        now = asyncio.get_running_loop().time()
        return [] if self._waiting else [endpoint for endpoint in self.endpoints if endpoint.has_room(now)]

    def free_elsewhere(self, endpoint: Endpoint) -> bool:
        """Whether another endpoint has room now."""
        now = asyncio.get_running_loop().time()
        return any(other.has_room(now) for other in self.endpoints if other is not endpoint)

    def _enabled(self) -> list[Endpoint]:
        return [one for one in self.endpoints if one.breaker.state is not BreakerState.DISABLED]

    def _take_best(self, avoid: Mapping[Endpoint, float], now: float) -> Endpoint | None:
        if self._in_flight >= self._limit:
            return None
        free = [one for one in self.endpoints if one.has_room(now) and avoid.get(one, now) <= now]
        if len(self.endpoints) > 1:
            free = self._worthwhile(free, now)
            # An endpoint without a latency counts as fast as the fastest: it is tried, but not flooded.
            latencies = {one: one.latency_s(now) for one in free}
            fastest = min((latency for latency in latencies.values() if latency is not None), default=1.0)
            free.sort(
                key=lambda one: (latencies[one] or fastest) * (one.in_flight + 1) / (one.config.weight * one.limit)
            )
        if not free:
            return None
        free[0].in_flight += 1
        self._in_flight += 1
        self.peak = max(self.peak, self._in_flight)
        return free[0]

    def _worthwhile(self, free: list[Endpoint], now: float) -> list[Endpoint]:
        """Those of `free` that do not make the run wait for them at its end."""
        remaining = self.remaining()
        if remaining is None:
            return free
        latencies = {one: s for one in self.endpoints if one.limit and (s := one.latency_s(now)) is not None}
        return [one for one in free if one not in latencies or not self._too_late(one, latencies, remaining, now)]

    def _too_late(self, endpoint: Endpoint, latencies: Mapping[Endpoint, float], remaining: int, now: float) -> bool:
        faster = [
            other
            for other, latency in latencies.items()
            if latency * MUCH_SLOWER < latencies[endpoint] and other.rests_until <= now
        ]
        if not faster:
            return False
        per_second = sum(other.limit / latencies[other] for other in faster)
        ahead = remaining + len(self._waiting) + 1
        return ahead / per_second + max(latencies[other] for other in faster) < latencies[endpoint]

    def _wait_on(self, now: float) -> None:
        """Set the timer for waiting requests, or end them when waiting makes no sense."""
        if self.paused:
            return
        enabled = self._enabled()
        if not enabled:
            self._fail(self.none_left)
            return
        times = [one.rests_until for one in enabled if not one.breaker.blocks]
        if any(time - now <= self._max_wait_s for time in times):
            if min(times) > now:
                self._tell("; ".join(dict.fromkeys(one.rest_reason for one in enabled)), min(times), now)
            self._set_timer(self._next_time(now, times))
            return
        # An endpoint that asks for a longer rest than the user waits is as good as unavailable.
        self._unavailable_since = now if self._unavailable_since is None else self._unavailable_since
        give_up = self._unavailable_since + self._max_wait_s
        probes = [one.breaker.probe_at for one in enabled if one.breaker.blocks]
        if now >= give_up or not probes:
            self._fail(self._away)
            return
        wait = f"waiting up to {self._max_wait_s:.0f} s for it to come back (--max-wait); Ctrl-C stops"
        self._tell(f"{_reasons(enabled)}; {wait}", max(now, min(probes)), now)
        self._set_timer(give_up)

    def _next_time(self, now: float, times: Iterable[float]) -> float:
        """When a waiting request may be sent without an answer coming in before."""
        later = [time for time in times if time > now]
        later += [time for waiting in self._avoiding for time in waiting.avoid.values() if now < time < math.inf]
        return min(later, default=math.inf)

    def _set_timer(self, when: float) -> None:
        if when == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._wake) if when < math.inf else None

    def _wake(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.assign()

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

    def _away(self) -> BackendError:
        enabled = self._enabled()
        fault = enabled[0].error if len(self.endpoints) == 1 else None
        if fault is not None and fault.scope is Scope.RUN:
            return copy.copy(fault)
        what = "the model server has" if len(self.endpoints) == 1 else "no endpoint of the pool has"
        return ServerAway(
            f"{what} {'not ' if len(self.endpoints) == 1 else ''}answered for {self._max_wait_s:.0f} s: "
            f"{_reasons(enabled)}",
            status=fault.status if fault is not None else None,
            hint="start it and run the same command again: finished items are kept (--max-wait waits longer)",
        )

    def none_left(self) -> BackendError:
        """The error of a pool of which no endpoint can be used; of a single endpoint its own error."""
        if len(self.endpoints) == 1 and self.endpoints[0].error is not None:
            return copy.copy(self.endpoints[0].error)
        hints = [one.error.hint for one in self.endpoints if one.error is not None and one.error.hint]
        return NoEndpointLeft(
            f"no endpoint of the pool can be used: {_reasons(self.endpoints)}", hint=hints[0] if hints else ""
        )


def _reasons(endpoints: Sequence[Endpoint]) -> str:
    errors = [(one.config.name, one.error.message) for one in endpoints if one.error is not None]
    if len(errors) == 1 and len(endpoints) == 1:
        return errors[0][1]
    return "; ".join(f"{name}: {message}" for name, message in errors) or "no answer"
