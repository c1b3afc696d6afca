"""Run state: folds a run's events into plain state that a display can draw whenever it likes.

Events come from the run's thread, snapshots are taken by a display's thread. There is no terminal and no Rich here.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from threading import Lock
from typing import TYPE_CHECKING, Any

from mellea_cli.events import (
    AttemptFailed,
    Counted,
    Event,
    ItemFinished,
    ItemStarted,
    Note,
    Paused,
    RetryScheduled,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    RunTuned,
    StepFinished,
    StepStarted,
    TokensReceived,
)
from mellea_cli.messages import Usage

if TYPE_CHECKING:
    from mellea_cli.run.plan import Prices


@dataclass(frozen=True, slots=True)
class FailedItem:
    """A failure to show."""

    id: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The run's numbers at one moment."""

    total: int | None = None
    done: int = 0  # Items with an answer, reused ones included
    failed: int = 0
    reused: int = 0
    retries: int = 0  # Requests sent again because the transport failed, as in the summary; re-prompts are not counted
    items_per_s: float = 0.0
    tokens_per_s: float = 0.0
    left_s: float | None = None  # Seconds still to go at the recent rate; `None` while unknown
    elapsed_s: float = 0.0
    failures: tuple[FailedItem, ...] = ()  # The last few, oldest first
    finish_at: str = ""  # The time of day at which it will be finished, such as `14:05`; empty while unknown
    cost: float | None = None  # What the tokens cost so far; `None` where no price is known
    currency: str = ""

    @property
    def finished(self) -> int:
        return self.done + self.failed


class Phase(Enum):
    """The state of a step."""

    WAITING = "waiting"  # Not sent yet: it needs another step's answer, or a free place
    ASKED = "asked"  # Sent; nothing has come back
    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"
    RETRYING = "retrying"  # Waits before it is sent again


class ItemStatus(Enum):
    """The state of an item."""

    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"


# Shorter names for columns whose names would leave too little room for their values.
_LABELS = {"positive_aspect": "praise", "main_complaint": "complaint"}
_MAX_FIELDS = 24


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a structured answer."""

    label: str
    value: str  # Empty for a value that is null or has not begun


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """A step at one moment."""

    name: str
    phase: Phase
    text: str  # What has streamed of the current attempt; only its end when `clipped`
    clipped: bool = False
    attempt: int = 1
    reason: str = ""  # Why the attempt before this one failed
    retry_in_s: int = 0


@dataclass(frozen=True, slots=True)
class PanelSnapshot:
    """An item at one moment, with all that its panel shows."""

    position: int
    id: str
    text: str
    steps: tuple[StepSnapshot, ...]
    status: ItemStatus = ItemStatus.RUNNING
    kind: str = ""
    message: str = ""
    latency_s: float = 0.0
    tokens: int = 0
    answer: tuple[Field, ...] = ()  # The fields of the answer that is kept, once it is finished
    waits: str = ""  # Why it is not answered now, such as that the run is paused


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a display may show, at one moment."""

    started: bool
    model: str
    backend: str
    concurrency: int
    progress: Progress
    panels: tuple[PanelSnapshot | None, ...]  # One entry for each panel asked for; `None` where no item has been yet
    more: int  # Items in flight that no panel shows
    paused: str  # Why nothing is sent, or empty
    paused_s: int  # Seconds until it continues; 0 when it waits for `mellea resume`
    held: bool = False  # Whether the user has paused the run
    values: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()  # How often each value occurs so far, by column
    latest: tuple[PanelSnapshot, ...] = ()  # The last items that were finished, the latest first
    urgent: tuple[str, str] = ("", "")  # The id of the latest row of high urgency, and why it is urgent


_NOTES_KEPT = 200
_LATEST_KEPT = 16


