"""A batch run from its items to its output: real HTTP, a real journal, real files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_io import Run, items, marked, opened, plan

from loopback import Call, Fault, ModelServer, faults
from mellea_cli.backends.base import Backend
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.errors import ExitCode, InputError, OutputError, ServerFault
from mellea_cli.events import Event, ItemFinished, RunFinished, RunStarted, TokensReceived
from mellea_cli.items import Failure, Item, Success
from mellea_cli.messages import GenerateRequest
from mellea_cli.run.batch import FirstRows, _Run, run_batch
from mellea_cli.run.executor import LocalExecutor
from mellea_cli.run.plan import Caps, ErrorLimit, Prices

Serve = Callable[..., ModelServer]
TEXTS = marked(40)


def openai(server: ModelServer) -> Backend:
    return OpenAIBackend(base_url=server.openai_url, api_key="")


def ollama(server: ModelServer) -> Backend:
    return OllamaBackend(base_url=server.url)


def check(run: Run, texts: list[str]) -> None:
    """Every item once, in order, each with the answer that carries its own mark."""
    rows = run.rows()
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert row["text"].split()[-1] in row["summary"]


@pytest.mark.parametrize("kind", [openai, ollama])
async def test_five_hundred_items_sixteen_at_a_time(
    kind: Callable[[ModelServer], Backend], serve: Serve, tmp_path: Path
) -> None:
    """Five hundred valid rows in order, sixteen requests in flight and never more, streamed piece by piece."""
    server = serve(latency_s=0.02, record=False, models=("test-model",))
    run, texts = Run(tmp_path / "out.jsonl", kind(server)), marked(500)
    result = await run(items(texts), plan(model="test-model", backend=kind.__name__))
    await run.backend.aclose()
    check(run, texts)
    assert (result.exit_code, result.tally.done, result.tally.calls) == (ExitCode.OK, 500, 500)
    assert server.state.max_in_flight <= 16
    assert result.peak_in_flight == 16
    assert len([event for event in run.events if isinstance(event, TokensReceived)]) > 10 * 500
    assert isinstance(run.events[0], RunStarted)
    assert isinstance(run.events[-1], RunFinished)


async def test_identical_texts_are_asked_about_once(server: ModelServer, tmp_path: Path) -> None:
    """Of a hundred rows with four texts four are asked, and every row has its answer."""
    run, texts = Run(tmp_path / "out.jsonl", openai(server)), marked(4) * 25
    result = await run(items(texts))
    check(run, texts)
    assert server.state.requests == 4
    assert (result.tally.done, result.tally.reused, result.tally.same) == (100, 96, 96)
    again = await run(items(texts))
    await run.backend.aclose()
    assert (again.tally.reused, again.tally.same) == (100, 0)


async def test_nearly_identical_texts_share_an_answer(server: ModelServer, tmp_path: Path) -> None:
    """One call for each; the same in another order, and the same without the setting asks what has no own answer."""
    texts = ["Great", "great.", "GREAT", "great?", "MARK-i1x is late", "- mark-I1x is late.", "great."]
    run, shared = Run(tmp_path / "out.jsonl", openai(server)), plan(normalise=True)
    first = await run(items(texts), shared)
    assert server.state.requests == 3
    rows = [row["summary"] for row in run.rows()]
    assert rows[0] == rows[1] == rows[2] == rows[6]
    assert rows[4] == rows[5]
    assert (first.tally.same, first.tally.alike, first.tally.calls) == (0, 4, 3)
    turned = await run(items(texts[::-1]), shared)
    assert server.state.requests == 3
    assert [row["summary"] for row in run.rows()] == rows[::-1]
    assert (turned.tally.reused, turned.tally.same) == (7, 0)
    await run(items(texts), plan())
    assert server.state.requests == 6
    await run.backend.aclose()


async def test_an_earlier_journal_keeps_its_own_answers(server: ModelServer, tmp_path: Path) -> None:
    """Rows that were asked one by one are not asked again, and keep what they have."""
    texts = ["Late again", "late again.", "LATE again"]
    run = Run(tmp_path / "out.jsonl", openai(server))
    await run(items(texts[1:]), plan())
    assert server.state.requests == 2
    done = await run(items([*texts[1:], texts[0]]), plan(normalise=True))
    assert server.state.requests == 3
    assert done.tally.reused == 2
    await run.backend.aclose()


async def test_a_failed_nearly_identical_text_fails_alone_in_the_next_run(serve: Serve, tmp_path: Path) -> None:
    """A failure stands for the texts of its run that share it, and the next run asks once for all of them."""
    broken = {"now": True}
    server = serve(fault=lambda call: faults.status(400) if broken["now"] and "late" in call.prompt.lower() else None)
    run, shared = Run(tmp_path / "out.jsonl", openai(server)), plan(normalise=True)
    first = await run(items(["Late", "late.", "Fine"]), shared)
    assert (first.tally.failed, first.tally.done) == (2, 1)
    broken["now"] = False
    asked = server.state.requests
    second = await run(items(["Late", "late.", "Fine"]), shared)
    assert (second.tally.failed, server.state.requests - asked) == (0, 1)
    await run.backend.aclose()


async def test_a_finished_run_again_asks_nothing(server: ModelServer, tmp_path: Path) -> None:
    """No request, the same bytes."""
    run = Run(tmp_path / "out.jsonl", openai(server))
    await run(items(TEXTS))
    before = run.output.read_bytes()
    result = await run(items(TEXTS))
    await run.backend.aclose()
    assert (server.state.requests, result.tally.reused, result.exit_code) == (40, 40, ExitCode.OK)
    assert run.output.read_bytes() == before


async def test_only_what_is_new_or_edited_is_asked(server: ModelServer, tmp_path: Path) -> None:
    """One row edited, three added, the order reversed: four requests."""
    run = Run(tmp_path / "out.jsonl", openai(server))
    await run(items(TEXTS))
    changed = [*reversed([*TEXTS[1:], "Edited. MARK-e1"]), *marked(43)[40:]]
    result = await run(items(changed))
    await run.backend.aclose()
    check(run, changed)
    assert server.state.requests == 44
    assert result.tally.reused == 39


async def test_failed_items_are_asked_again_or_left_as_they_are(serve: Serve, tmp_path: Path) -> None:
    """The next run asks about them; with `retry_failed` off it keeps their errors and asks nothing."""
    broken = {"on": True}

    def plan_of_faults(call: Call) -> Fault | None:
        return faults.status(422, message="no") if broken["on"] and "i00007x" in call.prompt else None

    server = serve(fault=plan_of_faults)
    run = Run(tmp_path / "out.jsonl", openai(server))
    first = await run(items(TEXTS))
    assert (first.exit_code, first.tally.failed, run.rows()[7]["error"]["kind"]) == (ExitCode.SOME_FAILED, 1, "refused")
    left = await run(items(TEXTS), retry_failed=False)
    assert (left.exit_code, left.tally.failed, server.state.requests) == (ExitCode.SOME_FAILED, 1, 40)
    broken["on"] = False
    again = await run(items(TEXTS))
    await run.backend.aclose()
    assert (again.exit_code, server.state.requests) == (ExitCode.OK, 41)
    check(run, TEXTS)


async def stopped_after(run: Run, count: int, source: list[Item], **changes: Any) -> Any:
    """Run, and ask to stop when so many items are finished."""
    seen = 0

    def observe(event: Event) -> None:
        nonlocal seen
        run.events.append(event)
        seen += isinstance(event, ItemFinished)
        if seen >= count and not run.stop.asked.is_set():
            run.stop.ask("stopped by SIGINT", ExitCode.INTERRUPTED)

    run.observe = observe  # type: ignore[method-assign]  # the test's own observer
    try:
        return await run(source, plan(concurrency=4, **changes))
    finally:
        del run.observe  # type: ignore[misc]  # back to the method


async def test_a_stop_in_the_middle_leaves_a_usable_output_and_the_next_run_completes_it(
    serve: Serve, tmp_path: Path
) -> None:
    """What is done is in the output, in order; the second run asks for the rest alone."""
    server = serve(latency_s=0.01)
    run, texts = Run(tmp_path / "out.jsonl", openai(server)), marked(200)
    result = await stopped_after(run, 20, items(texts))
    rows = run.rows()
    assert result.exit_code is ExitCode.INTERRUPTED
    assert 20 <= len(rows) < 200
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert all(row["text"].split()[-1] in row["summary"] for row in rows)
    assert len(rows) == result.tally.done == server.state.requests
    await run(items(texts))
    await run.backend.aclose()
    check(run, texts)
    assert server.state.requests == 200


async def test_a_stop_keeps_the_rows_of_earlier_runs(serve: Serve, tmp_path: Path) -> None:
    """Answers that were there already are swept into the output, though the stop came long before them."""
    server = serve(latency_s=0.01)
    run = Run(tmp_path / "out.jsonl", openai(server))
    await run(items(marked(300)))
    changed = [*[f"New. MARK-n{number}x" for number in range(100)], *marked(300)]
    await stopped_after(run, 5, items(changed))
    kept = {row["text"] for row in run.rows()}
    assert set(marked(300)) <= kept
    await run(items(changed))
    await run.backend.aclose()
    check(run, changed)
    assert server.state.requests == 400


async def test_a_stop_without_a_sweep_leaves_an_earlier_output_alone(serve: Serve, tmp_path: Path) -> None:
    """When the rest of the input cannot be gone through, less never replaces more."""
    server = serve(latency_s=0.01)
    run = Run(tmp_path / "out.jsonl", openai(server))
    await run(items(TEXTS))
    before = run.output.read_bytes()

    def endless() -> Iterator[Item]:
        yield from items(["New. MARK-n1", *marked(100000)])

    seen: list[int] = []

    def observe(event: Event) -> None:
        if isinstance(event, ItemFinished) and len(seen) < 60:
            seen.append(event.position)
            if len(seen) == 60:
                run.stop.ask("enough", ExitCode.INTERRUPTED)

    run.observe = observe  # type: ignore[method-assign]  # the test's own observer
    await run(endless(), can_sweep=False)
    await run.backend.aclose()
    assert run.output.read_bytes() == before


async def test_a_failure_of_an_earlier_run_stays_in_the_output_of_a_run_that_stops(
    serve: Serve, tmp_path: Path
) -> None:
    """A row with an error is better than no row: it was there before."""
    server = serve(
        latency_s=0.01,
        fault=lambda call: faults.status(422, message="no") if "i00299x" in call.prompt else None,
    )
    run = Run(tmp_path / "out.jsonl", openai(server))
    await run(items(marked(300)))
    await stopped_after(run, 3, items([f"New. MARK-n{number}x" for number in range(50)] + marked(300)))
    await run.backend.aclose()
    assert run.rows()[-1]["error"]["kind"] == "refused"


async def test_a_hopeless_error_ends_the_run_at_once_and_spares_an_earlier_output(serve: Serve, tmp_path: Path) -> None:
    """A wrong key costs at most one request for each place, is told once, and replaces nothing."""
    run = Run(tmp_path / "out.jsonl", ScriptedBackend())
    await run(items(TEXTS))
    before = run.output.read_bytes()
    server = serve(api_key="another")
    run.backend = openai(server)
    result = await run(items(marked(400)), plan(identity="other"))
    await run.backend.aclose()
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert result.error is not None
    assert "401" in result.error.message
    assert not result.finished
    assert run.output.read_bytes() == before


async def test_answers_that_are_there_reach_an_output_that_never_was(serve: Serve, tmp_path: Path) -> None:
    """After a kill there is a journal and no output: a run that can ask nothing still puts what is known there."""
    run = Run(tmp_path / "out.jsonl", ScriptedBackend())
    await run(items(TEXTS))
    run.output.unlink()
    server = serve(api_key="another")
    run.backend = openai(server)
    result = await run(items([*TEXTS, "A text that nobody has asked about."]))
    await run.backend.aclose()
    # The one request counts, although nothing came of it.
    assert (result.exit_code, result.tally.calls, result.finished) == (ExitCode.STOPPED_EARLY, 1, True)
    assert [row["text"] for row in run.rows()] == TEXTS


async def test_what_was_spent_on_items_that_were_cut_short_counts(serve: Serve, tmp_path: Path) -> None:
    """A bad answer, then the key is refused: no outcome, but its tokens were paid for, and all requests count."""

    def plan_of(call: Call) -> Fault | None:
        return faults.not_json() if call.index == 0 else faults.status(401)

    server = serve(fault=plan_of)
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(TEXTS[:1]), plan(concurrency=1, max_wait_s=0.5))
    await run.backend.aclose()
    assert (result.exit_code, result.tally.done, result.tally.failed) == (ExitCode.STOPPED_EARLY, 0, 0)
    assert result.tally.calls == server.state.requests > 2
    assert result.tally.usage.completion_tokens > 0
    finished = next(event for event in run.events if isinstance(event, RunFinished))
    assert finished.usage == result.tally.usage


async def test_a_row_that_alone_gets_503_is_asked_twelve_times_at_most(serve: Serve, tmp_path: Path) -> None:
    """The probe succeeds, so each failure is charged; the probes' tokens are counted as well."""
    waits = faults.status(503, headers={"Retry-After": "0"})
    server = serve(fault=lambda call: waits if TEXTS[1].split()[-1] in call.prompt else None)
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(TEXTS[:3]), plan())
    await run.backend.aclose()
    assert (result.exit_code, result.tally.done, result.tally.failed) == (ExitCode.SOME_FAILED, 2, 1)
    probes = sum(count for prompt, count in server.state.attempts.items() if "MARK" not in prompt)
    assert probes
    assert 6 <= run.rows()[1]["error"]["attempts"] == server.state.requests - probes - 2 <= 12
    of_items = sum(event.usage.total_tokens for event in run.events if isinstance(event, ItemFinished))
    assert result.tally.usage.total_tokens > of_items


