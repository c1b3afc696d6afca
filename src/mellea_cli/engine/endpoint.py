"""One endpoint: a backend, its concurrency limit, its circuit breaker and its counters."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import statistics
from collections import deque
from dataclasses import dataclass

from mellea_cli.backends.base import Backend
from mellea_cli.backends.rate_limits import RateLimitStatus, ReportsRateLimits
from mellea_cli.engine.circuit_breaker import BreakerState, CircuitBreaker
from mellea_cli.engine.concurrency import AdaptiveConcurrency, ConcurrencyLimiter
from mellea_cli.engine.generate import CallObserver, Deadlines, NothingInTime, generate
from mellea_cli.errors import (
    AnswerError,
    BackendError,
    BackendUnavailable,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    RateLimited,
    Scope,
)
from mellea_cli.messages import Completion, GenerateRequest, Message, Options, Usage
from mellea_cli.pipelines.parse import without_reasoning

# A short text of the program's own: what a probe asks, which no row can spoil.
PROBE_MESSAGES = (Message("user", "Say OK."),)
# Weight of the newest answer in the moving mean of an endpoint's latency.
_NEWEST = 0.2
# A mean older than this says nothing: the endpoint is tried again as if it were new.
_STALE_S = 30.0
# Rate limits in a row to a request that is alone in flight before the endpoint counts as failing.
_MOST_REFUSED_ALONE = 4
# Latencies kept for the median.
_LATENCIES = 10_000
# Statuses that say that the server has more work than it can do.
_TOO_BUSY = frozenset({503, 529})
# Faults of a configuration. Once the endpoint has answered correctly they may pass: a proxy restarts, a gateway loses
# its key store for a moment, a firewall dislikes one row.
_MAY_PASS = (NotAuthorized, EndpointMissing, ModelMissing)


@dataclass(frozen=True, slots=True, eq=False)
class EndpointConfig:
    """Settings of one endpoint.

    Args:
        name: its name in messages and figures.
        backend: how to talk to it.
        model: the model's name there.
        concurrency: highest number of requests in flight.
        start: where the search for the best number starts; `None` uses `concurrency` as it is.
        weight: preference while there is a choice; 2 gets twice as many requests as 1.
        thinking: reasoning setting for requests that leave it open.
        error: why it cannot be used from the start; a fault that does not pass disables it.
        first_alone_s: the first request is alone in flight until it is answered, at most this long, in seconds.
    """

    name: str
    backend: Backend
    model: str
    concurrency: int
    start: int | None = None
    weight: float = 1.0
    thinking: bool | str | None = None
    error: BackendError | None = None
    first_alone_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EndpointFigures:
    """What one endpoint did in a run."""

    name: str
    backend: str
    model: str
    requests: int = 0  # Requests of the run that were sent there, failed ones included
    answered: int = 0
    failures: int = 0  # Requests that the endpoint, or the connection to it, failed at or refused
    probes: int = 0
    usage: Usage = Usage()
    median_s: float | None = None  # Median latency of its latest answers in seconds; `None` without any
    share: float = 0.0  # Its part of all answers, 0 to 1
    state: str = ""  # Empty while its circuit breaker is closed, else `open`, `half-open` or `disabled`
    reason: str = ""  # Message of the fault that opened the breaker


class LimitRaised(BackendError):
    """Reasoning has used up the answer's length limit, which is higher from now on: the request is sent again."""

    kind = "length"

    def __init__(self, message: str, usage: Usage) -> None:
        super().__init__(message)
        self.usage = usage


# Tokens for reasoning in addition to the answer's own limit, step by step. From the second step on the model is told
# not to reason, if nobody asked for it.
_RAISES = (1_024, 4_096, 16_384)
_TURNED_OFF_FROM = 4_096


class TooSlow(BackendUnavailable):
    """The request was taken back because another endpoint is much faster and has nothing to do."""

    kind = "too-slow"


