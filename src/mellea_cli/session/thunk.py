"""A model's answer, which may not be complete yet, and the task that produces it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Self

from mellea_cli.engine.generate import CallObserver
from mellea_cli.messages import Completion, Message, Usage
from mellea_cli.session.event_loop import EventLoopThread, closed_early

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from mellea_cli.stdlib.sampling import SamplingResult

    ParsedT = TypeVar("ParsedT", default=Any)
else:
    # The default is for type checkers only: it needs a newer Python, or a package that takes time to load.
    from typing import TypeVar

    ParsedT = TypeVar("ParsedT")

_LOG = logging.getLogger(__name__)


# What the generation and the session use: it stands in no completion list.
_INTERNAL = frozenset(
    ("resolve_or_cancel", "running", "text", "failed", "started", "of", "complete", "fail", "cancel", "wait")
)


class ModelOutputThunk(Generic[ParsedT]):
    """A model's answer, which may not be complete yet.

    A session's methods return thunks whose generation already runs, in the session's own thread. One task owns the
    generation, and everyone who waits shares its result. After a failure every read raises the same error at once. A
    thunk without references is cancelled, and its connection closed.

    Read it with `await thunk` (returns the thunk, resolved), `avalue()`, `str()` (waits, also without an event loop),
    `astream()` or `async for` (the pieces), or `value` (never waits). Leaving `async with thunk` cancels an unfinished
    generation.

    Args:
        value: the text of a complete answer; `None` makes a thunk that never gets one.
        meta: notes about it, for the program.
        parsed_repr: what the text was parsed into; the text itself by default.

    Attributes:
        parsed_repr: what the text was parsed into: the model for `format=`, a `Message` for a chat; else the text.
        cancelled: whether the generation was cancelled.
        model: the model's name.
        usage: tokens over all attempts, judges included.
        finish_reason: why the answer ended, such as `"stop"` or `"length"`.
        first_token_s: seconds from sending the request to its first piece of text.
        total_s: seconds from sending the request to its end.
        attempts: requests that were sent, transport retries included, judges not.
        thinking: reasoning text that came with the answer.
        messages: the messages that were sent for the answer that counts.
        sampling: all attempts and their verdicts, when a strategy was used.
    """

    def __init__(
        self, value: str | None = None, meta: dict[str, Any] | None = None, parsed_repr: ParsedT | None = None
    ) -> None:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"a thunk's value is a str, not {type(value).__name__}")
        self._value = value
        self._generation: Generation | None = None
        self._error: BaseException | None = None
        self._error_was_read = False
        self.meta = meta or {}
        self.parsed_repr: ParsedT = value if parsed_repr is None else parsed_repr  # type: ignore[assignment]  # the text
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
        """The answer's text; `None` until it is complete. Never waits; raises the error of a failed thunk."""
        self._raise_error()
        if self._value is None and self._generation is not None:
            self._generation.warn_of_early_read()
        return self._value

    @property
    def error(self) -> BaseException | None:
        """Why there is no answer; `None` unless the generation failed."""
        self._error_was_read = True
        return self._error

    @property
    def parsed(self) -> ParsedT:
        """What the text was parsed into; another name of `parsed_repr`."""
        return self.parsed_repr

    def is_computed(self) -> bool:
        """Whether the answer is complete.

        A streamed answer that is read with `astream()` counts as computed only once its reader has all of it, so a
        loop over `is_computed()` never misses the end. A failed thunk is never computed: see `error`.
        """
        if self._value is None or self._generation is None:
            return self._value is not None
        return self._generation.stream.settled()

    async def avalue(self) -> str:
        """Wait for the answer and return its text. Cancelling one waiter does not cancel the generation.

        Raises:
            BackendError: the request failed, after all retries.
            AnswerError: no answer could be used, within the strategy's budget.
            RuntimeError: the thunk never had a generation, or its session was closed.
        """
        generation = self.running()
        if generation is not None and not generation.done.done():
            await asyncio.wrap_future(generation.done)
        return self._complete_text()

    async def astream(self) -> str:
        """Return the next piece: only text that no earlier call has returned.

        With `ModelOption.STREAM` and `strategy=None` each piece is one chunk of the server's stream, as it arrives;
        otherwise the accepted answer is one piece. The last call may return an empty text.

        Raises:
            RuntimeError: it was read to its end, or another task is reading it.
        """
        generation = self.running()
        self._raise_error()
        if generation is None:
            raise RuntimeError("this thunk was never streamed; value holds the whole text")
        piece = await generation.stream.next()
        self._raise_error()
        return piece

    async def __aiter__(self) -> AsyncIterator[str]:
        while self._generation is not None and not self._generation.stream.over:
            if piece := await self.astream():
                yield piece
        self._raise_error()

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self.avalue().__await__()
        return self

    def wait(self) -> str:
        """Wait for the answer in this thread and return its text; `str(thunk)` does the same.

        Inside a running event loop this blocks that loop; the generation continues in the session's thread.

        Raises:
            RuntimeError: called in the session's own thread, by a validator for example: it would wait for itself.
        """
        if (generation := self.running()) is not None:
            generation.wait()
        return self._complete_text()

    def __str__(self) -> str:
        return self.wait()

    def __repr__(self) -> str:
        if self._error is not None:
            return f"ModelOutputThunk(failed: {self._error!r})"
        return f"ModelOutputThunk({'...' if self._value is None else repr(self._value)})"

    async def cancel_generation(self, error: Exception | None = None) -> None:
        """Cancel the generation and wait until its connection is closed; does nothing after its end.

        The thunk then holds the text that had arrived, with `cancelled` set; with an `error`, every read raises that.
        """
        generation = self._generation
        if generation is not None and not generation.done.done():
            generation.cancel(error)
            await asyncio.wrap_future(generation.done)

    async def aclose(self) -> None:
        """Cancel the generation unless it has ended."""
        await self.cancel_generation()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cancel_generation()

    def __copy__(self) -> ModelOutputThunk:
        if self._value is None:
            raise RuntimeError("a thunk can be copied only when its answer is complete")
        copy = ModelOutputThunk.__new__(ModelOutputThunk)
        copy.__dict__.update(self.__dict__, _generation=None)
        return copy

    def __deepcopy__(self, _: dict[int, Any]) -> ModelOutputThunk:
        return self.__copy__()

    def __del__(self) -> None:
        generation = self.__dict__.get("_generation")
        if generation is None or sys.is_finalizing():
            return
        if not generation.done.done():
            generation.cancel(None)
        elif self._error is not None and not self._error_was_read:
            _LOG.warning("a generation failed and its answer was never read: %s", self._error)

    def _complete_text(self) -> str:
        self._raise_error()
        if self._generation is not None:
            self._generation.stream.given_whole()
        return self._value or ""

    def _raise_error(self) -> None:
        if self._error is not None:
            self._error_was_read = True
            # Its traceback would grow with each read, and keep every reader's frame alive.
            raise self._error.with_traceback(None)

    def __dir__(self) -> Iterable[str]:
        return public_names(super().__dir__(), _INTERNAL)

    # For the generation and for the session; not part of the public API.

    async def resolve_or_cancel(self, *, raising: bool = True) -> Self:
        """Wait for a thunk that only this task has: cancelling the wait cancels the generation."""
        try:
            with suppress(*() if raising else (Exception,)):
                await self.avalue()
                self.__class__ = ComputedModelOutputThunk  # type: ignore[assignment]  # it is one now
        except asyncio.CancelledError:
            if self._generation is not None:
                self._generation.cancel(None)
            raise
        return self

    def running(self) -> Generation | None:
        """The task that produces the answer; `None` for an answer that was complete from the beginning.

        Raises:
            RuntimeError: there will never be an answer.
        """
        if self._generation is None and self._value is None:
            raise RuntimeError("this thunk has no generation to wait for")
        return self._generation

    @property
    def text(self) -> str | None:
        """The answer's text, or `None`; unlike `value` it never raises."""
        return self._value

    @property
    def failed(self) -> bool:
        """Whether the generation has failed; unlike `error` this does not count as reading the error."""
        return self._error is not None

    def started(self, generation: Generation) -> None:
        """Record that the generation runs."""
        self._generation = generation

    @classmethod
    def of(
        cls, completion: Completion, *, model: str, messages: tuple[Message, ...], parsed: Any = None
    ) -> ModelOutputThunk:
        """A thunk of a complete answer."""
        thunk = cls(completion.text, parsed_repr=parsed)
        thunk.model, thunk.messages = model, messages
        thunk.finish_reason, thunk.thinking = completion.finish_reason, completion.thinking
        thunk.usage, thunk.attempts = completion.usage, completion.attempts
        thunk.first_token_s, thunk.total_s = completion.first_token_s, completion.total_s
        return thunk

    def complete(self, answer: ModelOutputThunk, error: Exception | None) -> None:
        """Take over an answer, or with an `error` everything but its text."""
        parsed = answer.parsed_repr if error is None else None
        self.__dict__.update(
            answer.__dict__, _generation=self._generation, _value=None, _error=error, parsed_repr=parsed
        )
        if error is None:
            # Last, because another thread may look at any moment.
            self._value = answer.text

    def fail(self, error: BaseException) -> None:
        """Record that the generation failed."""
        self._error = error
        self.attempts = getattr(error, "attempts", 1)

    def cancel(self, text: str, error: BaseException | None) -> None:
        """Record that the generation was cancelled after `text` had arrived; reads raise `error` if there is one."""
        self.cancelled, self._error = True, error
        if error is None:
            self._value = self.parsed_repr = text  # type: ignore[assignment]  # the text


