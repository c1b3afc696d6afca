"""Backend and model of one command: chosen, downloaded if missing, opened and checked; one server or a pool of them.

A pool is read from the configuration file, or from several `--base-url`. Its short form lists servers that are alike
(`urls`), the long form gives each one a table of its own (`endpoints`); both may be mixed. docs/scaling.md has an
example.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from mellea_cli.backends.base import Backend, BackendSettings
from mellea_cli.backends.registry import DEFAULT_OLLAMA_MODEL, backend_info, open_backend, resolve_backend
from mellea_cli.backends.security import API_KEY, NetworkPolicy, Secrets, redact_url
from mellea_cli.cli.settings import POOLS, config_path, read_config
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.engine.endpoint import PROBE_MESSAGES, EndpointConfig
from mellea_cli.engine.generate import generate
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    ModelFileError,
    NotAuthorized,
    RequestRefused,
    Scope,
    UsageError,
    name_some,
    nearest,
)
from mellea_cli.messages import GenerateRequest, Message, Options
from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL, SMALL_MODEL
from mellea_cli.pipelines.pipeline import TOP_LOGPROBS
from mellea_cli.ui.console import ask_secret

if TYPE_CHECKING:
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.run.executor import Servers
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.run_display import RunDisplay


# More of the embedded server's slots gain little unless there are many cores.
_MANY_CORES = 8
_LIST_S = 5.0


class ServerFlags(Protocol):
    """The flags about servers that every command with a model has."""

    @property
    def server_url(self) -> str | None: ...
    @property
    def key_file(self) -> str | None: ...
    @property
    def pull(self) -> bool: ...
    @property
    def local_only(self) -> bool: ...
    @property
    def allow_http(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The backend and the model of a command.

    Args:
        backend: a name of the registry, or `pool`.
        model: the model's name there.
        concurrency: requests in flight at most.
        reason: one sentence for the user; empty when the user chose.
        warning: what the user should know about the model; empty for nothing.
        start: requests in flight at the start of adaptive concurrency; `None` where the number is fixed.
        pool: the endpoints, where there are several.
    """

    backend: str
    model: str
    concurrency: int
    reason: str = ""
    warning: str = ""
    start: int | None = None
    pool: Pool | None = None


async def choose_model(
    backend: str,
    model: str | None,
    base_url: str | None,
    *,
    concurrency: int | None = None,
    max_concurrency: int | None = None,
) -> ModelChoice:
    """Choose backend and model; `None` is the backend's own. Only `auto` sends anything, and only to this machine."""
    choice = await resolve_backend(backend, model, base_url)
    backend, model, start, warning = choice.backend, choice.model, None, ""
    info = backend_info(backend)
    if backend == "local":
        if entry := CATALOGUE.get(model):
            warning = entry.quality_warning
        if concurrency is None:
            slots = info.max_concurrency if (os.cpu_count() or 1) >= _MANY_CORES else info.concurrency
            concurrency = start = min(max_concurrency or slots, slots)
        elif concurrency > info.max_concurrency:
            concurrency = info.max_concurrency
            warning = f"{warning} The embedded model works on {concurrency} items at once at most.".strip()
    elif concurrency is None:
        concurrency = max_concurrency or info.max_concurrency
        start = info.adaptive_start
        if backend == "ollama":
            start = _ollama_parallelism() or start
        start = min(start, concurrency) if start else None
    return ModelChoice(backend, model, concurrency, choice.reason, warning, start)


def _ollama_parallelism() -> int | None:
    """How many requests this machine's Ollama works on at once, if its variable is set for this program too."""
    text = os.environ.get("OLLAMA_NUM_PARALLEL", "")
    return int(text) if text.isdecimal() and int(text) >= 1 else None


def choose_for_run(options: RunOptions) -> ModelChoice:
    """Choose backend and model of a batch run, or the servers of a pool."""
    if (pool := find_pool(options)) is not None:
        return ModelChoice(pool.backend, pool.model, pool.concurrency, pool.reason, pool.warning, pool=pool)
    backend, concurrency = options.backend, options.concurrency
    if options.uses_batch_files:
        backend = "openai"
    if options.engine != "here":
        # Each machine runs a model of its own unless a server was named. The number is that of one worker.
        concurrency = None
        if backend == "auto" and options.server_url is None:
            backend = "local"
    if (
        options.server_url is not None
        and backend in ("auto", "openai")
        and not (options.model or options.dry_run)
        and (names := asyncio.run(_models_there(options)))
    ):
        hint = f"choose one of its models with --model: {name_some(names)}"
        raise UsageError("an OpenAI-compatible server needs a model to be named", hint=hint)
    return asyncio.run(
        choose_model(
            backend, options.model, options.server_url, concurrency=concurrency, max_concurrency=options.max_concurrency
        )
    )


