"""Sends requests through the limiter, and sends one again while the transport is at fault."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable

from mellea_cli.backends.base import Backend
from mellea_cli.engine.generate import Deadlines, generate
from mellea_cli.engine.limits import Limiter
from mellea_cli.engine.outage import Outage
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.engine.watch import UNWATCHED, Watch
from mellea_cli.errors import BackendError, RateLimited
from mellea_cli.events import Observer, Paused, nobody
from mellea_cli.messages import Completion, GenerateRequest


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
        self._outage = outage or Outage(observer=observer)
        self._observer = observer
        self._jitter = jitter

    async def send(self, request: GenerateRequest, watch: Watch = UNWATCHED) -> Completion:
        """Send `request` until it goes through.

        Returns:
            The completion, with the number of times the request was sent in `attempts`.

        Raises:
            BackendError: the error cannot be mended by sending the request again, or the budget of retries is spent;
                `attempts` says how often it was sent.
            RunawayAnswer: the answer had to be stopped.
        """
        faults = limited = sent = 0
        began = asyncio.get_running_loop().time()
        while True:
            sent += 1
            try:
                async with self._outage.turn(), self.limiter.slot():
                    completion = await generate(self.backend, request, self.deadlines, watch)
            except BackendError as error:
                error.attempts = sent
                if not error.retryable or not watch.resend():
                    raise
                # An outage is the server's trouble: it is waited out and not charged to this request.
                if not self._outage.failed(error):
                    if isinstance(error, RateLimited):
                        limited += 1
                    else:
                        faults += 1
                await self._wait(error, limited if isinstance(error, RateLimited) else faults, sent, watch, began)
            else:
                self._outage.answered()
                return completion if sent == 1 else dataclasses.replace(completion, attempts=sent)

    async def _wait(self, error: BackendError, failures: int, sent: int, watch: Watch, began: float) -> None:
        watch.failed(error.kind, error.message)
        if self._outage.away:
            watch.retry(0.0, sent + 1)
            self.retries += 1
            return
        rate_limited = isinstance(error, RateLimited)
        delay = self.policy.delay_s(failures, error.retry_after_s, self._jitter, rate_limited=rate_limited)
        longest = self.policy.max_elapsed_s
        if delay is None or (longest is not None and asyncio.get_running_loop().time() - began + delay > longest):
            raise error
        if rate_limited and self.limiter.pause(delay):
            # What the server asks of one request it means for all.
            self._observer(Paused(error.message, delay))
        self.retries += 1
        watch.retry(delay, sent + 1)
        await asyncio.sleep(delay)
