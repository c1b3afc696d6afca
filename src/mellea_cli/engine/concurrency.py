"""Concurrency limits: how many requests may be in flight at one endpoint, found by trying where the user sets none.

Everything here is plain state; callers pass the clock's reading.
"""

from __future__ import annotations

import asyncio
import math

# A step up must bring this share more text per second; a step down may lose this share of the best rate.
_WORTH = 0.04
_LOSS = 0.03
# A level is judged over this many answers for each request in flight, after one round that fills it.
_ROUNDS = 3
_FEWEST_ANSWERS = 12
# Shortest and longest time over which a level is judged, in seconds.
_SHORTEST_S = 0.4
_LONGEST_S = 60.0
# A level counts as tried when this share of it was in use.
_USED = 0.75
# The search ends with steps of about a fifth, or this near below a level that was refused.
_LAST_STEP = 0.3
_CLOSE = 0.08
# A settled search tries a neighbour after this many judgements, then after twice as many, and so on.
_FIRST_REST = 4
_LONGEST_REST = 64
# Two rates in a row below this share of the best one mean that the server has changed.
_CHANGED = 0.6


class AdaptiveConcurrency:
    """Searches for the number of requests in flight that brings the most text per second.

    A pattern search on the logarithm of the number: double while that helps, go back when it does not, halve the step,
    stay at the best, and try a neighbour now and then. The rate over all requests counts, not the latency of one:
    batching makes each answer slower and all of them together faster. Measuring what a server takes is the idea of
    adaptive concurrency limits (Netflix's concurrency-limits, after TCP Vegas); those go by latency, which says
    little where answers differ in length.

    Args:
        start: first level: what the server itself says that it works on at once.
        most: highest level.
    """

    _since: tuple[float, int] | None
    _answers: int
    _held: int

    def __init__(self, start: int, most: int) -> None:
        if not 1 <= start <= most:
            raise ValueError(f"start must be between 1 and {most}, not {start}")
        self._most = most
        self._ceiling = math.inf
        self._begin(start)

    def _begin(self, start: int) -> None:
        self.level = start  # Requests that may be in flight now
        self.best = start  # Best level found so far
        self.settled = False  # Whether the search has ended for the time being
        self._best_rate = 0.0
        self._top_rate = 0.0
        self._step = 1.0
        self._up = True
        self._turned = False
        self._rest = _FIRST_REST
        self._judgements = 0
        self._poor = 0
        self._restart(-math.inf)

    def answered(self, now: float, started: float, characters: int, held: int) -> bool:
        """Record an answer.

        Args:
            now: the time, in seconds.
            started: when its request was sent.
            characters: characters of text received so far, over all requests.
            held: requests in flight; a rate says nothing about a level that was not used.

        Returns:
            Whether `level` has changed.
        """
        if self._since is None:
            # The clock starts once requests of this level fill all places.
            if started >= self._changed_at:
                self._since = (now, characters)
            return False
        self._answers += 1
        self._held += held
        began, before = self._since
        lasted = now - began
        enough = self._answers >= max(_ROUNDS * self.level, _FEWEST_ANSWERS) and lasted >= _SHORTEST_S
        if not enough and not (lasted >= _LONGEST_S and self._answers >= self.level):
            return False
        old = self.level
        if self._held / self._answers >= _USED * old:
            self._judge((characters - before) / lasted)
        self._restart(now)
        return self.level != old

    def refused(self, now: float, allowed: int, *, first_time: bool = True) -> None:
        """Record that the server refused a request, or was too slow, because there were too many.

        Args:
            now: the time, in seconds.
            allowed: requests that may be in flight from now on.
            first_time: whether this level is refused for the first time; many refusals of one burst count once.
        """
        if first_time:
            self._ceiling = max(1, min(self._ceiling, self.level - 1))
        self.level = int(max(1, min(allowed, self._ceiling)))
        if self.best > self._ceiling:
            self.best, self._best_rate = self.level, 0.0
        self._step = min(self._step, 0.5)
        # The refused level may lie far above the best one, so the way up is halved.
        self._up, self._turned = True, False
        self._restart(now)

    def interrupted(self, now: float) -> None:
        """Judge the level from now on: nothing was sent for a while, which says nothing about it."""
        self._restart(now)

    def _restart(self, now: float) -> None:
        self._changed_at, self._since, self._answers, self._held = now, None, 0, 0

    def _judge(self, rate: float) -> None:
        """Keep `level` or go back, by the rate it has brought, and choose the next one."""
        tried = self.level
        if self.settled and tried == self.best:
            self._follow(rate)
            return
        if tried == self.best or self._better(tried, rate):
            self.best, self._best_rate = tried, rate
            self._top_rate = max(self._top_rate, rate)
            # The side it came from is known already.
            self._turned = True
        elif self.settled:
            self._rest = min(2 * self._rest, _LONGEST_REST)
            self.level = self.best
            return
        elif tried > self.best or not self._up:
            self._turn()
        # Otherwise a refusal has cut the level below the best one on the way up, which says nothing about the way.
        self._propose()

    def _better(self, tried: int, rate: float) -> bool:
        if tried > self.best:
            return rate > self._best_rate * (1 + _WORTH)
        # At the same rate, fewer requests in flight mean that each answer comes sooner.
        return rate >= self._top_rate * (1 - _LOSS)

    def _turn(self) -> None:
        """Try the other side, then smaller steps."""
        if self._turned:
            self._step /= 2
        self._up, self._turned = not self._up, not self._turned

    def _propose(self) -> None:
        """Go one step from the best level; settle when no step is left."""
        while self._step >= _LAST_STEP:
            level = self._next()
            if level != self.best:
                self.level = level
                return
            self._turn()
        self.level, self.settled, self._judgements = self.best, True, 0

    def _next(self) -> int:
        """One step from the best level, or half of the way to a refused level that is nearer."""
        near = self.best * 2 ** (self._step if self._up else -self._step)
        if self._up and near > self._ceiling:
            gap = self._ceiling - self.best
            near = self.best if gap <= max(1, _CLOSE * self.best) else self.best + gap / 2
        level = math.ceil(near) if self._up else math.floor(near)
        return int(max(1, min(level, self._most)))

    def _follow(self, rate: float) -> None:
        """Once settled: follow the rate, and try a neighbour now and then."""
        self._best_rate += 0.25 * (rate - self._best_rate) if self._best_rate else rate
        self._poor = self._poor + 1 if rate < _CHANGED * self._top_rate else 0
        self._judgements += 1
        if self._poor >= 2:
            self._begin(self.best)
        elif self._judgements >= self._rest:
            self._judgements = 0
            self._top_rate = self._best_rate
            self._ceiling = self._ceiling + 1 if self._ceiling <= self.best else math.inf
            self._up = not self._up
            near = self.best * 1.25 if self._up else self.best / 1.25
            self.level = int(max(1, min(math.ceil(near) if self._up else near, self._most, self._ceiling)))


