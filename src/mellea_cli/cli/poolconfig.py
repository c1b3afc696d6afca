"""Pools of endpoints, as the configuration file or several `--base-url` name them.

The short form names addresses that are alike, the long form gives each endpoint a table of its own; both may be mixed::

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

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mellea_cli.errors import UsageError

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

    from mellea_cli.backends.connection import without_secrets

    urls = [endpoint.url.rstrip("/") for endpoint in endpoints]
    for url in urls:
        if urls.count(url) > 1:
            raise UsageError(f"{place} {without_secrets(url)} stands there twice", hint="name each endpoint once")
    hosts = [urlsplit(url if "://" in url else f"http://{url}").netloc.rpartition("@")[2] for url in urls]
    names = [
        endpoint.name or (host if hosts.count(host) == 1 else without_secrets(url))
        for endpoint, host, url in zip(endpoints, hosts, urls, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{place} two endpoints are called {name!r}", hint="give each a name of its own")
    return tuple(dataclasses.replace(one, name=name) for one, name in zip(endpoints, names, strict=True))


def _refuse_unknown(table: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise UsageError(f"{place} there is no setting {key!r}", hint=hint)
