"""One item on its way through its steps, as a panel shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from mellea_cli.events import AttemptFailed, Event, ItemFinished, RetryScheduled, StepFinished, StepStarted
from mellea_cli.ui.rates import TokenMeter

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
    """One item's live state. Not locked: `RunView` is.

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
