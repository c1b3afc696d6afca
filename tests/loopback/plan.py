"""What the server is told to do: its settings, and the faults it commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loopback.batches import BatchPlan
from loopback.replies import default_reply


@dataclass(frozen=True, slots=True)
class Call:
    """One chat request, as a fault plan sees it."""

    prompt: str
    """The last user message that carries a mark, else the last user message."""
    attempt: int
    """How often this prompt has been asked, this time included, counted from 1."""
    index: int
    """Number of the request on this server, counted from 0."""
    model: str
    protocol: str
    """`openai` or `ollama`."""
    schema: Mapping[str, Any] | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one answer. `loopback.faults` has a maker for each kind.

    Places are counted in pieces of text: `after=0` is before the first one.
    """

    status: int | None = None
    """Answer with this status and `body` and stream nothing."""
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    """Stream this instead of the reply."""
    finish: str | None = "stop"
    """The finish reason; `None` ends the stream cleanly without one."""
    after: int | None = None
    """Where `then` happens; `None` means not at all."""
    then: str = ""
    """`cut` (abrupt close), `end` (clean end), `stall`, `half` (half a JSON object) or `error` (an error object)."""
    error: Mapping[str, Any] | str = ""
    """The error object of `then="error"`."""
    endless: str = ""
    """Stream this for ever."""
    drip_s: float = 0.0
    """Seconds between two pieces, instead of the server's own."""
    latency_s: float | None = None
    """Seconds before the first piece of this answer, instead of the server's own."""


Reply = Callable[[str, Mapping[str, Any] | None], str]
FaultPlan = Callable[[Call], Fault | None]


def no_fault(_: Call) -> Fault | None:
    """Let every request pass."""
    return None


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server behaves."""

    port: int = 0
    reply: Reply = default_reply
    """(prompt, schema) → the answer's text."""
    logprobs: Callable[[str], Mapping[str, float]] | None = None
    """prompt → the log-probabilities of the first token, whose likeliest is the answer; `None` gives none.

    Under a schema the answer is the usual one, and these tokens might stand in the place of each of its own.
    """
    thinking: str = ""
    """Reasoning text that is streamed before each answer."""
    latency_s: float = 0.0
    """Seconds before the first piece of text."""
    token_delay_s: float = 0.0
    """Seconds between two pieces."""
    models: tuple[str, ...] = ("granite4.1:3b", "test-model")
    api_key: str = ""
    """Demanded by the OpenAI protocol when not empty."""
    guards_list: bool = False
    """Demand it for the list of models too."""
    max_parallel: int | None = None
    """Requests beyond this many at once get a 429."""
    retry_after: str = "0"
    """The `Retry-After` of such a 429."""
    fault: FaultPlan = no_fault
    refuse: frozenset[str] = frozenset()
    """Parameters refused with a 400: `json_schema`, `json_object`, `max_tokens`, `think`."""
    pullable: frozenset[str] | None = None
    """Names that `/api/pull` knows; `None` means every name."""
    batches: BatchPlan = BatchPlan()  # noqa: RUF009 - it is frozen
    """How the batch queue behaves."""
    record: bool = True
    """Keep each request's body; switch it off for long runs."""
