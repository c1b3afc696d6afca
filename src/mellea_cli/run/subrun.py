"""Sub-runs: batch runs over lines in memory before the main run, with the same engine, limits and journal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode
from mellea_cli.events import Observer
from mellea_cli.io.journal import Answers
from mellea_cli.items import Item, Outcome, Row, Success
from mellea_cli.messages import Usage
from mellea_cli.pipelines.pipeline import Pipeline
from mellea_cli.run.batch import RunIO, RunResult, Tally, run_batch
from mellea_cli.run.executor import Servers
from mellea_cli.run.plan import Caps, RunPlan


class SubRunStopped(Exception):
    """A sub-run was stopped, by the user, a limit or the server, so the main run does not begin.

    Args:
        result: the totals of all sub-runs.
    """

    def __init__(self, result: RunResult) -> None:
        super().__init__(result.stopped)
        self.result = result


class SubRun:
    """Asks pipelines about lines, one batch run after the other.

    Args:
        plan: how to ask; each run has its own pipeline and the remaining limits.
        servers: the servers to ask.
        answers: the journal.
        begin: starts to display a run of so many questions.
        stop: the user's wish to stop.
        retry_failed: whether items that failed in an earlier run are asked again.
    """

    def __init__(
        self,
        plan: RunPlan,
        servers: Servers,
        answers: Answers,
        *,
        begin: Callable[[Pipeline, int], Observer],
        stop: Stop,
        retry_failed: bool = True,
    ) -> None:
        self._plan = plan
        self._servers = servers
        self._answers = answers
        self._begin = begin
        self._stop = stop
        self._retry_failed = retry_failed
        self.used = Tally()
        """Calls and tokens of all runs so far."""
        self.retries = 0
        self.elapsed_s = 0.0
        # The mean usage of a call in the run with the longest calls: the next run's may be as long.
        self._longest_call = Usage()

    @property
    def caps(self) -> Caps:
        """The remaining limits."""
        return self._plan.caps.left(self.used.usage, self.elapsed_s, self._longest_call)

    async def ask(self, pipeline: Pipeline, items: Sequence[Item]) -> Sequence[Mapping[str, Any] | None]:
        """Ask `pipeline` about each of `items`.

        Returns:
            Their values in order; `None` for one that failed.

        Raises:
            SubRunStopped: the run was stopped.
        """
        rows = _RowsInMemory(len(items))
        run_io = RunIO(
            source=_ItemsInMemory(items),
            rows=rows,
            to_row=_values_row,
            answers=self._answers,
            total=len(items),
            retry_failed=self._retry_failed,
        )
        plan = dataclasses.replace(self._plan, pipeline=pipeline, caps=self.caps)
        observer = self._begin(pipeline, len(items))
        result = await run_batch(plan, self._servers, run_io, observer=observer, stop=self._stop)
        tally = result.tally
        self.used.calls += tally.calls
        self.used.usage += tally.usage
        self.retries += result.retries
        self.elapsed_s += result.elapsed_s
        calls = max(1, tally.calls)
        mean = Usage(-(-tally.usage.prompt_tokens // calls), -(-tally.usage.completion_tokens // calls))
        self._longest_call = max(self._longest_call, mean, key=lambda usage: usage.total_tokens)
        if result.stopped:
            total = Tally(calls=self.used.calls, usage=self.used.usage)
            raise SubRunStopped(
                dataclasses.replace(result, tally=total, elapsed_s=self.elapsed_s, retries=self.retries, finished=False)
            )
        return rows.values

    def added_to(self, result: RunResult) -> RunResult:
        """The main run's result with the totals of the sub-runs added."""
        result.tally.calls += self.used.calls
        result.tally.usage += self.used.usage
        return dataclasses.replace(
            result, elapsed_s=result.elapsed_s + self.elapsed_s, retries=result.retries + self.retries
        )


def without_main_run(subrun: SubRun | None) -> RunResult:
    """The result of a command that needed no main run after its sub-runs."""
    result = RunResult(
        tally=Tally(),
        elapsed_s=0.0,
        retries=0,
        peak_in_flight=0,
        concurrency=0,
        bad_rows=0,
        exit_code=ExitCode.OK,
        finished=False,
    )
    return result if subrun is None else subrun.added_to(result)


def _values_row(item: Item, outcome: Outcome) -> Row:
    return Row(item, {"values": outcome.values} if isinstance(outcome, Success) else {})


class _ItemsInMemory:
    skipped = 0

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def stop(self) -> None:
        pass


class _RowsInMemory:
    def __init__(self, number: int) -> None:
        self.values: list[Mapping[str, Any] | None] = [None] * number

    def add(self, row: Row) -> None:
        self.values[row.item.position] = row.added.get("values")

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass
