"""A model's answer, which may still be on its way."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mellea_cli.messages import Message, Usage

if TYPE_CHECKING:
    from mellea_cli.session.job import Job, Outcome
    from mellea_cli.session.sampling import SamplingResult

_LOG = logging.getLogger("mellea")


class ModelOutputThunk:
    """A model's answer, which may still be on its way.

    A session's methods hand out thunks whose generation runs already, in the session's own thread. One task owns it,
    and everybody who waits shares its result. After a failure every read raises the same error at once. A thunk that
    nobody holds any more is given up, and its connection closed.

    Read it with `await thunk` (gives the thunk, resolved), `avalue()`, `str()` (waits, also where there is no event
    loop), `astream()` or `async for` (the pieces), or `value` (never waits). Leaving `async with thunk` gives up what
    is not finished.

    Args:
        value: the text of an answer that stands already; `None` makes a thunk that never will have one.
        parsed_repr: what the text was parsed into; the text itself by default.

    Attributes:
        parsed_repr: what the text was parsed into: the model for `format=`, a `Message` for a chat; else the text.
        cancelled: whether it was given up before its end.
        model: the model's name.
        usage: tokens over all attempts, judges included.
        finish_reason: why the answer ended, such as `"stop"` or `"length"`.
        first_token_s: seconds from sending the request to its first piece of text.
        total_s: seconds from sending the request to its end.
        attempts: requests that were sent for it, transport retries included, judges not.
        thinking: reasoning text that came beside the answer.
        messages: what was sent for the answer that counts.
        sampling: all attempts and their verdicts, when a strategy was used.
    """

    def __init__(self, value: str | None = None, *, parsed_repr: Any = None) -> None:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"a thunk's value is a str, not {type(value).__name__}")
        self._value = value
        self._job: Job | None = None
        self._told = False
        self.parsed_repr: Any = value if parsed_repr is None else parsed_repr
        self._error: BaseException | None = None
        self.cancelled = False
        self.model = ""
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.first_token_s: float | None = None
        self.total_s: float | None = None
        self.attempts = 0
        self.thinking = ""
        self.messages: tuple[Message, ...] = ()
        self.sampling: SamplingResult | None = None

    @property
    def value(self) -> str | None:
        """The answer's text; `None` while it does not stand. Never waits; raises the error of a failed thunk."""
        if self._error is not None:
            self._fail()
        return self._value

    @property
    def error(self) -> BaseException | None:
        """Why there is no answer; `None` unless the generation failed."""
        self._told = True
        return self._error

    @property
    def parsed(self) -> Any:
        """What the text was parsed into; another name of `parsed_repr`."""
        return self.parsed_repr

    def is_computed(self) -> bool:
        """Whether the answer stands.

        A streamed answer that somebody reads with `astream()` counts as computed only once the reader has all of it,
        so that a loop over `is_computed()` never misses the end. A failed thunk is never computed: see `error`.
        """
        if self._value is None or self._job is None:
            return self._value is not None
        return self._job.stream.settled()

    async def avalue(self) -> str:
        """Wait for the answer and return its text. Cancelling one who waits leaves the thunk as it is.

        Raises:
            BackendError: the server failed at it, for good.
            AnswerError: the model did not answer what was asked, within the budget.
            RuntimeError: the thunk never had a generation.
        """
        job = self.job()
        if job is not None and not job.done.done():
            await asyncio.wrap_future(job.done)
        return self._given()

    async def astream(self) -> str:
        """Return the next piece: only text that no earlier call has returned.

        With `ModelOption.STREAM` and `strategy=None` pieces are those of the wire, as they arrive; otherwise the whole
        accepted answer is one piece. The last call may return an empty text.

        Raises:
            RuntimeError: it was read to its end already, or somebody else is reading.
        """
        job = self.job()
        if self._error is not None:
            self._fail()
        if job is None:
            raise RuntimeError("this thunk was never streamed; value holds the whole text")
        piece = await job.stream.next()
        if self._error is not None:
            self._fail()
        return piece

    async def _pieces(self) -> AsyncIterator[str]:
        while self._job is not None and not self._job.stream.over:
            if piece := await self.astream():
                yield piece
        if self._error is not None:
            self._fail()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._resolved().__await__()

    async def _resolved(self) -> Self:
        await self.avalue()
        return self

    def wait(self) -> str:
        """Wait for the answer in this thread and return its text; `str(thunk)` does the same.

        Inside a running event loop this blocks that loop; the generation goes on in the session's thread.

        Raises:
            RuntimeError: called in the session's own thread, by a validator say, where it would wait for itself.
        """
        job = self.job()
        if job is not None and not job.done.done():
            job.wait()
        return self._given()

    def __str__(self) -> str:
        return self.wait()

    def __repr__(self) -> str:
        state = f"failed: {self._error!r}" if self._error is not None else repr(self._value)
        return f"ModelOutputThunk({state if self._error is not None or self._value is not None else '...'})"

    async def cancel_generation(self, error: Exception | None = None) -> None:
        """Give the generation up and wait until its connection is closed; does nothing when it has ended.

        The thunk then holds the text that had arrived, with `cancelled` set; given an `error`, every read raises that.
        """
        job = self._job
        if job is not None and not job.done.done():
            job.cancel(error)
            await asyncio.wrap_future(job.done)

    async def aclose(self) -> None:
        """Give the generation up unless it has ended."""
        await self.cancel_generation()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel_generation()

    def __copy__(self) -> ModelOutputThunk:
        if self._value is None:
            raise RuntimeError("a thunk can be copied only when its answer stands")
        copy = ModelOutputThunk.__new__(ModelOutputThunk)
        copy.__dict__.update(self.__dict__, _job=None)
        return copy

    def __deepcopy__(self, _: dict[int, Any]) -> ModelOutputThunk:
        return self.__copy__()

    def __del__(self) -> None:
        job = self.__dict__.get("_job")
        if job is None or sys.is_finalizing():
            return
        if not job.done.done():
            job.cancel(None)
        elif self._error is not None and not self._told:
            _LOG.warning("a generation failed and nobody asked for its answer: %s", self._error)

    def job(self) -> Job | None:
        """The task that brings the answer; `None` when it stood from the beginning.

        Raises:
            RuntimeError: there never will be an answer.
        """
        if self._job is None and self._value is None:
            raise RuntimeError("this thunk has no generation that could be waited for")
        return self._job

    def _given(self) -> str:
        if self._error is not None:
            self._fail()
        if self._job is not None:
            self._job.stream.given_whole()
        return self._value or ""

    def _fail(self) -> None:
        self._told = True
        if self._error is not None:
            # Its traceback would grow with each read, and hold on to every reader's frame.
            raise self._error.with_traceback(None)

    # For the task that brings the answer:

    def begun(self, job: Job) -> None:
        """The generation runs."""
        self._job = job

    def fill(self, outcome: Outcome) -> None:
        """The generation has ended."""
        completion = outcome.completion
        self.model, self.messages, self.sampling = outcome.model, outcome.messages, outcome.sampling
        self.usage, self.attempts, self._error = outcome.usage, outcome.attempts, outcome.error
        self.finish_reason, self.thinking = completion.finish_reason, completion.thinking
        self.first_token_s, self.total_s = completion.first_token_s, completion.total_s
        self.parsed_repr = outcome.parsed
        if outcome.error is None:
            # Last, for another thread may look at any moment.
            self._value = completion.text

    def fail(self, error: BaseException) -> None:
        """The generation has failed."""
        self._error = error
        self.attempts = getattr(error, "attempts", 1)

    def give_up(self, text: str, error: BaseException | None) -> None:
        """The generation was cancelled when it had come to `text`; `error` is what readers are to get instead."""
        self.cancelled, self._error = True, error
        if error is None:
            self._value = self.parsed_repr = text

    @property
    def failed(self) -> bool:
        """Whether the generation has failed; asking this does not count as being told why."""
        return self._error is not None

    @property
    def text(self) -> str | None:
        """The answer's text, or `None`; unlike `value` it never raises."""
        return self._value
