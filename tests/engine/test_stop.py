"""How a run is asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode


def test_the_first_wish_counts_and_the_second_hurries() -> None:
    """Reason and exit code are the first one's; the second means at once."""
    stop = Stop()
    stop.ask("first", ExitCode.TERMINATED)
    assert (stop.asked.is_set(), stop.now.is_set()) == (True, False)
    stop.ask("second", ExitCode.INTERRUPTED)
    assert (stop.reason, stop.exit_code, stop.now.is_set()) == ("first", ExitCode.TERMINATED, True)


def test_a_limit_that_is_reached_while_stopping_does_not_hurry() -> None:
    """Only people hurry a run."""
    stop = Stop()
    stop.ask_once("deadline", ExitCode.STOPPED_EARLY)
    stop.ask_once("budget", ExitCode.STOPPED_EARLY)
    assert (stop.reason, stop.now.is_set()) == ("deadline", False)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HUNG_UP),
    ],
)
async def test_signals_ask(number: signal.Signals, code: ExitCode) -> None:
    """Each signal asks with its own exit code, and its handler is gone afterwards."""
    before, stop = signal.getsignal(number), Stop()
    with stop.on_signals():
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await stop.asked.wait()
    assert (stop.exit_code, signal.getsignal(number)) == (code, before)
    assert number.name in stop.reason


async def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    """Under nohup a closed terminal stops nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.01)
            assert not stop.asked.is_set()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
