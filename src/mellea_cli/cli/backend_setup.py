"""The model servers of one command: opened, looked at, and closed again."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mellea_cli.backends.base import Backend, BackendSettings
from mellea_cli.backends.registry import open_backend
from mellea_cli.cli.flags import Flags
from mellea_cli.cli.offload import server_of
from mellea_cli.errors import BackendError, ModelFileError, ModelMissing, NotAuthorized, UsageError

if TYPE_CHECKING:
    from mellea_cli.backends.ollama import PullProgress
    from mellea_cli.cli.pools import Pool
    from mellea_cli.messages import Message
    from mellea_cli.run.executor import Servers
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.run_display import RunDisplay


# Which backend and which model a command uses, and that the model is there.

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
    from mellea_cli.backends.registry import resolve_backend

    choice = await resolve_backend(wanted.backend, wanted.model, wanted.base_url)
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
    from mellea_cli.ui.download_bar import Download

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
    from mellea_cli.ui.download_bar import Download

    with Download(sys.stderr, os.environ, label=model) as download:
        async for step in steps:
            download.at(step.status, step.completed, step.total)


def model_identity(backend: str, model: str) -> str:
    """What stands for the model in a plan's fingerprint: a file is known by its name and size, not by its folder."""
    path = Path(model)
    if backend == "local" and model.endswith(".gguf") and path.exists():
        return f"{path.name}:{path.stat().st_size}"
    return model


# A key for a server on another machine: asked for at a terminal, before the first row, when the server wants one.

_TRIES = 3


async def open_keyed(name: str, settings: BackendSettings, *, ask: bool) -> Backend:
    """Open a backend; where its server says no to the key, ask the user for another one.

    Only a server on another machine is asked beforehand, and only when somebody can answer: its list of models shows
    whether the key will do. Off a terminal nothing is sent and nothing is asked.

    Args:
        name: the backend.
        settings: what to open it with.
        ask: whether questions are wanted at all; they are asked at a terminal only.

    Raises:
        UsageError: as `open_backend`.
        NotAuthorized: no key was typed that the server takes.
    """
    from mellea_cli.backends.openai import server_url
    from mellea_cli.backends.security import is_loopback

    url = server_url(settings.base_url)
    if name != "openai" or not ask or is_loopback(url) or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return open_backend(name, settings)
    settings = _with_key(settings, url) if _needs_one(url) else settings
    for left in reversed(range(_TRIES)):
        backend = open_backend(name, settings)
        try:
            await backend.models()
        except NotAuthorized:
            await backend.aclose()
            if not left:
                raise
            settings = _with_key(settings, url)
        except BackendError:
            # It has no list, or is away: the run itself will say so.
            return backend
        else:
            return backend
    raise AssertionError("the last try returns or raises")


def _needs_one(url: str) -> bool:
    """Whether there is no key for the one server that takes nobody without."""
    from mellea_cli.backends.security import Secrets

    return urlsplit(url).hostname == "api.openai.com" and not Secrets.from_environ(os.environ).key().strip()


def _with_key(settings: BackendSettings, url: str) -> BackendSettings:
    import dataclasses

    from mellea_cli.ui.console import ask_secret

    host = urlsplit(url).hostname or url
    key = ask_secret(f"key for {host} (it is not shown, and kept for this run only):", sys.stderr)
    if not key:
        raise UsageError(f"{host} wants a key, and none was given", hint="use --key-file FILE, or set OPENAI_API_KEY")
    return dataclasses.replace(settings, api_key=key)


def _never() -> bool:
    return False


@asynccontextmanager
async def ready_servers(
    flags: Flags,
    chosen: Chosen,
    prefixes: Sequence[tuple[Message, ...]],
    show: RunDisplay,
    idle: Callable[[], bool] = _never,
) -> AsyncIterator[Servers]:
    """Open the model server, or those of a pool; they are closed again at the end.

    Until a run begins there is nothing to save: Ctrl-C ends the program as usual.

    Args:
        flags: how verbose it is, and where it stands.
        chosen: which one.
        prefixes: the beginnings that the prompts share.
        show: told when reading those takes a moment, and of endpoints that cannot be used.
        idle: whether there is nothing to ask, so that a server which cannot be used is no matter.

    Raises:
        BackendError: the server cannot be used, or does not have the model.
    """
    if chosen.pool is not None:
        from mellea_cli.cli.pools import opened

        async with opened(chosen.pool, pull=flags.pull, say=show.say) as endpoints:
            yield endpoints
        return
    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.backends.local import LocalBackend

    settings = BackendSettings(
        model=chosen.model,
        base_url=server_of(flags),
        concurrency=chosen.concurrency,
        merge_chunks=True,
        verbose=flags.verbose > 1,
    )
    backend = await open_keyed(chosen.backend, settings, ask=not flags.nightly)
    try:
        if isinstance(backend, LocalBackend):
            # It starts with the first question: a run that finds every answer in the journal needs no model at all.
            backend.share_prefixes(prefixes, show.say)
        else:
            try:
                await prepare(backend, chosen.model, pull=flags.pull)
            except BackendError:
                # The server is away or lacks the model: that is no matter where every answer is there already.
                if not await asyncio.to_thread(idle):
                    raise
        yield backend
    finally:
        await backend.aclose()


async def as_the_server_says(plan: RunPlan, servers: Servers) -> RunPlan:
    """Begin the search for the best number of requests with what the server works on at once, where it says so."""
    from mellea_cli.backends.openai import OpenAIBackend

    if plan.start is None or not isinstance(servers, OpenAIBackend):
        return plan
    places = await servers.read_slots()
    return dataclasses.replace(plan, start=min(places, plan.concurrency)) if places else plan


def the_one(servers: Servers) -> Backend:
    """The server where there is only one: what a batch queue belongs to. Raises `UsageError` for a pool."""
    if isinstance(servers, Sequence):
        raise UsageError("a batch queue belongs to one provider, not to a pool", hint="name one --base-url")
    return servers