async def test_an_input_that_breaks_off_keeps_what_was_answered(server: ModelServer, tmp_path: Path) -> None:
    """The rows before the break are answered and written, and the error says where it was."""

    def breaking() -> Iterator[Item]:
        yield from items(TEXTS)
        raise InputError("it is no JSON", path="in.jsonl", line=41)

    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(breaking())
    await run.backend.aclose()
    check(run, TEXTS)
    assert result.exit_code is ExitCode.USAGE
    assert result.error is not None
    assert "in.jsonl:41" in result.error.message


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        (Caps(errors=ErrorLimit(count=5)), "--max-errors"),
        (Caps(errors=ErrorLimit(share=0.1)), "--max-errors"),
        (Caps(deadline_s=0.2), "deadline"),
    ],
)
async def test_limits_stop_a_run_early_and_keep_everything(
    caps: Caps, words: str, serve: Serve, tmp_path: Path
) -> None:
    """Exit code 4, the reason, and an output with all that was done."""
    server = serve(latency_s=0.02, fault=lambda call: faults.status(422) if "3x" in call.prompt else None, record=False)
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(marked(2_000)), plan(caps=caps, concurrency=4))
    await run.backend.aclose()
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert words in result.stopped
    assert len(run.rows()) == result.tally.done + result.tally.failed == server.state.requests < 1_000