class Endpoint:
    """One endpoint at work. The load balancer counts the requests that it has assigned in `in_flight`."""

    def __init__(self, config: EndpointConfig, breaker: CircuitBreaker) -> None:
        self.config = config
        self.breaker = breaker
        adaptive = AdaptiveConcurrency(config.start, config.concurrency) if config.start else None
        self.limiter = ConcurrencyLimiter(config.concurrency, adaptive=adaptive, first_alone=config.first_alone_s > 0)
        self.in_flight = 0
        self.characters = 0  # Characters of text received so far
        self.has_answered = False  # Whether it has answered correctly in this run
        self.rests_until = -math.inf  # No request is sent before this time, because the endpoint has asked for it
        self.rest_reason = ""
        self.long_rests = 0  # Answers in a row that asked for a longer rest than the user waits for
        self.refused_probes = 0  # Probes in a row that it refused after it had answered in this run
        self.error = config.error  # Its latest fault
        self.requests = 0
        self.answered = 0
        self.failures = 0
        self.probes = 0
        self.usage = Usage()
        self.probe_usage = Usage()
        self._reasoning_room = 0  # Tokens added to length limits because the model has reasoned past them
        self.mean_s: float | None = None  # Moving mean of its latency in seconds, however old
        self._measured_at = 0.0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._refused_alone = 0
        self._status_reporter = config.backend if isinstance(config.backend, ReportsRateLimits) else None
        self._rate_limits: RateLimitStatus | None = None
        self._movable: dict[asyncio.Timeout, float] = {}
        if self.error is not None and self.error.scope is Scope.RUN:
            breaker.disable()
        elif self.error is not None:
            breaker.open(-math.inf)

    @property
    def limit(self) -> int:
        """Requests that may be in flight here now."""
        state = self.breaker.state
        if state is BreakerState.CLOSED:
            return self.limiter.allowed
        return 1 if state is BreakerState.HALF_OPEN else 0

    def has_room(self, now: float) -> bool:
        """Whether a request may be sent now."""
        limit = self.limiter.allowed if self.breaker.state is BreakerState.CLOSED else self.limit
        return self.in_flight < limit and now >= self.rests_until

    def latency_s(self, now: float) -> float | None:
        """Moving mean of its latency in seconds; `None` when it is unknown or too old."""
        if self.mean_s is None or now - self._measured_at > max(_STALE_S, 4 * self.mean_s):
            return None
        return self.mean_s

    def rest(self, seconds: float, now: float, reason: str) -> bool:
        """Send nothing for `seconds`; return whether that is longer than what was known."""
        longer = now + seconds > self.rests_until + 0.05
        self.rest_reason = reason if longer else self.rest_reason
        self.rests_until = max(self.rests_until, now + seconds)
        return longer

    def take_back(self, after_s: float, most: int, now: float) -> None:
        """End the oldest movable requests that are older than `after_s`, at most `most`; each fails with `TooSlow`."""
        # They are in the order in which they started.
        late = [limit for limit, started in self._movable.items() if now - started > after_s]
        for limit in late[:most]:
            del self._movable[limit]
            limit.reschedule(now)

    async def send(
        self, request: GenerateRequest, observer: CallObserver, deadlines: Deadlines, *, movable: bool
    ) -> Completion:
        """Send `request` once; update limiter, breaker and counters.

        Args:
            request: what to send.
            observer: follows the call.
            deadlines: time limits of the call.
            movable: whether `take_back` may end it.

        Raises:
            BackendError: it failed; `charged` says whether that counts against the request.
            LimitRaised: its length limit was too low for the model's reasoning.
            RunawayAnswer: the answer had to be stopped.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        self.requests += 1
        asked, request = request, self._adapted(request)
        try:
            if movable:
                completion = await self._movable_call(request, observer, deadlines, started)
            else:
                completion = await generate(self.config.backend, request, deadlines, observer, self)
        except BackendError as error:
            self._record_failure(error, started, clock())
            raise
        except AnswerError:
            self.answered += 1
            self._record_success()
            raise
        now = clock()
        self.answered += 1
        self.usage += completion.usage
        self._latencies.append(completion.total_s)
        self._measured_at = now
        mean = completion.total_s if self.mean_s is None else self.mean_s
        self.mean_s = mean + _NEWEST * (completion.total_s - mean)
        self._record_success()
        limiter = self.limiter
        if limiter.adaptive is not None or limiter.allowed < limiter.concurrency:
            limiter.answered(now, started, self.in_flight, self.characters)
        if completion.finish_reason == "length" or not completion.text.strip():
            self._raise_limit(asked, request, completion)
        return completion

    def _raise_limit(self, asked: GenerateRequest, sent: GenerateRequest, completion: Completion) -> None:
        """Raise the length limit for the rest of the run if reasoning has used it up.

        Raises:
            LimitRaised: it is higher now than `sent` had it, so that sending the request again may help.
        """
        limit, own = sent.options.max_tokens, asked.options.max_tokens
        if limit is None or own is None or not asked.options.most_reasoning or not _reasoned_past(completion, limit):
            return
        room = limit - own
        if self._reasoning_room <= room:
            self._reasoning_room = next((step for step in _RAISES if step > room), room)
        if min(self._reasoning_room, asked.options.most_reasoning) > room:
            raise LimitRaised(
                f"reasoning has used up the limit of {limit} tokens, which is raised to {own + self._reasoning_room}",
                completion.usage,
            )

    async def _movable_call(
        self, request: GenerateRequest, observer: CallObserver, deadlines: Deadlines, started: float
    ) -> Completion:
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._movable[limit] = started
                return await generate(self.config.backend, request, deadlines, observer, self)
        except TimeoutError as error:
            after = asyncio.get_running_loop().time() - started
            raise TooSlow(f"{self.config.name} has not answered in {after:.0f} s; others are much faster") from error
        finally:
            self._movable.pop(limit, None)

    async def probe(self, deadlines: Deadlines, thinking: bool | str | None = None) -> BackendError | None:
        """Ask a short question of the program's own.

        Returns:
            The error, or `None` when the endpoint has answered.
        """
        options = Options(temperature=0.0, max_tokens=16, thinking=thinking)
        request = self._adapted(GenerateRequest(self.config.model, PROBE_MESSAGES, options))
        self.probes += 1
        try:
            completion = await generate(self.config.backend, request, deadlines)
        except BackendError as error:
            return error
        except AnswerError:
            return None
        self.probe_usage += completion.usage
        return None

    def asked_wait_s(self, longest_s: float) -> float:
        """Seconds that the latest answer's rate-limit headers ask to wait, once per answer; 0 beyond `longest_s`."""
        status = self._status_reporter.rate_limit_status if self._status_reporter is not None else None
        if status is None or status is self._rate_limits:
            return 0.0
        self._rate_limits = status
        wait = status.wait_s()
        return wait if wait <= longest_s else 0.0

    def figures(self, all_answers: int) -> EndpointFigures:
        """Its figures so far; `all_answers` is the whole for its share."""
        closed = self.breaker.state is BreakerState.CLOSED
        return EndpointFigures(
            name=self.config.name,
            backend=self.config.backend.name,
            model=self.config.model,
            requests=self.requests,
            answered=self.answered,
            failures=self.failures,
            probes=self.probes,
            usage=self.usage,
            median_s=statistics.median(self._latencies) if self._latencies else None,
            share=self.answered / all_answers if all_answers else 0.0,
            state="" if closed else self.breaker.state.value,
            reason=self.error.message if self.error is not None and not closed else "",
        )

    def _adapted(self, request: GenerateRequest) -> GenerateRequest:
        """`request` with this endpoint's model name and reasoning setting, and with room for reasoning."""
        options = request.options
        if self.config.thinking is not None and options.thinking is None:
            options = dataclasses.replace(options, thinking=self.config.thinking)
        if options.most_reasoning and self._reasoning_room:
            options = self._with_room(options)
        if options is request.options and request.model == self.config.model:
            return request
        return dataclasses.replace(request, model=self.config.model, options=options)

    def _with_room(self, options: Options) -> Options:
        room = min(self._reasoning_room, options.most_reasoning)
        if options.thinking is None and not options.keeps_thinking and self._reasoning_room >= _TURNED_OFF_FROM:
            options = dataclasses.replace(options, thinking=False)
        window = options.context_window
        return dataclasses.replace(
            options,
            max_tokens=None if options.max_tokens is None else options.max_tokens + room,
            context_window=None if window is None else window + room,
        )

    def _record_success(self) -> None:
        self.has_answered = True
        self._refused_alone = self.long_rests = 0
        if self.breaker.failures or self.breaker.state is not BreakerState.CLOSED:
            self.breaker.record_success()

    def _record_failure(self, error: BackendError, started: float, now: float) -> None:
        self.error = error
        self.failures += 1
        if isinstance(error, RateLimited):
            alone = self.limiter.refused(now, started, self.in_flight, by_time=bool(error.retry_after_s))
            error.charged = not self.breaker.blocks
            self._refused_alone += alone
            if self._refused_alone >= _MOST_REFUSED_ALONE and not self.breaker.blocks:
                self._refused_alone = 0
                self.breaker.open(now)
            return
        if error.status in _TOO_BUSY or isinstance(error, NothingInTime):
            self.limiter.strained(now, started, self.in_flight)
        if isinstance(error, TooSlow):
            error.charged = False
        elif error.scope is Scope.ITEM:
            # The error is about the request, so the endpoint is there. A plain 400 from one that never answered may be
            # about the configuration; the client finds that out by a probe.
            self._refused_alone = 0
            self.breaker.record_success()
        elif error.scope is Scope.RETRY or self.may_pass(error):
            error.charged = not self.breaker.record_failure(now)
        else:
            self.breaker.disable()
            error.charged = False

    def may_pass(self, error: BackendError) -> bool:
        """Whether a fault that ends the run elsewhere may be the row's or a passing one here.

        Without a breaker's threshold nothing is known of other rows: each call gets its own error at once.
        """
        return self.has_answered and self.breaker.threshold is not None and isinstance(error, _MAY_PASS)


def _reasoned_past(completion: Completion, limit: int) -> bool:
    """Whether reasoning, and not the answer itself, has used up the length limit."""
    usage, text = completion.usage, completion.text
    if completion.finish_reason != "length":
        # Some servers say `stop` nevertheless.
        return not text.strip() and usage.completion_tokens >= limit
    if completion.thinking or usage.reasoning_tokens > limit // 2:
        return True
    return not without_reasoning(text).strip()
