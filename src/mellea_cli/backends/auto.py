"""The choice of a backend when the user made none: a running Ollama on this machine, else the embedded model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from mellea_cli.backends.connection import is_loopback
from mellea_cli.errors import BackendError, ModelMissing, UsageError

DEFAULT_OLLAMA_MODEL = "granite4.1:3b"

_CONNECT_S = 0.5
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` came to."""

    backend: str
    """The backend's name in the registry."""
    model: str | None
    """The model to ask, or `None` for the embedded backend's own default."""
    reason: str
    """One sentence for the user."""


async def choose(
    model: str | None, *, has_local: Callable[[str | None], bool], local_default: str | None = None
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
        return Choice("local", chosen, f"{why}; using the embedded model" + (f" {chosen}" if chosen else ""))
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
