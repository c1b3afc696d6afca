"""The backends by name. To add one, write its module and list its factory here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mellea_cli.backends.base import Backend
from mellea_cli.errors import UsageError


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
"""Name → factory. `auto` is not among them: it is a choice, see `mellea_cli.backends.auto`."""


def open_backend(name: str, settings: BackendSettings | None = None) -> Backend:
    """Open the backend of this name; nothing is sent and nothing is started yet.

    Raises:
        UsageError: there is no such backend, or a setting cannot be used.
    """
    factory = BACKENDS.get(name)
    if factory is None:
        raise UsageError(f"there is no backend {name!r}", hint=f"choose one of {', '.join(BACKENDS)}")
    return factory(settings or BackendSettings())
