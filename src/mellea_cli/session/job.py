"""The one task, in a session's loop, that brings a thunk's answer about."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mellea_cli.messages import Completion, Message, Usage
from mellea_cli.session.stream import Stream
from mellea_cli.session.thunk import ModelOutputThunk

if TYPE_CHECKING:
    from mellea_cli.session.portal import Portal
    from mellea_cli.session.sampling import SamplingResult


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a generation came to."""

    completion: Completion
    """The answer that counts."""
    model: str
    messages: tuple[Message, ...]
    """What was sent for it."""
    usage: Usage
    """Over all attempts, judges included."""
    attempts: int
    """Requests that were sent for it, judges not counted."""
    parsed: Any = None
    sampling: SamplingResult | None = None
    error: Exception | None = None
    """Why none of the answers will do."""


Work = Callable[[Stream], Awaitable[Outcome]]


class Job:
    """The one task, in a session's loop, that brings one thunk's answer about.

    It does not hold its thunk, so that a thunk nobody wants any more can go, and its request with it.

    Args:
        portal: the way into the loop.
        stream: where the pieces go.
    """

    __slots__ = ("_after", "_asked", "_error", "_kept", "_portal", "_task", "_thunk", "done", "stream")

    def __init__(self, portal: Portal, stream: Stream) -> None:
        self.stream = stream
        self.done: Future[bool] = Future()
        """Done when the answer stands or never will; its result is whether it failed."""
        # A future that runs cannot be cancelled, so a cancelled waiter leaves it to the others.
        self.done.set_running_or_notify_cancel()
        self._portal: Portal | None = portal
        self._task: asyncio.Future[Outcome] | None = None
        self._asked = False
        self._error: Exception | None = None
        self._after: Callable[[ModelOutputThunk], None] | None = None
        self._thunk: weakref.ref[ModelOutputThunk] | None = None
        self._kept: ModelOutputThunk | None = None

    def start(self, work: Work, *, after: Callable[[ModelOutputThunk], None], keep: bool) -> ModelOutputThunk:
        """Start `work` in the loop and return the thunk of its answer.

        Args:
            work: brings the answer.
            after: called in the loop with the thunk once its answer stands, before anybody else is told.
            keep: go on even when nobody holds the thunk any more.

        Raises:
            RuntimeError: the session has been closed.
        """
        thunk = ModelOutputThunk()
        self._thunk, self._kept, self._after = weakref.ref(thunk), thunk if keep else None, after
        if self._portal is not None:
            self._portal.call(self._begin, work)
        thunk.begun(self)
        return thunk

    def wait(self) -> None:
        """Block this thread until the answer stands or never will."""
        portal = self._portal
        if portal is not None:
            portal.wait(self.done)

    def cancel(self, error: Exception | None) -> None:
        """Give the generation up; `error` is what readers are to get instead of the text so far."""
        portal = self._portal
        if portal is not None:
            try:
                portal.call(self._cancel, error)
            except RuntimeError:
                # The session is closed, and everything in it cancelled already.
                return

    def _begin(self, work: Work) -> None:
        self._task = asyncio.get_running_loop().create_task(_run(work, self.stream))
        self._task.add_done_callback(self._ended)

    def _cancel(self, error: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._asked, self._error = True, error
            self._task.cancel()

    def _ended(self, task: asyncio.Future[Outcome]) -> None:
        # Not the task's own last step: a task that is cancelled before it begins takes none.
        failed = True
        try:
            failed = self._settle(task)
        finally:
            self._after = self._kept = self._portal = self._task = None
            self.done.set_result(failed)

    def _settle(self, task: asyncio.Future[Outcome]) -> bool:
        """Put the task's result into the thunk; returns whether it failed. Holds the thunk no longer than this."""
        thunk = (self._thunk() if self._thunk is not None else None) or ModelOutputThunk()
        if task.cancelled():
            thunk.give_up(self.stream.partial, self._error if self._asked else _closed())
        elif (error := task.exception()) is not None:
            thunk.fail(error)
        else:
            thunk.fill(task.result())
        try:
            if self._after is not None and not thunk.failed and not thunk.cancelled:
                self._after(thunk)
        finally:
            self.stream.end(thunk.text, cut=thunk.cancelled)
        return thunk.failed


def _closed() -> RuntimeError:
    return RuntimeError("the session was closed before the answer stood")


async def _run(work: Work, stream: Stream) -> Outcome:
    return await work(stream)
