"""Pools of endpoints: how they are named, and the pool that a run uses, opened and looked at.

The configuration file or several `--base-url` name a pool. The short form names addresses that are alike, the long form
gives each endpoint a table of its own; both may be mixed::

    [pool.office]
    model = "granite4.1:3b"
    urls = ["http://127.0.0.1:11434", "http://127.0.0.1:11435"]
    weights = [2, 1]

    [[pool.office.endpoints]]
    name = "desk"
    url = "http://127.0.0.1:8080/v1"
    model = "granite-4.1-3b"
    concurrency = 8
    key_env = "DESK_KEY"
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mellea_cli.cli.backend_setup import prepare
from mellea_cli.errors import BackendError, BackendUnavailable, Scope, UsageError, nearest

if TYPE_CHECKING:
    from mellea_cli.cli.flags import Flags
    from mellea_cli.engine.endpoint import EndpointConfig


KINDS = ("ollama", "openai")
_POOL_KEYS = frozenset({"model", "backend", "urls", "weights", "concurrency", "key_env", "endpoints"})
_ENDPOINT_KEYS = frozenset({"url", "name", "backend", "model", "concurrency", "weight", "key_env"})


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint as it was named.

    Args:
        name: what it is called; its host and port where nobody says.
        url: its address.
        backend: `ollama` or `openai`.
        model: the model's name there; `None` for the pool's.
        concurrency: requests in flight there at most; `None` leaves that open.
        weight: how much it is preferred while there is a choice.
        key_env: the variable that holds its key; empty for none.
    """

    name: str
    url: str
    backend: str
    model: str | None = None
    concurrency: int | None = None
    weight: float = 1.0
    key_env: str = ""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as it was named.

    Args:
        name: empty for one made of several `--base-url`.
        model: what all of them serve; `None` where nobody says.
        endpoints: at least one.
    """

    name: str
    model: str | None
    endpoints: tuple[EndpointSpec, ...]

    @property
    def backend(self) -> str:
        """The kind that all endpoints share, or `pool`."""
        kinds = {endpoint.backend for endpoint in self.endpoints}
        return kinds.pop() if len(kinds) == 1 else "pool"


def kind_of(url: str) -> str:
    """The protocol that an address speaks: Ollama's own has no path, that of OpenAI mostly ends in `/v1`."""
    address = url if "://" in url else f"http://{url}"
    return "openai" if urlsplit(address).path.strip("/") else "ollama"


def of_addresses(urls: Sequence[str], backend: str, key_env: str) -> PoolSpec:
    """The pool of several `--base-url`.

    Raises:
        UsageError: one stands there twice, or the backend has no addresses.
    """
    if backend not in (*KINDS, "auto"):
        raise UsageError(f"--backend {backend} has no addresses", hint="leave --base-url out, or --backend")
    endpoints = [EndpointSpec("", url, backend if backend in KINDS else kind_of(url), key_env=key_env) for url in urls]
    return PoolSpec("", None, _named(endpoints, "--base-url"))


def read_pool(config: Mapping[str, Any], name: str, where: str) -> PoolSpec:
    """The pool of this name.

    Args:
        config: the configuration file's content.
        name: as `--pool` has it.
        where: the file, for messages.

    Raises:
        UsageError: there is none, or it cannot be used.
    """
    pools = config.get("pool")
    pools = pools if isinstance(pools, dict) else {}
    table = pools.get(name)
    if not isinstance(table, dict):
        known = ", ".join(sorted(pools))
        hint = f"choose one of {known}" if known else f"name its urls in a table [pool.{name}]"
        raise UsageError(f"{where}: there is no pool {name!r}", hint=hint)
    place = f"{where}: [pool.{name}]"
    _refuse_unknown(table, _POOL_KEYS, place)
    endpoints = [*_short_form(table, place), *_long_form(table, place)]
    if not endpoints:
        raise UsageError(f"{place} names no endpoint", hint='add urls = ["http://HOST:PORT", ...]')
    return PoolSpec(name, _text(table, "model", place), _named(endpoints, place))


