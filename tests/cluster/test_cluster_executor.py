"""The driver's side of a cluster, with real workers in this process and a real server; only the wire is short."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.near_workers import NearLauncher, NearWorker, split
from loopback import ModelServer, faults
from mellea_cli.cluster.cluster_executor import ClusterLost, open_executor
from mellea_cli.cluster.remote_worker import Method
from mellea_cli.cluster.worker_messages import pack, unpack
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode
from mellea_cli.events import Event, ItemStarted, Note, TokensReceived
from mellea_cli.pipelines.own_fields import own_pipeline
from mellea_cli.pipelines.pipeline import Pipeline
from mellea_cli.pipelines.pipeline_spec import PipelineSpec
from mellea_cli.run.batch import RunResult, run_with
from mellea_cli.run.plan import Caps, ErrorLimit
from run.run_io import Run, items, marked, opened, plan


class ClusterRun:
    """One run on a cluster, with an output of its own."""

    def __init__(self, output: Path, url: str, **changes: Any) -> None:
        self.output = output
        self.plan = plan(**{"concurrency": 8, **changes})
        self.url = url
        self.stop = Stop()
        self.events: list[Event] = []
        self.launcher = NearLauncher()

    async def __call__(self, texts: list[str], workers: int = 2, start_timeout_s: float = 5.0) -> RunResult:
        """Run, and return how it ended."""
        setups = split(self.plan, self.url, workers)
        with opened(self.output, items(texts), self.plan) as ends:
            watch = self.events.append
            try:
                async with open_executor(
                    setups, self.launcher.start, observer=watch, stop=self.stop, start_timeout_s=start_timeout_s
                ) as executor:
                    return await run_with(self.plan, executor, ends, observer=watch, stop=self.stop)
            finally:
                # A lost worker's process would end; here its connections have to be closed.
                for worker in self.launcher.workers:
                    await worker.worker.close()

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the output."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]


async def test_a_cluster_writes_what_one_machine_writes(server: ModelServer, tmp_path: Path) -> None:
    """The same rows, byte for byte; every item is asked once and never more at once than the user allows."""
    from mellea_cli.backends.openai import OpenAIBackend

    alone = Run(tmp_path / "alone.jsonl", OpenAIBackend(base_url=server.openai_url))
    await alone(items(marked(60)), plan(concurrency=8))
    await alone.backend.aclose()
    server.state.clear()
    run = ClusterRun(tmp_path / "cluster.jsonl", server.openai_url)
    result = await run(marked(60), workers=3)
    assert result.exit_code is ExitCode.OK
    assert run.output.read_bytes() == alone.output.read_bytes()
    assert server.state.requests == 60
    assert server.state.max_in_flight <= 8
    assert result.tally.calls == 60


async def test_the_screen_sees_what_it_sees_on_one_machine(server: ModelServer, tmp_path: Path) -> None:
    """Each item starts once with its own text, and the pieces of its answer add up to the answer."""
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url)
    await run(marked(20))
    texts = marked(20)
    started = run.of(ItemStarted)
    assert sorted(event.position for event in started) == list(range(20))
    assert all(event.text == texts[event.position] for event in started)
    streamed = "".join(event.text for event in run.of(TokensReceived) if event.position == 3)
    assert json.loads(streamed)["summary"] == run.rows()[3]["summary"]


async def test_a_run_that_finds_every_answer_starts_no_worker(server: ModelServer, tmp_path: Path) -> None:
    """Typed again, the command asks nothing and starts no worker."""
    await ClusterRun(tmp_path / "out.jsonl", server.openai_url)(marked(10))
    again = ClusterRun(tmp_path / "out.jsonl", server.openai_url)
    result = await again(marked(10))
    assert result.tally.reused == 10
    assert again.launcher.workers == []


async def test_the_items_of_a_lost_worker_run_elsewhere(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """Every item is answered, none twice in the output; only what the lost worker had in flight is asked again."""
    server = serve(latency_s=0.02)
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url)

    async def cut() -> None:
        await server.until(lambda state: state.completed >= 40)
        run.launcher.workers[0].cut()

    async with asyncio.TaskGroup() as group:
        group.create_task(cut())
        result = await run(marked(120))
    assert result.exit_code is ExitCode.OK
    assert [row["id"] for row in run.rows()] == list(range(120))
    assert all(f"MARK-i{row['id']:05d}x" in row["summary"] for row in run.rows())
    assert server.state.requests <= 120 + 5  # four places and one item that lay ready
    assert len(run.launcher.workers) == 3  # another one was hired in its place
    notes = [note.message for note in run.of(Note)]
    assert any("was lost (cut)" in note and "run elsewhere" in note for note in notes)


async def test_an_item_that_ends_every_worker_fails_alone(server: ModelServer, tmp_path: Path) -> None:
    """A text that ends its worker fails after four of them; all others are answered."""
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url, concurrency=2)

    def on_start(worker: NearWorker) -> None:
        call = worker.call

        async def hide_answer(method: Method, *arguments: Any) -> Any:
            data = await call(method, *arguments)
            if method != "next_report":
                return data
            report = unpack(data)
            if not any(isinstance(event, ItemStarted) and event.position == 5 for event in report.events):
                return data
            report.results = [result for result in report.results if result[0] != 5]
            asyncio.get_running_loop().call_soon(worker.cut)
            return pack(report)

        worker.call = hide_answer  # type: ignore[method-assign]  # a worker that dies of item 5

    run.launcher = NearLauncher(on_start)
    result = await run(marked(30))
    rows = run.rows()
    assert [row["id"] for row in rows if row.get("error")] == [5]
    assert rows[5]["error"]["kind"] == "worker-lost"
    assert result.exit_code is ExitCode.SOME_FAILED


async def test_without_any_worker_the_run_ends_and_says_so(server: ModelServer, tmp_path: Path) -> None:
    """A place is tried three times; when none is left the run stops early, and what is done is kept."""
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url)
    run.launcher = NearLauncher(lambda worker: worker.cut())
    result = await run(marked(10))
    assert isinstance(result.error, ClusterLost)
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert len(run.launcher.workers) == 6
    assert server.state.requests == 0


async def test_a_cluster_without_room_is_not_waited_for_for_ever(server: ModelServer, tmp_path: Path) -> None:
    """A worker that never starts counts as lost after the start timeout."""
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url)

    def never(worker: NearWorker) -> None:
        worker.started = asyncio.Event().wait  # type: ignore[method-assign,assignment]  # a node that never comes up

    run.launcher = NearLauncher(never)
    result = await run(marked(10), start_timeout_s=0.05)
    assert isinstance(result.error, ClusterLost)
    assert "no free CPU" in result.error.message


async def test_a_worker_of_another_version_is_left_out(server: ModelServer, tmp_path: Path) -> None:
    """A message names its node and the version there; the others do the work."""
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url)

    def old(worker: NearWorker) -> None:
        if len(run.launcher.workers) == 1:
            right = worker.worker.open
            worker.worker.open = lambda _, packed: right("0.0.1", packed)  # type: ignore[method-assign]  # an old one

    run.launcher = NearLauncher(old)
    result = await run(marked(20))
    assert result.exit_code is ExitCode.OK
    assert any("is installed there" in note.message for note in run.of(Note))


async def test_a_wrong_key_ends_the_run(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """An error that no request can escape stops the whole cluster, with its own exit code."""
    server = serve(api_key="right")
    result = await ClusterRun(tmp_path / "out.jsonl", server.openai_url)(marked(50))
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert result.error is not None
    assert result.error.kind == "not-authorized"


async def test_a_server_that_is_away_too_long_ends_the_run(tmp_path: Path) -> None:
    """--max-wait holds for every worker; the last one's word ends the run, and no item has failed."""
    run = ClusterRun(tmp_path / "out.jsonl", "http://127.0.0.1:9/v1", max_wait_s=0.5)
    result = await run(marked(30))
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert result.error is not None
    assert result.error.kind == "server-away"
    assert result.tally.failed == 0


