"""Runs over rows from Python: `run` and `arun` ask a pipeline about each row and return typed rows."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import queue
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
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
from mellea_cli.messages import GenerateRequest, Options
from mellea_cli.pipelines.pipeline import Column, OutputType, Pipeline, Prompt, Step, render
from mellea_cli.run.batch import RunIO, run_batch
from mellea_cli.run.plan import RunPlan
from mellea_cli.session.connection import Connection, in_api_words
from mellea_cli.session.event_loop import EventLoopThread, closed_early

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pydantic import BaseModel

    from mellea_cli.backends.base import Backend
    from mellea_cli.events import Observer
    from mellea_cli.pipelines.pipeline_spec import PipelineSpec
    from mellea_cli.session.calls import CallOptions

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


class AnsweredRows(list[AnsweredRow[M]]):
    """The rows of a run, in their order."""

    def to_records(self) -> list[dict[str, Any]]:
        """One dict for each row: its columns, its answers, and `error`."""
        return [{**row.fields, **row.values, "error": row.error} for row in self]

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a column for each column and each answer; needs pandas."""
        return self._frame("pandas")

    def to_polars(self) -> Any:
        """A polars DataFrame with a column for each column and each answer; needs polars."""
        return self._frame("polars")

    def _frame(self, library: str) -> Any:
        try:
            module = importlib.import_module(library)
        except ImportError:
            raise UsageError(f"{library} is not installed", hint=f"pip install {library}") from None
        return module.DataFrame(self.to_records())


