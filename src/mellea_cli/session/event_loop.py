"""The event loop of a session, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import queue
import signal
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from mellea_cli.errors import MelleaError
from mellea_cli.requirements.requirement import validated_by

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

# Time limits of closing, in seconds: a task that refuses to end must not block the caller for ever.
_CANCEL_S = 5.0
# An embedded model's server may have to be stopped on the way.
_JOIN_S = 30.0


class EventLoopThread:
    """Runs callbacks and coroutines for callers in any thread and in any event loop.

    The thread starts with the first call. It ends when every owner has called `close`, when the object is garbage
    collected, and when the interpreter exits. Running tasks are then cancelled and connections closed; later calls
    raise `RuntimeError`.
    """

    # Why not anyio's blocking portal: it refuses calls made in its own thread, which validators and the garbage
    # collector make; `start_task_soon` blocks until the loop is free (200 µs a call instead of 4, and as long as a
    # slow validator runs); and `start_blocking_portal` waits for its thread without a limit, also when the context
    # manager is garbage collected.

    def __init__(self) -> None:
        # Reentrant: the garbage collector may drop a thunk, which makes a call, during another call.
        self._lock = threading.RLock()
        self._thread: _LoopThread | None = None
        self._owners = 1
        self.warned_of_early_read = False
        self._closed = False
        self._pid = os.getpid()

    def share(self) -> EventLoopThread:
        """Add an owner, who must call `close` too."""
        with self._lock:
            self._owners += 1
        return self

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` in the loop, soon, in a copy of the caller's context. Calls keep their order."""
        self._running().call(function, *args)

    def submit(self, function: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine function in the loop; cancelling the future cancels it."""
        return self._running().submit(function)

    def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function in the loop and block this thread until it ends; Ctrl-C cancels it.

        Raises:
            RuntimeError: the session was closed, or the loop waits for this thread.
        """
        self._check_blocking()
        started: list[asyncio.Task[Any] | None] = []

        async def recorded() -> T:
            started.append(asyncio.current_task())
            return await function()

        try:
            with _interruptible():
                return self.submit(recorded).result()
        except KeyboardInterrupt:
            # Not through the future: Ctrl-C may also come before it is known here.
            self.call(lambda: [task.cancel() for task in started if task is not None])
            raise
        except MelleaError as error:
            # The way through the session's own loop says nothing to the caller.
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        except CancelledError:
            raise closed_early() from None

    def wait(self, future: Future[T]) -> T:
        """Block this thread until `future` has its result.

        Raises:
            RuntimeError: the loop waits for this thread, so both would wait for ever.
        """
        self._check_blocking()
        with _interruptible():
            return future.result()

    def next_of(self, found: queue.SimpleQueue[T]) -> T:
        """Block this thread until the loop has put something into the queue.

        Raises:
            RuntimeError: the loop waits for this thread.
        """
        self._check_blocking()
        with _interruptible():
            return found.get()

    def inside(self) -> bool:
        """Whether the caller is in the loop's own thread, in which nothing may block."""
        return self._thread is threading.current_thread()

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Await `closer` when the loop ends. Call this in the loop; `closer` must not refer to this object."""
        if self._thread is not None:
            self._thread.closers.append(closer)

    def close(self) -> None:
        """Remove an owner. The last one ends the thread and waits for it."""
        with self._lock:
            self._owners -= 1
            if self._owners > 0:
                return
            self._closed, thread = True, self._thread
        if thread is not None:
            thread.stop()
            if not self.inside():
                thread.join(_JOIN_S)

    def _check_blocking(self) -> None:
        if self.inside() or (self._thread is not None and self._thread.waits_here()):
            raise RuntimeError(
                "this would wait for itself: in a validator, write `async def` and await the a-method instead"
            )
        if _in_running_loop():
            _LOG.debug("waiting for an answer blocks the running event loop; await the a-method instead")

    def _running(self) -> _LoopThread:
        thread = self._thread
        if thread is not None and not self._closed and os.getpid() == self._pid:
            return thread
        with self._lock:
            if self._closed:
                raise _closed()
            if os.getpid() != self._pid:
                raise RuntimeError("a session cannot be used after a fork: start one in the child process")
            if self._thread is None:
                thread = _LoopThread()
                thread.start_loop()
                # At interpreter exit the thread's own handler stops it, and waits.
                weakref.finalize(self, thread.stop).atexit = False
                self._thread = thread
            return self._thread


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a wait that blocks a running event loop: its own handler only asks the loop to cancel a task."""
    if threading.current_thread() is not threading.main_thread() or not _in_running_loop():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _LoopThread(threading.Thread):
    # It has no reference to its EventLoopThread: one that is dropped must be collected while the thread runs.

    def __init__(self) -> None:
        super().__init__(name="mellea-session", daemon=True)
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._ready = threading.Event()
        self._open = True
        self._calls_lock = threading.RLock()
        self._calls: list[tuple[contextvars.Context, Callable[..., object], tuple[Any, ...]]] = []
        self._wakeup_pending = False

    def waits_here(self) -> bool:
        """Whether the loop waits for a validator in the calling thread."""
        return validated_by() is self._loop

    def start_loop(self) -> None:
        self.start()
        self._ready.wait()
        atexit.register(self._stop_at_exit)

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._end.wait()
        with self._calls_lock:
            self._open = False
        # Calls that were accepted start their tasks first, so that those are cancelled with the others.
        self._take_calls()
        await asyncio.sleep(0)
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        for closer in self.closers:
            try:
                await closer()
            except Exception:  # noqa: BLE001 - the other connections must be closed too
                _LOG.debug("closing a session's connection failed", exc_info=True)

    def call(self, function: Callable[..., object], *args: Any) -> None:
        context = contextvars.copy_context()
        with self._calls_lock:
            if not self._open:
                raise _closed()
            self._calls.append((context, function, args))
            # Waking the loop is by far the most expensive part of a call, so many calls share one wake-up.
            if not self._wakeup_pending:
                self._wakeup_pending = True
                self._loop.call_soon_threadsafe(self._take_calls)

    def _take_calls(self) -> None:
        with self._calls_lock:
            self._wakeup_pending = False
            calls, self._calls = self._calls, []
        for context, function, args in calls:
            self._loop.call_soon(function, *args, context=context)

    def submit(self, function: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._calls_lock:
            if not self._open:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(function(), self._loop)

    def stop(self) -> None:
        # Does not wait: the garbage collector may call this, in any thread.
        atexit.unregister(self._stop_at_exit)
        with suppress(RuntimeError):
            self.call(self._end.set)

    def _stop_at_exit(self) -> None:
        self.stop()
        self.join(_JOIN_S)


def _closed() -> RuntimeError:
    return RuntimeError("this session has been closed")


def closed_early() -> RuntimeError:
    """The error of an answer that was not complete when its session was closed."""
    return RuntimeError("the session was closed before the answer was complete")
