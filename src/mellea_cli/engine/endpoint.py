"""One endpoint of a pool at work: its own limits, its own breaker, its own figures."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field

from mellea_cli.backends.base import Backend
from mellea_cli.backends.http_errors import RateLimitStatus, ReportsRateLimits
from mellea_cli.engine.circuit_breaker import BreakerState, CircuitBreaker
from mellea_cli.engine.concurrency import ConcurrencyLimiter
from mellea_cli.engine.generate import UNOBSERVED, CallObserver, Deadlines, generate
from mellea_cli.errors import AnswerError, BackendError, BackendUnavailable, RateLimited, Scope
from mellea_cli.messages import Completion, GenerateRequest, Usage

# A median over any number of values in a few hundred counters.

# Neighbouring counters differ by this factor: what comes out is within one per cent of the truth.
_STEP = math.log(1.02)
_LEAST = 1e-6


class RunningMedian:
    """The median of positive values within one per cent; the memory does not grow with their number.

    Values are counted by the logarithm of their size, as in C. Masson, J. Rim and H. Lee, "DDSketch" (VLDB 2019).
    """

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def add(self, value: float) -> None:
        """Take in one value; what is not above zero counts as very small."""
        self._counts[math.floor(math.log(max(value, _LEAST)) / _STEP)] += 1
        self._total += 1

    def value(self) -> float | None:
        """The median of the values so far, or `None` without any."""
        passed = 0
        for place, number in sorted(self._counts.items()):
            passed += number
            if 2 * passed >= self._total:
                return math.exp((place + 0.5) * _STEP)
        return None


# The weight of the newest answer in the mean that stands for an endpoint's speed.
_NEWEST = 0.2
# A mean that is this old says nothing: the endpoint is tried again as if it were new.
_STALE_S = 30.0
# How often in a row an endpoint may refuse a request that is its only one before it counts as failing.
_REFUSALS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One server of a pool.

    Args:
        name: what it is called in messages and figures.
        backend: how to talk to it.
        model: the model's name there.
        concurrency: requests in flight there at most.
        weight: how much it is preferred while there is a choice; 2 gets twice as much as 1.
        thinking: what it is told about reasoning where a request leaves that open.
        trouble: why it cannot be used from the start: it is then set aside, or left out if that does not pass.
    """

    name: str
    backend: Backend
    model: str
    concurrency: int
    weight: float = 1.0
    thinking: bool | str | None = None
    trouble: BackendError | None = None

    def adapted(self, request: GenerateRequest) -> GenerateRequest:
        """`request` in this endpoint's words."""
        options = request.options
        if self.thinking is not None and options.thinking is None:
            options = dataclasses.replace(options, thinking=self.thinking)
        if options is request.options and request.model == self.model:
            return request
        return dataclasses.replace(request, model=self.model, options=options)


@dataclass(frozen=True, slots=True)
class EndpointFigures:
    """What one endpoint did in a run."""

    name: str
    backend: str
    model: str
    requests: int = 0
    """Requests of the run that were sent there, those that failed included."""
    answered: int = 0
    failures: int = 0
    """Requests that the endpoint, or the way to it, failed at or refused."""
    probes: int = 0
    """Short questions of our own that asked whether it is back."""
    usage: Usage = Usage()
    median_s: float | None = None
    """Half of its answers took no longer, in seconds; `None` without any."""
    share: float = 0.0
    """Its part of all answers, 0 to 1."""
    state: str = ""
    """Empty while it serves, else `set aside`, `on trial` or `left out`."""
    reason: str = ""
    """What last put it out of service, where it still is."""


class TooSlow(BackendUnavailable):
    """The request was taken back: another endpoint is far faster and has nothing to do."""

    kind = "too-slow"


class Closed(BackendUnavailable):
    """The endpoint went out of service before the request was sent: nothing is lost, it goes elsewhere."""