def server_address(options: RunOptions, backend: str) -> str:
    """Where the requests of a run go, for people; empty for the embedded model."""
    from mellea_cli.backends.ollama import host_url
    from mellea_cli.backends.openai import server_url

    if (pool := find_pool(options)) is not None:
        return name_some(redact_url(endpoint.url) for endpoint in pool.endpoints)
    if backend == "openai":
        return redact_url(server_url(options.server_url))
    if backend == "ollama":
        return redact_url(options.server_url or host_url(os.environ.get("OLLAMA_HOST", "")))
    return redact_url(options.server_url or "")


async def _models_there(options: RunOptions) -> list[str]:
    """The models of an OpenAI-compatible server; none where it does not tell them."""
    backend = await open_with_key("openai", server_settings(options, base_url=options.server_url), ask=False)
    try:
        async with asyncio.timeout(_LIST_S):
            return await backend.models()
    except (BackendError, TimeoutError):
        return []
    finally:
        await backend.aclose()


def model_identity(backend: str, model: str) -> str:
    """The model's part of a plan's fingerprint: a file counts by name and size, not by its folder.

    An Ollama model is the same one with and without the library and the tag that Ollama adds to its name.
    """
    if backend == "ollama":
        return model.removeprefix("registry.ollama.ai/").removeprefix("library/").removesuffix(":latest")
    path = Path(model)
    if backend == "local" and model.endswith(".gguf") and path.exists():
        return f"{path.name}:{path.stat().st_size}"
    return model


def network_policy(options: ServerFlags) -> NetworkPolicy:
    """Which hosts the command may reach."""
    return NetworkPolicy(local_only=options.local_only, allow_http=options.allow_http)


def secrets(options: ServerFlags) -> Secrets:
    """Where the command's API keys come from."""
    return Secrets(options.key_file or "", os.environ)


def server_settings(options: ServerFlags, **more: Any) -> BackendSettings:
    """The settings of a server within the command's network policy, with the command's keys."""
    return BackendSettings(network=network_policy(options), secrets=secrets(options), **more)


def ensure_model(chosen: ModelChoice, options: ServerFlags, say: Callable[[str], None], *, small: bool = False) -> None:
    """Download the model where it is missing: an embedded model's file, or on Ollama servers.

    The default embedded model, which a first run needs, is downloaded without asking, and so is the small one where the
    run needs it; any other one with `--pull`, or after a yes at a terminal. An Ollama server downloads only with
    `--pull`. Servers that cannot be reached are left to whoever opens them.
    """
    network = network_policy(options)
    if chosen.backend == "local":
        _ensure_file(chosen.model, network, pull=options.pull, say=say)
        if small:
            _ensure_file(SMALL_MODEL, network, pull=True, say=say)
    elif options.pull and chosen.pool is None and chosen.backend == "ollama":
        asyncio.run(_ensure_on_server(options.server_url, chosen.model, options))
    elif options.pull and chosen.pool is not None:
        for endpoint in chosen.pool.endpoints:
            if endpoint.backend == "ollama":
                try:
                    asyncio.run(_ensure_on_server(endpoint.url, endpoint.model, options, endpoint.key_env))
                except BackendError as error:
                    say(f"{endpoint.name}: {error.message}")


def _ensure_file(model: str, network: NetworkPolicy, *, pull: bool, say: Callable[[str], None]) -> None:
    from mellea_cli.models.store import ModelStore
    from mellea_cli.ui.download_bar import Download

    store = ModelStore(network=network)
    with Download(sys.stderr, os.environ) as download:
        if store.find(model, download) is not None:
            return
    entry = CATALOGUE[model]
    size = f"{round(entry.size / 1e6):,} MB"
    if not (pull or model == DEFAULT_MODEL or confirmed(f"Download {entry.name} ({size})?", default=True)):
        raise ModelFileError(
            f"the model {entry.name} ({size}) is not on this machine",
            hint=f"download it with: mellea models pull {entry.name} (or add --pull)",
        )
    say(f"downloading {entry.name} ({size}, {entry.licence}), once")
    with Download(sys.stderr, os.environ) as download:
        store.pull(entry.name, download)


