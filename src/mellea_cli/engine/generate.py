"""One streamed call: deadlines, the check for runaway answers, and the pieces put together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from mellea_cli.backends.base import Backend
from mellea_cli.errors import BackendError, BackendUnavailable, RunawayAnswer, StreamBroken
from mellea_cli.messages import Completion, GenerateRequest, Token, Usage


class CallObserver:
    """Follows one question to the model; the base class ignores everything.

    The methods are called in the event loop of the call. They return at once and do not raise.
    """

    __slots__ = ()

    def text(self, piece: str) -> None:
        """A piece of the answer has arrived."""

    def failed(self, kind: str, message: str) -> None:
        """The attempt has failed; the pieces of its answer are void."""

    def resend(self) -> bool:
        """Whether the request may be sent again after a transport fault; not when pieces were passed on to a user."""
        return True

    def retry(self, delay_s: float, attempt: int) -> None:
        """The request will be sent again after `delay_s` seconds, as attempt number `attempt`."""

    def reprompt(self, attempt: int) -> None:
        """The answer is not usable: the model is asked again with the reason, as number `attempt`."""
        self.retry(0.0, attempt)


UNOBSERVED = CallObserver()


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits of one call in seconds; `None` sets no limit.

    A read timeout alone never fires on a server that sends a byte per second, so the whole call is bounded as well.
    """

    first_token_s: float | None = 300.0
    """From sending the request to the first chunk. A local model may have to evaluate a long prompt first."""
    between_tokens_s: float | None = 60.0
    total_s: float | None = 600.0

    def first(self) -> float | None:
        """Seconds until the first chunk must be there."""
        return _earlier(self.first_token_s, self.total_s)


def _earlier(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)


class NothingInTime(BackendUnavailable):
    """No chunk came before the deadline for the first one. The server was reached and may only be slow."""


# The deadline between tokens is moved at most this often: moving a timer costs as much as decoding a token.
_REARM_S = 0.25
# The check for runaway answers runs each time this many more characters have arrived.
_CHECK_EVERY = 128
_BLANK_RUN = 256
_REPEATED_RUN = 400
_LONGEST_PERIOD = 80
# No step asks for anything near this; a server that ignores `max_tokens` must not fill the memory.
_LONGEST_ANSWER = 1_000_000
_TOO_LONG = f"it is longer than {_LONGEST_ANSWER:,} characters"


class Meter(Protocol):
    """Counts the text that arrives, over all calls."""

    characters: int


async def generate(
    backend: Backend,
    request: GenerateRequest,
    deadlines: Deadlines = Deadlines(),
    observer: CallObserver = UNOBSERVED,
    meter: Meter | None = None,
) -> Completion:
    """Send `request` once and put its answer together.

    Args:
        backend: the model server.
        request: what to send.
        deadlines: time limits of the call.
        observer: receives each piece of text.
        meter: the length of each piece is added to it.

    Raises:
        BackendError: the call failed; `partial` holds the text that had arrived. A missed deadline is a
            `NothingInTime` before the first chunk and a `StreamBroken` after it.
        RunawayAnswer: the answer repeated itself or padded white space, and was stopped.
    """
    call = _Call(deadlines, observer, meter)
    try:
        return await call.read(backend, request)
    except BackendError as error:
        error.partial = error.partial or "".join(call.pieces)
        raise


