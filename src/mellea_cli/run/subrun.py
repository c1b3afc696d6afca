"""Batch runs beside the main one: over lines in memory, through the same engine, limits and journal."""

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
    """A run beside the main one was stopped: the main one has no reason to begin.

    Args:
        result: how it ended.
    """

    def __init__(self, result: RunResult) -> None:
        super().__init__(result.stopped)
        self.result = result


class SubRun:
    """Asks pipelines about lines, one batch run after the other.

    Args:
        plan: how to ask; each run has its own pipeline, and what is left of the limits.
        servers: what is asked.
        answers: the journal.
        begin: starts to show a run.
        stop: how the user stops it all.
        retry_failed: whether what failed in an earlier run is asked again.
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
        self.spent = Tally()
        """Calls and tokens of all runs so far."""
        self.retries = 0
        self.elapsed_s = 0.0
        # What a call took in the run with the longest ones: the next run's may be as long.
        self._dearest = Usage()

    @property
    def caps(self) -> Caps:
        """What is left of the limits."""
        return self._plan.caps.left(self.spent.usage, self.elapsed_s, self._dearest)

    async def ask(self, pipeline: Pipeline, items: Sequence[Item]) -> Sequence[Mapping[str, Any] | None]:
        """Ask `pipeline` about each of `items`.

        Returns:
            Their values in order; `None` for one that failed.

        Raises:
            EndedEarly: the run was stopped, by the user, a limit or the server.
        """
        rows = _Kept(len(items))
        plan = dataclasses.replace(self._plan, pipeline=pipeline, caps=self.caps)
        ends = RunIO(
            source=_Listed(items),
            rows=rows,
            to_row=_values_row,
            answers=self._answers,
            total=len(items),
            retry_failed=self._retry_failed,
        )
        result = await run_batch(plan, self._servers, ends, observer=self._begin(pipeline, len(items)), stop=self._stop)
        self.spent.calls += result.tally.calls
        self.spent.usage += result.tally.usage
        self._dearest = max(self._dearest, _each(result.tally), key=lambda usage: usage.total_tokens)
        self.retries += result.retries
        self.elapsed_s += result.elapsed_s
        if result.stopped:
            tally = Tally(calls=self.spent.calls, usage=self.spent.usage)
            ended = dataclasses.replace(
                result, tally=tally, elapsed_s=self.elapsed_s, retries=self.retries, finished=False
            )
            raise SubRunStopped(ended)
        return rows.values

    def with_spent(self, result: RunResult) -> RunResult:
        """The main run's result with what went before it."""
        result.tally.calls += self.spent.calls
        result.tally.usage += self.spent.usage
        return dataclasses.replace(
            result, elapsed_s=result.elapsed_s + self.elapsed_s, retries=result.retries + self.retries
        )


def ended_with(aside: SubRun | None) -> RunResult:
    """How a run ends, all well, that had no more to do than what `aside` did."""
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
    return result if aside is None else aside.with_spent(result)


def _each(tally: Tally) -> Usage:
    """What one call took, rounded up."""
    calls = max(1, tally.calls)
    return Usage(-(-tally.usage.prompt_tokens // calls), -(-tally.usage.completion_tokens // calls))


def _values_row(item: Item, outcome: Outcome) -> Row:
    return Row(item, {"values": outcome.values} if isinstance(outcome, Success) else {})


class _Listed:
    """Items that are all there."""

    skipped = 0

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def stop(self) -> None:
        """Nothing waits here."""


class _Kept:
    """Rows that stay in memory."""

    def __init__(self, number: int) -> None:
        self.values: list[Mapping[str, Any] | None] = [None] * number

    def add(self, row: Row) -> None:
        self.values[row.item.position] = row.added.get("values")

    def flush(self) -> None:
        """There is nowhere to flush to."""

    def finish(self) -> None:
        """There is nothing to finish."""

    def close(self) -> None:
        """There is nothing to let go of."""
