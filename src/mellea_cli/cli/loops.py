"""The event loop that a batch run lives on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end: on uvloop where it is installed, for it takes less processor time a call.

    `MELLEA_LOOP=asyncio` keeps Python's own loop all the same.
    """
    with asyncio.Runner(loop_factory=_fastest()) as runner:
        return runner.run(main)


def _fastest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if os.environ.get("MELLEA_LOOP") == "asyncio" or find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
