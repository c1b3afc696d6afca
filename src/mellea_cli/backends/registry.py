"""Backends by name, their defaults, and the automatic choice among them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mellea_cli.backends.base import Backend, BackendSettings
from mellea_cli.backends.security import is_loopback, redact_url
from mellea_cli.errors import BackendError, ModelMissing, UsageError
from mellea_cli.extensions import ExtensionPoint
from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL

BackendFactory = Callable[[BackendSettings], Backend]

DEFAULT_OLLAMA_MODEL = "granite4.1:3b"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A backend's factory and defaults."""

    factory: str = ""  # The entry point's value; empty for a backend of another package
    default_model: str = ""  # Empty when the user must name one
    address_variable: str = ""  # The environment variable with the server's address
    concurrency: int = 16  # Requests in flight where the number is fixed: endpoints of a pool, remote workers, sessions
    # Requests in flight at the start of adaptive concurrency; `None` for a backend that does not adapt
    adaptive_start: int | None = 8
    max_concurrency: int = 256  # Limit of adaptive concurrency


BACKENDS: Mapping[str, BackendInfo] = {
    # An Ollama works on a few requests at once and queues the others.
    "ollama": BackendInfo(
        "mellea_cli.backends.ollama:OllamaBackend.from_settings",
        default_model=DEFAULT_OLLAMA_MODEL,
        address_variable="OLLAMA_HOST",
        concurrency=4,
        adaptive_start=4,
        max_concurrency=32,
    ),
    "openai": BackendInfo("mellea_cli.backends.openai:OpenAIBackend.from_settings", address_variable="OPENAI_BASE_URL"),
    # The slots are made when the embedded server starts, and each holds a context in memory. Two cores answer most
    # with four of them, and more cores gain little from more than eight.
    "local": BackendInfo(
        "mellea_cli.backends.local:LocalBackend.from_settings",
        default_model=DEFAULT_MODEL,
        concurrency=4,
        adaptive_start=None,
        max_concurrency=8,
    ),
    # There is no server that could be overloaded.
    "scripted": BackendInfo(
        "mellea_cli.backends.scripted:ScriptedBackend.from_settings",
        default_model="scripted",
        adaptive_start=None,
        max_concurrency=64,
    ),
}
"""The built-in backends. `auto` is not one of them: it is a choice, see `resolve_backend`."""

BACKEND_FACTORIES: ExtensionPoint[BackendFactory] = ExtensionPoint(
    "mellea.backends", {name: info.factory for name, info in BACKENDS.items()}, ("auto",)
)


def backend_info(name: str) -> BackendInfo:
    """Return a backend's defaults; for one of another package they are general ones.

    Raises:
        UsageError: no backend has this name.
    """
    if (info := BACKENDS.get(name)) is not None:
        return info
    BACKEND_FACTORIES.check(name)
    return BackendInfo()


def open_backend(name: str, settings: BackendSettings | None = None) -> Backend:
    """Open a backend; nothing is sent or started yet.

    Raises:
        UsageError: no backend has this name, or a setting cannot be used.
    """
    return BACKEND_FACTORIES.require(name)(settings or BackendSettings())


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """A backend and a model, and why they were chosen."""

    backend: str
    model: str
    reason: str = ""  # One sentence for the user; empty when the user named the backend


async def resolve_backend(backend: str, model: str | None, base_url: str | None) -> BackendChoice:
    """Choose backend and model from what the user asked for. Only `auto` sends anything, and only to this machine.

    Raises:
        UsageError: the backend has no default model.
        ModelMissing: nothing on this machine has the model.
    """
    reason = ""
    if backend == "auto" and base_url is not None:
        # An address is an explicit choice, and every kind of server but Ollama's own speaks this protocol.
        backend, reason = "openai", f"asking the OpenAI-compatible server at {redact_url(base_url)}"
    elif backend == "auto":
        return await choose_backend(model)
    model = model or backend_info(backend).default_model
    if not model:
        needy = "an OpenAI-compatible server" if backend == "openai" else f"the backend {backend}"
        raise UsageError(f"{needy} needs a model to be named", hint="name it with -m MODEL")
    return BackendChoice(backend, model, reason)


def can_run_embedded(model: str | None) -> bool:
    """Whether the embedded backend can run this model (`None`: its default) once its file is here."""
    if importlib.util.find_spec("xllamacpp") is None:
        return False
    return model is None or model in CATALOGUE or model.endswith(".gguf")


async def choose_backend(model: str | None) -> BackendChoice:
    """Choose a running Ollama that has the model (`None`: the default), else the embedded model.

    Contacts loopback only. Raises `ModelMissing` when neither has the model.
    """
    found, why = await _ask_ollama(model or DEFAULT_OLLAMA_MODEL)
    if found:
        return BackendChoice("ollama", model or DEFAULT_OLLAMA_MODEL, why)
    if can_run_embedded(model):
        chosen = model or DEFAULT_MODEL
        return BackendChoice("local", chosen, f"{why}; using the embedded model {chosen}")
    if model is None:
        raise ModelMissing(
            f"{why}, and the embedded model cannot be used here",
            hint="install it with `pip install 'mellea-cli[local]'`, or start Ollama, or give --backend and --base-url",
        )
    hint = f"get it with `ollama pull {model}`, or see `mellea models list`"
    if _HOSTED.match(model):
        hint = f"its provider runs {model}: add --backend openai --base-url URL, the address of the provider's API"
    raise ModelMissing(f"{why}, and the embedded backend has no model {model}", hint=hint)


# Models that only their provider runs, by name, also as `vendor/name`. A tag such as `:24b` is Ollama's.
_HOSTED = re.compile(
    r"(?:[\w.-]+/)?(?:gpt-(?!oss)|chatgpt-|o[134](?:-|$)|claude|gemini-|grok-"
    r"|mistral-(?:large|medium|small)|(?:codestral|magistral|ministral)-|deepseek-(?:chat|reasoner))[^:]*$",
    re.IGNORECASE,
)


_CONNECT_S = 0.5
_ANSWER_S = 5.0


async def _ask_ollama(model: str) -> tuple[bool, str]:
    """Return whether an Ollama on this machine has the model, and a sentence about it without its full stop."""
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