async def _ensure_on_server(
    base_url: str | None, model: str, options: ServerFlags, key_variable: str = API_KEY
) -> None:
    from mellea_cli.backends.ollama import OllamaBackend
    from mellea_cli.ui.download_bar import Download

    backend = OllamaBackend.from_settings(server_settings(options, base_url=base_url, key_variable=key_variable))
    try:
        if not await backend.has(model):
            with Download(sys.stderr, os.environ, label=model) as download:
                async for step in backend.pull(model):
                    download.at(step.status, step.completed, step.total)
    except BackendUnavailable:
        return
    finally:
        await backend.aclose()


def confirmed(question: str, *, default: bool = False) -> bool:
    """Ask the user a question; without a terminal the answer is no."""
    if not at_terminal():
        return False
    import typer

    return typer.confirm(question, default=default, err=True)


def at_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


# Tokens of one more row in a request, its answer included.
_ROW_TOKENS = 512


@asynccontextmanager
async def open_servers(
    options: RunOptions,
    chosen: ModelChoice,
    prefixes: Sequence[tuple[Message, ...]],
    show: RunDisplay,
    nothing_to_ask: Callable[[], bool] = lambda: False,
    *,
    small_prefixes: Sequence[tuple[Message, ...]] = (),
) -> AsyncIterator[Servers]:
    """Open the model server, or those of a pool, and close them at the end.

    `prefixes` are what the prompts of each step have in common: the embedded server keeps its state. The ones in
    `small_prefixes` are for the small model, which then runs too. Where `nothing_to_ask` is true, a server that cannot
    be used does not matter.
    """
    from mellea_cli.backends.local import LocalBackend

    if chosen.pool is not None:
        async with _open_pool(chosen.pool, options, show.say) as endpoints:
            yield endpoints
        return
    settings = server_settings(
        options,
        model=chosen.model,
        small_model=SMALL_MODEL if small_prefixes else "",
        base_url=options.server_url,
        concurrency=connections(chosen),
        merge_chunks=True,
        verbose=options.verbose > 1,
    )
    if (more := options.rows_per_call - 1) > 0:
        settings = dataclasses.replace(settings, context_per_slot=settings.context_per_slot + more * _ROW_TOKENS)
    if options.import_batch and not names_provider(options):
        # Nothing is sent there: the run refuses before that to ask what the import has not answered.
        settings = dataclasses.replace(settings, base_url="http://localhost:9/v1")
    backend = await open_with_key(chosen.backend, settings, ask=not options.nightly)
    try:
        if isinstance(backend, LocalBackend):
            # It starts with the first question: a run that finds every answer in the journal needs no model.
            backend.share_prefixes(prefixes, show.say, small=small_prefixes)
        else:
            try:
                await backend.prepare(chosen.model)
            except BackendError:
                if not await asyncio.to_thread(nothing_to_ask):
                    raise
        yield backend
    finally:
        await backend.aclose()


def connections(chosen: ModelChoice) -> int:
    """Connections to the server, or the embedded one's slots: `mellea tune` may ask for more than a run began with."""
    if chosen.backend == "local":
        return chosen.concurrency
    return max(chosen.concurrency, backend_info(chosen.backend).max_concurrency)


async def check_logprobs(servers: Servers, model: str, pipeline: Pipeline) -> None:
    """Ask every server a short question of the program's own, to see that it gives log-probabilities.

    The question has the form of the answers of `pipeline`, which reads them.
    """
    if isinstance(servers, Sequence):
        asked = [(one.name, one.backend, one.model) for one in servers if one.error is None]
    else:
        asked = [(servers.name, servers, model)]
    schema = next((step.output.schema for step in pipeline.steps if step.reads_choices), None)
    for name, backend, its_model in asked:
        request = GenerateRequest(
            its_model, PROBE_MESSAGES, Options(temperature=0.0, max_tokens=1), schema, TOP_LOGPROBS
        )
        try:
            found = (await generate(backend, request)).tokens
        except RequestRefused:
            found = ()
        if not found:
            needs = "--confidence needs them" if schema else "-p fast reads nothing else"
            other = "ask a share of the rows twice: --second-reading 0.1" if schema else "use -p single"
            raise UsageError(
                f"{name} gives no log-probabilities for {its_model}, and {needs}",
                hint=f"{other}, or use the embedded model: -b local",
            )


