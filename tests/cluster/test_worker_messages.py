"""How a run is split among workers, and what they report."""

from __future__ import annotations

import asyncio

import pytest

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.security import NetworkPolicy, Secrets
from mellea_cli.cluster.worker_messages import Reporter, ReportIntervals, pack, split_plan, unpack
from mellea_cli.errors import NotAuthorized, RateLimited
from mellea_cli.events import AttemptFailed, ItemStarted, Paused, StepFinished, StepStarted, TokensReceived
from mellea_cli.items import Failure, Success
from mellea_cli.messages import Usage
from mellea_cli.pipelines.own_fields import own_pipeline
from mellea_cli.pipelines.pipeline_spec import PipelineSpec
from run.run_io import plan

SOON = ReportIntervals(delay_s=0.0, text_s=0.0)
RARELY = ReportIntervals(delay_s=0.0, text_s=60.0)


async def test_pieces_of_an_answer_become_one_event_told_before_its_end() -> None:
    """However many tokens came, an answer's text is one event in a report, in its place among the others."""
    reporter = Reporter(SOON)
    reporter(StepStarted(7, "analysis"))
    for piece in ("a", "b", "c"):
        reporter(TokensReceived(7, "analysis", piece))
    reporter(StepFinished(7, "analysis", Usage(1, 3)))
    reporter.finish(7, Success({}))
    report = await reporter.next()
    assert report.events == [
        StepStarted(7, "analysis"),
        TokensReceived(7, "analysis", "abc"),
        StepFinished(7, "analysis", Usage(1, 3)),
    ]
    assert report.results == [(7, Success({}))]


async def test_a_void_attempt_and_the_next_are_told_apart() -> None:
    """Text before a failed attempt is reported before it, text after it after it."""
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
    reporter._last_text_s = asyncio.get_running_loop().time()
    reporter(TokensReceived(1, "s", "first "))
    reporter.finish(2, Success({}))
    early = await reporter.next()
    assert (early.events, early.results) == ([], [(2, Success({}))])
    reporter(TokensReceived(1, "s", "second"))
    reporter(StepFinished(1, "s", Usage()))
    reporter.finish(1, Success({}))
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


@pytest.mark.parametrize(("concurrency", "workers"), [(16, 1), (16, 3), (7, 2), (3, 8), (1, 5)])
def test_all_setups_together_are_what_the_user_set(concurrency: int, workers: int) -> None:
    """Requests in flight, requests and tokens a minute add up to the whole run's; each worker gets some."""
    whole = plan(concurrency=concurrency, rpm=90.0, tpm=5_000.0)
    parts = [setup.plan() for setup in split_plan(whole, BackendSettings(), workers, pull=False)]
    assert len(parts) == min(workers, concurrency)
    assert sum(part.concurrency for part in parts) == concurrency
    assert max(part.concurrency for part in parts) - min(part.concurrency for part in parts) <= 1
    assert sum(part.rpm or 0 for part in parts) == pytest.approx(90.0)
    assert sum(part.tpm or 0 for part in parts) == pytest.approx(5_000.0)


def test_a_setup_arrives_as_it_was_sent() -> None:
    """The worker's plan asks the same questions: its fingerprint is the driver's."""
    whole = plan(concurrency=4, redacted=True)
    (setup,) = split_plan(whole, BackendSettings(model="m", api_key="sk-x"), 1, pull=True)
    arrived = unpack(pack(setup))
    assert arrived == setup
    assert arrived.plan().fingerprint == whole.fingerprint
    assert arrived.plan() == whole


def test_a_setup_with_own_fields_arrives_as_it_was_sent() -> None:
    """The pipeline is made again from its definition: the keys of its answers are the driver's."""
    spec = PipelineSpec.model_validate({"extends": "single", "fields": {"product": {}}, "labels": ["good", "bad"]})
    whole = plan(concurrency=1, pipeline=own_pipeline(spec))
    (setup,) = split_plan(whole, BackendSettings(model="m"), 1, pull=False)
    arrived = unpack(pack(setup)).plan()
    assert arrived.fingerprint == whole.fingerprint
    assert arrived.pipeline.step_names == ("analysis",)


def test_a_setup_can_be_shown_without_its_key() -> None:
    """A traceback or a log that shows a setup does not show the key."""
    secrets = Secrets(variables={"OPENAI_API_KEY": "sk-secret"})
    network = NetworkPolicy(local_only=True)
    (setup,) = split_plan(plan(concurrency=1), BackendSettings(network=network, secrets=secrets), 1, pull=False)
    arrived = unpack(pack(setup)).settings
    assert (arrived.network, arrived.secrets.key()) == (network, "sk-secret")
    assert "sk-secret" not in repr(setup)


def test_a_worker_has_the_next_items_ready() -> None:
    """It holds a few more items than it works on, so that no place stays empty while the driver is asked."""
    (setup,) = split_plan(plan(concurrency=16), BackendSettings(), 1, pull=False)
    assert setup.capacity == 20


@pytest.mark.parametrize("workers", [1, 10, 100, 1_000])
def test_reports_grow_rarer_with_the_number_of_workers(workers: int) -> None:
    """The driver reads about 200 reports a second at most, up to 200 workers; none waits longer than a second."""
    intervals = ReportIntervals.for_workers(workers, 16 * workers)
    assert workers <= 200 * intervals.delay_s or intervals.delay_s == 1.0
    assert 16 * workers / intervals.text_s <= 1_000