def public_names(names: Iterable[str], internal: frozenset[str]) -> list[str]:
    """What a completion list shows of an object: no private names, and none that only this package uses."""
    return [name for name in names if name not in internal and (not name.startswith("_") or name.endswith("__"))]


class ComputedModelOutputThunk(ModelOutputThunk[ParsedT]):
    """A thunk whose answer is complete, as the sync methods and `await_result=True` return it.

    `ComputedModelOutputThunk(thunk)` marks the thunk itself as complete and returns it.

    Raises:
        ValueError: the answer is not complete.
    """

    def __new__(cls, thunk: ModelOutputThunk[ParsedT]) -> Self:
        """Mark `thunk` as complete."""
        if thunk.text is None:
            raise ValueError("the answer is not complete: await the thunk first")
        thunk.__class__ = cls
        return thunk  # type: ignore[return-value]  # its class has just become this one

    def __init__(self, thunk: ModelOutputThunk[ParsedT]) -> None: ...


_GATHERED: ContextVar[Gathered | None] = ContextVar("gathered", default=None)


class Gathered:
    """The thunks that are started inside an `async with session.gather()` block.

    The block ends when all their answers are complete. The first failure is raised there and cancels the others; so
    does an error in the block itself.
    """

    def __init__(self) -> None:
        self.thunks: list[ModelOutputThunk] = []
        self._outer: Gathered | None = None

    @property
    def values(self) -> list[str]:
        """The answers' texts in the order of the calls, after the block."""
        return [thunk.value or "" for thunk in self.thunks]

    async def __aenter__(self) -> Self:
        self._outer = _GATHERED.get()
        _GATHERED.set(self)
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        _GATHERED.set(self._outer)
        try:
            if error is None:
                await wait_for_all_mots(self.thunks)
        finally:
            for thunk in self.thunks:
                await thunk.cancel_generation()