def _short_form(table: Mapping[str, Any], place: str) -> Iterator[EndpointSpec]:
    urls, weights = table.get("urls", []), table.get("weights")
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise UsageError(f"{place} urls is not a list of addresses", hint='write urls = ["http://HOST:PORT", ...]')
    if weights is not None and (not isinstance(weights, list) or len(weights) != len(urls)):
        raise UsageError(f"{place} weights are not as many as urls", hint="give each address its weight, or none")
    for index, url in enumerate(urls):
        own = {"url": url} if weights is None else {"url": url, "weight": weights[index]}
        yield _endpoint(own, table, place)


def _long_form(table: Mapping[str, Any], place: str) -> Iterator[EndpointSpec]:
    endpoints = table.get("endpoints", [])
    if not isinstance(endpoints, list) or not all(isinstance(one, dict) for one in endpoints):
        raise UsageError(f"{place} endpoints are not tables", hint="write each one under [[pool.NAME.endpoints]]")
    for one in endpoints:
        _refuse_unknown(one, _ENDPOINT_KEYS, f"{place} endpoints:")
        yield _endpoint(one, table, place)


def _endpoint(own: Mapping[str, Any], pool: Mapping[str, Any], place: str) -> EndpointSpec:
    """An endpoint with what the pool says for all of them; its model stays open where it has no name of its own."""
    both = {key: pool[key] for key in ("backend", "concurrency", "key_env") if key in pool} | dict(own)
    url = _text(both, "url", place)
    if not url:
        raise UsageError(f"{place} an endpoint has no url", hint='add url = "http://HOST:PORT"')
    backend = _text(both, "backend", place) or kind_of(url)
    if backend not in KINDS:
        raise UsageError(f"{place} backend {backend!r} cannot be in a pool", hint=f"choose one of {', '.join(KINDS)}")
    concurrency, weight = both.get("concurrency"), both.get("weight", 1)
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise UsageError(f"{place} concurrency {concurrency!r} is not a number of requests", hint="write 1 or more")
    if type(weight) not in (int, float) or not 0 < weight < float("inf"):
        raise UsageError(f"{place} weight {weight!r} is not a number above 0", hint="2 gets twice as much as 1")
    key_env = _text(both, "key_env", place) or ""
    return EndpointSpec(
        _text(both, "name", place) or "", url, backend, _text(both, "model", place), concurrency, float(weight), key_env
    )


