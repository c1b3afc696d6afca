"""What a run tells its observers. Events are the only thread between the engine and a screen.

Observers watch and never steer: an observer is called in the run's own event loop, must return at once and must not
raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mellea_cli.messages import Usage


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run is about to take its first item."""

    pipeline: str
    steps: tuple[str, ...]
    model: str
    backend: str
    concurrency: int
    total: int | None
    """Items in the input, or `None` while nobody knows (a pipe)."""


@dataclass(frozen=True, slots=True)
class TotalKnown:
    """The number of items has become known, or has changed."""

    total: int


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """A worker has taken an item and is about to ask about it."""

    position: int
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of an item sends its first request."""

    position: int
    step: str


@dataclass(frozen=True, slots=True)
class TokensReceived:
    """A piece of an answer has arrived."""

    position: int
    step: str
    text: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt did not lead to an answer: what had streamed of it is void."""

    position: int
    step: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """A request will be sent again."""

    position: int
    step: str
    delay_s: float
    attempt: int
    """The number of the attempt to come, counted from 2."""
    reprompt: bool = False
    """The answer was not usable and the reason is added; otherwise the transport failed and nothing changes."""


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step of an item has its answer."""

    position: int
    step: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Paused:
    """Every request to the server waits."""

    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class ItemFinished:
    """An item's outcome is durable."""

    position: int
    id: str
    ok: bool
    kind: str
    """Empty when ok, else the failure's kind."""
    message: str
    usage: Usage
    latency_s: float
    reused: bool
    """The answer was there already (an earlier run, or an identical text) and nothing was asked."""


@dataclass(frozen=True, slots=True)
class Note:
    """One line that a person should read once, such as a renamed column."""

    message: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over and its output stands."""

    done: int
    """Items with an answer, reused ones included."""
    failed: int
    reused: int
    usage: Usage
    elapsed_s: float
    stopped: str
    """Why the run ended before its input did; empty when it did not."""


Event = (
    RunStarted
    | TotalKnown
    | ItemStarted
    | StepStarted
    | TokensReceived
    | AttemptFailed
    | RetryScheduled
    | StepFinished
    | Paused
    | ItemFinished
    | Note
    | RunFinished
)

Observer = Callable[[Event], None]


def nobody(_: Event) -> None:
    """Watch nothing: the default observer."""


class Fanout:
    """An observer that passes each event on to several."""

    __slots__ = ("_observers",)

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def __call__(self, event: Event) -> None:
        """Pass `event` on to each observer, in order."""
        for observer in self._observers:
            observer(event)
