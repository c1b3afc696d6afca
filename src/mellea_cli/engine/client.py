"""Model client: sends requests to one endpoint or several, within limits, and again after a fault that may pass."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from mellea_cli.engine.circuit_breaker import BreakerState, CircuitBreaker
from mellea_cli.engine.concurrency import WorkerSlots
from mellea_cli.engine.endpoint import Endpoint, EndpointConfig, EndpointFigures, LimitRaised, TooSlow
from mellea_cli.engine.generate import UNOBSERVED, CallObserver, Deadlines
from mellea_cli.engine.load_balancer import MUCH_SLOWER, EndpointRefuses, LoadBalancer, ServerAway
from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.engine.retry import RetryBudget, RetryPolicy
from mellea_cli.errors import (
    AnswerError,
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    RateLimited,
    RequestRefused,
    Scope,
)
from mellea_cli.events import Note, Observer, nobody
from mellea_cli.messages import Completion, GenerateRequest, Usage

# While others can take a request over, an endpoint gets this many times its usual latency, and at least this long.
_USUAL_LATENCIES = 10.0
_LEAST_TIMEOUT_S = 20.0
# How often slow endpoints are looked at for requests to move, in seconds.
_LOOK_S = 1.0
# A rest of one endpoint of a pool is worth a note from this long on, in seconds.
_WORTH_A_NOTE_S = 30.0
# Answers in a row that ask for a longer wait than the user's before the server counts as unavailable.
_MOST_LONG_RESTS = 4
# Probes in a row that an endpoint may refuse after it has answered, before it is disabled. Each comes after twice the
# wait, so they take half a minute: a gateway that is being replaced is back by then, a revoked key is not.
_MOST_REFUSED_PROBES = 6


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits over all endpoints.

    Args:
        concurrency: highest number of requests in flight; `None` sets no limit but each endpoint's own.
        rate_limiter: spreads the starts of all requests; `None` does not.
        max_wait_s: how long to wait while no endpoint is available, in seconds.
    """

    concurrency: int | None = None
    rate_limiter: RateLimiter | None = None
    max_wait_s: float = 300.0


class _Blocked(BackendUnavailable):
    """The endpoint's breaker opened before the request was sent: it goes elsewhere at no charge."""