# A refusal lowers the limit to this share, at most once for all requests that were sent together.
_CUT = 0.8
# Near the limit of the last refusal one more request is tried after this many rounds of answers, then after twice as
# many each time it is refused again.
_FIRST_ROUNDS = 8
_MOST_ROUNDS = 256


class ConcurrencyLimiter:
    """Requests that may be in flight at one endpoint.

    The limit is `concurrency`, or less while the server refuses more: each refusal lowers it, each round of answers
    raises it by one, slowly near the last refusal. With `adaptive` the limit is what the search says.

    Args:
        concurrency: highest limit.
        adaptive: the search for the best limit; `None` uses as many as the server takes.
        first_alone: whether the limit is 1 until `open_up`: a small machine that works on several requests at once
            takes long to finish any of them, so the first answer would come late.
    """

    def __init__(
        self, concurrency: int, *, adaptive: AdaptiveConcurrency | None = None, first_alone: bool = False
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self.concurrency = concurrency
        self.adaptive = adaptive
        self.first_alone = first_alone
        self._limit = float(adaptive.level if adaptive is not None else concurrency)
        self.allowed = 1 if first_alone else int(self._limit)  # Requests that may be in flight now
        self._ceiling = math.inf
        self._rounds = _FIRST_ROUNDS
        self._cut_at = -math.inf

    def fix(self, concurrency: int) -> None:
        """Set the limit to a number of the user's, and end the search for the best one."""
        self.concurrency, self.adaptive = concurrency, None
        self._limit, self._ceiling, self._rounds = float(concurrency), math.inf, _FIRST_ROUNDS
        self.allowed = 1 if self.first_alone else concurrency

    def open_up(self) -> None:
        """End the time of the first request alone."""
        self.first_alone = False
        self.allowed = int(self._limit)

    def refused(self, now: float, started: float, in_flight: int, *, by_time: bool) -> bool:
        """Lower the limit after the server refused a request because there were too many.

        Args:
            now: the time, in seconds.
            started: when that request was sent.
            in_flight: requests in flight, that one included.
            by_time: whether the server named a time to wait: then it counts requests over time. Otherwise it counts
                requests at once, and the others in flight are what it takes.

        Returns:
            Whether the request was refused although it was allowed to be the only one.
        """
        alone, first_time = self.allowed == 1 and not self.first_alone, started > self._cut_at
        if first_time:
            if self._limit < self._ceiling + 1 < math.inf:
                self._rounds = min(2 * self._rounds, _MOST_ROUNDS)
            self._ceiling = self._limit
            self._limit *= _CUT
            self._cut_at = now
        if not by_time:
            self._limit = min(self._limit, float(in_flight - 1))
        self._limit = max(1.0, self._limit)
        self.allowed = 1 if self.first_alone else int(self._limit)
        if self.adaptive is not None:
            self.adaptive.refused(now, int(self._limit), first_time=first_time)
        return alone

    def strained(self, now: float, started: float, in_flight: int) -> None:
        """Lower an adaptive limit after a failure that may mean too many requests at once."""
        if self.adaptive is not None and self.allowed > 1:
            self.refused(now, started, in_flight, by_time=True)

    def answered(self, now: float, started: float, in_flight: int, characters: int) -> bool:
        """Raise the limit after an answer where more may be better.

        Args:
            now: the time, in seconds.
            started: when the request was sent.
            in_flight: requests in flight, this one included.
            characters: characters of text received so far, over all requests.

        Returns:
            Whether `allowed` has changed.
        """
        before = self.allowed
        if self.adaptive is not None:
            if not self.adaptive.answered(now, started, characters, in_flight):
                return False
            self._limit = float(self.adaptive.level)
        elif self._limit < self.concurrency:
            near = math.floor(self._limit) + 1 >= math.floor(self._ceiling)
            self._limit += 1 / (self._limit * (self._rounds if near else 1))
            if self._limit >= self._ceiling + 1:
                # The server takes more than it did: look for its new limit quickly.
                self._ceiling = math.inf
                self._rounds = _FIRST_ROUNDS
            self._limit = min(self._limit, float(self.concurrency))
        self.allowed = 1 if self.first_alone else int(self._limit)
        return self.allowed != before


class WorkerSlots:
    """Lets as many workers take items as requests may be in flight, so that no item waits at a worker.

    Args:
        limit: workers that may take items at first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._released = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def wait(self, number: int) -> None:
        """Wait until the worker with this number, counted from 0, may take an item."""
        while number >= self._limit and not self._released:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((number, turn))
            await turn

    def set_limit(self, limit: int) -> None:
        """Let the workers below `limit` take items."""
        self._limit = limit
        if self._waiting:
            self._wake()

    def release(self) -> None:
        """Let every worker go on: there are no more items."""
        self._released = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for number, turn in waiting:
            if not (self._released or number < self._limit):
                self._waiting.append((number, turn))
            elif not turn.done():
                turn.set_result(None)