def run(
    pipeline: type[M] | Pipeline | PipelineSpec | str | os.PathLike[str], rows: Any, **options: Any
) -> AnsweredRows[M]:
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
) -> AnsweredRows[M]:
    """Ask a pipeline about each row.

    Args:
        pipeline: a pydantic model, a `Pipeline`, a `PipelineSpec`, the path of a pipeline file, `"single"`, `"steps"`
            or `"fast"`, which asks one model here.
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

    made = pipeline_of(pipeline).of_one_model()
    items = _items(rows, text_field)
    connection = Connection(
        backend_name, model_id, base_url, api_key, concurrency, max_retries, retry_for_s=120.0, timeout_s=timeout
    )
    found = _Rows()
    options = Options(temperature=temperature)
    await _run(made, items, connection, options, found, journal=journal, max_wait=max_wait, observer=observer)
    model = pipeline if isinstance(pipeline, type) and issubclass(pipeline, BaseModel) else None
    return AnsweredRows(_answered(item, found.outcomes[item.position], model) for item in items)


async def _run(
    pipeline: Pipeline,
    items: list[Item],
    connection: Connection,
    options: Options,
    found: _Rows,
    *,
    journal: str | os.PathLike[str] | None,
    max_wait: float = 60.0,
    observer: Observer = nobody,
) -> None:
    from mellea_cli.pipelines.confidence import for_model

    with ExitStack() as stack:
        answers = _answers(stack, journal)
        backend = await connection.open_backend()
        try:
            if options.thinking is None and backend.name == "ollama":
                options = replace(options, thinking=False)
            plan = RunPlan(
                pipeline=for_model(pipeline, backend.name, connection.model),
                backend=backend.name,
                model=connection.model,
                identity=connection.model,
                options=options,
                concurrency=connection.limit(backend.name),
                policy=RetryPolicy(max_retries=connection.max_retries),
                deadlines=Deadlines(total_s=connection.timeout_s),
                max_wait_s=max_wait,
            )
            run_io = RunIO(_Items(items), found, found.row, answers, total=len(items))
            result = await run_batch(plan, backend, run_io, observer=observer, stop=Stop())
        finally:
            await backend.aclose()
    if result.error is not None:
        raise in_api_words(result.error)


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
    """The outcomes of a run, instead of a file.

    Args:
        answered: receives each item when its answer is kept, as they complete.
        in_order: receives each item in the order of the input.
    """

    def __init__(
        self, *, answered: Callable[[Item], None] = lambda _: None, in_order: Callable[[Item], None] = lambda _: None
    ) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self._answered = answered
        self._in_order = in_order
        self._waiting: dict[int, Item] = {}
        self._next = 0

    def row(self, item: Item, outcome: Outcome) -> Row:
        self.outcomes[item.position] = outcome
        self._answered(item)
        return Row(item, {})

    def add(self, row: Row) -> None:
        self._waiting[row.item.position] = row.item
        while (item := self._waiting.pop(self._next, None)) is not None:
            self._in_order(item)
            self._next += 1

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


class RowMap:
    """A prompt over many items, in a session's event loop: what `MelleaSession.map` and `amap` iterate over.

    Raises:
        TemplateError: the prompt names a variable that an item does not have.
    """

    def __init__(
        self,
        connection: Connection,
        event_loop: EventLoopThread,
        call: CallOptions,
        prompt: str,
        items: Iterable[str | Mapping[str, Any]],
        settings: MapSettings,
    ) -> None:
        self._settings = settings
        self._event_loop = event_loop
        # What is asked is the rendered prompt, so that items with one prompt are asked once.
        self._items = []
        for position, one in enumerate(items):
            fields = {"text": one} if isinstance(one, str) else dict(one)
            self._items.append(Item(position, fields.get("id", position + 1), render(prompt, fields), fields))
        self._pipeline = _prompt_pipeline(call, settings.format)
        self._options = call.options
        self._connection = connection.again()
        self._connection.concurrency = settings.concurrency or connection.concurrency
        shown = settings.progress
        if shown is None:
            shown = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._progress = _Progress(len(self._items)) if shown else None

    def __iter__(self) -> Iterator[AnsweredRow[Any]]:
        found: queue.SimpleQueue[AnsweredRow[Any] | None] = queue.SimpleQueue()
        done = self._start(found.put)
        try:
            while (row := self._event_loop.next_of(found)) is not None:
                yield row
        finally:
            done.cancel()
        _raise_error(done)

    async def __aiter__(self) -> AsyncIterator[AnsweredRow[Any]]:
        loop, found = asyncio.get_running_loop(), asyncio.Queue[AnsweredRow[Any] | None]()
        done = self._start(lambda row: loop.call_soon_threadsafe(found.put_nowait, row))
        try:
            while (row := await found.get()) is not None:
                yield row
        finally:
            done.cancel()
        _raise_error(done)

    def _start(self, give: Callable[[AnsweredRow[Any] | None], object]) -> Future[None]:
        """Start the run; `give` receives its rows, and then `None`."""

        def finished(item: Item) -> None:
            give(_mapped(item, found.outcomes[item.position], self._settings.format))

        def counted(item: Item) -> None:
            if self._progress is not None:
                self._progress.count(found.outcomes[item.position])
            if self._settings.as_completed:
                finished(item)

        found = _Rows(answered=counted) if self._settings.as_completed else _Rows(answered=counted, in_order=finished)

        async def work() -> None:
            journal = self._settings.journal
            try:
                await _run(self._pipeline, self._items, self._connection, self._options, found, journal=journal)
            finally:
                if self._progress is not None:
                    self._progress.end()

        done = self._event_loop.submit(work)
        done.add_done_callback(lambda _: give(None))
        return done


@dataclass(frozen=True, slots=True)
class MapSettings:
    """The settings of `MelleaSession.map`."""

    format: type[BaseModel] | None = None
    concurrency: int | None = None
    as_completed: bool = False
    journal: str | os.PathLike[str] | None = None
    progress: bool | None = None


def _raise_error(done: Future[None]) -> None:
    if done.cancelled():
        raise closed_early()
    if (error := done.exception()) is not None:
        raise error


class _TextType(OutputType):
    """Plain text, as it comes."""

    def parse(self, text: str, repaired: Callable[[], None] | None = None) -> Any:  # noqa: ARG002 - the type's method
        return text.strip()


class _TextStep(Step):
    def request(self, model: str, options: Options, variables: Mapping[str, Any]) -> GenerateRequest:
        return replace(super().request(model, options, variables), output_schema=None)


_MAP_TOKENS = 2_000


def _prompt_pipeline(call: CallOptions, model: type[BaseModel] | None) -> Pipeline:
    prompt, limit = Prompt(call.system, "{{ text }}"), call.options.max_tokens or _MAP_TOKENS
    if model is None:
        text = _TextStep("answer", prompt, _TextType(str), limit)
        return Pipeline("map", (text,), (Column("answer"),), lambda answers: {"answer": answers["answer"]})
    typed = Step("answer", prompt, OutputType(model), limit)
    columns = tuple(Column(name) for name in model.model_fields)
    return Pipeline("map", (typed,), columns, lambda answers: answers["answer"].model_dump(mode="json"))


def _mapped(item: Item, outcome: Outcome, model: type[BaseModel] | None) -> AnsweredRow[Any]:
    row: AnsweredRow[Any] = _answered(item, outcome, model)
    return row if model is not None else replace(row, answer=row.values.get("answer"))


class _Progress:
    """One line on stderr that counts; terminals and notebooks show its last state."""

    _EVERY_S = 0.1

    def __init__(self, total: int) -> None:
        self._total, self._done, self._failed, self._shown_at = total, 0, 0, 0.0

    def count(self, outcome: Outcome) -> None:
        self._done += 1
        self._failed += isinstance(outcome, Failure)
        if time.monotonic() - self._shown_at >= self._EVERY_S:
            self._show()

    def end(self) -> None:
        self._show()
        sys.stderr.write("\n")

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        failed = f", {self._failed:,} failed" if self._failed else ""
        sys.stderr.write(f"\r{self._done:,} of {self._total:,}{failed}")
        sys.stderr.flush()
