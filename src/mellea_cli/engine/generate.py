"""One streamed call: deadlines, the watchdog, and the pieces put together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.errors import BackendError, BackendUnavailable, RunawayAnswer, StreamBroken
from mellea_cli.messages import Completion, GenerateRequest, Usage

# What one question tells whoever follows it: a worker turns it into events, a thunk into a stream.


class CallObserver:
    """Follows one question to the model. This one looks away; followers override what they need.

    Every method is called in the loop that asks, returns at once and does not raise.
    """

    __slots__ = ()

    def text(self, piece: str) -> None:
        """A piece of the answer has arrived."""

    def failed(self, kind: str, message: str) -> None:
        """The attempt has failed: what had arrived of its answer is void."""

    def resend(self) -> bool:
        """The transport has failed. Return whether the request may be sent again: not when somebody has seen pieces."""
        return True

    def retry(self, delay_s: float, attempt: int) -> None:
        """The request will be sent again after `delay_s` seconds, as number `attempt`."""

    def reprompt(self, attempt: int) -> None:
        """The answer is not usable: the model is asked again with the reason, as number `attempt`."""
        self.retry(0.0, attempt)


UNOBSERVED = CallObserver()


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long one call may take, in seconds; `None` means for ever.

    A read timeout alone never fires on a server that drips a byte a second, so the whole call is bounded as well.
    """

    first_token_s: float | None = 300.0
    """From sending the request to the first chunk: a local model may have to evaluate a long prompt first."""
    between_tokens_s: float | None = 60.0
    total_s: float | None = 600.0

    def first(self) -> float | None:
        """Seconds that may pass until the first chunk."""
        return _sooner(self.first_token_s, self.total_s)


def _sooner(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)


class NothingInTime(BackendUnavailable):
    """Our own deadline for the first chunk has passed: the server was reached, it may only be slow."""


# The stall deadline is moved at most this often: moving a timer costs as much as decoding a token.
_REARM_S = 0.25
# The watchdog looks each time that many characters more have arrived.
_LOOK_EVERY = 128
_BLANK_RUN = 256
_REPEATED_RUN = 400
_LONGEST_PERIOD = 80
# No step asks for anything near this; a server that ignores `max_tokens` must not fill the memory.
_LONGEST_ANSWER = 1_000_000


class Meter(Protocol):
    """Counts the text that arrives, over all calls."""

    letters: int
    """Characters so far."""


async def generate(
    backend: Backend,
    request: GenerateRequest,
    deadlines: Deadlines | None = None,
    watch: CallObserver = UNOBSERVED,
    meter: Meter | None = None,
) -> Completion:
    """Send `request` once and put its answer together.

    Args:
        backend: the model server.
        request: what to send.
        deadlines: how long the call may take.
        watch: told of each piece of text.
        meter: each piece's length is added to it.

    Raises:
        BackendError: the call failed; `partial` holds the text that had arrived. A deadline that passed is a
            `NothingInTime` before the first chunk and a `StreamBroken` after it.
        RunawayAnswer: the answer repeated itself, or padded white space, and was stopped.
    """
    call = _Call(deadlines or Deadlines(), watch, meter)
    try:
        await call.read(backend, request)
    except BackendError as error:
        error.partial = error.partial or call.text
        raise
    return call.completion()


