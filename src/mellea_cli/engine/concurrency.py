"""How many requests may be in flight, and from when on: the one gate that every model call passes."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mellea_cli.engine.rate_limiter import RateLimiter

# Finds how many requests at once a server does the most work with, by trying.
#
# A pattern search on the logarithm of the number: measure, double while that helps, go back when it does not, halve the
# step, and stay at the best; look around again now and then. What counts is text per second over all requests, not how
# long one of them takes: batching makes each answer slower and all of them together faster. The idea of measuring what
# a server takes instead of asking for it is that of adaptive concurrency limits (Netflix's concurrency-limits, after
# TCP Vegas); those go by latency, which says little where answers differ in length.

# A step up must bring this share more, a step down may cost no more than that of the best seen.
_WORTH = 0.04
_LOSS = 0.03
# A number is judged over so many answers for each place, after one round to fill the places.
_ROUNDS = 3
_FEWEST_ANSWERS = 12
# Faster servers are watched for at least, slower ones for at most so many seconds.
_SHORTEST_S = 0.4
_LONGEST_S = 60.0
# A number counts as tried when so large a share of its places was taken.
_USED = 0.75
# The search ends with steps of a fifth or so; settled, it looks around after so many looks, then twice as many, ...
_LAST_STEP = 0.3
# It also ends so near below a number that was refused.
_CLOSE = 0.08
_FIRST_REST = 4
_LONGEST_REST = 64
# Settled, a rate below this share of the best seen, twice in a row, means that the server has changed.
_CHANGED = 0.6


class AdaptiveConcurrency:
    """Decides how many requests may be in flight, from the text that arrives.

    Args:
        start: where the search begins: what the server itself says that it works on at once.
        most: never more than this.
    """

    _since: tuple[float, int] | None
    _answers: int
    _held: int

    def __init__(self, start: int, most: int) -> None:
        if not 1 <= start <= most:
            raise ValueError(f"the search begins between 1 and {most}, not at {start}")
        self._most = most
        self._ceiling = math.inf
        self._begin(start)

    def _begin(self, start: int) -> None:
        """Search from `start` on, without knowing anything."""
        self.level = start
        """Requests that may be in flight now."""
        self.best = start
        """The best number found so far."""
        self.settled = False
        """Whether the search has ended, for the time being."""
        self._best_rate = 0.0
        self._top_rate = 0.0
        self._step = 1.0
        self._up = True
        self._turned = False
        self._rest = _FIRST_REST
        self._looks = 0
        self._poor = 0
        self._restart(-math.inf)

    def answered(self, now: float, started: float, letters: int, held: int) -> bool:
        """An answer has come.

        Args:
            now: the time, in seconds.
            started: when its request was let through.
            letters: characters of text that have arrived so far, over all requests.
            held: places that were taken; a rate says nothing about a number that was not used.

        Returns:
            Whether `level` has changed.
        """
        if self._since is None:
            # The places must all be filled with requests of this number before the clock starts.
            if started >= self._changed_at:
                self._since = (now, letters)
            return False
        self._answers += 1
        self._held += held
        began, before = self._since
        lasted = now - began
        enough = self._answers >= max(_ROUNDS * self.level, _FEWEST_ANSWERS) and lasted >= _SHORTEST_S
        if not enough and not (lasted >= _LONGEST_S and self._answers >= self.level):
            return False
        old, used = self.level, self._held / self._answers
        if used >= _USED * old:
            self._judge((letters - before) / lasted)
        self._restart(now)
        return self.level != old

    def refused(self, now: float, allowed: int, *, anew: bool = True) -> None:
        """The server has refused a request, or was too slow for it, because there were too many.

        Args:
            now: the time, in seconds.
            allowed: how many may be in flight from now on.
            anew: whether this number of requests is refused for the first time: many of one burst are one refusal.
        """
        if anew:
            self._ceiling = max(1, min(self._ceiling, self.level - 1))
        self.level = int(max(1, min(allowed, self._ceiling)))
        if self.best > self._ceiling:
            self.best, self._best_rate = self.level, 0.0
        self._step = min(self._step, 0.5)
        # What was refused may lie far above what would not be: from here the way up is halved.
        self._up, self._turned = True, False
        self._restart(now)

    def _restart(self, now: float) -> None:
        self._changed_at, self._since, self._answers, self._held = now, None, 0, 0

    def _judge(self, rate: float) -> None:
        """`level` has brought `rate`: keep it or go back, and choose what to try next."""
        tried = self.level
        if self.settled and tried == self.best:
            self._look_around(rate)
            return
        if tried == self.best or self._better(tried, rate):
            self.best, self._best_rate = tried, rate
            self._top_rate = max(self._top_rate, rate)
            # What lies on the side it came from is known already.
            self._turned = True
        elif self.settled:
            # What lay beside it was no better: rest for longer.
            self._rest = min(2 * self._rest, _LONGEST_REST)
            self.level = self.best
            return
        elif tried > self.best or not self._up:
            self._turn()
        # Else a refusal has cut it below the best number, on the way up: that says nothing about the way.
        self._propose()

    def _better(self, tried: int, rate: float) -> bool:
        if tried > self.best:
            return rate > self._best_rate * (1 + _WORTH)
        # With fewer in flight each answer comes sooner: that is worth having at the same rate.
        return rate >= self._top_rate * (1 - _LOSS)

    def _turn(self) -> None:
        """The last step was none: try the other side, then smaller steps."""
        if self._turned:
            self._step /= 2
        self._up, self._turned = not self._up, not self._turned

    def _propose(self) -> None:
        """Go one step from the best number; when there is nowhere left to go the search is over."""
        while self._step >= _LAST_STEP:
            level = self._next()
            if level != self.best:
                self.level = level
                return
            self._turn()
        self.level, self.settled, self._looks = self.best, True, 0

    def _next(self) -> int:
        """One step from the best number, or half of the way to the one that was refused where that is nearer."""
        near = self.best * 2 ** (self._step if self._up else -self._step)
        if self._up and near > self._ceiling:
            gap = self._ceiling - self.best
            near = self.best if gap <= max(1, _CLOSE * self.best) else self.best + gap / 2
        level = math.ceil(near) if self._up else math.floor(near)
        return int(max(1, min(level, self._most)))

    def _look_around(self, rate: float) -> None:
        """Settled: follow the rate, and try a neighbour now and then."""
        self._best_rate += 0.25 * (rate - self._best_rate) if self._best_rate else rate
        self._poor = self._poor + 1 if rate < _CHANGED * self._top_rate else 0
        self._looks += 1
        if self._poor >= 2:
            self._begin(self.best)
        elif self._looks >= self._rest:
            self._looks = 0
            self._top_rate = self._best_rate
            self._ceiling = self._ceiling + 1 if self._ceiling <= self.best else math.inf
            self._up = not self._up
            near = self.best * 1.25 if self._up else self.best / 1.25
            self.level = int(max(1, min(math.ceil(near) if self._up else near, self._most, self._ceiling)))


# A refusal takes this share of the places away, at most once for all requests that were sent together.
_CUT = 0.8
# Near the number at which a server refused, one more place is tried after so many rounds of answers, and each time that
# is refused too after twice as many.
_FIRST_ROUNDS = 8
_MOST_ROUNDS = 256


class ConcurrencyLimiter:
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
        climb: AdaptiveConcurrency | None = None,
        pace: RateLimiter | None = None,
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
