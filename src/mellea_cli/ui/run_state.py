"""Folds a run's events into plain state that a display can draw whenever it likes.

Events come from the run's thread, snapshots are taken by a display's thread. There is no terminal and no Rich here.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any

from mellea_cli.events import (
    AttemptFailed,
    Event,
    ItemFinished,
    ItemStarted,
    Note,
    Paused,
    RetryScheduled,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TokensReceived,
)

# How fast things go now, not on average since the start.

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


# The run in numbers: what is done, how fast it goes, how long it will take.

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
    """Counts and rates of one run. Not locked: `RunState` is."""

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


# One item on its way through its steps, as a panel shows it.

_EXCERPT_CHARS = 800
"""Of an item's own text no more than this is kept."""
_KEPT_CHARS = 8_192
"""Of a stream that outgrows twice this, only the last so many characters are kept."""
_PARTS = 512
"""Pieces that may wait to be joined when nobody looks at a stream."""
_REASON_CHARS = 300


class Phase(Enum):
    """Where a step stands."""

    WAITING = "waiting"
    """Not asked yet: it needs another step's answer, or a free place."""
    ASKED = "asked"
    """Sent; nothing has come back."""
    STREAMING = "streaming"
    """Text is coming."""
    DONE = "done"
    FAILED = "failed"
    """The last attempt led to nothing."""
    RETRYING = "retrying"
    """Waits before it is sent again."""


class Fate(Enum):
    """What became of an item."""

    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StepView:
    """A step at one moment."""

    name: str
    phase: Phase
    text: str
    """What has streamed of the current attempt; its tail only when `clipped`."""
    clipped: bool = False
    attempt: int = 1
    reason: str = ""
    """Why the attempt before this one was void."""
    retry_in_s: int = 0


@dataclass(frozen=True, slots=True)
class PanelView:
    """An item at one moment, with all that its panel needs."""

    position: int
    id: str
    text: str
    steps: tuple[StepView, ...]
    fate: Fate = Fate.RUNNING
    kind: str = ""
    message: str = ""
    latency_s: float = 0.0
    tokens: int = 0


class _Step:
    """A step while it runs. A piece of text costs it a list append; the rest is worked out when somebody looks."""

    __slots__ = ("_chars", "_pieces", "_sifted", "attempt", "clipped", "name", "parts", "phase", "reason", "retry_at")

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = Phase.WAITING
        self.parts: list[str] = []
        self._sifted = 0  # pieces at the front of `parts` that are in the counts: at most one, all earlier text
        self._pieces = self._chars = 0
        self.attempt = 1
        self.clipped = False
        self.reason = ""
        self.retry_at = 0.0

    def sift(self) -> str:
        """Count what came since the last time, and join it to what is kept."""
        parts = self.parts
        if len(parts) == self._sifted:
            return parts[0] if parts else ""
        self._pieces += len(parts) - self._sifted
        kept = len(parts[0]) if self._sifted else 0
        text = "".join(parts)
        self._chars += len(text) - kept
        if len(text) > 2 * _KEPT_CHARS:
            text = text[-_KEPT_CHARS:]
            self.clipped = True
        self.parts = [text]
        self._sifted = 1
        return text

    def raw(self) -> float:
        """Estimated tokens of the current attempt, unscaled."""
        self.sift()
        return TokenMeter.raw(self._pieces, self._chars)

    def forget(self) -> float:
        """Drop what has streamed; returns its estimated tokens, which were generated all the same."""
        raw = self.raw()
        self.parts = []
        self._sifted = self._pieces = self._chars = 0
        self.clipped = False
        return raw

    def view(self, now: float) -> StepView:
        text = self.sift()
        phase, retry_in = self.phase, 0
        if text and phase in (Phase.WAITING, Phase.ASKED, Phase.RETRYING):
            phase = Phase.STREAMING
        elif phase is Phase.RETRYING:
            retry_in = max(0, math.ceil(self.retry_at - now))
            phase = phase if retry_in else Phase.ASKED
        return StepView(self.name, phase, text, self.clipped, self.attempt, self.reason, retry_in)


