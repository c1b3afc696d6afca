"""The run in numbers: what is done, how fast it goes, how long it will take."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from mellea_cli.events import ItemFinished
from mellea_cli.ui.rates import SlidingRate, TokenMeter

_ITEM_WINDOW_S = 20.0
_TOKEN_WINDOW_S = 5.0
_FAILURES_KEPT = 3
_MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class FailedItem:
    """A failure worth showing."""

    id: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The run's numbers at one moment."""

    total: int | None = None
    done: int = 0
    """Items with an answer, reused ones included."""
    failed: int = 0
    reused: int = 0
    retried: int = 0
    in_flight: int = 0
    """Items that a worker holds."""
    items_per_s: float = 0.0
    tokens_per_s: float = 0.0
    left_s: float | None = None
    """Seconds still to go at the recent rate, or `None` while nobody can tell."""
    elapsed_s: float = 0.0
    failures: tuple[FailedItem, ...] = ()
    """The last few, oldest first."""

    @property
    def settled(self) -> int:
        """Items that are over, well or not."""
        return self.done + self.failed


class ProgressMeter:
    """Counts and rates of one run. Not locked: `RunView` is."""

    __slots__ = (
        "_concurrency",
        "_failures",
        "_items",
        "_meter",
        "_started",
        "_tokens",
        "_tokens_settled",
        "done",
        "failed",
        "kinds",
        "retried",
        "reused",
        "total",
    )

    def __init__(self, now: float) -> None:
        self.total: int | None = None
        self.done = self.failed = self.reused = self.retried = 0
        self.kinds: Counter[str] = Counter()
        self._failures: deque[FailedItem] = deque(maxlen=_FAILURES_KEPT)
        self._meter = TokenMeter()
        self._tokens_settled = 0.0
        self.start(now, total=None, concurrency=1)

    def start(self, now: float, *, total: int | None, concurrency: int) -> None:
        """The run begins now."""
        self.total = total
        self._started = now
        self._concurrency = max(1, concurrency)
        self._items = SlidingRate(_ITEM_WINDOW_S, least=2 * self._concurrency)
        self._tokens = SlidingRate(_TOKEN_WINDOW_S)
        self._items.observe(now, self.done + self.failed - self.reused)
        self._tokens.observe(now, self._tokens_settled)

    def finish(self, event: ItemFinished, streamed: float) -> None:
        """Count an item that is over, whose streams were estimated at `streamed` tokens."""
        if event.ok:
            self.done += 1
        else:
            self.failed += 1
            self.kinds[event.kind] += 1
            self._failures.append(FailedItem(event.id, event.kind, event.message[:_MESSAGE_CHARS]))
        if event.reused:
            self.reused += 1
            return
        counted = event.usage.completion_tokens
        self._meter.learn(streamed, counted)
        self._tokens_settled += counted or self._meter.scaled(streamed)

    def progress(self, now: float, *, in_flight: int, streaming: float, paused_s: float) -> Progress:
        """The numbers at the time `now`.

        Args:
            now: the time, in seconds.
            in_flight: items that a worker holds.
            streaming: unscaled estimate of the tokens that have streamed for them.
            paused_s: seconds for which no request will be sent.
        """
        self._items.observe(now, self.done + self.failed - self.reused)
        self._tokens.observe(now, self._tokens_settled + self._meter.scaled(streaming))
        return Progress(
            total=self.total,
            done=self.done,
            failed=self.failed,
            reused=self.reused,
            retried=self.retried,
            in_flight=in_flight,
            items_per_s=self._items.per_second(),
            tokens_per_s=self._tokens.per_second(),
            left_s=self._left(paused_s),
            elapsed_s=now - self._started,
            failures=tuple(self._failures),
        )

    def _left(self, paused_s: float) -> float | None:
        settled = self.done + self.failed
        asked = settled - self.reused
        if self.total is None or settled >= self.total:
            return None
        # The first items of all workers end at about the same time: before that, a rate would be far too low.
        per_second = self._items.per_second()
        if asked < max(2, min(self._concurrency, self.total // 4)) or per_second <= 0:
            return None
        return (self.total - settled) / per_second + paused_s
