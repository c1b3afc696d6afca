"""How many requests may be in flight, and from when on: the one gate that every model call passes."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mellea_cli.engine.climb import Climb
from mellea_cli.engine.pace import Pace

# A refusal takes this share of the places away, at most once for all requests that were sent together.
_CUT = 0.8
# Near the number at which a server refused, one more place is tried after so many rounds of answers, and each time that
# is refused too after twice as many.
_FIRST_ROUNDS = 8
_MOST_ROUNDS = 256


class Limiter:
    """Bounds the requests in flight, and makes all of them wait while the server asks to be left alone.

    The bound is `concurrency`, or fewer while the server refuses what goes beyond that: each refusal lowers it, each
    round of answers raises it by one again, carefully where the last refusal came from.

    Args:
        concurrency: requests in flight at most.
        climb: finds by itself how many are best, up to `concurrency`; `None` goes as far as the server lets it.
        pace: spreads their starts over time; `None` lets each start when it has a place.
        first_alone_s: for so many seconds at most the first request has the server for itself, until it is answered: a
            small machine that works on several at once is long in finishing any of them.
        clock: seconds that never go back; the event loop's by default.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        climb: Climb | None = None,
        pace: Pace | None = None,
        first_alone_s: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self.concurrency = concurrency
        self.pace = pace
        self.in_flight = 0
        self.peak = 0
        """The most requests that were in flight at once."""
        self.letters = 0
        """Characters of text that have arrived, over all requests: whoever reads a stream adds to it."""
        self.climb = climb
        self._allowed = float(climb.level if climb is not None else concurrency)
        self._first_alone_s = first_alone_s
        self._then_allowed = self._allowed
        self._opening: asyncio.TimerHandle | None = None
        if first_alone_s:
            self._allowed = 1.0
        self._ceiling = math.inf
        self._rounds = _FIRST_ROUNDS
        self._cut_at = -math.inf
        self._held = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._rooms: list[tuple[int, asyncio.Future[None]]] = []
        self._released = False
        self._not_before = 0.0
        self._clock = clock

    @property
    def allowed(self) -> int:
        """Requests that may be in flight just now: `concurrency`, or what the server has let through."""
        return int(self._allowed)

    def _now(self) -> float:
        return self._clock() if self._clock else asyncio.get_running_loop().time()

    @asynccontextmanager
    async def slot(self, tokens: float = 0.0) -> AsyncIterator[float]:
        """Hold one of the places in flight; waits for a free one, for the end of a pause, and for the pace.

        Args:
            tokens: what the request is expected to cost; only the pace looks at it.

        Yields:
            The moment at which the request was let through, for `refused`.
        """
        await self._take_place()
        try:
            await self._until_open(tokens)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            if self._first_alone_s and self._opening is None:
                self._opening = asyncio.get_running_loop().call_later(self._first_alone_s, self._open_all)
            try:
                yield self._now()
            finally:
                self.in_flight -= 1
                self._open_all()
        finally:
            self._held -= 1
            self._hand_out()

    def _open_all(self) -> None:
        """The first request has been alone for long enough."""
        if not self._first_alone_s:
            return
        self._first_alone_s = 0.0
        if self._opening is not None:
            self._opening.cancel()
        self._allowed = self._then_allowed
        self._make_room()
        self._hand_out()

    async def _take_place(self) -> None:
        if self._held < self.allowed and not self._queue:
            self._held += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The place came at the same moment: somebody else shall have it.
                self._held -= 1
                self._hand_out()
            raise

    async def room(self, number: int) -> None:
        """Wait until there is a place for the worker of that number, counted from 0: none takes work that must wait."""
        while number >= self.allowed and not self._released:
            turn = asyncio.get_running_loop().create_future()
            self._rooms.append((number, turn))
            await turn

    def release(self) -> None:
        """Nothing more is to be done: let every worker that waits for room go."""
        self._released = True
        self._make_room()

    def _make_room(self) -> None:
        left = []
        for number, turn in self._rooms:
            if self._released or number < self.allowed:
                if not turn.done():
                    turn.set_result(None)
            else:
                left.append((number, turn))
        self._rooms = left

    def _hand_out(self) -> None:
        while self._queue and self._held < self.allowed:
            turn = self._queue.popleft()
            if not turn.done():
                self._held += 1
                turn.set_result(None)

    async def _until_open(self, tokens: float) -> None:
        if self.pace is not None and (wait := self.pace.start(self._now(), tokens)) > 0:
            await asyncio.sleep(wait)
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

    def refused(self, started: float, *, by_time: bool) -> bool:
        """The server has refused a request because there were too many; call it while the place is still held.

        Args:
            started: when that request was let through.
            by_time: the server named a time to wait for, so it counts requests over time. Otherwise it counts those
                at once, and what else is in flight now is what it takes.

        Returns:
            Whether it was refused although it was allowed to be the only one.
        """
        alone, anew = self.allowed == 1 and not self._first_alone_s, started > self._cut_at
        if anew:
            if self._allowed < self._ceiling + 1 < math.inf:
                self._rounds = min(2 * self._rounds, _MOST_ROUNDS)
            self._ceiling = self._allowed
            self._allowed *= _CUT
            self._cut_at = self._now()
        if not by_time:
            self._allowed = min(self._allowed, float(self.in_flight - 1))
        self._allowed = max(1.0, self._allowed)
        if self.climb is not None:
            self.climb.refused(self._now(), self.allowed, anew=anew)
        return alone

    def strained(self, started: float) -> None:
        """A request failed in a way that may mean too many at once; matters only where the number is sought."""
        if self.climb is not None and self.allowed > 1:
            self.refused(started, by_time=True)

    def answered(self, started: float = 0.0) -> None:
        """A request went through: try more at once by and by, after a refusal or where more may be better.

        Args:
            started: when it was let through.
        """
        if self.climb is not None:
            if self.climb.answered(self._now(), started, self.letters, self._held):
                self._allowed = float(self.climb.level)
                self._make_room()
                self._hand_out()
            return
        if self._allowed >= self.concurrency:
            return
        near = math.floor(self._allowed) + 1 >= math.floor(self._ceiling)
        self._allowed += 1 / (self._allowed * (self._rounds if near else 1))
        if self._allowed >= self._ceiling + 1:
            # The server takes more than it did: look for its new limit quickly.
            self._ceiling = math.inf
            self._rounds = _FIRST_ROUNDS
        self._allowed = min(self._allowed, float(self.concurrency))
        self._make_room()
        self._hand_out()