@dataclass(eq=False)
class Lane:
    """The way to one endpoint. The pool counts the requests that it has sent on their way in `load`."""

    endpoint: Endpoint
    limiter: ConcurrencyLimiter
    breaker: CircuitBreaker
    deadlines: Deadlines
    load: int = 0
    rests_until: float = -math.inf
    """Nothing is sent before this time: the endpoint has asked for it."""
    error: BackendError | None = None
    """What last failed here."""
    requests: int = 0
    answered: int = 0
    failures: int = 0
    probes: int = 0
    usage: Usage = field(default_factory=Usage)
    probed: Usage = field(default_factory=Usage)
    """Tokens of questions that only ask whether it is back."""
    times: RunningMedian = field(default_factory=RunningMedian)
    _mean_s: float | None = None
    _measured: float = 0.0
    _refused: int = 0
    _heeded: RateLimitStatus | None = None
    _under_way: dict[asyncio.Timeout, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Take into account what is known of the endpoint before the first request."""
        self.error = self.endpoint.trouble
        if self.error is not None and self.error.scope is Scope.RUN:
            self.breaker.leave_out()
        elif self.error is not None:
            self.breaker.set_aside(-math.inf)

    @property
    def mean_s(self) -> float | None:
        """The moving mean of how long an answer takes here, however old it is."""
        return self._mean_s

    def take_back(self, after_s: float, most: int, now: float) -> None:
        """End requests that have been under way for so long, the oldest first, `most` of them at most.

        Each fails with `TooSlow`. Only those that were sent with `may_move` are touched.
        """
        # They stand there in the order in which they began.
        late = [limit for limit, began in self._under_way.items() if now - began > after_s]
        for limit in late[:most]:
            del self._under_way[limit]
            limit.reschedule(now)

    @property
    def places(self) -> int:
        """Requests that may be under way here at once, as things stand."""
        if self.breaker.open:
            return 0
        return 1 if self.breaker.standing is BreakerState.TRIAL else self.limiter.allowed

    def has_room(self, now: float) -> bool:
        """Whether a request may be sent here now."""
        return self.load < self.places and now >= self.rests_until

    def pace_s(self, now: float) -> float | None:
        """How long an answer takes here, in seconds: a moving mean; `None` when nobody knows, or not any more."""
        if self._mean_s is None or now - self._measured > max(_STALE_S, 4 * self._mean_s):
            return None
        return self._mean_s

    def rest(self, seconds: float, now: float) -> bool:
        """Send nothing for so long; return whether that is longer than what was known."""
        longer = now + seconds > self.rests_until + 0.05
        self.rests_until = max(self.rests_until, now + seconds)
        return longer

    async def once(
        self,
        request: GenerateRequest,
        watch: CallObserver = UNOBSERVED,
        deadlines: Deadlines | None = None,
        *,
        may_move: bool = False,
    ) -> Completion:
        """Send `request` once; tell limiter, breaker and figures what came of it.

        Args:
            request: what to send.
            watch: told what happens.
            deadlines: how long it may take; `None` for the lane's own.
            may_move: whether `take_back` may end it.

        Raises:
            BackendError: it failed; `charged` says whether that counts against the request.
            RunawayAnswer: the answer had to be stopped.
        """
        pace = self.limiter.pace
        letters = sum(len(message.content) for message in request.messages)
        tokens = pace.tokens(letters) if pace is not None and pace.counts_tokens else 0.0
        async with self.limiter.slot(tokens) as started:
            if self.breaker.open:
                raise _closed(self)
            self.requests += 1
            try:
                completion = await self._generate(request, watch, deadlines or self.deadlines, may_move=may_move)
            except BackendError as error:
                self._failed(error, started)
                raise
            except AnswerError:
                self.answered += 1
                self._there()
                raise
        self._there()
        self.limiter.answered(started)
        if pace is not None:
            pace.spent(tokens, completion.usage.prompt_tokens, completion.usage.completion_tokens)
        self._count(completion)
        return completion

    async def _generate(
        self, request: GenerateRequest, watch: CallObserver, deadlines: Deadlines, *, may_move: bool
    ) -> Completion:
        began = asyncio.get_running_loop().time()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                if may_move:
                    self._under_way[limit] = began
                return await generate(self.endpoint.backend, self.endpoint.adapted(request), deadlines, watch)
        except TimeoutError as error:
            after = asyncio.get_running_loop().time() - began
            raise TooSlow(f"{self.endpoint.name} has not answered in {after:.0f} s; others are far faster") from error
        finally:
            self._under_way.pop(limit, None)

    def _count(self, completion: Completion) -> None:
        self.answered += 1
        self.usage += completion.usage
        self.times.add(completion.total_s)
        self._measured = asyncio.get_running_loop().time()
        mean = completion.total_s if self._mean_s is None else self._mean_s
        self._mean_s = mean + _NEWEST * (completion.total_s - mean)

    def _there(self) -> None:
        self._refused = 0
        self.breaker.answered()

    def _failed(self, error: BackendError, started: float) -> None:
        now = asyncio.get_running_loop().time()
        self.error = error
        self.failures += 1
        if isinstance(error, RateLimited):
            alone = self.limiter.refused(started, by_time=bool(error.retry_after_s))
            self._refused += alone
            if self._refused >= _REFUSALS and not self.breaker.open:
                self.breaker.set_aside(now)
            error.charged = not self.breaker.open
        elif error.scope is Scope.ITEM:
            self._there()
        elif error.scope is Scope.RUN:
            self.breaker.leave_out()
            error.charged = False
        else:
            away = self.breaker.failed(now)
            error.charged = not (away or isinstance(error, TooSlow))

    def asks_to_rest_s(self, longest_s: float) -> float:
        """How long the latest answer's headers ask for, in seconds, each answer's once; 0 when that is too long."""
        backend = self.endpoint.backend
        allowance = backend.rate_limit_status if isinstance(backend, ReportsRateLimits) else None
        if allowance is None or allowance is self._heeded:
            return 0.0
        self._heeded = allowance
        wait = allowance.wait_s()
        return wait if wait <= longest_s else 0.0

    def figures(self, all_answers: int) -> EndpointFigures:
        """What it did so far; `all_answers` is what the share is of."""
        serving = self.breaker.standing is BreakerState.SERVING
        return EndpointFigures(
            name=self.endpoint.name,
            backend=self.endpoint.backend.name,
            model=self.endpoint.model,
            requests=self.requests,
            answered=self.answered,
            failures=self.failures,
            probes=self.probes,
            usage=self.usage,
            median_s=self.times.value(),
            share=self.answered / all_answers if all_answers else 0.0,
            state="" if serving else self.breaker.standing.value,
            reason=self.error.message if self.error is not None and not serving else "",
        )


def now_s() -> float:
    """The event loop's time, in seconds."""
    return asyncio.get_running_loop().time()


def _closed(lane: Lane) -> Closed:
    said = lane.error.message if lane.error is not None else "it is out of service"
    error = Closed(f"{lane.endpoint.name}: {said}")
    error.charged = False
    return error