def gathered(thunk: ModelOutputThunk) -> ModelOutputThunk:
    """Have the `gather` block around the caller, if there is one, wait for a thunk."""
    if (around := _GATHERED.get()) is not None:
        around.thunks.append(thunk)
    return thunk


async def wait_for_all_mots(mots: Iterable[ModelOutputThunk], *, return_exceptions: bool = False) -> None:
    """Wait until every thunk's answer is complete. A thunk may be listed several times.

    Args:
        mots: the thunks, of one session or of several.
        return_exceptions: wait for all, also when some fail, and raise nothing: see `thunk.error`.

    Raises:
        MelleaError: the first failure, as soon as it happens. The other thunks continue and can still be read.
        RuntimeError: a thunk never had a generation.
    """
    thunks = list(mots)
    generations = [thunk.running() for thunk in thunks]
    waiting = {id(one): one.done for one in generations if one is not None and not one.done.done()}
    if waiting and (return_exceptions or not any(thunk.failed for thunk in thunks)):
        await _all_done(list(waiting.values()), stop_at_failure=not return_exceptions)
    if return_exceptions:
        read = [thunk for thunk in thunks if not thunk.failed]
    else:
        read = [thunk for thunk in thunks if thunk.failed] or thunks
    for thunk in read:
        await thunk.avalue()


