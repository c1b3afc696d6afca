"""Runs that are seen and controlled from outside: records, locks, requests over a real socket, and killed processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from run_io import Run, items, marked, opened, plan

from loopback import Call, Fault, ModelServer, faults
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode, OutputError, UsageError
from mellea_cli.events import Event, RunPaused, RunResumed, RunTuned
from mellea_cli.run.batch import RunResult, run_batch
from mellea_cli.run.control import RunControl, RunGone, RunRecord, ask_run, find_run, new_record, read_runs
from mellea_cli.run.plan import Prices
from mellea_cli.run.theme_discovery import without_main_run

Serve = Callable[..., ModelServer]
TIMEOUT_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


class Controlled:
    """A real run over HTTP that is controlled, in this event loop."""

    def __init__(self, server: ModelServer, tmp_path: Path, folder: Path, texts: int = 40, **changes: Any) -> None:
        self.server = server
        self.folder = folder
        self.run = Run(tmp_path / "out.jsonl", OpenAIBackend(base_url=server.openai_url, api_key=""))
        record = new_record("summarise", str(self.run.output), "in.jsonl", pipeline="single")
        self.control = RunControl(record, self.run.stop, prices=Prices(1.0, 2.0), most=8, folder=folder)
        self._texts = marked(texts)
        self._plan = plan(**{"concurrency": 2, "model": "test-model", **changes})
        self.result: RunResult | None = None

    async def __call__(self) -> RunResult:
        with self.control, opened(self.run.output, items(self._texts), self._plan, total=len(self._texts)) as ends:
            self.result = await run_batch(
                self._plan,
                self.run.backend,
                ends,
                observer=self.run.observe,
                stop=self.run.stop,
                control=self.control,
            )
            self.control.ended(self.result, "again")
        await self.run.backend.aclose()
        return self.result

    async def ask(self, **request: Any) -> str:
        return await asyncio.to_thread(lambda: ask_run(find_run(str(self.run.output), self.folder), request))

    async def until(self, state: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not state():  # noqa: ASYNC110 - the state is a server's, or on disk
                await asyncio.sleep(0.005)

    def events(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.run.events if isinstance(event, kind)]


async def test_a_run_is_paused_and_resumed(serve: Serve, tmp_path: Path, folder: Path) -> None:
    """While it is paused nothing is sent, the record says so with the reason, and no item fails for it."""
    made = Controlled(serve(latency_s=0.01), tmp_path, folder, max_wait_s=0.05)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made())
        await made.until(lambda: made.server.state.completed >= 4)
        assert "paused" in await made.ask(do="pause", reason="lunch")
        assert "already: lunch" in await made.ask(do="pause")
        await made.until(lambda: made.server.state.in_flight == 0)
        sent = made.server.state.requests
        await made.until(lambda: find_run(str(made.run.output), folder).state == "paused")
        record = find_run(str(made.run.output), folder)
        assert (record.reason, record.finish_at) == ("lunch", None)
        # The next record comes a second later, which is longer than the run waits for a server that is away.
        await made.until(lambda: read_runs(folder)[0].updated > record.updated)
        assert made.server.state.requests == sent
        assert await made.ask(do="resume") == "resumed"
        assert await made.ask(do="resume") == "was not paused"
        result = await running
    assert (result.tally.done, result.tally.failed, result.retries) == (40, 0, 0)
    assert [event.reason for event in made.events(RunPaused)] == ["lunch"]
    assert len(made.events(RunResumed)) == 1


async def test_a_paused_run_can_be_stopped(serve: Serve, tmp_path: Path, folder: Path) -> None:
    """It ends at once, without waiting for the items that wait for it, and its rows are kept."""
    made = Controlled(serve(latency_s=0.01), tmp_path, folder, grace_s=TIMEOUT_S)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made())
        await made.until(lambda: made.server.state.completed >= 4)
        await made.ask(do="pause")
        await made.until(lambda: made.server.state.in_flight == 0)
        assert "stopping" in await made.ask(do="stop")
        result = await running
    assert result.exit_code is ExitCode.STOPPED_EARLY
    assert 4 <= result.tally.done < 40
    (record,) = read_runs(folder)
    assert (record.state, record.reason, record.exit_code) == ("stopped", "stopped by mellea stop", 4)
    assert (record.done, record.next_command, record.socket) == (result.tally.done, "again", "")


async def test_more_and_fewer_requests_in_mid_run(serve: Serve, tmp_path: Path, folder: Path) -> None:
    """`-c 8` has eight in flight where two were, and `-c 1` one; more than the server takes is refused."""
    made = Controlled(serve(latency_s=0.03), tmp_path, folder, texts=150)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made())
        await made.until(lambda: made.server.state.completed >= 4)
        assert made.server.state.max_in_flight == 2
        assert await made.ask(do="tune", concurrency=8) == "at most 8 in flight"
        await made.until(lambda: made.server.state.in_flight == 8)
        with pytest.raises(UsageError, match="8 requests at once at most"):
            await made.ask(do="tune", concurrency=9)
        await made.ask(do="tune", concurrency=1)
        await made.until(lambda: made.server.state.in_flight == 1)
        await made.until(lambda: read_runs(folder)[0].concurrency == 1)
        await made.ask(do="tune", concurrency=8, rpm=60_000)
        result = await running
    assert result.tally.done == 150
    assert [event.concurrency for event in made.events(RunTuned)] == [8, 1, 8]


async def test_a_limit_per_minute_in_mid_run(serve: Serve, tmp_path: Path, folder: Path) -> None:
    """One request a minute holds the run until the limit is removed."""
    made = Controlled(serve(latency_s=0.01), tmp_path, folder)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made())
        await made.until(lambda: made.server.state.completed >= 4)
        assert await made.ask(do="tune", rpm=1000) == "at most 1000 requests a minute"
        await made.until(lambda: read_runs(folder)[0].rpm == 1000)
        assert await made.ask(do="tune", rpm=0) == "no limit of requests a minute"
        assert (await running).tally.done == 40
    assert read_runs(folder)[0].rpm is None


async def test_an_adaptive_run_takes_a_number(serve: Serve, tmp_path: Path, folder: Path) -> None:
    """The search for the best number ends, and the run has the number that was named."""
    made = Controlled(serve(latency_s=0.02), tmp_path, folder, texts=60, concurrency=16, start=2)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made())
        await made.until(lambda: made.server.state.completed >= 2)
        await made.ask(do="tune", concurrency=3)
        result = await running
    assert (result.tally.done, result.concurrency) == (60, 3)


async def test_the_record_of_a_run(serve: Serve, tmp_path: Path, folder: Path) -> None:
    """Counts, tokens and cost at the end; only the user can read it and reach the socket."""
    made = Controlled(serve(latency_s=0.02), tmp_path, folder)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made())
        await made.until(lambda: read_runs(folder) and read_runs(folder)[0].socket)
        record = read_runs(folder)[0]
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, Path(record.socket))}
        modes[Path()] = stat.S_IMODE((folder / f"{record.id}.json").stat().st_mode)
        assert list(modes.values()) == [0o700, 0o600, 0o600]
        assert stat.S_IMODE(Path(record.socket).parent.stat().st_mode) == 0o700
        await running
    (record,) = read_runs(folder)
    usage = made.result.tally.usage if made.result else None
    assert usage is not None
    assert (record.state, record.done, record.total, record.failed, record.exit_code) == ("finished", 40, 40, 0, 0)
    assert (record.prompt_tokens, record.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)
    assert record.cost == Prices(1.0, 2.0).of(usage)
    assert [path.suffix for path in folder.iterdir()] == [".json"]


async def test_what_cannot_be_done_is_said(serve: Serve, tmp_path: Path, folder: Path) -> None:
    """A request of another version, no request at all, and a run that is not there."""
    made = Controlled(serve(latency_s=0.02), tmp_path, folder)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made())
        await made.until(lambda: read_runs(folder) and read_runs(folder)[0].socket)
        with pytest.raises(UsageError, match="does not know 'dance'"):
            await made.ask(do="dance")
        reader, writer = await asyncio.open_unix_connection(read_runs(folder)[0].socket)
        writer.write(b"hello\n")
        assert json.loads(await reader.readline())["ok"] is False
        writer.close()
        with pytest.raises(RunGone, match="no run on this machine writes other"):
            find_run("other.jsonl", folder)
        assert (await running).tally.done == 40
    with pytest.raises(RunGone, match="has ended at"):
        await made.ask(do="pause")


def test_a_run_that_fails_says_why(folder: Path) -> None:
    """An error before the first row, and one that is a bug."""
    with pytest.raises(OutputError), RunControl(new_record("summarise", "a", "b"), Stop(), folder=folder):
        raise OutputError("the disk is full")
    with pytest.raises(ZeroDivisionError), RunControl(new_record("summarise", "c", "d"), Stop(), folder=folder):
        _ = 1 / 0
    found = {Path(run.output).name: (run.state, run.reason, run.exit_code) for run in read_runs(folder)}
    assert found == {"a": ("failed", "the disk is full", 5), "c": ("failed", "ZeroDivisionError", None)}


def test_a_state_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    """The run has no record, and goes on."""
    (tmp_path / "file").touch()
    with RunControl(new_record("summarise", "a", "b"), Stop(), folder=tmp_path / "file" / "runs") as control:
        control.ended(without_main_run(None), "")
    assert control.record.state == "finished"


def _written(folder: Path, **changes: Any) -> RunRecord:
    record = replace(new_record("summarise", "out.jsonl", "in.jsonl"), **changes)
    folder.mkdir(exist_ok=True)
    (folder / f"{record.id}.json").write_text(json.dumps(asdict(record)))
    return record


def test_a_process_id_that_is_used_again_is_no_sign_of_life(folder: Path) -> None:
    """The record of a killed run names this process's own id: without the lock, the run is lost."""
    _written(folder, pid=os.getpid(), state="running")
    (record,) = read_runs(folder)
    assert (record.state, record.finish_at) == ("lost", None)
    with pytest.raises(RunGone, match="without notice"):
        find_run("out.jsonl", folder)


