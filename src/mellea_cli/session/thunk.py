"""A model's answer, which may still be on its way."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mellea_cli.engine.generate import CallObserver
from mellea_cli.messages import Message, Usage

if TYPE_CHECKING:
    from mellea_cli.session.calls import Job, Outcome
    from mellea_cli.session.sampling import SamplingResult


# The pieces of one answer on their way from the session's loop to its one reader.

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Stream(CallObserver):
    """Collects an answer's text and hands it to one reader, piece by piece.

    It holds no more than the answer's own text, which the answer's length limit bounds, so a thunk that nobody reads
    runs to its end and gives its connection back.

    Args:
        live: hand over each piece as it comes off the wire; else the whole answer at the end, as one piece.
    """

    __slots__ = (
        "_asked", "_begun", "_caught_up", "_ended", "_lock", "_over", "_pieces", "_reader", "_taken", "_waiter", "live",
    )  # fmt: skip

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._lock = threading.Lock()
        self._pieces: list[str] = []
        self._taken = 0
        self._begun = self._ended = self._over = self._caught_up = self._asked = False
        self._reader: weakref.ref[asyncio.Task[Any]] | None = None
        self._waiter: _Waiter | None = None

    # In the session's loop:

    def text(self, piece: str) -> None:
        """A piece of the answer has arrived."""
        with self._lock:
            self._pieces.append(piece)
            waiter = self._waiter if self.live else None
        _wake(waiter)

    def failed(self, kind: str, message: str) -> None:  # noqa: ARG002 - the signature is Watch's
        """What had arrived is void, unless somebody has it already."""
        with self._lock:
            if not self._taken:
                self._pieces.clear()

    def resend(self) -> bool:
        """Whether nothing has been handed over yet; what had arrived is then void."""
        with self._lock:
            if not self._taken:
                self._pieces.clear()
            return not self._taken

    @property
    def partial(self) -> str:
        """The text so far."""
        with self._lock:
            return "".join(self._pieces)

    def end(self, text: str | None, *, cut: bool = False) -> None:
        """The answer stands; `None` when it never will. A stream that is `cut` hands nothing more over."""
        with self._lock:
            if cut:
                self._taken, self._over = len(self._pieces), True
            elif text is not None and not self.live:
                self._pieces = [text] if text else []
            self._ended, waiter = True, self._waiter
        _wake(waiter)

    # At the reader's:

    async def next(self) -> str:
        """The next piece; empty when the answer has ended and nothing is left of it.

        Raises:
            RuntimeError: the answer was read to its end before, or somebody else is reading.
        """
        with self._lock:
            if self._waiter is not None:
                raise RuntimeError("somebody is reading this thunk already: one reader at a time")
            if self._over:
                raise RuntimeError("this thunk has been read to its end; value holds the whole text")
            self._begin()
        while True:
            with self._lock:
                if (piece := self._take()) is not None:
                    return piece
                if self._ended:
                    self._over = True
                    return ""
                loop = asyncio.get_running_loop()
                self._waiter = waiter = (loop, loop.create_future())
            try:
                await waiter[1]
            finally:
                with self._lock:
                    self._waiter = None

    def _begin(self) -> None:
        self._begun = True
        if (task := asyncio.current_task()) is not None:
            self._reader = weakref.ref(task)

    def _take(self) -> str | None:
        if self._taken == len(self._pieces) or not (self.live or self._ended):
            return None
        piece = self._pieces[self._taken]
        self._taken += 1
        if self._ended and self._taken == len(self._pieces):
            self._over = True
        return piece

    @property
    def over(self) -> bool:
        """Whether there is nothing left to read."""
        with self._lock:
            return self._over or (self._ended and self._taken == len(self._pieces))

    def given_whole(self) -> None:
        """The calling task has been given the whole text: if it is the reader, it has nothing left to wait for."""
        with self._lock:
            reader = self._reader() if self._reader is not None else None
            if not self._begun or reader is None or reader is _current_task():
                self._caught_up = True

    def settled(self) -> bool:
        """Whether the answer stands and no reader would miss a part of it by stopping now.

        A loop of the form `while not computed: read a piece` must get every piece, even when the answer is complete
        before the loop has begun. So a stream that nobody has begun to read says "no" once more after its end.
        """
        with self._lock:
            if not self._ended:
                return False
            if not self.live or self._caught_up or self._over or self._taken == len(self._pieces):
                return True
            if self._begun:
                return False
            self._asked, asked = True, self._asked
            return asked


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _wake(waiter: _Waiter | None) -> None:
    if waiter is None:
        return
    loop, future = waiter
    try:
        loop.call_soon_threadsafe(_set, future)
    except RuntimeError:
        # The reader's loop has been closed: nobody waits any more.
        return


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_LOG = logging.getLogger(__name__)


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


# Waiting for many answers at once.


async def wait_for_all_mots(mots: Iterable[ModelOutputThunk], *, return_exceptions: bool = False) -> None:
    """Wait until every thunk's answer stands; the thunks keep their order, and one may be listed several times.

    Args:
        mots: the thunks, of one session or of several.
        return_exceptions: wait for all, also when some fail, and raise nothing: `thunk.error` tells which failed.

    Raises:
        MelleaError: the first failure, as soon as it happens. The other thunks go on and can still be read.
        RuntimeError: a thunk never had a generation.
    """
    thunks = list(mots)
    waiting = {id(job): job.done for thunk in thunks if (job := thunk.job()) is not None and not job.done.done()}
    if waiting and (return_exceptions or not any(thunk.failed for thunk in thunks)):
        await _Count(list(waiting.values()), all_of_them=return_exceptions).wait()
    failed = [thunk for thunk in thunks if thunk.failed]
    for thunk in failed if failed and not return_exceptions else thunks:
        if not (thunk.failed and return_exceptions):
            await thunk.avalue()


class _Count:
    """Counts thunks down from their sessions' threads; one wake-up of the waiting loop for all of them.

    It knows the thunks' futures only: one that counted would keep a thunk that nobody else wants any more.
    """

    def __init__(self, waiting: list[Future[bool]], *, all_of_them: bool) -> None:
        self._waiting = waiting
        self._left = len(waiting)
        self._all = all_of_them
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()

    async def wait(self) -> None:
        """Wait for all, or for the first failure."""
        for done in self._waiting:
            done.add_done_callback(self._one)
        await self._over

    def _one(self, done: Future[bool]) -> None:
        with self._lock:
            self._left -= 1
            over = not self._left or (done.result() and not self._all)
        if over:
            # When the waiting loop has been closed, nobody waits any more.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_set, self._over)
