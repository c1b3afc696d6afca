"""How fast things go now, not on average since the start."""

from __future__ import annotations

from collections import deque

_SPACING_S = 0.25
"""Samples closer together than this replace each other, so a window holds a bounded number of them."""


class SlidingRate:
    """The recent growth of a counter.

    The window stretches beyond `window_s` until it holds `least` counts, so that a slow run has a rate too.

    Args:
        window_s: seconds to look back.
        least: counts that the window should hold before old samples are let go.
    """

    __slots__ = ("_least", "_samples", "_window_s")

    def __init__(self, window_s: float, least: int = 0) -> None:
        self._window_s = window_s
        self._least = least
        self._samples: deque[tuple[float, float]] = deque()

    def observe(self, now: float, counted: float) -> None:
        """Note that the counter stands at `counted` at the time `now` (seconds, any origin, never falling)."""
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < _SPACING_S:
            samples[-1] = (now, counted)
        else:
            samples.append((now, counted))
        while len(samples) > 2 and now - samples[1][0] >= self._window_s and counted - samples[1][1] >= self._least:
            samples.popleft()
        if len(samples) > 1024:  # a run that stands still for long: thin out, the ends are what counts
            self._samples = deque([samples[0], *list(samples)[1:-1:2], samples[-1]])

    def per_second(self) -> float:
        """Counts a second over the window; 0 while it is too short to tell."""
        if len(self._samples) < 2:
            return 0.0
        (then, before), (now, counted) = self._samples[0], self._samples[-1]
        return max(0.0, counted - before) / (now - then) if now - then > 0.05 else 0.0


class TokenMeter:
    """Turns streamed pieces of text into a number of tokens.

    A local server sends a token a piece; others put several into one. The estimate is scaled by what servers said
    afterwards in their usage.
    """

    __slots__ = ("_counted", "_estimated")

    def __init__(self) -> None:
        self._estimated = 0.0
        self._counted = 0.0

    @staticmethod
    def raw(pieces: int, chars: int) -> float:
        """The unscaled estimate for one stream of `pieces` pieces with `chars` characters in all."""
        return max(float(pieces), chars / 5) if pieces else 0.0

    def learn(self, raw: float, tokens: int) -> None:
        """A stream estimated at `raw` turned out to be `tokens` tokens."""
        if raw > 0 and tokens > 0:
            self._estimated = self._estimated * 0.9 + raw
            self._counted = self._counted * 0.9 + tokens

    def scaled(self, raw: float) -> float:
        """The best estimate for a stream or a sum of streams whose unscaled estimate is `raw`."""
        return raw * self._counted / self._estimated if self._estimated else raw
