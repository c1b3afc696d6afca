"""The session's own loop: when its thread starts, what reaches it, and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import weakref
from typing import Any

import pytest

from mellea_cli.session.event_loop import EventLoopThread


async def name_of_thread() -> str:
    """Where this runs."""
    return threading.current_thread().name


def test_the_thread_starts_with_the_first_call() -> None:
    """Making a portal costs nothing; everything runs in one thread of its own."""
    before = threading.active_count()
    portal = EventLoopThread()
    assert threading.active_count() == before
    assert portal.wait(portal.submit(name_of_thread)) == "mellea-session"
    assert threading.active_count() == before + 1
    portal.close()
    assert threading.active_count() == before


def test_a_closed_portal_takes_no_calls() -> None:
    """Calls and submissions say that the session has been closed, whether or not it ever ran."""
    for used in (False, True):
        portal = EventLoopThread()
        if used:
            portal.wait(portal.submit(name_of_thread))
        portal.close()
        with pytest.raises(RuntimeError, match="has been closed"):
            portal.call(print)
        with pytest.raises(RuntimeError, match="has been closed"):
            portal.submit(name_of_thread)


def test_the_last_owner_ends_it() -> None:
    """A portal that is shared goes on until everybody has closed it."""
    portal = EventLoopThread()
    other = portal.share()
    portal.close()
    assert other.wait(other.submit(name_of_thread)) == "mellea-session"
    other.close()
    with pytest.raises(RuntimeError):
        portal.call(print)


def test_a_portal_that_nobody_holds_ends_its_thread() -> None:
    """Dropping the last reference stops the loop and runs what was to be closed."""
    closed = threading.Event()

    async def close() -> None:
        closed.set()

    portal = EventLoopThread()
    portal.wait(portal.submit(name_of_thread))
    portal.call(portal.on_close, close)
    portal.wait(portal.submit(name_of_thread))
    thread = next(thread for thread in threading.enumerate() if thread.name == "mellea-session")
    gone = weakref.ref(portal)
    del portal
    gc.collect()
    assert gone() is None
    assert closed.wait(10)
    thread.join(10)
    assert not thread.is_alive()


def test_closing_cancels_what_runs_and_closes_everything() -> None:
    """A task that would run for ever is cancelled; one connection that fails to close does not stop the next."""
    portal = EventLoopThread()
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

    future = portal.submit(for_ever)
    portal.call(portal.on_close, broken)
    portal.call(portal.on_close, close)
    portal.close()
    assert cancelled.is_set()
    assert closed.is_set()
    assert future.cancelled()


def test_waiting_inside_is_refused() -> None:
    """The loop's own thread cannot wait for the loop."""
    portal = EventLoopThread()

    async def wait() -> None:
        portal.wait(portal.submit(name_of_thread))

    with pytest.raises(RuntimeError, match="wait for itself"):
        portal.wait(portal.submit(wait))
    portal.close()


def test_context_variables_go_in() -> None:
    """A call sees the context variables of the caller."""
    variable = contextvars.ContextVar("variable", default="")
    variable.set("mine")
    portal = EventLoopThread()
    seen: list[str] = []
    done = threading.Event()
    portal.call(lambda: (seen.append(variable.get()), done.set()))
    assert done.wait(10)
    assert seen == ["mine"]
    portal.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_is_told_that_its_session_stayed_behind() -> None:
    """In a forked child, where the thread does not exist, a call is an error and not a wait for ever."""
    portal = EventLoopThread()
    portal.wait(portal.submit(name_of_thread))
    child = os.fork()
    if not child:
        try:
            portal.call(print)
        except RuntimeError as error:
            os._exit(7 if "fork" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    portal.close()


def test_a_call_out_of_a_call_is_neither_lost_nor_stuck() -> None:
    """The garbage collector may drop a thunk, which makes a call, while its thread is in the middle of another."""
    portal = EventLoopThread()
    portal.wait(portal.submit(name_of_thread))
    assert portal._room is not None
    loop = portal._room.loop
    assert loop is not None
    wake, seen, done = loop.call_soon_threadsafe, [], threading.Event()

    def collect_and_wake(*args: Any, **kwargs: Any) -> Any:
        portal.call(seen.append, 1)
        return wake(*args, **kwargs)

    loop.call_soon_threadsafe = collect_and_wake  # where the collector would strike
    caller = threading.Thread(target=lambda: (portal.call(seen.append, 2), portal.call(done.set)), daemon=True)
    caller.start()
    assert done.wait(10)
    caller.join(10)
    assert 1 in seen
    assert 2 in seen
    del loop.call_soon_threadsafe
    portal.close()