def _text(table: Mapping[str, Any], key: str, place: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{place} {key} = {value!r} is not a text", hint=f'write {key} = "..."')
    return value or None


def _named(endpoints: Sequence[EndpointSpec], place: str) -> tuple[EndpointSpec, ...]:
    """The endpoints, each with a name of its own: host and port, or the whole address where that is not enough."""
    import dataclasses

    from mellea_cli.backends.security import redact_url

    urls = [endpoint.url.rstrip("/") for endpoint in endpoints]
    for url in urls:
        if urls.count(url) > 1:
            raise UsageError(f"{place} {redact_url(url)} stands there twice", hint="name each endpoint once")
    hosts = [urlsplit(url if "://" in url else f"http://{url}").netloc.rpartition("@")[2] for url in urls]
    names = [
        endpoint.name or (host if hosts.count(host) == 1 else redact_url(url))
        for endpoint, host, url in zip(endpoints, hosts, urls, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{place} two endpoints are called {name!r}", hint="give each a name of its own")
    return tuple(dataclasses.replace(one, name=name) for one, name in zip(endpoints, names, strict=True))


def _refuse_unknown(table: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    for key in table:
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise UsageError(f"{place} there is no setting {key!r}", hint=hint)


_KEY = "OPENAI_API_KEY"
# Requests in flight at one endpoint where nobody says; the best number is sought only with one server.
_PLACES = {"ollama": 4, "openai": 16}
# How strongly a value was asked for, by where Click found it.
_RANKS = {"COMMANDLINE": 3, "ENVIRONMENT": 2, "DEFAULT_MAP": 1}


@dataclass(frozen=True, slots=True)
class Pool:
    """The endpoints of a run.

    Args:
        backend: the kind that all share, or `pool`: part of what an answer's key is made of.
        model: what all of them serve, whatever it is called there: the other part.
        endpoints: their settings, each with model and concurrency.
        concurrency: requests in flight at most, over all of them.
        reason: one sentence for the user.
        warning: what the user should know; empty for nothing.
    """

    backend: str
    model: str
    endpoints: tuple[EndpointSpec, ...]
    concurrency: int
    reason: str
    warning: str = ""


def weighed(parameters: Mapping[str, Any], source_of: Callable[[str], Any]) -> dict[str, Any]:
    """The parameters of a command with `--pool` and `--base-url` held against each other.

    A flag beats a variable, a variable the file, as with all settings; in the file, a pool beats the rest. One address
    alone stays `base_url`; several are `base_urls`.

    Args:
        parameters: by name; `base_url` is a sequence.
        source_of: where a parameter's value comes from, as Click tells it.

    Raises:
        UsageError: a pool and other addresses were asked for in the same breath.
    """
    settled = dict(parameters)
    ranks = {name: _RANKS.get(getattr(source_of(name), "name", ""), 0) for name in ("pool", "base_url", "backend")}
    other = "base_url" if ranks["base_url"] >= ranks["backend"] else "backend"
    if settled["pool"] and ranks[other] == ranks["pool"] > 1:
        flag = f"--{other.replace('_', '-')}"
        raise UsageError(f"--pool names its servers itself, and {flag} names others", hint=f"leave out {flag}")
    if settled["pool"] and ranks[other] > ranks["pool"]:
        settled["pool"] = None
    if settled["pool"]:
        settled["base_url"] = None
    urls = tuple(settled["base_url"] or ())
    settled["base_url"] = urls[0] if len(urls) == 1 else None
    settled["base_urls"] = urls if len(urls) > 1 else ()
    return settled


def wanted_pool(flags: Flags, environ: Mapping[str, str] = os.environ) -> Pool | None:
    """The pool that was asked for, or `None` when it is not several servers.

    Raises:
        UsageError: it cannot be used as it is named, or a key is missing.
    """
    if flags.pool:
        from mellea_cli.cli.settings import config_path, read_config

        path = config_path(environ)
        spec, warning = read_pool(read_config(path), flags.pool, str(path)), ""
    elif flags.base_urls:
        key, warning = _shared_key(flags, environ)
        spec = of_addresses(flags.base_urls, flags.backend, key)
    else:
        return None
    _check_keys(spec, environ)
    return _settled(spec, flags, warning)


def _shared_key(flags: Flags, environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable whose key all addresses of the command line get: only one host's, as a key belongs to one."""
    hosts = {urlsplit(url if "://" in url else f"http://{url}").hostname for url in flags.base_urls}
    if len(hosts) == 1:
        return _KEY, ""
    told = f"{_KEY} is sent to none of the servers, as they are on several hosts: name each one's key in a pool"
    return "", told if environ.get(_KEY) else ""


def _check_keys(spec: PoolSpec, environ: Mapping[str, str]) -> None:
    for endpoint in spec.endpoints:
        if endpoint.backend != "openai" and spec.name and endpoint.key_env:
            raise UsageError(
                f"pool {spec.name}: {endpoint.name} is an Ollama, which takes no key",
                hint='leave key_env out, or give it backend = "openai"',
            )
        if spec.name and endpoint.key_env and not environ.get(endpoint.key_env, "").strip():
            raise UsageError(
                f"pool {spec.name}: {endpoint.key_env}, the key of {endpoint.name}, is not set",
                hint=f"export {endpoint.key_env}=... and run the same command again",
            )


def _settled(spec: PoolSpec, flags: Flags, warning: str) -> Pool:
    """The pool with a model and a limit for each endpoint."""
    import dataclasses

    from mellea_cli.backends.registry import DEFAULT_OLLAMA_MODEL

    own = {endpoint.model for endpoint in spec.endpoints if endpoint.model}
    model = spec.model or flags.model
    if model is None and len(own) == 1:
        model = own.copy().pop()
    if model is None and not own and spec.backend == "ollama":
        model = DEFAULT_OLLAMA_MODEL
    if model is None:
        raise UsageError(
            "the model that the endpoints serve needs a name",
            hint=f"add model = ... to [pool.{spec.name}]" if spec.name else "name it with -m MODEL",
        )
    if spec.model and flags.model and flags.model != spec.model:
        warning = f"{warning} The pool's own model, {spec.model}, is asked, not {flags.model}.".strip()
    asked, most = flags.concurrency, flags.concurrency or flags.max_concurrency
    endpoints = tuple(
        dataclasses.replace(
            one,
            model=one.model or model,
            concurrency=one.concurrency or asked or _PLACES[one.backend],
        )
        for one in spec.endpoints
    )
    places = sum(one.concurrency or 1 for one in endpoints)
    names = ", ".join(one.name for one in endpoints)
    called = f"the {len(endpoints)} endpoints of {spec.name}" if spec.name else f"{len(endpoints)} endpoints"
    return Pool(spec.backend, model, endpoints, min(most or places, places), f"asking {called}: {names}", warning)


@asynccontextmanager
async def opened(pool: Pool, *, pull: bool, say: Callable[[str], None]) -> AsyncIterator[tuple[EndpointConfig, ...]]:
    """The pool's endpoints, each looked at once; every connection is closed at the end.

    One that cannot be used is said, and either tried again later or left out.

    Raises:
        BackendError: none of them can be used.
        UsageError: an address may not be connected to.
    """
    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.backends.registry import open_backend
    from mellea_cli.engine.endpoint import EndpointConfig

    async with AsyncExitStack() as stack:
        endpoints = []
        for one in pool.endpoints:
            settings = BackendSettings(
                model=one.model or pool.model,
                base_url=one.url,
                key_variable=one.key_env,
                # One more connection than requests: what asks whether it is back must not wait behind them.
                concurrency=(one.concurrency or 1) + 1,
            )
            backend = open_backend(one.backend, settings)
            stack.push_async_callback(backend.aclose)
            # As with a single Ollama, see `mellea_cli.cli.batch_run`; where all are Ollamas the plan says it already.
            thinking = False if one.backend == "ollama" else None
            endpoints.append(
                EndpointConfig(
                    one.name,
                    backend,
                    one.model or pool.model,
                    one.concurrency or 1,
                    weight=one.weight,
                    thinking=thinking,
                )
            )
        yield await _looked_at(endpoints, pull=pull, say=say)


async def _looked_at(
    endpoints: Sequence[EndpointConfig], *, pull: bool, say: Callable[[str], None]
) -> tuple[EndpointConfig, ...]:
    import dataclasses

    async def trouble(endpoint: EndpointConfig) -> BackendError | None:
        try:
            await prepare(endpoint.backend, endpoint.model, pull=pull)
        except BackendError as error:
            return error
        return None

    if pull:
        # One bar at a time.
        troubles = [await trouble(endpoint) for endpoint in endpoints]
    else:
        troubles = await asyncio.gather(*(trouble(endpoint) for endpoint in endpoints))
    found = [(one, error) for one, error in zip(endpoints, troubles, strict=True) if error is not None]
    if len(found) == len(endpoints):
        raise _none_usable(found)
    for endpoint, error in found:
        gone = error.scope is Scope.RUN
        state = "is left out of this run" if gone else "is set aside, and asked again by and by"
        say(f"{endpoint.name} {state}: {error.message}" + (f"; {error.hint}" if gone and error.hint else ""))
    return tuple(dataclasses.replace(one, error=error) for one, error in zip(endpoints, troubles, strict=True))


def _none_usable(found: Sequence[tuple[EndpointConfig, BackendError]]) -> BackendError:
    message = "; ".join(f"{endpoint.name}: {error.message}" for endpoint, error in found)
    hint = next((error.hint for _, error in found if error.hint), "")
    return BackendUnavailable(f"no endpoint of the pool can be used: {message}", hint=hint)
