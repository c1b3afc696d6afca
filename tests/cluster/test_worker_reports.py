"""What a worker tells the driver, and when."""

from __future__ import annotations

import asyncio

from mellea_cli.cluster.worker_messages import Reporter, Rhythm, pack, unpack
from mellea_cli.errors import NotAuthorized, RateLimited
from mellea_cli.events import AttemptFailed, ItemStarted, Paused, StepFinished, StepStarted, TokensReceived
from mellea_cli.items import Failure, Success
from mellea_cli.messages import Usage

SOON = Rhythm(linger_s=0.0, text_s=0.0)
RARELY = Rhythm(linger_s=0.0, text_s=60.0)


async def test_pieces_of_an_answer_become_one_event_told_before_its_end() -> None:
    """However many tokens came, an answer's text is one event in a report, in its place among the others."""
    reporter = Reporter(SOON)
    reporter(StepStarted(7, "analysis"))
    for piece in ("a", "b", "c"):
        reporter(TokensReceived(7, "analysis", piece))
    reporter(StepFinished(7, "analysis", Usage(1, 3)))
    reporter.end(7, Success({}))
    report = await reporter.next()
    assert report.events == [
        StepStarted(7, "analysis"),
        TokensReceived(7, "analysis", "abc"),
        StepFinished(7, "analysis", Usage(1, 3)),
    ]
    assert report.endings == [(7, Success({}))]


async def test_a_void_attempt_and_the_next_are_told_apart() -> None:
    """Text before a failed attempt is told before it, text after it after it."""
    reporter = Reporter(SOON)
    reporter(TokensReceived(1, "s", "bad"))
    reporter(AttemptFailed(1, "s", "parse", "no"))
    reporter(TokensReceived(1, "s", "good"))
    report = await reporter.next()
    assert report.events == [
        TokensReceived(1, "s", "bad"),
        AttemptFailed(1, "s", "parse", "no"),
        TokensReceived(1, "s", "good"),
    ]


async def test_text_that_still_streams_is_told_rarely_and_never_lost() -> None:
    """Between two reports with text there is a while, and outcomes do not wait for it."""
    reporter = Reporter(RARELY)
    reporter._texts_at = asyncio.get_running_loop().time()
    reporter(TokensReceived(1, "s", "first "))
    reporter.end(2, Success({}))
    early = await reporter.next()
    assert (early.events, early.endings) == ([], [(2, Success({}))])
    reporter(TokensReceived(1, "s", "second"))
    reporter(StepFinished(1, "s", Usage()))
    reporter.end(1, Success({}))
    assert (await reporter.next()).events[0] == TokensReceived(1, "s", "first second")


async def test_the_items_own_text_does_not_travel_back() -> None:
    """The driver has it."""
    reporter = Reporter(SOON)
    reporter(ItemStarted(1, "x", "a long text"))
    assert (await reporter.next()).events == [ItemStarted(1, "x", "")]


async def test_a_report_waits_until_there_is_something_to_tell() -> None:
    """A worker that does nothing costs the driver nothing; giving up the wait loses nothing."""
    reporter = Reporter(SOON)
    waiting = asyncio.ensure_future(reporter.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    reporter(Paused("busy", 1.0))
    assert (await reporter.next()).events == [Paused("busy", 1.0)]


def test_outcomes_and_errors_arrive_as_they_were_sent() -> None:
    """Outcomes are equal afterwards; an error keeps its class, its message, its hint and what the server said."""
    outcomes = [Success({"a": {"b": None}}, Usage(1, 2), 0.5, 2), Failure("parse", "no", "s", 3, 500, Usage(), 1.0)]
    assert unpack(pack(outcomes)) == outcomes
    error = unpack(pack(NotAuthorized("wrong key", status=401, hint="set it")))
    assert (type(error), error.message, error.status, error.hint) == (NotAuthorized, "wrong key", 401, "set it")
    assert unpack(pack(RateLimited("slow", retry_after_s=2.0))).retry_after_s == 2.0