@pytest.mark.parametrize("caps", [Caps(tokens=30_000), Caps(cost=0.05, prices=Prices(1.0, 2.0))])
async def test_a_cap_on_tokens_or_money_is_not_exceeded(caps: Caps, serve: Serve, tmp_path: Path) -> None:
    """The run stops before the next answers would go beyond it."""
    server = serve(record=False)
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(marked(3_000)), plan(caps=caps, concurrency=4))
    await run.backend.aclose()
    used = result.tally.usage
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert 10 < len(run.rows()) < 3_000
    if caps.tokens is not None:
        assert 0.7 * caps.tokens < used.total_tokens <= caps.tokens
    if caps.prices is not None and caps.cost is not None:
        assert 0.7 * caps.cost < caps.prices.of(used) <= caps.cost


async def test_an_output_that_cannot_be_written_ends_the_run(server: ModelServer, tmp_path: Path) -> None:
    """The error comes bare, and nothing of the group was announced."""

    class Full:
        def add(self, row: Any) -> None:
            raise OutputError("no room")

        flush = finish = close = lambda self: None

    run = Run(tmp_path / "out.jsonl", openai(server))

    chosen = plan()
    with opened(run.output, items(marked(2_000)), chosen) as ends:
        object.__setattr__(ends, "rows", Full())
        with pytest.raises(OutputError, match="no room"):
            await run_batch(chosen, run.backend, ends, observer=run.observe, stop=run.stop)
    await run.backend.aclose()
    assert not [event for event in run.events if isinstance(event, ItemFinished)]
    assert server.state.requests <= 16 * 20


