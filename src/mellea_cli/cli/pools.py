"""The pool that a run uses: which one was asked for, its endpoints opened and looked at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mellea_cli.cli.choose import prepare
from mellea_cli.cli.poolconfig import EndpointSpec, PoolSpec, of_addresses, read_pool
from mellea_cli.errors import BackendError, BackendUnavailable, Scope, UsageError

if TYPE_CHECKING:
    from mellea_cli.cli.flags import Flags
    from mellea_cli.engine.lane import Endpoint

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

    from mellea_cli.backends.auto import DEFAULT_OLLAMA_MODEL

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
async def opened(pool: Pool, *, pull: bool, say: Callable[[str], None]) -> AsyncIterator[tuple[Endpoint, ...]]:
    """The pool's endpoints, each looked at once; every connection is closed at the end.

    One that cannot be used is said, and either tried again later or left out.

    Raises:
        BackendError: none of them can be used.
        UsageError: an address may not be connected to.
    """
    from mellea_cli.backends.registry import BackendSettings, open_backend
    from mellea_cli.engine.lane import Endpoint

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
            # As with a single Ollama, see `mellea_cli.cli.launch`; where all are Ollamas the plan says it already.
            thinking = False if one.backend == "ollama" else None
            endpoints.append(
                Endpoint(one.name, backend, one.model or pool.model, one.concurrency or 1, one.weight, thinking)
            )
        yield await _looked_at(endpoints, pull=pull, say=say)


async def _looked_at(endpoints: Sequence[Endpoint], *, pull: bool, say: Callable[[str], None]) -> tuple[Endpoint, ...]:
    import dataclasses

    async def trouble(endpoint: Endpoint) -> BackendError | None:
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
    return tuple(dataclasses.replace(one, trouble=error) for one, error in zip(endpoints, troubles, strict=True))


def _none_usable(found: Sequence[tuple[Endpoint, BackendError]]) -> BackendError:
    message = "; ".join(f"{endpoint.name}: {error.message}" for endpoint, error in found)
    hint = next((error.hint for _, error in found if error.hint), "")
    return BackendUnavailable(f"no endpoint of the pool can be used: {message}", hint=hint)
