"""Executor: answers items from a list of words, without a model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mellea_cli.backends.base import BackendSettings
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import UsageError
from mellea_cli.events import ItemStarted, Observer
from mellea_cli.items import Item, Outcome, Success
from mellea_cli.run.executor import Executor, ExecutorFactory
from mellea_cli.run.plan import RunPlan

WORDS = {"good": "positive", "great": "positive", "bad": "negative", "late": "negative", "stuck": "negative"}


class WordsExecutorFactory(ExecutorFactory):
    """Opens the executor of `--engine words`."""

    def check(self) -> None:
        if self.flags["pipeline"] != "single":
            raise UsageError("--engine words answers the pipeline single only", hint="omit --pipeline")

    @asynccontextmanager
    async def open(
        self, plan: RunPlan, settings: BackendSettings, observer: Observer, stop: Stop
    ) -> AsyncIterator[Executor]:
        yield WordsExecutor(observer)


class WordsExecutor(Executor):
    """Answers one item at a time."""

    places = 1
    concurrency = 1
    retries = 0
    peak_in_flight = 1

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    async def work(self, item: Item) -> Outcome | None:
        self._observer(ItemStarted(item.position, str(item.id), item.text))
        found = [WORDS[word] for word in item.text.lower().replace(".", "").split() if word in WORDS]
        return Success({"summary": item.text, "sentiment": found[0] if found else "neutral"})
