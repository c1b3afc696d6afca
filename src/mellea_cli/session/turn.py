"""A call's place among the calls of one conversation."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future


class Turn:
    """A call's place among the calls of one conversation: it comes when all calls before it have ended.

    A call that is given up while it waits ends before those it waited for. So whoever comes next looks behind it as
    well, and does not take its end for the end of them all.

    Args:
        done: done when this call has ended.
        before: the call before it; `None` for the first.
    """

    __slots__ = ("before", "done")

    def __init__(self, done: Future[bool], before: Turn | None) -> None:
        self.done = done
        self.before = before

    async def comes(self) -> None:
        """Wait until every call before this one has ended."""
        while (before := self.before) is not None:
            if not before.done.done():
                await asyncio.wrap_future(before.done)
            # Empty once that call had its own turn, so that a long conversation does not pile up turns.
            self.before = before.before
