"""Waiting for many answers at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress

from mellea_cli.session.thunk import ModelOutputThunk


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


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