class RunState:
    """An observer that remembers what a person wants to see.

    Memory is bounded: an excerpt of each item in flight, at most 16 Ki characters of each stream, a few failures.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        prices: Prices | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._prices = prices
        self._wall = wall
        self._held = ""
        self._usage = Usage()
        self._values: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
        self._urgent = ("", "")
        self._latest: deque[ItemState] = deque(maxlen=_LATEST_KEPT)
        self._clock = clock
        self._lock = Lock()
        self._run = RunStarted("", (), "", "", 1, None)
        self._started = False
        self._meter = ProgressMeter(clock())
        self._active: dict[int, ItemState] = {}
        self._slots = PanelSlots()
        self._pause = Paused("", 0.0)
        self._paused_until = 0.0
        self._notes: deque[str] = deque(maxlen=_NOTES_KEPT)

    def __call__(self, event: Event) -> None:
        if type(event) is TokensReceived:  # comes by the thousand, so it takes the shortest path
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
                self._values, self._urgent, self._usage = (), ("", ""), Usage()
                self._meter.start(now, total=event.total, concurrency=event.concurrency)
            case ItemStarted():
                self._active.pop(event.position, None)
                self._active[event.position] = ItemState(event.position, event.id, event.text, self._run.steps)
            case ItemFinished():
                item = self._active.pop(event.position, None)
                self._meter.finish(event, item.streamed() if item is not None else 0.0)
                if item is not None:
                    item.fold(event, now)
                    self._latest.append(item)
            case Paused():
                self._pause = event
                self._paused_until = now + event.delay_s
            case RunPaused() | RunResumed() | RunTuned():
                self._fold_request(event, now)
            case Counted():
                # Copied: the run goes on to count while a display reads.
                self._values = tuple((column, tuple(counts.items())) for column, counts in event.values.items())
                self._usage = event.usage
                self._urgent = event.urgent_id, event.urgent_text[:_EXCERPT_CHARS]
            case Note():
                self._notes.append(event.message)
            case RunFinished():
                pass
            case _:
                self._meter.retries += isinstance(event, RetryScheduled) and not event.reprompt
                if (item := self._active.get(event.position)) is not None:
                    item.fold(event, now)

    def _fold_request(self, event: RunPaused | RunResumed | RunTuned, now: float) -> None:
        """What the user has asked for from another terminal."""
        match event:
            case RunPaused():
                self._held = event.reason or "mellea pause"
            case RunResumed():
                self._held = ""
                self._meter.restart(now)
            case RunTuned():
                self._notes.append(event.message)
                if event.concurrency is not None:
                    self._run = dataclasses.replace(self._run, concurrency=event.concurrency)

    def snapshot(self, panels: int | None = None, *, latest: bool = False) -> Snapshot:
        """What there is to show now, with panels for so many items; `None` leaves the panels as they are.

        `latest` adds the last items that were finished.

        An item stays in its panel as long as this number does not shrink.
        """
        with self._lock:
            now = self._clock()
            shown = self._slots.arrange(panels, self._active, now) if panels is not None else []
            running = sum(1 for item in shown if item is not None and self._active.get(item.position) is item)
            paused_s = max(0.0, self._paused_until - now)
            progress = self._meter.progress(
                now,
                streaming=sum(item.streamed() for item in self._active.values()),
                paused_s=paused_s,
            )
            if self._held:
                progress = dataclasses.replace(progress, left_s=None)
            progress = dataclasses.replace(
                progress,
                finish_at=_time_of_day(self._wall(), progress.left_s),
                cost=None if self._prices is None else self._prices.of(self._usage),
                currency=self._prices.currency if self._prices is not None else "",
            )
            paused = self._held or (self._pause.reason if paused_s else "")
            waits = f"paused: {self._held}" if self._held else f"waits: {paused}" if paused else ""
            return Snapshot(
                started=self._started,
                model=self._run.model,
                backend=self._run.backend,
                concurrency=self._run.concurrency,
                progress=progress,
                panels=tuple(item.snapshot(now, waits) if item is not None else None for item in shown),
                more=max(0, len(self._active) - running),
                paused=paused,
                paused_s=0 if self._held else math.ceil(paused_s),
                held=bool(self._held),
                values=self._values,
                latest=tuple(item.snapshot(now) for item in reversed(self._latest)) if latest else (),
                urgent=self._urgent,
            )

    def take_notes(self) -> list[str]:
        """The notes since the last call; each is returned once."""
        with self._lock:
            notes = list(self._notes)
            self._notes.clear()
        return notes


def _time_of_day(now: float, left_s: float | None) -> str:
    """When so many seconds have passed: `14:05`, and with the day where that is not today."""
    if left_s is None or left_s > _MOST_LEFT_S:
        return ""
    at, today = time.localtime(now + left_s), time.localtime(now)
    return time.strftime("%H:%M" if at.tm_yday == today.tm_yday else "%a %H:%M", at)


# Of a time further away the day of the week says nothing.
_MOST_LEFT_S = 6 * 86_400.0
_ITEM_WINDOW_S = 20.0
_TOKEN_WINDOW_S = 5.0
_FAILURES_KEPT = 3
_MESSAGE_CHARS = 300


class ProgressMeter:
    """Counts and rates of one run. Not locked: `RunState` is."""

    def __init__(self, now: float) -> None:
        self.total: int | None = None
        self.done = self.failed = self.reused = self.retries = 0
        self._failures: deque[FailedItem] = deque(maxlen=_FAILURES_KEPT)
        self._estimate = TokenEstimate()
        self._tokens_finished = 0.0
        self.start(now, total=None, concurrency=1)

    def start(self, now: float, *, total: int | None, concurrency: int) -> None:
        self.total = total
        self._started = now
        self._concurrency = max(1, concurrency)
        self.restart(now)

    def restart(self, now: float) -> None:
        """Forget the rates: nothing was sent for a while."""
        self._items = SlidingRate(_ITEM_WINDOW_S, least=2 * self._concurrency)
        self._tokens = SlidingRate(_TOKEN_WINDOW_S)
        self._items.observe(now, self.done + self.failed - self.reused)
        self._tokens.observe(now, self._tokens_finished)

    def finish(self, event: ItemFinished, streamed: float) -> None:
        """Count an item that is over; `streamed` is the raw estimate of its tokens."""
        if event.ok:
            self.done += 1
        else:
            self.failed += 1
            self._failures.append(FailedItem(event.id, event.kind, event.message[:_MESSAGE_CHARS]))
        if event.reused:
            self.reused += 1
            return
        counted = event.usage.completion_tokens
        self._estimate.learn(streamed, counted)
        self._tokens_finished += counted or self._estimate.scaled(streamed)

    def progress(self, now: float, *, streaming: float, paused_s: float) -> Progress:
        """The numbers now; `streaming` is the raw estimate of the tokens of all items in flight."""
        self._items.observe(now, self.done + self.failed - self.reused)
        self._tokens.observe(now, self._tokens_finished + self._estimate.scaled(streaming))
        return Progress(
            total=self.total,
            done=self.done,
            failed=self.failed,
            reused=self.reused,
            retries=self.retries,
            items_per_s=self._items.per_second(),
            tokens_per_s=self._tokens.per_second(),
            left_s=self._left_s(paused_s),
            elapsed_s=now - self._started,
            failures=tuple(self._failures),
        )

    def _left_s(self, paused_s: float) -> float | None:
        finished = self.done + self.failed
        if self.total is None or finished >= self.total:
            return None
        # The first items of all workers end at about the same time: before that, a rate would be far too low.
        per_second = self._items.per_second()
        if finished - self.reused < max(2, min(self._concurrency, self.total // 4)) or per_second <= 0:
            return None
        return (self.total - finished) / per_second + paused_s


# Samples closer together than this replace each other, so a window holds a bounded number of them.
_SPACING_S = 0.25
_MAX_SAMPLES = 1024


class SlidingRate:
    """The recent growth of a counter: how fast things go now, not on average since the start.

    The window of `window_s` seconds stretches until it holds `least` counts, so that a slow run has a rate too.
    """

    def __init__(self, window_s: float, least: int = 0) -> None:
        self._window_s = window_s
        self._least = least
        self._samples: deque[tuple[float, float]] = deque()

    def observe(self, now: float, counted: float) -> None:
        """The counter is `counted` at the time `now`: seconds from any origin, never falling."""
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < _SPACING_S:
            samples[-1] = (now, counted)
        else:
            samples.append((now, counted))
        while len(samples) > 2 and now - samples[1][0] >= self._window_s and counted - samples[1][1] >= self._least:
            samples.popleft()
        if len(samples) > _MAX_SAMPLES:  # a long standstill: only the ends count, so the middle may be thinned out
            self._samples = deque([samples[0], *list(samples)[1:-1:2], samples[-1]])

    def per_second(self) -> float:
        """Counts per second over the window; 0 while it is too short."""
        if len(self._samples) < 2:
            return 0.0
        (then, before), (now, counted) = self._samples[0], self._samples[-1]
        return max(0.0, counted - before) / (now - then) if now - then > 0.05 else 0.0


class TokenEstimate:
    """Estimates tokens from streamed chunks.

    A local server sends a token per chunk; others put several into one. The raw estimate is scaled by what servers
    reported afterwards in their usage.
    """

    def __init__(self) -> None:
        self._estimated = 0.0
        self._counted = 0.0

    @staticmethod
    def raw(chunks: int, chars: int) -> float:
        return max(float(chunks), chars / 5) if chunks else 0.0

    def learn(self, raw: float, tokens: int) -> None:
        """A stream with the unscaled estimate `raw` had `tokens` tokens."""
        if raw > 0 and tokens > 0:
            self._estimated = self._estimated * 0.9 + raw
            self._counted = self._counted * 0.9 + tokens

    def scaled(self, raw: float) -> float:
        return raw * self._counted / self._estimated if self._estimated else raw


_EXCERPT_CHARS = 800
# Of a stream that outgrows twice this, only the last so many characters are kept.
_STREAM_CHARS = 8_192
# Chunks that may wait to be joined while no display looks at a stream.
_MAX_CHUNKS = 512
_REASON_CHARS = 300


@dataclass(slots=True)
class _Step:
    """A step while it runs. A chunk costs a list append; everything else is computed for a snapshot."""

    name: str
    phase: Phase = Phase.WAITING
    attempt: int = 1
    reason: str = ""
    retry_at: float = 0.0
    clipped: bool = False
    chunks: list[str] = field(default_factory=list)
    _joined: int = 0  # Chunks at the front of the list that are counted: at most one, all earlier text
    _counted: int = 0
    _chars: int = 0

    def join(self) -> str:
        """Count the chunks since the last call, and join them to the text before."""
        chunks = self.chunks
        if len(chunks) == self._joined:
            return chunks[0] if chunks else ""
        self._counted += len(chunks) - self._joined
        before = len(chunks[0]) if self._joined else 0
        text = "".join(chunks)
        self._chars += len(text) - before
        if len(text) > 2 * _STREAM_CHARS:
            text = text[-_STREAM_CHARS:]
            self.clipped = True
        self.chunks = [text]
        self._joined = 1
        return text

    def raw_tokens(self) -> float:
        self.join()
        return TokenEstimate.raw(self._counted, self._chars)

    def clear(self) -> float:
        """Drop what has streamed; returns its raw tokens, which were generated nevertheless."""
        raw = self.raw_tokens()
        self.chunks = []
        self._joined = self._counted = self._chars = 0
        self.clipped = False
        return raw

    def snapshot(self, now: float) -> StepSnapshot:
        text = self.join()
        phase, retry_in = self.phase, 0
        if text and phase in (Phase.WAITING, Phase.ASKED, Phase.RETRYING):
            phase = Phase.STREAMING
        elif phase is Phase.RETRYING:
            retry_in = max(0, math.ceil(self.retry_at - now))
            phase = phase if retry_in else Phase.ASKED
        return StepSnapshot(self.name, phase, text, self.clipped, self.attempt, self.reason, retry_in)


class ItemState:
    """One item's live state. Not locked: `RunState` is. Steps that are not in `steps` are added when they appear."""

    def __init__(self, position: int, item_id: str, text: str, steps: tuple[str, ...]) -> None:
        self.position = position
        self.status = ItemStatus.RUNNING
        self.finished_at = 0.0
        self._id = item_id
        self._excerpt = text[:_EXCERPT_CHARS]
        self._steps = {name: _Step(name) for name in steps}
        self._finish: ItemFinished | None = None
        self._answer: tuple[Field, ...] = ()
        self._final: PanelSnapshot | None = None  # The last one: a finished item does not change
        self._void_tokens = 0.0

    def receive(self, step_name: str, text: str) -> None:
        """Take in a chunk of an answer. Called for every token, so it does next to nothing."""
        step = self._steps.get(step_name)
        if step is None:
            step = self._step(step_name)
        chunks = step.chunks
        chunks.append(text)
        if len(chunks) > _MAX_CHUNKS or len(text) > _STREAM_CHARS:
            step.join()

    def fold(self, event: Event, now: float) -> None:
        match event:
            case StepStarted():
                self._step(event.step).phase = Phase.ASKED
            case AttemptFailed():
                step = self._step(event.step)
                self._void_tokens += step.clear()
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
                self.status = ItemStatus.OK if event.ok else ItemStatus.FAILED
                self.finished_at = now
                self._finish = event
                self._answer = tuple(_flatten(event.values))[:_MAX_FIELDS]
            case _:
                pass

    def _step(self, name: str) -> _Step:
        if name not in self._steps:
            self._steps[name] = _Step(name)
        return self._steps[name]

    def streamed(self) -> float:
        """Raw estimate of the tokens generated for this item so far, failed attempts included."""
        return self._void_tokens + sum(step.raw_tokens() for step in self._steps.values())

    def snapshot(self, now: float, waits: str = "") -> PanelSnapshot:
        if self._final is not None:
            return self._final
        steps = tuple(step.snapshot(now) for step in self._steps.values())
        panel = PanelSnapshot(self.position, self._id, self._excerpt, steps, self.status)
        if (finish := self._finish) is None:
            idle = waits and not any(step.phase is Phase.STREAMING for step in steps)
            return dataclasses.replace(panel, waits=waits) if idle else panel
        self._final = dataclasses.replace(
            panel,
            kind=finish.kind,
            message=finish.message[:_REASON_CHARS],
            latency_s=finish.latency_s,
            tokens=finish.usage.completion_tokens,
            answer=self._answer,
        )
        return self._final