async def test_a_failed_leader_leaves_its_followers_their_own_failure_or_answer(tmp_path: Path) -> None:
    """Rows with the text of a failed one are failed with it, not asked again one by one."""
    asked = 0

    def reply(request: GenerateRequest) -> Exception | str:
        nonlocal asked
        if "same" not in request.messages[-1].content:
            return "OK"  # a probe
        asked += 1
        return ServerFault("crashed", status=500)

    run = Run(tmp_path / "out.jsonl", ScriptedBackend(reply))
    result = await run(items(["same"] * 50))
    assert (result.tally.failed, asked) == (50, 6)


async def test_blank_texts_have_empty_columns_and_cost_nothing(server: ModelServer, tmp_path: Path) -> None:
    """A row without text is done, not failed."""
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(["", "  ", "Late. MARK-1"]))
    await run.backend.aclose()
    assert (result.tally.done, result.tally.blank, server.state.requests) == (3, 2, 1)
    assert run.rows()[0]["summary"] is None


async def test_what_is_redacted_is_another_answer(server: ModelServer, tmp_path: Path) -> None:
    """The server never sees the address, the row keeps it, and an unmasked run's answers are not taken for masked."""
    run = Run(tmp_path / "out.jsonl", openai(server))
    texts = ["Write to jo@example.com about MARK-1 please"]
    await run(items(texts))
    await run(items(texts), plan(redacted=True))
    await run.backend.aclose()
    sent = [body["messages"][-1]["content"] for body in server.state.bodies]
    assert ["jo@example.com" in text for text in sent] == [True, False]
    assert run.rows()[0]["text"] == texts[0]


