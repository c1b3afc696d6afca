"""Finds how many requests at once a server does the most work with, by trying.

A pattern search on the logarithm of the number: measure, double while that helps, go back when it does not, halve the
step, and stay at the best; look around again now and then. What counts is text per second over all requests, not how
long one of them takes: batching makes each answer slower and all of them together faster. The idea of measuring what a
server takes instead of asking for it is that of adaptive concurrency limits (Netflix's concurrency-limits, after TCP
Vegas); those go by latency, which says little where answers differ in length.
"""

from __future__ import annotations

import math

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


class Climb:
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
