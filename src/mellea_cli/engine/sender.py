"""Sends requests through the limiter, and sends one again while the transport is at fault."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable

from mellea_cli.backends.allowance import Allowance, Metered
from mellea_cli.backends.base import Backend
from mellea_cli.engine.climb import Climb
from mellea_cli.engine.generate import Deadlines, NothingInTime, generate
from mellea_cli.engine.limits import Limiter
from mellea_cli.engine.outage import Outage
from mellea_cli.engine.retry import RetryPolicy, Spent
from mellea_cli.engine.watch import UNWATCHED, Watch
from mellea_cli.errors import AnswerError, BackendError, RateLimited, Scope
from mellea_cli.events import Observer, Paused, nobody
from mellea_cli.messages import Completion, GenerateRequest, Message, Options, Usage

# Short, and no text of the user's: what is asked to learn whether the server is there.
ARE_YOU_THERE = (Message("user", "Say OK."),)


# What a server says, or does not get to say, that has more to do than it can.
_TOO_BUSY = frozenset({503, 529})


class Sender:
    """The one way from a question to a model: limiter, deadlines, retries, and patience with a server that is away.

    A stream that breaks is thrown away whole and its request sent again. Bad answers are not its business: those are
    judged, and asked again, by `mellea_cli.engine.attempt`.

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
        limiter: Limiter,
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
        self._metered = backend if isinstance(backend, Metered) else None
        self._heeded: Allowance | None = None

    @property
    def peak(self) -> int:
        """The most requests that were in flight at once."""
        return self.limiter.peak

    @property
    def climb(self) -> Climb | None:
        """What seeks the best number of requests in flight, where it is sought."""
        return self.limiter.climb

    @property
    def rooms(self) -> Limiter | None:
        """What tells a worker whether there is room for it, where the number of requests is sought."""
        return self.limiter if self.climb is not None else None

    async def tend(self) -> None:
        """Nothing needs tending here: whoever sends finds out whether the server is back."""

    def look_ahead(self, left: Callable[[], int | None]) -> None:
        """Nothing is planned ahead with one server."""

    def figures(self) -> tuple[()]:
        """There is only one endpoint: the run's own figures are its figures."""
        return ()

    async def send(self, request: GenerateRequest, watch: Watch = UNWATCHED, spent: Spent | None = None) -> Completion:
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
            return await self._until_through(request, watch, spent or Spent())

    async def _until_through(self, request: GenerateRequest, watch: Watch, spent: Spent) -> Completion:
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

    async def _once(self, request: GenerateRequest, watch: Watch, spent: Spent) -> Completion:
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

    def _failed(self, error: BackendError, started: float, question: Spent) -> None:
        alone = None
        if isinstance(error, RateLimited):
            alone = question if self.limiter.refused(started, by_time=bool(error.retry_after_s)) else None
        elif error.scope is Scope.ITEM:
            self._outage.answered()
        elif error.status in _TOO_BUSY or isinstance(error, NothingInTime):
            self.limiter.strained(started)
        # An outage is the server's trouble: it is waited out and not charged to any request.
        error.charged = not self._outage.failed(error, question=question, alone=alone)

    async def _look_for_server(self, request: GenerateRequest, spent: Spent) -> None:
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

    async def _wait(self, error: BackendError, watch: Watch, spent: Spent, began: float) -> None:
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

    def _delay_s(self, error: BackendError, spent: Spent, began: float) -> float:
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
        allowance = self._metered.allowance if self._metered is not None else None
        if allowance is None or allowance is self._heeded:
            return
        self._heeded = allowance
        wait = allowance.wait_s()
        if 0 < wait <= self.policy.retry_after_cap_s and self.limiter.pause(wait):
            self._observer(Paused("the model server's headers say that its limit is reached", wait))


def _letters(request: GenerateRequest) -> int:
    return sum(len(message.content) for message in request.messages)