async def test_a_second_wish_to_stop_loses_nothing_that_was_committed(serve: Serve, tmp_path: Path) -> None:
    """Items in flight are given up at once; the next run asks for them and for what never began."""
    server = serve(fault=lambda call: faults.stall(2) if "i00030x" in call.prompt and call.attempt == 1 else None)
    run = Run(tmp_path / "out.jsonl", openai(server))

    async def stop() -> None:
        # The one that stalls must be in flight: in the next run its second attempt is answered.
        await server.until(
            lambda state: state.completed >= 30 and any("i00030x" in prompt for prompt in state.attempts)
        )
        run.stop.ask("stopped by SIGINT", ExitCode.INTERRUPTED)
        run.stop.ask("stopped by SIGINT", ExitCode.INTERRUPTED)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(stop())
        result = await run(items(TEXTS), plan(concurrency=2, grace_s=3_600, deadlines=plan().deadlines))
    done = result.tally.done
    again = await run(items(TEXTS))
    await run.backend.aclose()
    check(run, TEXTS)
    assert again.tally.calls == 40 - done


async def test_nothing_is_kept_of_items_that_are_done(tmp_path: Path) -> None:
    """Answers leave the memory once they are in the journal, however many there are."""
    run = Run(tmp_path / "out.jsonl", ScriptedBackend())
    with opened(run.output, items(marked(500)), plan()) as ends:
        batch = _Run(plan(), LocalExecutor(plan(), run.backend, run.observe), ends, run.observe, run.stop)
        await batch.to_end()
    cache = batch._cache
    assert (len(cache._uncommitted), len(cache._in_flight), cache._parked) == (0, 0, 0)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_row_that_the_server_cannot_take_harms_only_itself(
    concurrency: int, serve: Serve, tmp_path: Path
) -> None:
    """One text answered with 503 for ever is a dead letter, also as the first of all; the others are answered."""
    texts = marked(4)
    server = serve(fault=lambda call: faults.status(503) if texts[0] in call.prompt else None)
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(texts), plan(concurrency=concurrency, max_wait_s=60.0))
    await run.backend.aclose()
    assert (result.exit_code, result.tally.done, result.tally.failed) == (ExitCode.SOME_FAILED, 3, 1)
    assert [row.get("error") is None for row in run.rows()] == [False, True, True, True]


