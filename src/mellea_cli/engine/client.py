"""Sends requests to several endpoints: what one fails at, another one gets."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.backends.http_errors import RateLimitStatus, ReportsRateLimits
from mellea_cli.engine.circuit_breaker import BreakerState, CircuitBreaker, Outage
from mellea_cli.engine.concurrency import AdaptiveConcurrency, ConcurrencyLimiter
from mellea_cli.engine.endpoint import Closed, Endpoint, EndpointFigures, Lane, TooSlow, now_s
from mellea_cli.engine.generate import UNOBSERVED, CallObserver, Deadlines, NothingInTime, generate
from mellea_cli.engine.load_balancer import MUCH_SLOWER, LoadBalancer
from mellea_cli.engine.rate_limiter import RateLimiter
from mellea_cli.engine.retry import RetryBudget, RetryPolicy
from mellea_cli.errors import AnswerError, BackendError, ContextTooLong, RateLimited, Scope
from mellea_cli.events import Note, Observer, Paused, nobody
from mellea_cli.messages import Completion, GenerateRequest, Message, Options, Usage

# What the attempt loop needs to know of the way to a model: it leads to one server, or to several.


class Way(Protocol):
    """The way from a question to a model.

    `mellea_cli.engine.client.Sender` leads to one server, `mellea_cli.engine.client.PoolSender` to several.
    """

    async def send(
        self, request: GenerateRequest, watch: CallObserver = UNOBSERVED, spent: RetryBudget | None = None
    ) -> Completion:
        """Send `request` until it goes through.

        Args:
            request: what to send.
            watch: told what happens.
            spent: what the question behind it has used up; `None` for a question of its own. It is counted on.

        Raises:
            BackendError: it cannot be mended by sending the request again, or the budget of retries is spent.
            RunawayAnswer: the answer had to be stopped.
        """


# Sends requests through the limiter, and sends one again while the transport is at fault.

# Short, and no text of the user's: what is asked to learn whether the server is there.
ARE_YOU_THERE = (Message("user", "Say OK."),)


# What a server says, or does not get to say, that has more to do than it can.
_TOO_BUSY = frozenset({503, 529})


class Sender:
    """The one way from a question to a model: limiter, deadlines, retries, and patience with a server that is away.

    A stream that breaks is thrown away whole and its request sent again. Bad answers are not its business: those are
    judged, and asked again, by `mellea_cli.engine.attempts`.

    Args:
        backend: the model server.
        limiter: the gate that all requests to this server share.
        policy: how often and how soon a request is sent again.
        deadlines: how long one call may take.
        outage: how long a server that is away is waited for.
        observer: hears of pauses.
        jitter: gives numbers from 0 up to 1.
    """

    def __init__(
        self,
        backend: Backend,
        limiter: ConcurrencyLimiter,
        *,
        policy: RetryPolicy | None = None,
        deadlines: Deadlines | None = None,
        outage: Outage | None = None,
        observer: Observer = nobody,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.backend = backend
        self.limiter = limiter
        self.policy = policy or RetryPolicy()
        self.deadlines = deadlines or Deadlines()
        self.retries = 0
        """Requests that were sent again, over the sender's life."""
        self.own_usage = Usage()
        """Tokens of questions that only ask whether the server is there."""
        self._outage = outage or Outage(observer=observer)
        self._observer = observer
        self._jitter = jitter
        self._metered = backend if isinstance(backend, ReportsRateLimits) else None
        self._heeded: RateLimitStatus | None = None

    @property
    def peak(self) -> int:
        """The most requests that were in flight at once."""
        return self.limiter.peak

    @property
    def climb(self) -> AdaptiveConcurrency | None:
        """What seeks the best number of requests in flight, where it is sought."""
        return self.limiter.climb

    @property
    def rooms(self) -> ConcurrencyLimiter | None:
        """What tells a worker whether there is room for it, where the number of requests is sought."""
        return self.limiter if self.climb is not None else None

    async def tend(self) -> None:
        """Nothing needs tending here: whoever sends finds out whether the server is back."""

    def look_ahead(self, left: Callable[[], int | None]) -> None:
        """Nothing is planned ahead with one server."""

    def figures(self) -> tuple[()]:
        """There is only one endpoint: the run's own figures are its figures."""
        return ()

    async def send(
        self, request: GenerateRequest, watch: CallObserver = UNOBSERVED, spent: RetryBudget | None = None
    ) -> Completion:
        """Send `request` until it goes through.

        Args:
            request: what to send.
            watch: told what happens.
            spent: what the question behind it has used up; `None` for a question of its own. It is counted on.

        Returns:
            The completion, with the number of times the request was sent in `attempts`.

        Raises:
            BackendError: the error cannot be mended by sending the request again, or the budget of retries is spent;
                `attempts` says how often it was sent.
            RunawayAnswer: the answer had to be stopped.
        """
        with self._outage.question():
            return await self._until_through(request, watch, spent or RetryBudget())

    async def _until_through(self, request: GenerateRequest, watch: CallObserver, spent: RetryBudget) -> Completion:
        before, began = spent.sent, asyncio.get_running_loop().time()
        while True:
            spent.sent += 1
            try:
                completion = await self._once(request, watch, spent)
            except BackendError as error:
                error.attempts = spent.sent - before
                if not error.retryable or not watch.resend():
                    raise
                self.retries += 1
                await self._wait(error, watch, spent, began)
            else:
                sent = spent.sent - before
                return completion if sent == 1 else dataclasses.replace(completion, attempts=sent)

    async def _once(self, request: GenerateRequest, watch: CallObserver, spent: RetryBudget) -> Completion:
        """Send the request once; tell limiter and outage what came of it."""
        pace = self.limiter.pace
        tokens = pace.tokens(_letters(request)) if pace is not None and pace.counts_tokens else 0.0
        async with self.limiter.slot(tokens) as started, self._outage.turn() as in_doubt:
            if in_doubt:
                await self._look_for_server(request, spent)
            try:
                completion = await generate(self.backend, request, self.deadlines, watch, self.limiter)
            except BackendError as error:
                self._failed(error, started, spent)
                raise
            except AnswerError:
                self._outage.answered()
                raise
        self._outage.answered()
        self.limiter.answered(started)
        if pace is not None:
            pace.spent(tokens, completion.usage.prompt_tokens, completion.usage.completion_tokens)
        self._heed_allowance()
        return completion

    def _failed(self, error: BackendError, started: float, question: RetryBudget) -> None:
        alone = None
        if isinstance(error, RateLimited):
            alone = question if self.limiter.refused(started, by_time=bool(error.retry_after_s)) else None
        elif error.scope is Scope.ITEM:
            self._outage.answered()
        elif error.status in _TOO_BUSY or isinstance(error, NothingInTime):
            self.limiter.strained(started)
        # An outage is the server's trouble: it is waited out and not charged to any request.
        error.charged = not self._outage.failed(error, question=question, alone=alone)

    async def _look_for_server(self, request: GenerateRequest, spent: RetryBudget) -> None:
        """Ask a question that no row can spoil; return when the server is there.

        Raises:
            BackendError: it is not.
        """
        ours = GenerateRequest(
            request.model, ARE_YOU_THERE, Options(temperature=0.0, max_tokens=4, thinking=request.options.thinking)
        )
        try:
            completion = await generate(self.backend, ours, self.deadlines)
        except BackendError as error:
            self._outage.ours_failed(error)
            if self._outage.away:
                error.charged = False
                raise
        except AnswerError:
            self._outage.ours_answered()
        else:
            self.own_usage += completion.usage
            self._outage.ours_answered()
        # It went out in addition to the request itself, which is to blame for its failures now.
        spent.sent += 1
        spent.charge_spared(self.policy, self._outage.era)

    async def _wait(self, error: BackendError, watch: CallObserver, spent: RetryBudget, began: float) -> None:
        """Wait until `error`'s request may be sent again, or let the error through."""
        watch.failed(error.kind, error.message)
        rate_limited = isinstance(error, RateLimited)
        if error.charged:
            spent.count(rate_limited=rate_limited)
        else:
            spent.spare(rate_limited=rate_limited, era=self._outage.era)
        delay = 0.0 if self._outage.away else self._delay_s(error, spent, began)
        asked = error.retry_after_s if rate_limited and not self._outage.away else None
        if asked and self.limiter.pause(asked):
            # What the server asks of one request it means for all.
            self._observer(Paused(error.message, asked))
        watch.retry(delay, spent.sent + 1)
        await asyncio.sleep(delay)

    def _delay_s(self, error: BackendError, spent: RetryBudget, began: float) -> float:
        failures = spent.refusals if isinstance(error, RateLimited) else spent.faults
        delay = self.policy.delay_s(failures, error.retry_after_s, self._jitter)
        longest = self.policy.max_elapsed_s
        too_late = longest is not None and asyncio.get_running_loop().time() - began + (delay or 0.0) > longest
        if delay is None or too_late or not self.policy.allows(spent):
            self.retries -= 1
            raise error
        return delay

    def _heed_allowance(self) -> None:
        """Wait, all of us, when the server's headers say that nothing more is left for now."""
        allowance = self._metered.rate_limit_status if self._metered is not None else None
        if allowance is None or allowance is self._heeded:
            return
        self._heeded = allowance
        wait = allowance.wait_s()
        if 0 < wait <= self.policy.retry_after_cap_s and self.limiter.pause(wait):
            self._observer(Paused("the model server's headers say that its limit is reached", wait))