def names_provider(options: RunOptions) -> bool:
    """Whether the user named an OpenAI-compatible server: nothing leaves this machine for one that was not chosen."""
    return bool(options.backend == "openai" or options.server_url or os.environ.get("OPENAI_BASE_URL"))


@asynccontextmanager
async def _open_pool(
    pool: Pool, options: RunOptions, say: Callable[[str], None]
) -> AsyncIterator[tuple[EndpointConfig, ...]]:
    """Open and check every endpoint of a pool. One that cannot be used is reported, and retried later or not used."""
    async with AsyncExitStack() as stack:
        endpoints = []
        for one in pool.endpoints:
            settings = server_settings(
                options,
                model=one.model,
                base_url=one.url,
                key_variable=one.key_env,
                # One connection more than requests: the probe of a server that is down must not wait behind them.
                concurrency=one.concurrency + 1,
            )
            backend = open_backend(one.backend, settings)
            stack.push_async_callback(backend.aclose)
            # Where all endpoints are Ollamas the plan says it already.
            thinking = options.thinking_for(one.backend)
            endpoints.append(
                EndpointConfig(one.name, backend, one.model, one.concurrency, weight=one.weight, thinking=thinking)
            )
        errors = await asyncio.gather(*(_prepare_error(endpoint) for endpoint in endpoints))
        if all(errors):
            found = [(endpoint.name, error) for endpoint, error in zip(endpoints, errors, strict=True) if error]
            raise BackendUnavailable(
                "no endpoint of the pool can be used: "
                + "; ".join(f"{name}: {error.message}" for name, error in found),
                hint=next((error.hint for _, error in found if error.hint), ""),
            )
        for endpoint, error in zip(endpoints, errors, strict=True):
            if error and error.scope is Scope.RUN:
                hint = f"; {error.hint}" if error.hint else ""
                say(f"{endpoint.name} is not used in this run: {error.message}{hint}")
            elif error:
                say(f"{endpoint.name} is not used now and retried later: {error.message}")
        yield tuple(dataclasses.replace(one, error=error) for one, error in zip(endpoints, errors, strict=True))


async def _prepare_error(endpoint: EndpointConfig) -> BackendError | None:
    try:
        await endpoint.backend.prepare(endpoint.model)
    except BackendError as error:
        return error
    return None


_KEY_PROMPTS = 3


async def open_with_key(name: str, settings: BackendSettings, *, ask: bool) -> Backend:
    """Open a backend; where its server refuses the key, ask the user for another one.

    Only a server on another machine is checked like this, and only at a terminal: its list of models shows whether the
    key is valid. Without a terminal nothing is sent and nothing is asked.
    """
    from mellea_cli.backends.openai import server_url
    from mellea_cli.backends.security import is_loopback

    url = server_url(settings.base_url)
    if name != "openai" or not ask or is_loopback(url) or not at_terminal():
        return open_backend(name, settings)
    # OpenAI itself takes no request without a key; other servers may.
    key = (settings.secrets or Secrets.from_environ(os.environ)).key()
    if urlsplit(url).hostname == "api.openai.com" and not key.strip():
        settings = _with_typed_key(settings, url)
    for prompts_left in reversed(range(_KEY_PROMPTS)):
        backend = open_backend(name, settings)
        try:
            await backend.models()
        except NotAuthorized:
            await backend.aclose()
            if not prompts_left:
                raise
            settings = _with_typed_key(settings, url)
        except BackendError:
            # It has no list of models, or is down: the run itself reports that.
            return backend
        else:
            return backend
    raise AssertionError("the last prompt returns or raises")


def _with_typed_key(settings: BackendSettings, url: str) -> BackendSettings:
    host = urlsplit(url).hostname or url
    key = ask_secret(f"API key for {host} (not shown, and used for this run only):", sys.stderr)
    if not key:
        raise UsageError(f"{host} needs an API key, and none was typed", hint="use --key-file FILE, or OPENAI_API_KEY")
    return dataclasses.replace(settings, api_key=key)


async def start_at_server_slots(plan: RunPlan, servers: Servers) -> RunPlan:
    """Start adaptive concurrency with the number of requests that the server works on at once, if it says so."""
    from mellea_cli.backends.openai import OpenAIBackend

    if plan.start is None or not isinstance(servers, OpenAIBackend):
        return plan
    slots = await servers.read_slots()
    return dataclasses.replace(plan, start=min(slots, plan.concurrency)) if slots else plan


# Pools of servers.

