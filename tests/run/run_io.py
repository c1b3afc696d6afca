"""Source and sink of a run for tests: items from a list, rows into a file, answers in a real journal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mellea_cli.backends.base import Backend
from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.engine.workers import Stop
from mellea_cli.events import Event
from mellea_cli.io.files import resolve_output
from mellea_cli.io.journal import Journal
from mellea_cli.io.sink import OrderedSink, open_sink
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Item
from mellea_cli.messages import Options
from mellea_cli.pipelines.default_prompts import PIPELINES
from mellea_cli.run.batch import RunIO, RunResult, run_batch
from mellea_cli.run.plan import RunPlan

QUICK = RetryPolicy(base_s=0.001, cap_s=0.01)


class Listed:
    """A source that gives what it was made of."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items
        self.skipped = 0

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def stop(self) -> None:
        """Nothing waits here."""


def items(texts: Iterable[str]) -> list[Item]:
    """Items of these texts."""
    return [Item(place, place, text, {"id": place, "text": text}) for place, text in enumerate(texts)]


def marked(count: int) -> list[str]:
    """Texts with a mark each."""
    return [f"The order was late. MARK-i{number:05d}x" for number in range(count)]


def plan(**changes: Any) -> RunPlan:
    """A plan of the one-call pipeline that retries quickly."""
    settings: dict[str, Any] = {
        "pipeline": PIPELINES["single"],
        "backend": "openai",
        "model": "test-model",
        "identity": "test-model",
        "options": Options(temperature=0.0),
        "concurrency": 16,
        "policy": QUICK,
        "deadlines": Deadlines(10, 10, 20),
        "max_wait_s": 5.0,
        "grace_s": 5.0,
        **changes,
    }
    return RunPlan(**settings)


@contextmanager
def opened(output: Path, source: Sequence[Item] | Iterable[Item], plan: RunPlan, **more: Any) -> Iterator[RunIO]:
    """Source and sink of a run that writes `output`, with its journal next to it."""
    target = resolve_output(str(output))
    added = AddedColumns.of(*((column.name, column.parts) for column in plan.pipeline.columns))
    replaces = output.exists()
    journal = Journal.open(target.journal)
    sink = OrderedSink(open_sink(target, added))
    try:
        yield RunIO(
            source=Listed(source),
            rows=sink,
            to_row=added.row,
            answers=journal,
            replaces=replaces,
            **{"can_sweep": True, **more},
        )
    finally:
        sink.close()
        journal.close()


class Run:
    """One run after the other on the same output."""

    def __init__(self, output: Path, backend: Backend) -> None:
        self.output = output
        self.backend = backend
        self.stop = Stop()
        self.events: list[Event] = []

    async def __call__(self, source: Iterable[Item], chosen: RunPlan | None = None, **more: Any) -> RunResult:
        """Run, and return how it ended."""
        chosen = chosen or plan()
        self.stop = Stop()
        self.events = []
        with opened(self.output, source, chosen, **more) as ends:
            return await run_batch(chosen, self.backend, ends, observer=self.observe, stop=self.stop)

    def observe(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def rows(self) -> list[dict[str, Any]]:
        """What stands in the output."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]
