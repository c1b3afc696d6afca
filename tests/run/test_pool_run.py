"""A run over several endpoints: nothing lost, nothing doubled, and figures that are the servers' own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from run_io import Listed, Run, items, marked, opened, plan

from loopback import Call, Fault, ModelServer, faults
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.engine.endpoint import EndpointConfig
from mellea_cli.errors import ExitCode
from mellea_cli.messages import Usage
from mellea_cli.run.batch import RunResult, run_batch
from mellea_cli.run.plan import RunPlan

Serve = Callable[..., ModelServer]


def ollama(server: ModelServer, name: str, places: int = 4) -> EndpointConfig:
    return EndpointConfig(name, OllamaBackend(base_url=server.url), "test-model", places)


def openai(server: ModelServer, name: str, model: str = "test-model", places: int = 4) -> EndpointConfig:
    return EndpointConfig(name, OpenAIBackend(base_url=server.openai_url, api_key=""), model, places)


class PoolRun(Run):
    """One run after the other over the same endpoints."""

    def __init__(self, output: Path, endpoints: Sequence[EndpointConfig]) -> None:
        super().__init__(output, ScriptedBackend())
        self.endpoints = endpoints

    async def over(self, texts: list[str], chosen: RunPlan) -> RunResult:
        """Run over the pool."""
        with opened(self.output, items(texts), chosen, total=len(texts)) as ends:
            assert isinstance(ends.source, Listed)
            return await run_batch(chosen, self.endpoints, ends, observer=self.observe, stop=self.stop)


@contextlib.asynccontextmanager
async def pool_run(output: Path, *endpoints: EndpointConfig) -> AsyncIterator[PoolRun]:
    yield PoolRun(output, endpoints)
    for one in endpoints:
        await one.backend.aclose()


def check(run: Run, texts: list[str]) -> None:
    """Every item once, in order, each with the answer that carries its own mark."""
    rows = run.rows()
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert row["text"].split()[-1] in row["summary"]


async def test_three_endpoints_one_slow_one_that_dies(serve: Serve, tmp_path: Path) -> None:
    """Two Ollama servers and an OpenAI-compatible one; every item is answered once and the figures reconcile."""
    fast, dying = serve(latency_s=0.01, record=False), serve(latency_s=0.01, record=False)
    slow = serve(latency_s=0.1, record=False, models=("its-own-name",))
    texts = marked(300)
    async with pool_run(
        tmp_path / "out.jsonl", ollama(fast, "fast"), ollama(dying, "dying"), openai(slow, "slow", "its-own-name")
    ) as run:
        chosen = plan(backend="pool", concurrency=12)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run.over(texts, chosen))
            await dying.until(lambda state: state.completed >= 60, timeout=60)
            await asyncio.to_thread(dying.stop)
        result = task.result()
    check(run, texts)
    assert (result.exit_code, result.tally.done, result.tally.failed) == (ExitCode.OK, 300, 0)
    figures = {one.name: one for one in result.endpoints}
    assert sum(one.answered for one in result.endpoints) == 300
    assert sum(one.requests + one.probes for one in result.endpoints) == result.tally.calls
    assert sum(one.failures for one in result.endpoints) == result.retries
    assert sum((one.usage for one in result.endpoints), Usage()) == result.tally.usage
    for server, name in ((fast, "fast"), (slow, "slow")):
        assert figures[name].requests == figures[name].answered == server.state.completed == server.state.requests
        assert figures[name].usage.completion_tokens == server.state.pieces
    assert 60 <= figures["dying"].answered <= dying.state.completed
    assert figures["dying"].state == "open"
    assert figures["slow"].answered < figures["fast"].answered
    # Each of its four places may break, and break once more before the others have: few, not one for each item.
    assert figures["dying"].failures <= 4 + 4 + 3


async def test_both_steps_of_an_item_may_be_answered_at_different_endpoints(serve: Serve, tmp_path: Path) -> None:
    """The limit on requests in flight is that of the run, however many steps and endpoints there are."""
    one, other = serve(latency_s=0.01, record=False), serve(latency_s=0.01, record=False)
    texts = marked(30)
    from mellea_cli.pipelines.default_prompts import PIPELINES

    async with pool_run(tmp_path / "out.jsonl", openai(one, "one"), openai(other, "other")) as run:
        result = await run.over(texts, plan(pipeline=PIPELINES["steps"], concurrency=5))
    check(run, texts)
    assert result.tally.calls == 90 == one.state.requests + other.state.requests
    assert result.peak_in_flight == 5


async def test_an_item_that_fails_everywhere_fails_alone(serve: Serve, tmp_path: Path) -> None:
    """A text that makes every server fail is one failed row; no endpoint is lost to it."""
    # So many that others are answered between its attempts: three failures in a row would open an endpoint's breaker.
    texts = marked(400)

    def plan_of(call: Call) -> Fault | None:
        return faults.status(500) if "MARK-i00007x" in call.prompt else None

    servers = [serve(latency_s=0.005, record=False, fault=plan_of) for _ in range(2)]
    async with pool_run(tmp_path / "out.jsonl", *(openai(one, f"e{n}") for n, one in enumerate(servers))) as run:
        result = await run.over(texts, plan(concurrency=8))
    rows = run.rows()
    assert (result.tally.done, result.tally.failed, result.exit_code) == (399, 1, ExitCode.SOME_FAILED)
    assert [row["id"] for row in rows if row.get("error")] == [7]
    assert sum(one.failures for one in result.endpoints) == 6
    assert [one.state for one in result.endpoints] == ["", ""]


async def test_without_a_usable_endpoint_the_run_ends(serve: Serve, tmp_path: Path) -> None:
    """No row is blamed for wrong keys; the run says which endpoints there were."""
    servers = [serve(api_key="right") for _ in range(2)]
    async with pool_run(tmp_path / "out.jsonl", *(openai(one, f"e{n}") for n, one in enumerate(servers))) as run:
        result = await run.over(marked(20), plan(concurrency=8))
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert result.error is not None
    assert "e0: " in result.error.message
    assert "e1: " in result.error.message
    assert result.tally.failed == 0
    assert [one.state for one in result.endpoints] == ["disabled", "disabled"]


async def test_a_run_without_a_pool_has_no_endpoints_figures(tmp_path: Path) -> None:
    """There is nothing to tell apart."""
    result = await Run(tmp_path / "out.jsonl", ScriptedBackend())(items(marked(3)), plan(backend="scripted"))
    assert result.endpoints == ()
