"""The pieces of one answer on their way from the session's loop to its one reader."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any

from mellea_cli.engine.watch import Watch

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Stream(Watch):
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