PoolBackend = Literal["ollama", "openai"]
Url = Annotated[StrictStr, Field(min_length=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Concurrency = Annotated[StrictInt, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: PoolBackend | None = None
    model: StrictStr | None = None
    concurrency: Concurrency | None = None
    key_env: StrictStr | None = None


class EndpointTable(_Table):
    """One server, as written under `[[pool.NAME.endpoints]]`."""

    url: Url
    name: StrictStr = ""
    weight: Weight = 1.0


class PoolTable(_Table):
    """A pool, as written under `[pool.NAME]`; its values hold for endpoints that have none of their own."""

    urls: list[Url] = []
    weights: list[Weight] | None = None
    endpoints: list[EndpointTable] = []


@dataclass(frozen=True, slots=True)
class PoolEndpoint:
    """One server of a pool with everything that a run needs to know about it."""

    name: str  # the given one, else host and port
    url: str
    backend: str
    model: str  # its name on this server
    concurrency: int
    weight: float = 1.0
    key_env: str = ""  # the variable that holds the key


@dataclass(frozen=True, slots=True)
class Pool:
    """The servers of a run."""

    name: str  # as in the configuration file; empty for several `--base-url`
    # Both are part of an answer's key.
    backend: str  # the one that all share, or `pool`
    model: str  # what all of them serve, whatever each server calls it
    endpoints: tuple[PoolEndpoint, ...]
    concurrency: int  # over all endpoints
    warning: str = ""

    @property
    def reason(self) -> str:
        """One sentence for the user."""
        number = len(self.endpoints)
        endpoints = f"the {number} endpoints of {self.name}" if self.name else f"{number} endpoints"
        return f"asking {endpoints}: {', '.join(endpoint.name for endpoint in self.endpoints)}"


def find_pool(options: RunOptions, environ: Mapping[str, str] = os.environ) -> Pool | None:
    """The pool that the options name, `None` when they name at most one server."""
    if options.pool:
        path = config_path(environ)
        pool = resolve_pool(read_pool(read_config(path), options.pool, str(path)), options, options.pool)
        for endpoint in pool.endpoints:
            _check_key(endpoint, pool.name, environ)
        return pool
    if not options.has_pool:
        return None
    urls = options.base_url or []
    if options.backend not in (*get_args(PoolBackend), "auto"):
        raise UsageError(f"--backend {options.backend} has no addresses", hint="omit --base-url, or --backend")
    backend = None if options.backend == "auto" else options.backend
    # A key belongs to one host, and is not sent to several.
    one_host = len({urlsplit(_with_scheme(url)).hostname for url in urls}) == 1
    warning = ""
    if not one_host and environ.get(API_KEY):
        warning = (
            f"{API_KEY} is sent to none of the servers, as they are on several hosts: set each one's key in a pool"
        )
    table = PoolTable.model_validate({"urls": urls, "backend": backend, "key_env": API_KEY if one_host else None})
    return resolve_pool(table, options, "", warning)


def read_pool(config: Mapping[str, Any], name: str, file: str) -> PoolTable:
    """Read `[pool.NAME]` of the configuration file `file`."""
    pools = config.get(POOLS)
    pools = pools if isinstance(pools, dict) else {}
    if not isinstance(pools.get(name), dict):
        known = ", ".join(sorted(pools))
        hint = f"choose one of {known}" if known else f"name its urls in a table [pool.{name}]"
        raise UsageError(f"{file}: there is no pool {name!r}", hint=hint)
    place = f"{file}: [pool.{name}]"
    try:
        table = PoolTable.model_validate(pools[name])
    except ValidationError as error:
        raise _usage_error(error, place) from error
    if table.weights is not None and len(table.weights) != len(table.urls):
        raise UsageError(f"{place} weights are not as many as urls", hint="give each address its weight, or none")
    if not (table.urls or table.endpoints):
        raise UsageError(f"{place} names no endpoint", hint='add urls = ["http://HOST:PORT", ...]')
    _endpoint_names(_endpoint_tables(table), place)
    return table


# What to write instead, by key.
_EXAMPLES = {
    "url": 'write url = "http://HOST:PORT"',
    "urls": 'write urls = ["http://HOST:PORT", ...]',
    "weights": "a weight is a number above 0: 2 gets twice as much work as 1",
    "weight": "a weight is a number above 0: 2 gets twice as much work as 1",
    "endpoints": "write each one under [[pool.NAME.endpoints]]",
    "concurrency": "write a number of requests from 1 on",
    "backend": f"choose one of {', '.join(get_args(PoolBackend))}",
}


def _usage_error(error: ValidationError, place: str) -> UsageError:
    """The first problem of a pool's tables, with its key and what to write instead."""
    first = error.errors()[0]
    path, given = first["loc"], first["input"]
    key = next(part for part in reversed(path) if isinstance(part, str))
    if path[0] == "endpoints" and len(path) > 1:
        place += f" endpoint {int(path[1]) + 1}:"
    if first["type"] == "extra_forbidden":
        known = (EndpointTable if path[0] == "endpoints" else PoolTable).model_fields
        near = nearest(key, known)
        hint = f"did you mean {near!r}?" if near else f"the settings are {', '.join(sorted(known))}"
        return UsageError(f"{place} there is no setting {key!r}", hint=hint)
    if first["type"] == "missing":
        return UsageError(f"{place} {key} is missing", hint=_EXAMPLES[key])
    problem = first["msg"][0].lower() + first["msg"][1:]
    return UsageError(f"{place} {key} = {given!r}: {problem}", hint=_EXAMPLES.get(key, f'write {key} = "..."'))


def resolve_pool(table: PoolTable, options: RunOptions, name: str, warning: str = "") -> Pool:
    """Give each endpoint of a table its name, model and concurrency."""
    tables = _endpoint_tables(table)
    protocols = [one.backend or table.backend or protocol_of(one.url) for one in tables]
    backend = protocols[0] if len(set(protocols)) == 1 else "pool"
    own_models = {one.model for one in tables if one.model}
    model = table.model or options.model
    if not model and len(own_models) == 1:
        model = next(iter(own_models))
    if not model and not own_models and backend == "ollama":
        model = DEFAULT_OLLAMA_MODEL
    if not model:
        raise UsageError(
            "the endpoints' model has no name",
            hint=f"add model = ... to [pool.{name}]" if name else "name it with -m MODEL",
        )
    if table.model and options.model and options.model != table.model:
        warning = f"{warning} The pool's own model, {table.model}, is used, not {options.model}.".strip()
    endpoints = tuple(
        PoolEndpoint(
            endpoint_name,
            one.url,
            protocol,
            one.model or model,
            one.concurrency or table.concurrency or options.concurrency or backend_info(protocol).concurrency,
            one.weight,
            (table.key_env if one.key_env is None else one.key_env) or "",
        )
        for endpoint_name, one, protocol in zip(_endpoint_names(tables, "--base-url"), tables, protocols, strict=True)
    )
    total = sum(one.concurrency for one in endpoints)
    most = options.concurrency or options.max_concurrency or total
    return Pool(name, backend, model, endpoints, min(most, total), warning)


def protocol_of(url: str) -> str:
    """The protocol that an address speaks: Ollama's own has no path, OpenAI's mostly ends in `/v1`."""
    return "openai" if urlsplit(_with_scheme(url)).path.strip("/") else "ollama"


def _endpoint_tables(table: PoolTable) -> list[EndpointTable]:
    weights = table.weights or [1.0] * len(table.urls)
    short = [EndpointTable(url=url, weight=weight) for url, weight in zip(table.urls, weights, strict=True)]
    return [*short, *table.endpoints]


def _endpoint_names(tables: Sequence[EndpointTable], place: str) -> list[str]:
    """A distinct name for each endpoint: host and port, or the whole address where that is not enough."""
    urls = [one.url.rstrip("/") for one in tables]
    hosts = [urlsplit(_with_scheme(url)).netloc.rpartition("@")[2] for url in urls]
    names = [
        one.name or (host if hosts.count(host) == 1 else redact_url(url))
        for one, host, url in zip(tables, hosts, urls, strict=True)
    ]
    for url, name in zip(urls, names, strict=True):
        if urls.count(url) > 1:
            raise UsageError(f"{place} {redact_url(url)} is there twice", hint="name each endpoint once")
        if names.count(name) > 1:
            raise UsageError(f"{place} two endpoints are called {name!r}", hint="give each a name of its own")
    return names


def _check_key(endpoint: PoolEndpoint, pool: str, environ: Mapping[str, str]) -> None:
    if endpoint.key_env and not environ.get(endpoint.key_env, "").strip():
        raise UsageError(
            f"pool {pool}: {endpoint.key_env}, the key of {endpoint.name}, is not set",
            hint=f"export {endpoint.key_env}=... and run the same command again",
        )


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"