async def test_a_server_that_comes_back_costs_no_item(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """Workers wait an outage out as one process does."""
    server = serve(latency_s=0.01)
    # The time limits that users have: streams that are cut while a server stops are charged to their items.
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url, max_wait_s=300.0, policy=RetryPolicy())

    async def outage() -> None:
        await server.until(lambda state: state.completed >= 20)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)

    async with asyncio.TaskGroup() as group:
        group.create_task(outage())
        result = await run(marked(80))
    assert result.exit_code is ExitCode.OK
    assert len(run.rows()) == 80


async def test_too_many_failures_anywhere_stop_the_whole_run(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """--max-errors counts over all workers."""
    # The probe of the circuit breaker is answered, so the items are at fault and not the server.
    server = serve(fault=lambda call: faults.status(400) if "MARK" in call.prompt else None)
    result = await ClusterRun(tmp_path / "out.jsonl", server.openai_url, caps=Caps(errors=ErrorLimit(count=3)))(
        marked(99)
    )
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert "--max-errors" in result.stopped
    assert 3 <= result.tally.failed <= 3 + 10  # and those that were at a worker then


async def test_tokens_are_counted_over_the_whole_run(server: ModelServer, tmp_path: Path) -> None:
    """--max-tokens-total holds for all workers together."""
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url, caps=Caps(tokens=5_000))
    result = await run(marked(200))
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert 0 < result.tally.usage.total_tokens <= 5_000


