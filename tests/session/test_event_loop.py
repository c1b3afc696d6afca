"""The event loop of a session: when its thread starts, which calls it takes, and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import threading
import weakref
from typing import Any

import pytest

from mellea_cli.session.event_loop import EventLoopThread


async def name_of_thread() -> str:
    """Where this runs."""
    return threading.current_thread().name


def test_the_thread_starts_with_the_first_call() -> None:
    """Making an event loop costs nothing; everything runs in one thread of its own."""
    before = threading.active_count()
    event_loop = EventLoopThread()
    assert threading.active_count() == before
    assert event_loop.wait(event_loop.submit(name_of_thread)) == "mellea-session"
    assert threading.active_count() == before + 1
    event_loop.close()
    assert threading.active_count() == before


def test_a_closed_event_loop_takes_no_calls() -> None:
    """Calls and submissions say that the session has been closed, whether or not it ever ran."""
    for used in (False, True):
        event_loop = EventLoopThread()
        if used:
            event_loop.wait(event_loop.submit(name_of_thread))
        event_loop.close()
        with pytest.raises(RuntimeError, match="has been closed"):
            event_loop.call(print)
        with pytest.raises(RuntimeError, match="has been closed"):
            event_loop.submit(name_of_thread)


def test_the_last_owner_ends_it() -> None:
    """A shared event loop runs until every owner has closed it."""
    event_loop = EventLoopThread()
    other = event_loop.share()
    event_loop.close()
    assert other.wait(other.submit(name_of_thread)) == "mellea-session"
    other.close()
    with pytest.raises(RuntimeError):
        event_loop.call(print)


def test_a_dropped_event_loop_ends_its_thread() -> None:
    """Dropping the last reference stops the loop and runs what was to be closed."""
    closed = threading.Event()

    async def close() -> None:
        closed.set()

    event_loop = EventLoopThread()
    event_loop.wait(event_loop.submit(name_of_thread))
    event_loop.call(event_loop.on_close, close)
    event_loop.wait(event_loop.submit(name_of_thread))
    thread = next(thread for thread in threading.enumerate() if thread.name == "mellea-session")
    gone = weakref.ref(event_loop)
    del event_loop
    gc.collect()
    assert gone() is None
    assert closed.wait(10)
    thread.join(10)
    assert not thread.is_alive()


def test_closing_cancels_what_runs_and_closes_everything() -> None:
    """A task that would run for ever is cancelled; one connection that fails to close does not stop the next."""
    event_loop = EventLoopThread()
    cancelled, closed = threading.Event(), threading.Event()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def broken() -> None:
        raise OSError("will not close")

    async def close() -> None:
        closed.set()

    future = event_loop.submit(for_ever)
    event_loop.call(event_loop.on_close, broken)
    event_loop.call(event_loop.on_close, close)
    event_loop.close()
    assert cancelled.is_set()
    assert closed.is_set()
    assert future.cancelled()


def test_waiting_inside_is_refused() -> None:
    """The loop's own thread cannot wait for the loop."""
    event_loop = EventLoopThread()

    async def wait() -> None:
        event_loop.wait(event_loop.submit(name_of_thread))

    with pytest.raises(RuntimeError, match="wait for itself"):
        event_loop.wait(event_loop.submit(wait))
    event_loop.close()


def test_context_variables_go_in() -> None:
    """A call sees the context variables of the caller."""
    variable = contextvars.ContextVar("variable", default="")
    variable.set("mine")
    event_loop = EventLoopThread()
    seen: list[str] = []
    done = threading.Event()
    event_loop.call(lambda: (seen.append(variable.get()), done.set()))
    assert done.wait(10)
    assert seen == ["mine"]
    event_loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_session_cannot_be_used_after_a_fork() -> None:
    """In a forked child, where the thread does not exist, a call is an error and not a wait for ever."""
    event_loop = EventLoopThread()
    event_loop.wait(event_loop.submit(name_of_thread))
    child = os.fork()
    if not child:
        try:
            event_loop.call(print)
        except RuntimeError as error:
            os._exit(7 if "fork" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    event_loop.close()


def test_a_call_out_of_a_call_is_neither_lost_nor_stuck() -> None:
    """The garbage collector may drop a thunk, which makes a call, while its thread is in the middle of another."""
    event_loop = EventLoopThread()
    event_loop.wait(event_loop.submit(name_of_thread))
    assert event_loop._thread is not None
    loop = event_loop._thread._loop
    wake, seen, done = loop.call_soon_threadsafe, [], threading.Event()

    def collect_and_wake(*args: Any, **kwargs: Any) -> Any:
        event_loop.call(seen.append, 1)
        return wake(*args, **kwargs)

    loop.call_soon_threadsafe = collect_and_wake  # where the collector would strike
    caller = threading.Thread(target=lambda: (event_loop.call(seen.append, 2), event_loop.call(done.set)), daemon=True)
    caller.start()
    assert done.wait(10)
    caller.join(10)
    assert 1 in seen
    assert 2 in seen
    del loop.call_soon_threadsafe
    event_loop.close()


def test_a_sync_call_gets_the_result_or_the_error() -> None:
    """`run` returns what the coroutine returns and raises what it raises, also inside a running event loop."""
    event_loop = EventLoopThread()

    async def fail() -> None:
        raise KeyError("oops")

    async def inside() -> str:
        return event_loop.run(name_of_thread)

    assert event_loop.run(name_of_thread) == asyncio.run(inside()) == "mellea-session"
    with pytest.raises(KeyError, match="oops"):
        event_loop.run(fail)
    event_loop.close()


def test_closing_ends_a_sync_call_in_another_thread() -> None:
    """A caller that waits while another thread closes the session gets an error that says so."""
    event_loop = EventLoopThread()
    started, errors = threading.Event(), []

    async def for_ever() -> None:
        started.set()
        await asyncio.Event().wait()

    def call() -> None:
        with pytest.raises(RuntimeError, match="closed before") as closed:
            event_loop.run(for_ever)
        errors.append(closed.value)

    caller = threading.Thread(target=call)
    caller.start()
    assert started.wait(10)
    event_loop.close()
    caller.join(10)
    assert len(errors) == 1


def test_ctrl_c_ends_a_sync_call_and_cancels_it() -> None:
    """SIGINT in the waiting thread raises `KeyboardInterrupt` there, and the coroutine is cancelled."""
    event_loop = EventLoopThread()
    cancelled, main = threading.Event(), threading.get_ident()

    async def for_ever() -> None:
        try:
            signal.pthread_kill(main, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        event_loop.run(for_ever)
    assert cancelled.wait(10)
    event_loop.close()