@pytest.mark.parametrize("caps", [Caps(tokens=1), Caps(cost=0.000_001, prices=Prices(1.0, 2.0))])
async def test_one_item_goes_alone_until_it_is_known_what_one_costs(caps: Caps, serve: Serve, tmp_path: Path) -> None:
    """A cap below the price of one item is exceeded by that one item, not by one for each place in flight."""
    server = serve(latency_s=0.02)
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(TEXTS), plan(caps=caps, concurrency=16))
    await run.backend.aclose()
    assert (server.state.requests, result.tally.done) == (1, 1)
    assert result.exit_code is ExitCode.STOPPED_EARLY


@pytest.mark.parametrize(("concurrency", "asked"), [(1, 20), (16, 32), (100, 50)])
def test_the_first_rows_that_fail_alike_end_the_run(concurrency: int, asked: int) -> None:
    """Their number follows the requests in flight, between 20 and 50; the error has the message."""
    first_rows = FirstRows(concurrency)
    failure = Failure("parse", "the answer is no JSON")
    ended = [first_rows.asked(failure, failed_before=False) for _ in range(asked)]
    assert ended[:-1] == [None] * (asked - 1)
    assert ended[-1] is not None
    assert "the answer is no JSON" in ended[-1].message


@pytest.mark.parametrize("other", [Success({}), Failure("unavailable", "no connection")], ids=["answer", "other kind"])
def test_an_answer_or_another_failure_lets_the_run_go_on(other: Success | Failure) -> None:
    """Then the rest may be answered."""
    first_rows = FirstRows(1)
    outcomes = [*[Failure("parse", "no JSON")] * 19, other, *[Failure("parse", "no JSON")] * 40]
    assert not any(first_rows.asked(outcome, failed_before=False) for outcome in outcomes)


def test_rows_that_failed_before_end_no_run_whose_others_are_answered() -> None:
    """The rows that a finished run could not answer are asked again, and fail alike."""
    first_rows = FirstRows(1)
    first_rows.known(Success({}))
    assert not any(first_rows.asked(Failure("parse", "no JSON"), failed_before=True) for _ in range(100))


async def test_a_run_that_cannot_succeed_stops_and_asks_these_rows_again(serve: Serve, tmp_path: Path) -> None:
    """Every answer is no JSON: a few rows are asked, the output has them, and the next run asks all."""
    server = serve(fault=faults.always(faults.not_json()), models=("test-model",))
    run = Run(tmp_path / "out.jsonl", openai(server))
    result = await run(items(marked(300)), plan(concurrency=2))
    assert result.exit_code == ExitCode.STOPPED_EARLY
    assert 20 <= result.tally.failed <= 24  # and those in flight
    assert "none of the first 20 rows was answered" in result.stopped
    message, number = result.tally.commonest_failure()
    assert number == result.tally.failed
    assert message in result.stopped
    await run.backend.aclose()
    run.backend = openai(serve(models=("test-model",)))
    again = await run(items(marked(300)))
    await run.backend.aclose()
    assert (again.exit_code, again.tally.done) == (ExitCode.OK, 300)


async def test_a_signal_ends_waits_at_once(tmp_path: Path, serve: Serve) -> None:
    """While no request is in flight, as when nobody listens, nothing is waited for; what is known gets its row."""
    server = serve(models=("test-model",))
    run = Run(tmp_path / "out.jsonl", openai(server))
    await run(items(TEXTS[:10]))
    await run.backend.aclose()
    run.backend = OpenAIBackend(base_url="http://127.0.0.1:9/v1", api_key="")
    asyncio.get_running_loop().call_later(0.5, lambda: run.stop.ask("stopped", ExitCode.INTERRUPTED))
    async with asyncio.timeout(15):
        result = await run(items(TEXTS), plan(grace_s=600.0, max_wait_s=600.0))
    await run.backend.aclose()
    assert result.exit_code == ExitCode.INTERRUPTED
    assert result.tally.done == 10