def test_without_locks_the_age_of_the_record_counts(folder: Path) -> None:
    """A fresh record is of a run that goes on, an old one of a lost run."""
    _written(folder, id="a", locked=False)
    _written(folder, id="b", locked=False, updated=time.time() - 60)
    assert [run.state for run in read_runs(folder)] == ["lost", "running"]


def test_what_is_no_record_is_passed_over(folder: Path) -> None:
    """Half a file, another program's, and keys of a later version."""
    folder.mkdir()
    (folder / "a.json").write_text('{"id": "a", "pid"')
    (folder / "b.json").write_text("[]")
    (folder / "c.json").write_text('{"name": 1}')
    _written(folder, id="d", state="finished")
    path = folder / "d.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    assert [run.id for run in read_runs(folder)] == ["d"]


def test_the_oldest_records_are_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history has a bound; so has what runs leave that are killed while they write."""
    monkeypatch.setattr("mellea_cli.run.control._KEPT", 3)
    for number in range(5):
        _written(folder, id=f"0{number}", state="finished")
        (folder / f"0{number}.new").write_text("half of a rec")
    with RunControl(replace(new_record("summarise", "x", "y"), id="10"), Stop(), folder=folder) as control:
        control.ended(without_main_run(None), "")
    assert [run.id for run in read_runs(folder)] == ["10", "04", "03"]
    assert sorted(path.stem for path in folder.glob("*.new")) == ["03", "04"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_shown_as_it_is(number: signal.Signals, serve: Serve, tmp_path: Path) -> None:
    """SIGKILL leaves a record that says running, and it is shown as lost; SIGTERM lets the run say how it ended."""
    open_ = {"gate": 6}

    def stall(_: Call) -> Fault | None:
        open_["gate"] -= 1
        return faults.stall() if open_["gate"] < 0 else None

    server = serve(fault=stall)
    rows = "".join(json.dumps({"text": text}) + "\n" for text in marked(20))
    (tmp_path / "in.jsonl").write_text(rows)
    command = [sys.executable, "-m", "mellea_cli", "summarise", "in.jsonl", "-o", "out.jsonl", "-b", "openai"]
    command += ["-m", "test-model", "--base-url", server.openai_url, "-c", "2", "--grace", "0"]
    state = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    folder = tmp_path / "mellea" / "runs"
    with subprocess.Popen(command, cwd=tmp_path, env=state, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + TIMEOUT_S
        while not any(run.done == 6 for run in read_runs(folder)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert [run.state for run in read_runs(folder)] == ["running"]
        process.send_signal(number)
        process.wait(TIMEOUT_S)
    (record,) = read_runs(folder)
    if number is signal.SIGKILL:
        assert (record.state, record.done, record.exit_code) == ("lost", 6, None)
        assert record.next_command.startswith("mellea summarise in.jsonl")
    else:
        assert (record.state, record.done, record.exit_code) == ("stopped", 6, 143)
