"""Sends requests to several endpoints: what one fails at, another one gets."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mellea_cli.engine.balance import MUCH_SLOWER, Balance
from mellea_cli.engine.breaker import Breaker, Standing
from mellea_cli.engine.generate import Deadlines, generate
from mellea_cli.engine.lane import Closed, Endpoint, EndpointFigures, Lane, TooSlow, now_s
from mellea_cli.engine.limits import Limiter
from mellea_cli.engine.pace import Pace
from mellea_cli.engine.retry import RetryPolicy, Spent
from mellea_cli.engine.sender import ARE_YOU_THERE
from mellea_cli.engine.watch import UNWATCHED, Watch
from mellea_cli.errors import AnswerError, BackendError, ContextTooLong, RateLimited, Scope
from mellea_cli.events import Note, Observer, nobody
from mellea_cli.messages import Completion, GenerateRequest, Options, Usage

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
    pace: Pace | None = None
    max_wait_s: float = 300.0


class PoolSender:
    """The way to a model that several servers have.

    A request goes to the endpoint with the most free capacity (`mellea_cli.engine.balance`). When it fails there, it is
    sent again at another one at once if one has room; the budget of retries is that of one question, wherever they go.
    An endpoint that keeps failing is set aside and asked at growing intervals whether it is back
    (`mellea_cli.engine.breaker`); what asks is `tend`, which must run for that. One whose trouble does not pass, such
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
        breaker: Callable[[], Breaker] = Breaker,
        observer: Observer = nobody,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.deadlines = deadlines or Deadlines()
        self.retries = 0
        """Requests that were sent again, over the sender's life."""
        limits = limits or PoolLimits()
        lanes = [Lane(one, Limiter(one.concurrency, pace=limits.pace), breaker(), self.deadlines) for one in endpoints]
        for lane in lanes:
            lane.begin()
        self.balance = Balance(lanes, most=limits.most, max_wait_s=limits.max_wait_s, observer=observer)
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

    async def send(self, request: GenerateRequest, watch: Watch = UNWATCHED, spent: Spent | None = None) -> Completion:
        """Send `request` until it goes through, wherever; `mellea_cli.engine.way.Way.send` has the contract.

        Raises:
            ServerAway: no endpoint has been there for too long.
            NoEndpointLeft: none will be there any more.
        """
        spent = spent or Spent()
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
        self, lane: Lane, request: GenerateRequest, watch: Watch, shy: dict[Lane, float], *, may_move: bool
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
                shy.get(other, 0.0) < math.inf and other.breaker.standing is not Standing.GONE
                for other in self.balance.lanes
            )
        if error.scope is Scope.RUN:
            # It is the endpoint's trouble. When it was the last one, `place` says so with all the reasons.
            return True
        return error.retryable

    def _delay_s(self, error: BackendError, spent: Spent, began: float) -> float:
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
        if now is Standing.ASIDE:
            self._aside[lane].set()
        if now is was:
            return
        if now is Standing.GONE:
            hint = f"; {lane.error.hint}" if lane.error is not None and lane.error.hint else ""
            self._observer(Note(f"{name} is left out for the rest of the run: {said}{hint}"))
            self.balance.lost()
        elif now is Standing.ASIDE and was is Standing.SERVING:
            self._observer(Note(f"{name} is set aside, and asked again by and by: {said}"))
        elif now is Standing.SERVING:
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
        while lane.breaker.standing is not Standing.GONE:
            if lane.breaker.standing is not Standing.ASIDE:
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
            elif lane.breaker.standing is Standing.ASIDE:
                lane.breaker.set_aside(now_s())
        except AnswerError:
            lane.breaker.probed()
        self._tell(lane)
        self.balance.look()
