"""How many requests may be in flight, and from when on: the one gate that every model call passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Limiter:
    """Bounds the requests in flight, and makes all of them wait while the server asks to be left alone.

    Args:
        concurrency: requests in flight at most.
        clock: seconds that never go back; the event loop's by default.
    """

    def __init__(self, concurrency: int, *, clock: Callable[[], float] | None = None) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self.concurrency = concurrency
        self.in_flight = 0
        self.peak = 0
        """The most requests that were in flight at once."""
        self._slots = asyncio.Semaphore(concurrency)
        self._not_before = 0.0
        self._clock = clock

    def _now(self) -> float:
        return self._clock() if self._clock else asyncio.get_running_loop().time()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the places in flight; waits for a free one, and for the end of a pause."""
        async with self._slots:
            await self._until_open()
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            try:
                yield
            finally:
                self.in_flight -= 1

    async def _until_open(self) -> None:
        # A pause may be prolonged while this waits, so look again; an event would need a timer for each pause.
        while (wait := self._not_before - self._now()) > 0:  # noqa: ASYNC110 - it sleeps until a time, it does not poll
            await asyncio.sleep(wait)

    def pause(self, seconds: float) -> bool:
        """Let no request start for `seconds` from now; a longer pause that is already on stays.

        Returns:
            Whether this made the pause longer by more than a moment.
        """
        until = self._now() + seconds
        longer = until > self._not_before + 0.05
        self._not_before = max(self._not_before, until)
        return longer