class _Call:
    """What is known about a call while it runs."""

    __slots__ = (
        "_deadlines",
        "_finish",
        "_first",
        "_looked",
        "_meter",
        "_pieces",
        "_start",
        "_thinking",
        "_usage",
        "_watch",
        "_width",
    )

    def __init__(self, deadlines: Deadlines, watch: CallObserver, meter: Meter | None) -> None:
        self._deadlines = deadlines
        self._meter = meter
        self._watch = watch
        self._pieces: list[str] = []
        self._thinking: list[str] = []
        self._width = 0
        self._looked = 0
        self._finish: str | None = None
        self._usage = Usage()
        self._start = 0.0
        self._first: float | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    async def read(self, backend: Backend, request: GenerateRequest) -> None:
        """Read the stream to its end, under the deadlines."""
        clock = asyncio.get_running_loop().time
        self._start = clock()
        try:
            async with (
                asyncio.timeout(self._deadlines.first()) as deadline,
                aclosing(backend.stream(request)) as chunks,
            ):
                armed = self._start
                async for chunk in chunks:
                    now = clock()
                    if self._first is None or now - armed > _REARM_S:
                        deadline.reschedule(self._next_deadline(now))
                        armed = now
                    if chunk.text:
                        if self._first is None:
                            self._first = now
                        self._take(chunk.text)
                    if chunk.thinking:
                        self._think(chunk.thinking)
                    if chunk.finish_reason is not None:
                        self._finish = chunk.finish_reason
                    if chunk.usage is not None:
                        self._usage = chunk.usage
        except TimeoutError as error:
            raise self._too_late(clock() - self._start) from error

    def _next_deadline(self, now: float) -> float | None:
        between, total = self._deadlines.between_tokens_s, self._deadlines.total_s
        # The slack keeps a deadline that is moved only now and then from being early.
        stall = None if between is None else now + between + _REARM_S
        return _sooner(stall, None if total is None else self._start + total)

    def _take(self, piece: str) -> None:
        self._pieces.append(piece)
        self._watch.text(piece)
        self._width += len(piece)
        if self._meter is not None:
            self._meter.letters += len(piece)
        if self._width - self._looked >= _LOOK_EVERY:
            self._looked = self._width
            if reason := runaway(self._tail()) or _too_long(self._width):
                raise RunawayAnswer(reason, text=self.text)

    def _tail(self) -> str:
        """The last part of the answer: a long one is not joined again and again."""
        width, first = 0, len(self._pieces)
        while first and width < _REPEATED_RUN:
            first -= 1
            width += len(self._pieces[first])
        return "".join(self._pieces[first:])

    def _think(self, piece: str) -> None:
        self._thinking.append(piece)
        self._width += len(piece)
        if self._meter is not None:
            self._meter.letters += len(piece)
        self._looked += len(piece)
        if reason := _too_long(self._width):
            raise RunawayAnswer(reason, text=self.text)

    def _too_late(self, after_s: float) -> BackendError:
        partial = self.text
        if self._first is None and not self._thinking:
            return NothingInTime(
                f"the model server sent nothing for {after_s:.0f} s",
                partial=partial,
                hint="a slow machine needs more time: --timeout SECONDS",
            )
        return StreamBroken(
            f"the answer stalled or took too long; given up after {after_s:.0f} s",
            partial=partial,
            hint="a slow machine needs more time: --timeout SECONDS",
        )

    def completion(self) -> Completion:
        """The whole answer."""
        now = asyncio.get_running_loop().time()
        if self._finish is None:
            raise StreamBroken("the answer ended before the model server said that it was finished", partial=self.text)
        return Completion(
            text=self.text,
            finish_reason=self._finish,
            usage=self._usage,
            first_token_s=(self._first or now) - self._start,
            total_s=now - self._start,
            thinking="".join(self._thinking),
        )


def _too_long(letters: int) -> str:
    return f"it is longer than {_LONGEST_ANSWER:,} characters" if letters > _LONGEST_ANSWER else ""


def runaway(tail: str) -> str:
    """Whether an answer has begun to run away.

    Args:
        tail: the last part of the answer, 400 characters or more when it has as many.

    Returns:
        The reason, worded for the model; empty when all is well. White space without end and a passage of at most 80
        characters that repeats itself through the last 400 count as running away.
    """
    if len(tail) >= _BLANK_RUN and tail[-_BLANK_RUN:].isspace():
        return "it pads white space without end"
    if len(tail) < _REPEATED_RUN:
        return ""
    end = tail[-_REPEATED_RUN:]
    # The last 40 characters stand again `period` characters earlier, and so does everything before them.
    earlier = end.rfind(end[-40:], 0, len(end) - 1)
    period = len(end) - 40 - earlier
    if earlier >= 0 and period <= _LONGEST_PERIOD and end[period:] == end[:-period]:
        return "it repeats itself without end"
    return ""
