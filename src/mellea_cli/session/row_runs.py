"""Runs over rows from Python: `run` and `arun` ask a pipeline about each row and return typed rows."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import OutputError, UsageError
from mellea_cli.events import nobody
from mellea_cli.io.files import OutputLock, resolve_output
from mellea_cli.io.journal import Answers, Journal, MemoryAnswers
from mellea_cli.items import Failure, Item, Outcome, Row
from mellea_cli.messages import Options
from mellea_cli.run.batch import RunIO, run_batch
from mellea_cli.run.plan import RunPlan
from mellea_cli.session.connection import Connection

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mellea_cli.backends.base import Backend
    from mellea_cli.events import Observer
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.pipelines.pipeline_spec import PipelineSpec

M = TypeVar("M", bound="BaseModel")


@dataclass(frozen=True, slots=True)
class AnsweredRow(Generic[M]):
    """A row and its answers.

    Args:
        id: the row's id, or its number, counted from 1.
        text: the text that was asked about.
        fields: the row's columns.
        values: the answers by column; empty for a row that failed.
        answer: the answers as the pydantic model that was asked for; `None` without one, and where the row failed or
            has no text.
        error: why the row has no answers; empty for one that has.
    """

    id: str | int | float
    text: str
    fields: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    answer: M | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the row has its answers."""
        return not self.error


def run(
    pipeline: type[M] | Pipeline | PipelineSpec | str | os.PathLike[str], rows: Any, **options: Any
) -> list[AnsweredRow[M]]:
    """Ask a pipeline about each row and wait for the answers; `arun` describes the arguments.

    Raises:
        MelleaError: as `arun` does.
        UsageError: an event loop runs in this thread, as in a notebook: await `arun` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(arun(pipeline, rows, **options))
    raise UsageError("an event loop runs in this thread already", hint="use: await mellea_cli.arun(...)")


async def arun(  # noqa: PLR0913 - the settings of `start_session`, and those of a run
    pipeline: type[M] | Pipeline | PipelineSpec | str | os.PathLike[str],
    rows: Iterable[str | Mapping[str, Any]] | str | os.PathLike[str],
    *,
    backend_name: str | Backend | None = None,
    model_id: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    max_retries: int = 5,
    timeout: float | None = 600.0,  # noqa: ASYNC109 - of one request
    max_wait: float = 60.0,
    temperature: float = 0.0,
    text_field: str | None = None,
    journal: str | os.PathLike[str] | None = None,
    observer: Observer = nobody,
) -> list[AnsweredRow[M]]:
    """Ask a pipeline about each row.

    Args:
        pipeline: a pydantic model, a `Pipeline`, a `PipelineSpec`, the path of a pipeline file, `"single"` or
            `"steps"`.
        rows: texts, mappings with a text, or the path of a JSONL, JSON, CSV or TSV file.
        backend_name: as in `start_session`.
        model_id: likewise.
        base_url: likewise.
        api_key: likewise.
        concurrency: maximum number of requests in flight.
        max_retries: maximum number of retries of a request after a transport error.
        timeout: maximum time for one request in seconds; `None` for no limit.
        max_wait: longest wait for a server that is down, in seconds.
        temperature: of the model's sampling; 0 takes the most likely answer.
        text_field: the column with the text; by default `text` in mappings, and found in a file.
        journal: a file in which the answers are kept: the same call again asks only what is missing there, and a field
            that was added or reworded asks that field alone. Without one nothing is kept.
        observer: receives the events of the run.

    Returns:
        The rows in their order. One that could not be answered has an `error`.

    Raises:
        MelleaError: no row can be asked, such as when the server or the model is not there.
    """
    from pydantic import BaseModel

    from mellea_cli.pipelines.own_fields import pipeline_of

    made = pipeline_of(pipeline)
    items = _items(rows, text_field)
    connection = Connection(
        backend_name, model_id, base_url, api_key, concurrency, max_retries, retry_for_s=120.0, timeout_s=timeout
    )
    found = _Rows()
    with ExitStack() as stack:
        answers = _answers(stack, journal)
        backend = await connection.open_backend()
        try:
            plan = RunPlan(
                pipeline=made,
                backend=backend.name,
                model=connection.model or "",
                identity=connection.model or "",
                options=Options(temperature=temperature, thinking=False if backend.name == "ollama" else None),
                concurrency=connection.limit(backend.name),
                policy=RetryPolicy(max_retries=max_retries),
                deadlines=Deadlines(total_s=timeout),
                max_wait_s=max_wait,
            )
            run_io = RunIO(_Items(items), found, found.row, answers, total=len(items))
            result = await run_batch(plan, backend, run_io, observer=observer, stop=Stop())
        finally:
            await backend.aclose()
    if result.error is not None:
        raise result.error
    model = pipeline if isinstance(pipeline, type) and issubclass(pipeline, BaseModel) else None
    return [_answered(item, found.outcomes[item.position], model) for item in items]


def _answers(stack: ExitStack, journal: str | os.PathLike[str] | None) -> Answers:
    if journal is None:
        return MemoryAnswers()
    path = Path(journal)
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}", hint="create it first")
    target = resolve_output(str(path))
    stack.enter_context(OutputLock(target.lock, target.name))
    return stack.enter_context(closing(Journal.open(path)))


def _items(rows: Iterable[str | Mapping[str, Any]] | str | os.PathLike[str], text_field: str | None) -> list[Item]:
    if isinstance(rows, str | os.PathLike):
        from mellea_cli.io.source import SourceOptions, open_source

        with open_source(os.fspath(rows), SourceOptions(text_field=(text_field,) if text_field else ())) as source:
            return list(source)
    name = text_field or "text"
    items = []
    for position, row in enumerate(rows):
        fields = {name: row} if isinstance(row, str) else dict(row)
        text = fields.get(name)
        if text is not None and not isinstance(text, str):
            raise UsageError(f"row {position + 1}: {name!r} is {type(text).__name__}, not text")
        if name not in fields:
            raise UsageError(f"row {position + 1} has no {name!r}", hint="name the column with the text: text_field=…")
        items.append(Item(position, fields.get("id", position + 1), text or "", fields))
    return items


class _Items:
    """The rows as a source."""

    skipped = 0

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def stop(self) -> None:
        """Do nothing: no row is waited for."""


class _Rows:
    """The outcomes of a run, instead of a file."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}

    def row(self, item: Item, outcome: Outcome) -> Row:
        self.outcomes[item.position] = outcome
        return Row(item, {})

    def add(self, row: Row) -> None:
        """Do nothing: the outcome is kept."""

    def flush(self) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def _answered(item: Item, outcome: Outcome, model: type[M] | None) -> AnsweredRow[M]:
    if isinstance(outcome, Failure):
        return AnsweredRow(item.id, item.text, item.fields, error=f"{outcome.kind}: {outcome.message}")
    answer, error = None, ""
    if model is not None and item.text.strip():
        from pydantic import ValidationError

        try:
            answer = model.model_validate_json(json.dumps(dict(outcome.values)))
        except ValidationError as wrong:  # a validator of the model as a whole
            error = f"model: {wrong.errors(include_url=False)[0]['msg']}"
    return AnsweredRow(item.id, item.text, item.fields, outcome.values, answer, error)
