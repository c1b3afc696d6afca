"""Which backend and which model a command uses, and that the model is there."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.errors import ModelFileError, ModelMissing

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.ollama import PullProgress
    from mellea_cli.cli.pools import Pool

# Where the user does not say how many requests may be in flight the best number is found by trying: from how many on,
# unless the server itself tells, and up to how many. An Ollama works on a few at once and queues the rest. The scripted
# backend has no server that could have enough.
_START = {"ollama": 4, "openai": 8, "scripted": 64}
_MOST = {"ollama": 32, "openai": 256, "scripted": 64}
# The embedded server's slots are made when it starts, and each holds a context in memory. Two cores answer most with
# four of them; what more cores gain from more is little.
_SLOTS, _MOST_SLOTS = 4, 8
_MANY_CORES = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for.

    Args:
        backend: a name, or `auto`.
        model: a name, or `None` for the backend's default.
        base_url: the server's address, or `None`.
        concurrency: requests in flight, or `None` for what is found to be the best.
        max_concurrency: the most that may be tried; `None` for what suits the backend.
        pull: fetch the model when it is missing.
        verbose: show the model server's log.
    """

    backend: str
    model: str | None
    base_url: str | None
    concurrency: int | None
    pull: bool = False
    max_concurrency: int | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is used.

    Args:
        backend: a name of the registry.
        model: the model's name there.
        concurrency: requests in flight at most.
        start: how many at first, where the best number is to be found by trying; `None` where it is settled.
        reason: one sentence for the user; empty when the user chose.
        warning: what the user should know about the model; empty for nothing.
        pool: the endpoints, where there are several.
    """

    backend: str
    model: str
    concurrency: int
    reason: str = ""
    warning: str = ""
    start: int | None = None
    pool: Pool | None = None


async def choose(wanted: Wanted) -> Chosen:
    """Decide on backend and model. Only `auto` sends anything, and that to this machine alone.

    Raises:
        UsageError: the backend needs a model to be named.
        ModelMissing: no backend on this machine has the model.
    """
    from mellea_cli.backends.auto import settle

    choice = await settle(wanted.backend, wanted.model, wanted.base_url)
    warning = _warning(choice.backend, choice.model)
    if choice.backend == "local" and (wanted.concurrency or 0) > _MOST_SLOTS:
        warning = f"{warning} The embedded model works on {_MOST_SLOTS} items at once at most.".strip()
    start, most = _in_flight(choice.backend, wanted)
    return Chosen(choice.backend, choice.model, most, choice.reason, warning, start)


def _in_flight(backend: str, wanted: Wanted) -> tuple[int | None, int]:
    """How many requests to begin with, where the best number is sought, and how many at most."""
    if wanted.concurrency is not None:
        return None, min(wanted.concurrency, _MOST_SLOTS) if backend == "local" else wanted.concurrency
    if backend == "local":
        cores = os.cpu_count() or 1
        most = min(wanted.max_concurrency or _MOST_SLOTS, _MOST_SLOTS if cores >= _MANY_CORES else _SLOTS)
        return most, most
    most = wanted.max_concurrency or _MOST[backend]
    told = _told_by_environment() if backend == "ollama" else None
    start = min(told or _START[backend], most)
    return (None if backend == "scripted" else start), most


def _told_by_environment() -> int | None:
    """How many requests this machine's Ollama works on at once, where its variable is set for us too."""
    told = os.environ.get("OLLAMA_NUM_PARALLEL", "")
    return int(told) if told.isdecimal() and int(told) >= 1 else None


def _warning(backend: str, model: str) -> str:
    from mellea_cli.models.catalogue import CATALOGUE

    entry = CATALOGUE.get(model)
    return entry.quality_warning if backend == "local" and entry else ""


def ensure_local_model(chosen: Chosen, *, pull: bool, say: Callable[[str], None]) -> None:
    """Fetch the embedded model's file when it is missing and may be fetched.

    The default model, which a first run needs, is fetched without asking; any other one only with `--pull`, or after
    a yes at a terminal.

    Raises:
        ModelFileError: it is missing and may not be fetched, or fetching failed.
    """
    from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore
    from mellea_cli.ui.download import Download

    store = ModelStore()
    with Download(sys.stderr, os.environ) as download:
        if store.find(chosen.model, download) is not None:
            return
    entry = CATALOGUE[chosen.model]
    megabytes = round(entry.size / 1e6)
    if not (pull or chosen.model == DEFAULT_MODEL or _yes(f"Fetch {entry.name} ({megabytes:,} MB)?")):
        raise ModelFileError(
            f"the model {entry.name} ({megabytes:,} MB) is not on this machine",
            hint=f"fetch it with: mellea models pull {entry.name} (or add --pull)",
        )
    say(f"fetching {entry.name} ({megabytes:,} MB, {entry.licence}), once")
    with Download(sys.stderr, os.environ) as download:
        store.pull(entry.name, download)


def _yes(question: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    import typer

    return typer.confirm(question, default=True, err=True)


async def prepare(backend: Backend, model: str, *, pull: bool) -> None:
    """Make a server ready, pulling the model through an Ollama when that was asked for.

    Raises:
        BackendError: the server cannot be used, or does not have the model.
    """
    try:
        await backend.prepare(model)
    except ModelMissing:
        puller = getattr(backend, "pull", None)
        if not pull or puller is None:
            raise
        await _pull(puller(model), model)
        await backend.prepare(model)


async def _pull(steps: AsyncGenerator[PullProgress, None], model: str) -> None:
    from mellea_cli.ui.download import Download

    with Download(sys.stderr, os.environ, label=model) as download:
        async for step in steps:
            download.at(step.status, step.completed, step.total)


def model_identity(backend: str, model: str) -> str:
    """What stands for the model in a plan's fingerprint: a file is known by its name and size, not by its folder."""
    path = Path(model)
    if backend == "local" and model.endswith(".gguf") and path.exists():
        return f"{path.name}:{path.stat().st_size}"
    return model
