"""Pools of servers: read from the configuration file or from several `--base-url`, and resolved for a run.

The short form of a pool lists servers that are alike (`urls`), the long form gives each one a table of its own
(`endpoints`); both may be mixed. docs/scaling.md has an example.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from mellea_cli.backends.registry import DEFAULT_OLLAMA_MODEL, backend_info
from mellea_cli.backends.security import redact_url
from mellea_cli.cli.settings import POOLS, config_path, read_config
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.errors import UsageError, nearest

_API_KEY = "OPENAI_API_KEY"

Protocol = Literal["ollama", "openai"]
Url = Annotated[StrictStr, Field(min_length=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Concurrency = Annotated[StrictInt, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Protocol | None = None
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
        pool = resolve(read_pool(read_config(path), options.pool, str(path)), options, options.pool)
        for endpoint in pool.endpoints:
            _check_key(endpoint, pool.name, environ)
        return pool
    if not options.has_pool:
        return None
    urls = options.base_url or []
    if options.backend not in (*get_args(Protocol), "auto"):
        raise UsageError(f"--backend {options.backend} has no addresses", hint="omit --base-url, or --backend")
    backend = None if options.backend == "auto" else options.backend
    # A key belongs to one host, and is not sent to several.
    one_host = len({urlsplit(_with_scheme(url)).hostname for url in urls}) == 1
    warning = ""
    if not one_host and environ.get(_API_KEY):
        warning = (
            f"{_API_KEY} is sent to none of the servers, as they are on several hosts: set each one's key in a pool"
        )
    table = PoolTable.model_validate({"urls": urls, "backend": backend, "key_env": _API_KEY if one_host else None})
    return resolve(table, options, "", warning)


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
    "backend": f"choose one of {', '.join(get_args(Protocol))}",
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


def resolve(table: PoolTable, options: RunOptions, name: str, warning: str = "") -> Pool:
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