class _Call:
    """State of a running call."""

    __slots__ = ("_checked", "_deadlines", "_meter", "_observer", "_start", "_thinking", "_width", "pieces")

    def __init__(self, deadlines: Deadlines, observer: CallObserver, meter: Meter | None) -> None:
        self.pieces: list[str] = []
        self._deadlines = deadlines
        self._meter = meter
        self._observer = observer
        self._thinking: list[str] = []
        self._width = 0
        self._checked = 0
        self._start = 0.0

    async def read(self, backend: Backend, request: GenerateRequest) -> Completion:
        """Read the stream to its end, within the deadlines."""
        clock = asyncio.get_running_loop().time
        self._start = armed = clock()
        first: float | None = None
        finish: str | None = None
        usage = Usage()
        tokens: list[Token] = []
        try:
            async with (
                asyncio.timeout(self._deadlines.first()) as deadline,
                aclosing(backend.stream(request)) as chunks,
            ):
                async for chunk in chunks:
                    now = clock()
                    if first is None or now - armed > _REARM_S:
                        deadline.reschedule(self._next_deadline(now))
                        armed = now
                    if chunk.text:
                        if first is None:
                            first = now
                        self._take(chunk.text)
                    if chunk.thinking:
                        self._think(chunk.thinking)
                    if chunk.finish_reason is not None:
                        finish = chunk.finish_reason
                    if chunk.usage is not None:
                        usage = chunk.usage
                    if chunk.tokens:
                        tokens += chunk.tokens
        except TimeoutError as error:
            raise self._too_late(clock() - self._start) from error
        text = "".join(self.pieces)
        if finish is None:
            raise StreamBroken("the answer ended before the model server said that it was finished", partial=text)
        now = clock()
        return Completion(
            text=text,
            finish_reason=finish,
            usage=usage,
            first_token_s=(first or now) - self._start,
            total_s=now - self._start,
            thinking="".join(self._thinking),
            tokens=tuple(tokens),
        )

    def _next_deadline(self, now: float) -> float | None:
        between, total = self._deadlines.between_tokens_s, self._deadlines.total_s
        # The slack keeps a deadline that is moved only now and then from firing early.
        stall = None if between is None else now + between + _REARM_S
        return _earlier(stall, None if total is None else self._start + total)

    def _take(self, piece: str) -> None:
        self.pieces.append(piece)
        self._observer.text(piece)
        self._width += len(piece)
        if self._meter is not None:
            self._meter.characters += len(piece)
        if self._width - self._checked >= _CHECK_EVERY:
            self._checked = self._width
            if reason := runaway(self._tail()) or (_TOO_LONG if self._width > _LONGEST_ANSWER else ""):
                raise RunawayAnswer(reason, text="".join(self.pieces))

    def _tail(self) -> str:
        """The last part of the answer, so that a long one is not joined again and again."""
        width, first = 0, len(self.pieces)
        while first and width < _REPEATED_RUN:
            first -= 1
            width += len(self.pieces[first])
        return "".join(self.pieces[first:])

    def _think(self, piece: str) -> None:
        self._thinking.append(piece)
        self._width += len(piece)
        if self._meter is not None:
            self._meter.characters += len(piece)
        self._checked += len(piece)
        if self._width > _LONGEST_ANSWER:
            raise RunawayAnswer(_TOO_LONG, text="".join(self.pieces))

    def _too_late(self, after_s: float) -> BackendError:
        hint = "a slow machine needs more time: --timeout SECONDS"
        if not self.pieces and not self._thinking:
            return NothingInTime(f"the model server sent nothing for {after_s:.0f} s", hint=hint)
        return StreamBroken(
            f"the answer stalled or took too long; stopped after {after_s:.0f} s",
            partial="".join(self.pieces),
            hint=hint,
        )


def runaway(tail: str) -> str:
    """Reason why an answer counts as running away, worded for the model; empty for a normal one.

    White space without end does, and so does a passage of at most 80 characters that repeats through the last 400.

    Args:
        tail: the last part of the answer: 400 characters or more when it has as many.
    """
    if len(tail) >= _BLANK_RUN and tail[-_BLANK_RUN:].isspace():
        return "it pads white space without end"
    if len(tail) < _REPEATED_RUN:
        return ""
    end = tail[-_REPEATED_RUN:]
    # If the last 40 characters occur again `period` characters earlier, everything before them must do so as well.
    earlier = end.rfind(end[-40:], 0, len(end) - 1)
    period = len(end) - 40 - earlier
    if earlier >= 0 and period <= _LONGEST_PERIOD and end[period:] == end[:-period]:
        return "it repeats itself without end"
    return ""