class ItemState:
    """One item's live state. Not locked: `RunState` is.

    Args:
        position: the item's place in the input.
        item_id: the item's id, as text.
        text: the feedback.
        steps: the pipeline's steps, in order; one that was not announced is added when it shows up.
    """

    __slots__ = (
        "_excerpt",
        "_message",
        "_steps",
        "counted",
        "fate",
        "finished_at",
        "item_id",
        "kind",
        "latency_s",
        "position",
        "void",
    )

    def __init__(self, position: int, item_id: str, text: str, steps: tuple[str, ...]) -> None:
        self.position = position
        self.item_id = item_id
        self._excerpt = text[:_EXCERPT_CHARS]
        self._steps = {name: _Step(name) for name in steps}
        self._message = ""
        self.fate = Fate.RUNNING
        self.kind = ""
        self.latency_s = 0.0
        self.finished_at = 0.0
        self.void = 0.0
        """Estimated tokens of attempts that led to nothing."""
        self.counted = 0
        """Completion tokens as the server counted them, known at the end."""

    def receive(self, step_name: str, text: str) -> None:
        """Take in a piece of an answer. Called for every token, so it does next to nothing."""
        step = self._steps.get(step_name)
        if step is None:
            step = self._step(step_name)
        parts = step.parts
        parts.append(text)
        if len(parts) > _PARTS or len(text) > _KEPT_CHARS:
            step.sift()

    def fold(self, event: Event, now: float) -> None:
        """Take in any other event about this item."""
        match event:
            case StepStarted():
                self._step(event.step).phase = Phase.ASKED
            case AttemptFailed():
                step = self._step(event.step)
                self.void += step.forget()
                step.phase = Phase.FAILED
                step.reason = event.message[:_REASON_CHARS]
            case RetryScheduled():
                step = self._step(event.step)
                step.phase = Phase.RETRYING
                step.attempt = event.attempt
                step.retry_at = now + event.delay_s
            case StepFinished():
                self._step(event.step).phase = Phase.DONE
            case ItemFinished():
                self.fate = Fate.OK if event.ok else Fate.FAILED
                self.kind = event.kind
                self._message = event.message[:_REASON_CHARS]
                self.latency_s = event.latency_s
                self.finished_at = now
                self.counted = event.usage.completion_tokens
            case _:
                pass

    def _step(self, name: str) -> _Step:
        if name not in self._steps:
            self._steps[name] = _Step(name)
        return self._steps[name]

    def streamed(self) -> float:
        """Unscaled estimate of the tokens generated for this item so far, void ones included."""
        return self.void + sum(step.raw() for step in self._steps.values())

    def view(self, now: float) -> PanelView:
        """The state as plain, unchanging data."""
        steps = tuple(step.view(now) for step in self._steps.values())
        return PanelView(
            self.position,
            self.item_id,
            self._excerpt,
            steps,
            self.fate,
            self.kind,
            self._message,
            self.latency_s,
            self.counted,
        )


# Which item stands in which panel.

_DWELL_S = 0.9
"""A finished item keeps its panel for at least this long, so that its result can be read: in half of the panels."""


class Slots:
    """A fixed number of places. An item that has one keeps it until it is over, and then until another needs it."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: list[ItemState | None] = []

    def arrange(self, places: int, active: dict[int, ItemState], now: float) -> list[ItemState | None]:
        """Bring the places up to date and return what stands in each.

        Args:
            places: how many there are now; the screen may have changed since the last call.
            active: the items that are being worked on, by position, in the order in which they were started.
            now: the time, in seconds.
        """
        self._resize(places)
        seated = {id(item) for item in self._places if item is not None}
        waiting = [item for item in active.values() if id(item) not in seated]
        # With quick answers finished items must not take every place from those whose tokens arrive.
        over = sorted(item.finished_at for item in self._places if item is not None and _is_over(item, active))
        surplus = len(over) - len(self._places) // 2
        stale = max(now - _DWELL_S, over[surplus - 1] if surplus > 0 else 0.0)
        for index, item in enumerate(self._places):
            if not waiting:
                break
            if item is None:
                self._places[index] = waiting.pop(0)
            elif _is_over(item, active) and item.finished_at <= stale:
                self._places[index] = waiting.pop()
        return list(self._places)

    def _resize(self, places: int) -> None:
        if len(self._places) > places:  # those who are still busy move up into places of those who are not
            leaving = [item for item in self._places[places:] if item is not None and item.fate is Fate.RUNNING]
            self._places = self._places[:places]
            for index, item in enumerate(self._places):
                if leaving and (item is None or item.fate is not Fate.RUNNING):
                    self._places[index] = leaving.pop(0)
        self._places += [None] * (places - len(self._places))


def _is_over(item: ItemState, active: dict[int, ItemState]) -> bool:
    return item.fate is not Fate.RUNNING or active.get(item.position) is not item


# What can be told of an answer while it is still streaming.

_LABELS = {"positive_aspect": "praise", "main_complaint": "complaint"}
"""Shorter names for columns that would not fit beside their values."""
_MOST_FIELDS = 24


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a structured answer."""

    label: str
    value: str
    """Empty for a value that is null or has not begun."""