def _letters(request: GenerateRequest) -> int:
    return sum(len(message.content) for message in request.messages)


# While others can take a request over, an endpoint that has answered before is given so many times its usual time.
_PATIENCE = 10.0
_LEAST_PATIENCE_S = 20.0
# How often it is looked for requests that are better taken over, in seconds.
_LOOK_S = 1.0
# A rest that an endpoint asks for is said when it is this long.
_WORTH_SAYING_S = 30.0


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What holds for all endpoints of a pool together.

    Args:
        most: requests under way at most; `None` leaves that to each one's own limit.
        pace: spreads the starts of all requests over time; `None` does not.
        max_wait_s: how long to wait while no endpoint is there, in seconds.
    """

    most: int | None = None
    pace: RateLimiter | None = None
    max_wait_s: float = 300.0


class PoolSender:
    """The way to a model that several servers have.

    A request goes to the endpoint with the most free capacity. When it fails there, it is sent again at another one at
    once if one has room; the budget of retries is that of one question, wherever they go.
    An endpoint that keeps failing is set aside and asked at growing intervals whether it is back;
    what asks is `tend`, which must run for that. One whose trouble does not pass, such
    as a wrong key, is left out for the rest of the run, and that is said. The run waits only while none is there.

    Args:
        endpoints: at least one.
        policy: how often and how soon a request is sent again.
        deadlines: how long one call may take.
        limits: what holds for all endpoints together.
        breaker: makes an endpoint's breaker.
        observer: hears what becomes of the endpoints.
        jitter: gives numbers from 0 up to 1.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        policy: RetryPolicy | None = None,
        deadlines: Deadlines | None = None,
        limits: PoolLimits | None = None,
        breaker: Callable[[], CircuitBreaker] = CircuitBreaker,
        observer: Observer = nobody,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.deadlines = deadlines or Deadlines()
        self.retries = 0
        """Requests that were sent again, over the sender's life."""
        limits = limits or PoolLimits()
        lanes = [
            Lane(one, ConcurrencyLimiter(one.concurrency, pace=limits.pace), breaker(), self.deadlines)
            for one in endpoints
        ]
        for lane in lanes:
            lane.begin()
        self.balance = LoadBalancer(lanes, most=limits.most, max_wait_s=limits.max_wait_s, observer=observer)
        self._observer = observer
        self._jitter = jitter
        self._aside = {lane: asyncio.Event() for lane in lanes}
        self._told = {lane: lane.breaker.standing for lane in lanes}

    climb = rooms = None  # how many requests are best is not sought: each endpoint has the places that it was given

    @property
    def own_usage(self) -> Usage:
        """Tokens of questions that only ask whether a server is there."""
        return sum((lane.probed for lane in self.balance.lanes), Usage())

    @property
    def peak(self) -> int:
        """The most requests that were in flight at once."""
        return self.balance.peak

    def figures(self) -> tuple[EndpointFigures, ...]:
        """What each endpoint did so far."""
        answers = sum(lane.answered for lane in self.balance.lanes)
        return tuple(lane.figures(answers) for lane in self.balance.lanes)

    def look_ahead(self, left: Callable[[], int | None]) -> None:
        """Tell where to learn how many requests are still to come; it gives `None` while nobody knows."""
        self.balance.left = left

    async def send(
        self, request: GenerateRequest, watch: CallObserver = UNOBSERVED, spent: RetryBudget | None = None
    ) -> Completion:
        """Send `request` until it goes through, wherever; `mellea_cli.engine.client.Way.send` has the contract.

        Raises:
            ServerAway: no endpoint has been there for too long.
            NoEndpointLeft: none will be there any more.
        """
        spent = spent or RetryBudget()
        before, began = spent.sent, now_s()
        shy: dict[Lane, float] = {}
        moved = False
        while True:
            lane = await self.balance.place(shy, again=spent.sent > before)
            spent.sent += 1
            try:
                completion = await self._once(lane, request, watch, shy, may_move=not moved)
            except Closed:
                spent.sent -= 1
            except BackendError as error:
                error.attempts = spent.sent - before
                # Once only: a question that takes long wherever it is asked must not wander for ever.
                moved = moved or isinstance(error, TooSlow)
                if not self._goes_again(error, shy) or not watch.resend():
                    raise
                watch.failed(error.kind, error.message)
                delay = self._delay_s(error, spent, began)
                shy[lane] = max(shy.get(lane, -math.inf), now_s() + delay)
                self.retries += 1
                watch.retry(0.0 if self.balance.free_elsewhere(lane) else delay, spent.sent + 1)
            else:
                sent = spent.sent - before
                return completion if sent == 1 else dataclasses.replace(completion, attempts=sent)

    async def _once(
        self, lane: Lane, request: GenerateRequest, watch: CallObserver, shy: dict[Lane, float], *, may_move: bool
    ) -> Completion:
        try:
            completion = await lane.once(request, watch, self._patience(lane), may_move=may_move)
        except BackendError as error:
            # Before its place is given on, or the next request would run into the same refusal.
            self._after_failure(lane, error, shy)
            raise
        except AnswerError:
            self.balance.answered()
            raise
        else:
            if (rest := lane.asks_to_rest_s(self.policy.retry_after_cap_s)) > 0:
                self._rest(lane, rest, "its headers say that its limit is reached")
            self.balance.answered()
            return completion
        finally:
            self._tell(lane)
            self.balance.leave(lane)

    def _patience(self, lane: Lane) -> Deadlines:
        """The deadlines for one call: shorter where an endpoint falls silent, and others could answer instead."""
        usual = lane.pace_s(now_s())
        others = any(other.places for other in self.balance.lanes if other is not lane)
        if usual is None or not others:
            return self.deadlines
        patience = max(_LEAST_PATIENCE_S, _PATIENCE * usual)
        first = self.deadlines.first()
        sooner = first is None or patience < first
        return dataclasses.replace(self.deadlines, first_token_s=patience) if sooner else self.deadlines

    def _after_failure(self, lane: Lane, error: BackendError, shy: dict[Lane, float]) -> None:
        """Let the endpoint rest if that is what it asks for, and keep from it what it cannot take."""
        if isinstance(error, RateLimited):
            alone = lane.load == 1
            wait = error.retry_after_s or (self._jitter() * self.policy.base_s if alone else 0.0)
            self._rest(lane, wait, error.message)
        elif isinstance(error, TooSlow):
            shy[lane] = now_s() + _LEAST_PATIENCE_S
        elif isinstance(error, ContextTooLong):
            # Another endpoint's window may be larger: each is asked once.
            shy[lane] = math.inf
        if error.scope is Scope.ITEM:
            self.balance.answered()

    def _goes_again(self, error: BackendError, shy: dict[Lane, float]) -> bool:
        if isinstance(error, ContextTooLong):
            return any(
                shy.get(other, 0.0) < math.inf and other.breaker.standing is not BreakerState.GONE
                for other in self.balance.lanes
            )
        if error.scope is Scope.RUN:
            # It is the endpoint's trouble. When it was the last one, `place` says so with all the reasons.
            return True
        return error.retryable

    def _delay_s(self, error: BackendError, spent: RetryBudget, began: float) -> float:
        """Count the failure; return the seconds until the request may go to the same endpoint again, or raise it."""
        if error.scope is not Scope.RETRY:
            return 0.0
        rate_limited = isinstance(error, RateLimited)
        if error.charged:
            spent.count(rate_limited=rate_limited)
        failures = spent.refusals if rate_limited else spent.faults
        delay = self.policy.delay_s(failures, None, self._jitter) or 0.0
        longest = self.policy.max_elapsed_s
        if not self.policy.allows(spent) or (longest is not None and now_s() - began + delay > longest):
            raise error
        return delay

    def _rest(self, lane: Lane, seconds: float, reason: str) -> None:
        if seconds > 0 and lane.rest(seconds, now_s()) and seconds >= _WORTH_SAYING_S:
            self._observer(Note(f"{lane.endpoint.name} rests for {seconds:.0f} s: {reason}"))

    def _tell(self, lane: Lane) -> None:
        """Say how an endpoint stands, if that has changed, and wake whoever tends it."""
        was, self._told[lane] = self._told[lane], lane.breaker.standing
        name, said = lane.endpoint.name, lane.error.message if lane.error is not None else ""
        now = lane.breaker.standing
        if now is BreakerState.ASIDE:
            self._aside[lane].set()
        if now is was:
            return
        if now is BreakerState.GONE:
            hint = f"; {lane.error.hint}" if lane.error is not None and lane.error.hint else ""
            self._observer(Note(f"{name} is left out for the rest of the run: {said}{hint}"))
            self.balance.lost()
        elif now is BreakerState.ASIDE and was is BreakerState.SERVING:
            self._observer(Note(f"{name} is set aside, and asked again by and by: {said}"))
        elif now is BreakerState.SERVING:
            self._observer(Note(f"{name} is back"))

    async def tend(self) -> None:
        """Ask endpoints that are set aside whether they are back, and relieve slow ones, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relieve())
            for lane in self.balance.lanes:
                group.create_task(self._tend(lane))

    async def _relieve(self) -> None:
        """Let an endpoint that has nothing to do take over what a far slower one has been at for long.

        So at the end of a run nobody waits for the slowest; J. Dean and S. Ghemawat's backup tasks ("MapReduce", OSDI
        2004) serve the same end. A request is taken back, not doubled: no answer is paid for twice.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            now = now_s()
            for idle in self.balance.idle():
                if (pace := idle.mean_s) is None:
                    continue
                for lane in self.balance.lanes:
                    # Where both are alike the question is long by itself, and would be so anywhere.
                    slower = lane.mean_s is None or lane.mean_s > MUCH_SLOWER * pace
                    if lane is not idle and slower and (room := idle.places - idle.load) > 0:
                        lane.take_back(max(_LEAST_PATIENCE_S, _PATIENCE * pace), room, now)

    async def _tend(self, lane: Lane) -> None:
        while lane.breaker.standing is not BreakerState.GONE:
            if lane.breaker.standing is not BreakerState.ASIDE:
                self._aside[lane].clear()
                await self._aside[lane].wait()
                continue
            wait = lane.breaker.probe_at - now_s()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                await self._probe(lane)

    async def _probe(self, lane: Lane) -> None:
        request = GenerateRequest(lane.endpoint.model, ARE_YOU_THERE, Options(temperature=0.0, max_tokens=4))
        if (pace := lane.limiter.pace) is not None:
            await asyncio.sleep(pace.start(now_s(), pace.tokens(len(ARE_YOU_THERE[0].content))))
        lane.probes += 1
        try:
            # The user's own deadlines: a server that loads its model needs them, and nobody waits for this.
            completion = await generate(lane.endpoint.backend, lane.endpoint.adapted(request), self.deadlines)
            lane.probed += completion.usage
            lane.breaker.probed()
        except BackendError as error:
            lane.error = error
            if error.scope is Scope.RUN:
                lane.breaker.leave_out()
            elif error.scope is Scope.ITEM or isinstance(error, RateLimited):
                self._rest(lane, error.retry_after_s or 0.0, error.message)
                lane.breaker.probed()
            elif lane.breaker.standing is BreakerState.ASIDE:
                lane.breaker.set_aside(now_s())
        except AnswerError:
            lane.breaker.probed()
        self._tell(lane)
        self.balance.look()
