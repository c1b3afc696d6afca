"""Events of a run: the only link between the engine and the screen.

Observers observe and never control: an observer is called in the run's event loop, must return at once and must not
raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mellea_cli.messages import Usage


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run starts."""

    pipeline: str
    steps: tuple[str, ...]
    model: str
    backend: str
    concurrency: int
    total: int | None  # Items in the input, or `None` when that is unknown (a pipe)


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """A worker starts an item."""

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
    """An attempt failed; what had streamed of its answer is discarded."""

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
    attempt: int  # The number of the attempt to come, counted from 2
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
    """All requests to the server wait."""

    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class RunPaused:
    """The user has paused the run: no request starts until `RunResumed`."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunResumed:
    """The user has resumed the run."""


@dataclass(frozen=True, slots=True)
class RunTuned:
    """The user has changed a limit of the run."""

    message: str  # What holds from now on
    concurrency: int | None  # Requests in flight at most; `None` where that has not changed


@dataclass(frozen=True, slots=True)
class Counted:
    """The durable answers so far, by category; comes with each group of answers that becomes durable."""

    values: Mapping[str, Mapping[str, int]]
    """How often each value occurs, by column. The run goes on to count in these mappings."""
    usage: Usage  # Tokens of all outcomes so far
    urgent_id: str = ""  # The id of the latest row of high urgency; empty while there is none
    urgent_text: str = ""  # Why it is urgent, in the model's words, else its text


@dataclass(frozen=True, slots=True)
class ItemFinished:
    """The outcome of an item is durable."""

    position: int
    id: str
    ok: bool
    kind: str  # Empty when ok, else the failure's kind
    message: str
    usage: Usage
    latency_s: float
    reused: bool  # The answer was known (from an earlier run, or an identical text) and nothing was asked
    values: Mapping[str, Any] = field(default_factory=dict)  # The columns of the answer; empty for a failed item


@dataclass(frozen=True, slots=True)
class Note:
    """One line that the user should read, such as that a server is not used any more."""

    message: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over and its output is written."""

    done: int  # Items with an answer, reused ones included
    failed: int
    reused: int
    usage: Usage
    elapsed_s: float
    stopped: str  # Why the run ended before its input; empty when it did not


Event = (
    RunStarted
    | ItemStarted
    | StepStarted
    | TokensReceived
    | AttemptFailed
    | RetryScheduled
    | StepFinished
    | Paused
    | RunPaused
    | RunResumed
    | RunTuned
    | Counted
    | ItemFinished
    | Note
    | RunFinished
)

Observer = Callable[[Event], None]


def nobody(_: Event) -> None:
    """Ignore an event: the default observer."""


class Fanout:
    """Observer that passes each event on to several observers, in order."""

    __slots__ = ("_observers",)

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def __call__(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)