def fields(text: str) -> list[Field] | None:
    """The fields of a JSON object, finished or not, in the order in which they stream.

    Nested objects are flattened one level. Meant to be called once a frame, never once a token.

    Returns:
        `None` when the text is not the beginning of a JSON object.
    """
    from pydantic_core import from_json

    start = text.find("{")
    if start < 0 or text[:start].strip(" \t\r\n`json"):  # a fence is all that may stand before it
        return None
    try:
        value = from_json(text[start:], allow_partial="trailing-strings")
    except ValueError:
        value = _without_rest(text[start:])
    return list(_flat(value))[:_MOST_FIELDS] if isinstance(value, dict) else None


def _without_rest(text: str) -> Any:
    """Parse what stands before the last brace: a fence or a remark may follow the object."""
    from pydantic_core import from_json

    try:
        return from_json(text[: text.rindex("}") + 1], allow_partial="trailing-strings")
    except ValueError:
        return None


def _flat(value: dict[str, Any]) -> Iterator[Field]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            for name, leaf in inner.items():
                yield Field(_label(name), _shown(leaf))
        else:
            yield Field(_label(key), _shown(inner))


def _label(key: str) -> str:
    return _LABELS.get(key, key.replace("_", " "))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    return str(value)


_NOTES_KEPT = 200


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a display may show, at one moment."""

    started: bool
    finished: bool
    model: str
    backend: str
    concurrency: int
    progress: Progress
    panels: tuple[PanelView | None, ...]
    """One entry for each panel asked for; `None` where nothing has stood yet."""
    more: int
    """Items in flight that no panel shows."""
    paused: str
    """Why nothing is sent, or empty."""
    paused_s: int
    """Seconds until it goes on."""


class RunState:
    """An observer that remembers what a person wants to see.

    Memory is bounded: an excerpt of each item in flight, at most 16 Ki characters of each stream, a few failures.

    Args:
        clock: seconds from any origin, never falling back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._run = RunStarted("", (), "", "", 1, None)
        self._started = False
        self._finished = False
        self._meter = ProgressMeter(clock())
        self._active: dict[int, ItemState] = {}
        self._slots = Slots()
        self._pause = Paused("", 0.0)
        self._paused_until = 0.0
        self._notes: deque[str] = deque(maxlen=_NOTES_KEPT)

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        if type(event) is TokensReceived:  # the one kind that comes by the thousand: the shortest way for it
            with self._lock:
                item = self._active.get(event.position)
                if item is not None:
                    item.receive(event.step, event.text)
            return
        with self._lock:
            self._fold(event, self._clock())

    def _fold(self, event: Event, now: float) -> None:
        match event:
            case RunStarted():
                self._run = event
                self._started = True
                self._meter.start(now, total=event.total, concurrency=event.concurrency)
            case ItemStarted():
                self._active.pop(event.position, None)
                self._active[event.position] = ItemState(event.position, event.id, event.text, self._run.steps)
            case ItemFinished():
                self._finish(event, now)
            case Paused():
                self._pause = event
                self._paused_until = now + event.delay_s
            case Note():
                self._notes.append(event.message)
            case RunFinished():
                self._finished = True
            case _:
                if type(event) is RetryScheduled:
                    self._meter.retried += 1
                item = self._active.get(event.position)
                if item is not None:
                    item.fold(event, now)

    def _finish(self, event: ItemFinished, now: float) -> None:
        item = self._active.pop(event.position, None)
        self._meter.finish(event, item.streamed() if item is not None else 0.0)
        if item is not None:
            item.fold(event, now)

    def snapshot(self, panels: int | None = None) -> Snapshot:
        """What there is to show now.

        Args:
            panels: for how many items there is room; `None` looks at the numbers alone and leaves the panels as they
                are. An item stays in its panel as long as this does not shrink.
        """
        with self._lock:
            now = self._clock()
            places = self._slots.arrange(panels, self._active, now) if panels is not None else []
            shown = sum(1 for item in places if item is not None and self._active.get(item.position) is item)
            paused_s = max(0.0, self._paused_until - now)
            progress = self._meter.progress(
                now,
                in_flight=len(self._active),
                streaming=sum(item.streamed() for item in self._active.values()),
                paused_s=paused_s,
            )
            return Snapshot(
                started=self._started,
                finished=self._finished,
                model=self._run.model,
                backend=self._run.backend,
                concurrency=self._run.concurrency,
                progress=progress,
                panels=tuple(item.view(now) if item is not None else None for item in places),
                more=max(0, len(self._active) - shown),
                paused=self._pause.reason if paused_s else "",
                paused_s=math.ceil(paused_s),
            )

    def take_notes(self) -> list[str]:
        """The notes that have come since the last call, each handed out once."""
        with self._lock:
            notes = list(self._notes)
            self._notes.clear()
        return notes

    def failed_kinds(self) -> dict[str, int]:
        """Failed items by kind, the commonest first."""
        with self._lock:
            return dict(self._meter.kinds.most_common())