async def test_asked_to_stop_it_finishes_what_is_begun(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """Items in flight are answered, those that lay ready come back, and the output holds what is done."""
    server = serve(latency_s=0.1)
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url)

    async def stop() -> None:
        await server.until(lambda state: state.completed >= 16 and state.in_flight > 0)
        run.stop.ask("stopped by SIGINT", ExitCode.INTERRUPTED)

    async with asyncio.TaskGroup() as group:
        group.create_task(stop())
        result = await run(marked(200))
    assert result.exit_code is ExitCode.INTERRUPTED
    assert server.state.requests == server.state.completed == len(run.rows()) < 60


async def test_asked_twice_it_stops_at_once(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """Answers that never come are not waited for."""
    server = serve(latency_s=3_600.0)
    run = ClusterRun(tmp_path / "out.jsonl", server.openai_url, grace_s=3_600.0)

    async def stop() -> None:
        await server.until(lambda state: state.in_flight == 8)
        run.stop.ask("stopped by SIGINT", ExitCode.INTERRUPTED)
        run.stop.ask("stopped by SIGINT", ExitCode.INTERRUPTED)

    async with asyncio.TaskGroup() as group:
        group.create_task(stop())
        result = await run(marked(20))
    assert result.exit_code is ExitCode.INTERRUPTED
    assert result.tally.done == 0


async def test_retries_of_all_workers_are_counted(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """The closing summary tells how often a request was sent again, wherever that was."""
    # A probe is answered: its refusals are another subject, and how many there are depends on the time.
    server = serve(fault=lambda call: faults.status(500) if call.attempt == 1 and "MARK-" in call.prompt else None)
    result = await ClusterRun(tmp_path / "out.jsonl", server.openai_url, max_wait_s=60.0)(marked(12))
    assert result.exit_code is ExitCode.OK
    assert result.retries == 12


async def test_own_fields_and_their_missing_ones_are_asked_on_workers(server: ModelServer, tmp_path: Path) -> None:
    """A worker makes the pipeline itself, sees the columns that a prompt shows, and asks only what is missing."""

    def pipeline(*names: str) -> Pipeline:
        steps = [{"name": "ask", "fields": list(names), "prompt": "{{ row.id }}: {{ text }}"}]
        return own_pipeline(PipelineSpec.model_validate({"fields": {name: {} for name in names}, "steps": steps}))

    first = ClusterRun(tmp_path / "out.jsonl", server.openai_url, pipeline=pipeline("product"))
    await first(marked(10))
    more = ClusterRun(tmp_path / "out.jsonl", server.openai_url, pipeline=pipeline("product", "team"))
    result = await more(marked(10))
    assert result.tally.calls == 10
    assert server.state.requests == 20
    rows = more.rows()
    assert all("MARK-" in row["product"] and "MARK-" in row["team"] for row in rows)