async def _all_done(waiting: list[Future[bool]], *, stop_at_failure: bool) -> None:
    # One wake-up of the waiting loop for all thunks. The callbacks must not refer to the thunks: one that is waited
    # for here would otherwise never be dropped, and its generation never cancelled.
    lock = threading.Lock()
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    unfinished = len(waiting)

    def count(done: Future[bool]) -> None:
        nonlocal unfinished
        with lock:
            unfinished -= 1
            last = unfinished == 0
        if last or (stop_at_failure and done.result()):
            _set_threadsafe(loop, finished)

    for done in waiting:
        done.add_done_callback(count)
    await finished


class Generation:
    """The task that produces one thunk's answer, in the session's event loop.

    It has only a weak reference to the thunk: a thunk that is dropped cancels its generation, unless `keep` is set.
    """

    __slots__ = ("_cancel_error", "_event_loop", "_kept", "_task", "_thunk", "done", "stream")

    def __init__(self, event_loop: EventLoopThread, thunk: ModelOutputThunk, *, live: bool, keep: bool) -> None:
        self.stream = Stream(live=live)
        self.done: Future[bool] = Future()  # Its result is whether the generation failed
        # A future that runs cannot be cancelled, so a cancelled waiter does not take it from the others.
        self.done.set_running_or_notify_cancel()
        # Let go of at the end: a thunk that is kept does not keep its session's thread.
        self._event_loop: EventLoopThread | None = event_loop
        self._task: asyncio.Future[None] | None = None
        # What reads raise after a cancellation; only a closing session cancels without another reason.
        self._cancel_error: Exception | None = closed_early()
        self._thunk = weakref.ref(thunk)
        self._kept = thunk if keep else None

    @classmethod
    def start(
        cls, event_loop: EventLoopThread, work: Callable[[Generation], Awaitable[None]], *, live: bool, keep: bool
    ) -> ModelOutputThunk:
        """Start `work`, which calls `complete`, in the loop, and return the thunk of its answer.

        Raises:
            RuntimeError: the session has been closed.
        """
        thunk = ModelOutputThunk()
        generation = cls(event_loop, thunk, live=live, keep=keep)
        event_loop.call(generation._begin, work)
        thunk.started(generation)
        return thunk

    def complete(self, answer: ModelOutputThunk, error: Exception | None) -> ModelOutputThunk | None:
        """Give the thunk its answer, or why it cannot be used; returns the thunk unless it was dropped or failed."""
        thunk = self._thunk()
        if thunk is not None:
            thunk.complete(answer, error)
        return thunk if error is None else None

    def warn_of_early_read(self) -> None:
        """Say, once in a session, that `value` does not wait."""
        event_loop = self._event_loop
        if event_loop is not None and not event_loop.warned_of_early_read:
            event_loop.warned_of_early_read = True
            _LOG.warning(
                "value is None because the answer is still being generated: `await thunk` first, or call the a-method"
                " with await_result=True"
            )

    def wait(self) -> None:
        event_loop = self._event_loop
        if event_loop is None or self.done.done():
            return
        try:
            event_loop.wait(self.done)
        except KeyboardInterrupt:
            self.cancel(None)
            raise

    def cancel(self, error: Exception | None) -> None:
        """Cancel the task; reads of the thunk raise `error`, or return the text so far."""
        event_loop = self._event_loop
        if event_loop is not None:
            # Closing the session has cancelled everything already.
            with suppress(RuntimeError):
                event_loop.call(self._cancel, error)

    def _begin(self, work: Callable[[Generation], Awaitable[None]]) -> None:
        self._task = asyncio.ensure_future(work(self))
        self._task.add_done_callback(self._ended)

    def _cancel(self, error: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._cancel_error = error
            self._task.cancel()

    def _ended(self, task: asyncio.Future[None]) -> None:
        # A done callback and not the task's own last step: a task that is cancelled before its first step takes none.
        thunk = self._thunk() or ModelOutputThunk()
        if task.cancelled():
            thunk.cancel(self.stream.partial, self._cancel_error)
        elif (error := task.exception()) is not None:
            thunk.fail(error)
        self.stream.end(thunk.text, cut=thunk.cancelled)
        self._kept = self._event_loop = self._task = None
        failed = thunk.failed
        # Whoever waits for the end may drop the thunk at once: it must not live on in this frame.
        del thunk
        self.done.set_result(failed)


class Stream(CallObserver):
    """The pieces of one answer, from the session's event loop to one reader in any loop.

    It holds the answer's own text and no more, which the answer's length limit bounds. So a thunk that is never read
    does not block its connection. A stream that is not `live` gives the whole answer at the end, as one piece.
    """

    __slots__ = (
        "_asked_after_end", "_caught_up", "_ended", "_lock", "_over", "_pieces", "_reader", "_started", "_taken",
        "_waiter", "live",
    )  # fmt: skip

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._lock = threading.Lock()
        self._pieces: list[str] = []
        self._taken = 0
        self._started = False  # The reader has begun
        self._ended = False  # The answer has ended
        self._over = False  # The reader has had its last piece
        self._caught_up = False  # The reader has the whole text by other means
        self._asked_after_end = False  # `settled` was called once after the end
        self._reader: weakref.ref[asyncio.Task[Any]] | None = None
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    # Called in the session's loop:

    def text(self, piece: str) -> None:
        with self._lock:
            self._pieces.append(piece)
            waiter = self._waiter if self.live else None
        if waiter is not None:
            _set_threadsafe(*waiter)

    def failed(self, kind: str, message: str) -> None:  # noqa: ARG002 - CallObserver's signature
        """Discard the pieces of a failed attempt, unless the reader has some of them."""
        self.resend()

    def resend(self) -> bool:
        """Discard the pieces and return true, unless the reader has some of them."""
        with self._lock:
            if not self._taken:
                self._pieces.clear()
            return not self._taken

    @property
    def partial(self) -> str:
        with self._lock:
            return "".join(self._pieces)

    def end(self, text: str | None, *, cut: bool = False) -> None:
        """End the stream with the complete text, or with `None` after a failure; `cut` discards unread pieces."""
        with self._lock:
            if cut:
                self._taken, self._over = len(self._pieces), True
            elif text is not None and not self.live:
                self._pieces = [text] if text else []
            self._ended, waiter = True, self._waiter
        if waiter is not None:
            _set_threadsafe(*waiter)

    # Called by readers:

    async def next(self) -> str:
        """Wait for the next piece; empty when the answer has ended and was read whole.

        Raises:
            RuntimeError: the end was returned before, or another task is reading.
        """
        with self._lock:
            if self._waiter is not None:
                raise RuntimeError("another task is reading this thunk: one reader at a time")
            if self._over:
                raise RuntimeError("this thunk has been read to its end; value holds the whole text")
            self._started = True
            if (task := asyncio.current_task()) is not None:
                self._reader = weakref.ref(task)
        while True:
            with self._lock:
                if self._taken < len(self._pieces) and (self.live or self._ended):
                    piece = self._pieces[self._taken]
                    self._taken += 1
                    self._over = self._ended and self._taken == len(self._pieces)
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

    @property
    def over(self) -> bool:
        with self._lock:
            return self._over or (self._ended and self._taken == len(self._pieces))

    def given_whole(self) -> None:
        """Record that the calling task has the whole text: if it is the reader, it needs no more pieces."""
        with self._lock:
            reader = self._reader() if self._reader is not None else None
            if not self._started or reader is None or reader is _current_task():
                self._caught_up = True

    def settled(self) -> bool:
        """Whether the answer is complete and no reader would miss a part of it by stopping now."""
        # A loop of the form `while not computed: read a piece` must get every piece, even when the answer is complete
        # before the loop begins. So a stream without a reader is unsettled once more after its end.
        with self._lock:
            if not self._ended:
                return False
            if not self.live or self._caught_up or self._over or self._taken == len(self._pieces):
                return True
            if self._started:
                return False
            asked, self._asked_after_end = self._asked_after_end, True
            return asked


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _set_threadsafe(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def set_result() -> None:
        if not future.done():
            future.set_result(None)

    # A loop that has been closed has no waiters.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(set_result)