class ModelClient:
    """Sends requests to the endpoints that serve one model; a single server is a pool of one.

    A request waits for an endpoint with room and for the rate limit, is streamed, and is sent again within its
    `RetryBudget` when the transport is at fault. A broken stream is discarded whole. Bad answers are judged elsewhere,
    in `mellea_cli.engine.attempts`.

    An endpoint that keeps failing is probed at growing intervals by `maintain`, which must run for that. One with a
    fault that does not pass, such as a wrong key, is disabled. While no endpoint is available, requests wait at no
    charge.

    Args:
        endpoints: at least one.
        policy: how often and how soon a request is sent again.
        deadlines: time limits of one call.
        limits: what holds for all endpoints together.
        breaker: makes an endpoint's circuit breaker.
        observer: receives pauses and notes about endpoints.
        jitter: source of numbers from 0 up to 1.
    """

    def __init__(
        self,
        endpoints: Sequence[EndpointConfig],
        *,
        policy: RetryPolicy | None = None,
        deadlines: Deadlines | None = None,
        limits: ClientLimits | None = None,
        breaker: Callable[[], CircuitBreaker] = CircuitBreaker,
        observer: Observer = nobody,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.deadlines = deadlines or Deadlines()
        self.retries = 0  # Requests that were sent again, over the client's life
        self.endpoints = tuple(Endpoint(config, breaker()) for config in endpoints)
        limits = limits or ClientLimits()
        self.balancer = LoadBalancer(
            self.endpoints, limit=limits.concurrency, max_wait_s=limits.max_wait_s, observer=observer
        )
        adaptive = any(one.limiter.adaptive is not None or one.limiter.first_alone for one in self.endpoints)
        self.slots = WorkerSlots(self._allowed()) if adaptive else None
        """Which workers may take items, where the number of requests in flight is searched for."""
        self._rate_limiter = limits.rate_limiter
        self._max_wait_s = limits.max_wait_s
        self._observer = observer
        self._jitter = jitter
        self._opened = {endpoint: asyncio.Event() for endpoint in self.endpoints}
        self._told = {endpoint: endpoint.breaker.state for endpoint in self.endpoints}
        self._confirming = asyncio.Lock()
        self._starting = asyncio.Lock()

    def with_deadlines(self, deadlines: Deadlines) -> Self:
        """A client with other time limits that shares endpoints and limits with this one."""
        other = copy.copy(self)
        other.deadlines = deadlines
        return other

    @property
    def probe_usage(self) -> Usage:
        """Tokens of probes."""
        return sum((endpoint.probe_usage for endpoint in self.endpoints), Usage())

    @property
    def peak(self) -> int:
        """Most requests that were in flight at once."""
        return self.balancer.peak

    @property
    def concurrency(self) -> int:
        """Requests in flight that are allowed, or were found to be the best."""
        limiters = [endpoint.limiter for endpoint in self.endpoints]
        return sum(one.adaptive.best if one.adaptive is not None else one.concurrency for one in limiters)

    def figures(self) -> tuple[EndpointFigures, ...]:
        """Figures of each endpoint so far."""
        answers = sum(endpoint.answered for endpoint in self.endpoints)
        return tuple(endpoint.figures(answers) for endpoint in self.endpoints)

    def pause(self) -> None:
        """Start no request until `resume`; those in flight go on."""
        self.balancer.pause()

    def resume(self) -> None:
        """Start requests again after `pause`."""
        now = asyncio.get_running_loop().time()
        for endpoint in self.endpoints:
            if endpoint.limiter.adaptive is not None:
                endpoint.limiter.adaptive.interrupted(now)
        self.balancer.resume()

    def set_concurrency(self, concurrency: int) -> None:
        """Change the number of requests in flight that are allowed; of several endpoints each keeps its own limit."""
        if len(self.endpoints) == 1:
            self.endpoints[0].limiter.fix(concurrency)
        self.balancer.set_limit(concurrency)
        if self.slots is not None:
            self.slots.set_limit(self._allowed())

    def set_rpm(self, rpm: float | None) -> None:
        """Change the number of requests a minute that are allowed; `None` sets no limit."""
        if self._rate_limiter is None:
            self._rate_limiter = RateLimiter(rpm) if rpm else None
        else:
            self._rate_limiter.set_rpm(rpm)

    @property
    def rpm(self) -> float | None:
        """Requests a minute that are allowed; `None` for no limit."""
        return self._rate_limiter.rpm if self._rate_limiter is not None else None

    async def send(
        self, request: GenerateRequest, observer: CallObserver = UNOBSERVED, budget: RetryBudget | None = None
    ) -> Completion:
        """Send `request` until it succeeds.

        Args:
            request: what to send.
            observer: follows the call.
            budget: what the question has used up; it is counted on. `None` for a question of its own.

        Returns:
            The completion; its `attempts` says how often the request was sent.

        Raises:
            BackendError: sending it again cannot help, or the budget is spent; `attempts` says how often it was sent.
            RunawayAnswer: the answer had to be stopped.
        """
        budget = budget or RetryBudget()
        sent_before = budget.sent
        began = asyncio.get_running_loop().time()
        avoid: dict[Endpoint, float] = {}
        moved = False
        wasted = Usage()
        while True:
            try:
                endpoint = await self.balancer.acquire(avoid, first=budget.sent > sent_before)
            except BackendError as error:
                error.attempts = budget.sent - sent_before
                raise
            budget.sent += 1
            try:
                completion = await self._send_once(endpoint, request, observer, avoid, movable=not moved)
            except _Blocked:
                budget.sent -= 1
            except LimitRaised as error:
                wasted += error.usage
                if not observer.resend():
                    raise
                observer.failed(error.kind, error.message)
                observer.reprompt(budget.sent + 1)
            except BackendError as error:
                error.attempts = budget.sent - sent_before
                # A request moves once only: one that takes long everywhere must not move for ever.
                moved = moved or isinstance(error, TooSlow)
                delay = await self._delay_s(error, endpoint, budget, began, avoid)
                if not observer.resend():
                    raise
                observer.failed(error.kind, error.message)
                if delay is None:
                    if not await self._is_outage(endpoint, error, budget):
                        raise _of_row(error) if endpoint.may_pass(error) else error from None
                    delay = 0.0
                avoid[endpoint] = max(avoid.get(endpoint, -math.inf), asyncio.get_running_loop().time() + delay)
                self.retries += 1
                observer.retry(0.0 if self.balancer.free_elsewhere(endpoint) else delay, budget.sent + 1)
            else:
                sent = budget.sent - sent_before
                if sent == 1:
                    return completion
                return dataclasses.replace(completion, attempts=sent, usage=completion.usage + wasted)

    async def _send_once(
        self,
        endpoint: Endpoint,
        request: GenerateRequest,
        observer: CallObserver,
        avoid: dict[Endpoint, float],
        *,
        movable: bool,
    ) -> Completion:
        """Send `request` to `endpoint` once and give its place back."""
        limiter = self._rate_limiter
        expected = 0.0
        allowed = endpoint.limiter.allowed
        answered = False
        try:
            if limiter is not None:
                expected = limiter.expected_tokens(sum(len(message.content) for message in request.messages))
                await self._until_allowed(limiter, expected, endpoint)
            if endpoint.limiter.first_alone:
                self._open_up_later(endpoint)
            several = len(self.endpoints) > 1
            deadlines = self._deadlines_at(endpoint) if several else self.deadlines
            completion = await endpoint.send(request, observer, deadlines, movable=several and movable)
        except AnswerError:
            answered = True
            raise
        except BackendError as error:
            answered = error.scope is Scope.ITEM
            # Before the place is given to another request, which would run into the same refusal.
            self._after_failure(endpoint, error, avoid)
            raise
        else:
            if limiter is not None:
                limiter.settle(expected, completion.usage)
            if (rest := endpoint.asked_wait_s(self.policy.retry_after_cap_s)) > 0:
                self._rest(endpoint, rest, "the model server's headers say that its limit is reached")
            answered = True
            return completion
        finally:
            if endpoint.limiter.first_alone:
                endpoint.limiter.open_up()
            if endpoint.breaker.state is not self._told[endpoint]:
                self._tell(endpoint)
            if self.slots is not None and endpoint.limiter.allowed != allowed:
                self.slots.set_limit(self._allowed())
            self.balancer.release(endpoint, answered=answered)

    async def _until_allowed(self, limiter: RateLimiter, tokens: float, endpoint: Endpoint) -> None:
        """Wait until the rate limit allows a request, and start it.

        Raises:
            _Blocked: the endpoint became unavailable or asked for a rest, or the run was paused, meanwhile.
        """
        clock = asyncio.get_running_loop().time
        async with self._starting:
            # Another request's usage may move the time meanwhile, so it is read again.
            while (wait := limiter.wait_s(clock())) > 0:  # noqa: ASYNC110 - it sleeps until a time, it does not poll
                await asyncio.sleep(wait)
            if endpoint.breaker.blocks or endpoint.rests_until > clock() or self.balancer.paused:
                raise _Blocked(f"{endpoint.config.name} became unavailable")
            limiter.start(clock(), tokens)

    def _open_up_later(self, endpoint: Endpoint) -> None:
        def open_up() -> None:
            if endpoint.limiter.first_alone:
                endpoint.limiter.open_up()
                if self.slots is not None:
                    self.slots.set_limit(self._allowed())
                self.balancer.assign()

        asyncio.get_running_loop().call_later(endpoint.config.first_alone_s, open_up)

    def _allowed(self) -> int:
        return sum(endpoint.limiter.allowed for endpoint in self.endpoints)

    def _deadlines_at(self, endpoint: Endpoint) -> Deadlines:
        """Shorter time limits where an endpoint falls silent and others could answer instead."""
        usual = endpoint.latency_s(asyncio.get_running_loop().time())
        if usual is None or not any(other.limit for other in self.endpoints if other is not endpoint):
            return self.deadlines
        timeout = max(_LEAST_TIMEOUT_S, _USUAL_LATENCIES * usual)
        first = self.deadlines.first()
        if first is not None and first <= timeout:
            return self.deadlines
        return dataclasses.replace(self.deadlines, first_token_s=timeout)

    def _after_failure(self, endpoint: Endpoint, error: BackendError, avoid: dict[Endpoint, float]) -> None:
        """Let the endpoint rest if it asks for that, and keep requests away that it cannot take."""
        if isinstance(error, RateLimited):
            asked = error.retry_after_s or 0.0
            if asked > self._max_wait_s and len(self.endpoints) == 1:
                self._count_long_rest(endpoint, error, asked)
            else:
                alone = endpoint.in_flight == 1
                self._rest(endpoint, asked or (self._jitter() * self.policy.base_s if alone else 0.0), error.message)
        elif isinstance(error, TooSlow):
            avoid[endpoint] = asyncio.get_running_loop().time() + _LEAST_TIMEOUT_S
        elif isinstance(error, ContextTooLong):
            # Another endpoint's context window may be larger: each is asked once.
            avoid[endpoint] = math.inf

    def _count_long_rest(self, endpoint: Endpoint, error: BackendError, asked_s: float) -> None:
        """Stop using a server that asks again and again to wait for longer than the user does.

        One such answer proves nothing: some gateways give it to a single row.
        """
        endpoint.long_rests += 1
        if endpoint.long_rests >= _MOST_LONG_RESTS:
            endpoint.error = ServerAway(
                f"{error.message}; it asks to wait {asked_s:.0f} s",
                status=error.status,
                retry_after_s=asked_s,
                hint="run the same command again then: finished items are kept (--max-wait waits longer)",
            )
            endpoint.breaker.disable()

    async def _delay_s(
        self, error: BackendError, endpoint: Endpoint, budget: RetryBudget, began: float, avoid: dict[Endpoint, float]
    ) -> float | None:
        """Charge the failure.

        Returns:
            Seconds until the request may go to `endpoint` again; `None` when the budget is spent.

        Raises:
            BackendError: sending the request again cannot help.
        """
        if isinstance(error, ContextTooLong):
            enabled = [one for one in self.endpoints if one.breaker.state is not BreakerState.DISABLED]
            if all(avoid.get(one, 0.0) == math.inf for one in enabled):
                raise error
            return 0.0
        rate_limited, refused = isinstance(error, RateLimited), False
        if type(error) is RequestRefused and error.status == 400 and endpoint.breaker.threshold:
            await self._confirm(endpoint, error)
            refused = True
        elif endpoint.may_pass(error):
            refused = True
        elif error.scope is Scope.RUN and len(self.endpoints) > 1:
            return 0.0  # The endpoint is disabled; when it was the last one, the balancer says so with all reasons.
        elif not error.retryable:
            raise error
        if error.charged:
            budget.rate_limited += rate_limited
            budget.refusals += refused
            budget.faults += not (rate_limited or refused)
        failures = budget.rate_limited if rate_limited else budget.refusals if refused else budget.faults
        asked = error.retry_after_s if len(self.endpoints) == 1 else None
        delay = self.policy.delay_s(failures, asked, self._jitter)
        longest = self.policy.max_elapsed_s
        late = longest is not None and asyncio.get_running_loop().time() - began + (delay or 0.0) > longest
        if delay is None or late or not self.policy.allows(budget):
            return None
        # The endpoint rests for what the server asked; only the jitter is the request's own.
        return delay - asked if asked and rate_limited else delay

    async def _is_outage(self, endpoint: Endpoint, error: BackendError, budget: RetryBudget) -> bool:
        """Whether a probe fails like the request whose budget is spent: then the budget is given back.

        A request that is alone in a run meets several endpoints that are away, none of them often enough to open its
        breaker. A refusal is the row's own only when the endpoint answers the probe.
        """
        breaker = endpoint.breaker
        in_a_row = breaker.failures or breaker.state is BreakerState.OPEN
        faulty = error.retryable and self.policy.max_retries
        if not (in_a_row and breaker.threshold and (faulty or endpoint.may_pass(error))):
            return False
        fault = await endpoint.probe(self.deadlines)
        if fault is None or not (fault.retryable or endpoint.may_pass(fault)):
            return False
        endpoint.error = fault
        if not breaker.blocks:
            breaker.open(asyncio.get_running_loop().time())
            self._tell(endpoint)
        budget.faults = budget.refusals = 0
        return True

    async def _confirm(self, endpoint: Endpoint, error: BackendError) -> None:
        """Find out by a probe whether an endpoint that never answered refuses this request or every one.

        Raises:
            BackendError: it refuses every request, so the run ends.
        """
        async with self._confirming:
            if endpoint.has_answered:
                return
            if endpoint.breaker.state is not BreakerState.DISABLED:
                fault = await endpoint.probe(self.deadlines)
                endpoint.has_answered = fault is None
                if fault is None or fault.retryable:
                    return
                endpoint.error = _refuses(error)
                endpoint.breaker.disable()
                self._tell(endpoint)
            if all(one.breaker.state is BreakerState.DISABLED for one in self.endpoints):
                raise self.balancer.none_left() from error

    def _rest(self, endpoint: Endpoint, seconds: float, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if (
            seconds > 0
            and endpoint.rest(seconds, now, reason)
            and seconds >= _WORTH_A_NOTE_S
            and len(self.endpoints) > 1
        ):
            self._observer(Note(f"{endpoint.config.name} rests for {seconds:.0f} s: {reason}"))

    def _tell(self, endpoint: Endpoint) -> None:
        """Note a change of an endpoint's state and wake its maintenance."""
        was, now = self._told[endpoint], endpoint.breaker.state
        self._told[endpoint] = now
        if now is BreakerState.OPEN:
            self._opened[endpoint].set()
        if now is BreakerState.DISABLED:
            self._opened[endpoint].set()
            self.balancer.disabled()
        if len(self.endpoints) == 1 or now is was:
            return
        name, reason = endpoint.config.name, endpoint.error.message if endpoint.error is not None else ""
        if now is BreakerState.DISABLED:
            hint = f"; {endpoint.error.hint}" if endpoint.error is not None and endpoint.error.hint else ""
            self._observer(Note(f"{name} is disabled for the rest of the run: {reason}{hint}"))
        elif now is BreakerState.OPEN and was is BreakerState.CLOSED:
            self._observer(Note(f"{name} is not used for now and will be retried later: {reason}"))
        elif now is BreakerState.CLOSED:
            self._observer(Note(f"{name} is back"))

    async def maintain(self) -> None:
        """Probe endpoints whose breaker is open, and move requests away from slow ones, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if len(self.endpoints) > 1:
                group.create_task(self._relieve())
            for endpoint in self.endpoints:
                group.create_task(self._probe_while_open(endpoint))

    async def _relieve(self) -> None:
        """Let an idle endpoint take over what a much slower one has worked on for long.

        So the end of a run does not wait for the slowest endpoint; the backup tasks of J. Dean and S. Ghemawat
        ("MapReduce", OSDI 2004) serve the same end. A request is moved, not doubled: no answer is paid for twice.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            now = asyncio.get_running_loop().time()
            for idle in self.balancer.idle():
                if idle.mean_s is None:
                    continue
                after_s = max(_LEAST_TIMEOUT_S, _USUAL_LATENCIES * idle.mean_s)
                for endpoint in self.endpoints:
                    # Where both are alike, the request takes long by itself and would do so anywhere.
                    slower = endpoint.mean_s is None or endpoint.mean_s > MUCH_SLOWER * idle.mean_s
                    if endpoint is not idle and slower and (room := idle.limit - idle.in_flight) > 0:
                        endpoint.take_back(after_s, room, now)

    async def _probe_while_open(self, endpoint: Endpoint) -> None:
        breaker, opened = endpoint.breaker, self._opened[endpoint]
        if breaker.state is BreakerState.OPEN:
            opened.set()
        while breaker.state is not BreakerState.DISABLED:
            if breaker.state is not BreakerState.OPEN:
                opened.clear()
                await opened.wait()
                continue
            wait = breaker.probe_at - asyncio.get_running_loop().time()
            if self.balancer.paused:
                await self.balancer.resumed.wait()
            elif wait > 0:
                await asyncio.sleep(wait)
            else:
                await self._probe(endpoint)

    async def _probe(self, endpoint: Endpoint) -> None:
        """Send one probe and set the breaker by its result."""
        if (limiter := self._rate_limiter) is not None:
            limiter.start(asyncio.get_running_loop().time(), limiter.expected_tokens(0))
        # The user's own time limits, because a server that loads its model needs them.
        error = await endpoint.probe(self.deadlines)
        breaker, now = endpoint.breaker, asyncio.get_running_loop().time()
        if error is None or (error.scope is Scope.ITEM and endpoint.has_answered):
            breaker.probe_succeeded()
            endpoint.refused_probes = 0
            self.balancer.probe_succeeded()
        else:
            endpoint.error = error
            refused = error.scope is not Scope.RETRY
            endpoint.refused_probes = endpoint.refused_probes + 1 if refused else 0
            passes = not refused or endpoint.may_pass(error) or error.scope is Scope.ITEM
            if not passes or endpoint.refused_probes >= _MOST_REFUSED_PROBES:
                endpoint.error = error if error.scope is Scope.RUN else _refuses(error)
                breaker.disable()
            elif breaker.state is BreakerState.OPEN:
                breaker.open(now, at_least_s=error.retry_after_s or 0.0)
        self._tell(endpoint)
        self.balancer.assign()


def _refuses(error: BackendError) -> EndpointRefuses:
    """The error of an endpoint that refuses every request with an error that is otherwise about one request."""
    return EndpointRefuses(f"the server refuses every request: {error.message}", status=error.status, hint=error.hint)


def _of_row(error: BackendError) -> RequestRefused:
    """The error of a row that was refused again and again although the endpoint answers others."""
    refused = RequestRefused(error.message, status=error.status, hint=error.hint)
    refused.attempts = error.attempts
    refused.__cause__ = error
    return refused