# A finished item keeps its panel at least this long, so that its result can be read: in half of the panels.
_MIN_SHOWN_S = 0.9


class PanelSlots:
    """Which item each panel shows. An item keeps its panel until it is over, and then until another one needs it."""

    def __init__(self) -> None:
        self._items: list[ItemState | None] = []

    def arrange(self, panels: int, active: dict[int, ItemState], now: float) -> list[ItemState | None]:
        """Update the panels and return the item in each.

        There may be more or fewer of them than at the last call; `active` has the items in flight in starting order.
        """
        self._resize(panels)
        shown = {id(item) for item in self._items if item is not None}
        waiting = [item for item in active.values() if id(item) not in shown]
        # With quick answers finished items must not take every panel from those whose tokens arrive.
        finished = sorted(item.finished_at for item in self._items if item is not None and _is_over(item, active))
        surplus = len(finished) - len(self._items) // 2
        replaceable_at = max(now - _MIN_SHOWN_S, finished[surplus - 1] if surplus > 0 else 0.0)
        for index, item in enumerate(self._items):
            if not waiting:
                break
            if item is None:
                self._items[index] = waiting.pop(0)
            elif _is_over(item, active) and item.finished_at <= replaceable_at:
                self._items[index] = waiting.pop()
        return list(self._items)

    def _resize(self, panels: int) -> None:
        if len(self._items) > panels:  # running items move up into the panels of finished ones
            displaced = [item for item in self._items[panels:] if item and item.status is ItemStatus.RUNNING]
            self._items = self._items[:panels]
            for index, item in enumerate(self._items):
                if displaced and (item is None or item.status is not ItemStatus.RUNNING):
                    self._items[index] = displaced.pop(0)
        self._items += [None] * (panels - len(self._items))


def _is_over(item: ItemState, active: dict[int, ItemState]) -> bool:
    return item.status is not ItemStatus.RUNNING or active.get(item.position) is not item


def answer_fields(text: str) -> list[Field] | None:
    """The fields of a JSON object that may still be streaming, in their order, nested objects flattened one level.

    `None` when the text is not the beginning of an object. Meant to be called once a frame, never once a token.
    """
    from pydantic_core import from_json

    start = text.find("{")
    if start < 0 or text[:start].strip(" \t\r\n`json"):  # only a fence may precede it
        return None
    value: Any = None
    # The second try ends at the last brace: a closing fence or a remark may follow the object.
    for end in (len(text), text.rfind("}") + 1):
        try:
            value = from_json(text[start:end], allow_partial="trailing-strings")
            break
        except ValueError:
            continue
    return list(_flatten(value))[:_MAX_FIELDS] if isinstance(value, dict) else None


def _flatten(value: Mapping[str, Any]) -> Iterator[Field]:
    for key, inner in value.items():
        for name, leaf in inner.items() if isinstance(inner, dict) else [(key, inner)]:
            yield Field(_LABELS.get(name, name.replace("_", " ")), _words(leaf))


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
    return str(value)
