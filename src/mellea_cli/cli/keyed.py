"""A key for a server on another machine: asked for at a terminal, before the first row, when the server wants one."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

from mellea_cli.backends.base import Backend
from mellea_cli.backends.registry import BackendSettings, open_backend
from mellea_cli.errors import BackendError, NotAuthorized, UsageError

_TRIES = 3


async def open_keyed(name: str, settings: BackendSettings, *, ask: bool) -> Backend:
    """Open a backend; where its server says no to the key, ask the user for another one.

    Only a server on another machine is asked beforehand, and only when somebody can answer: its list of models shows
    whether the key will do. Off a terminal nothing is sent and nothing is asked.

    Args:
        name: the backend.
        settings: what to open it with.
        ask: whether questions are wanted at all; they are asked at a terminal only.

    Raises:
        UsageError: as `open_backend`.
        NotAuthorized: no key was typed that the server takes.
    """
    from mellea_cli.backends.connection import is_loopback
    from mellea_cli.backends.openai import server_url

    url = server_url(settings.base_url)
    if name != "openai" or not ask or is_loopback(url) or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return open_backend(name, settings)
    settings = _with_key(settings, url) if _needs_one(url) else settings
    for left in reversed(range(_TRIES)):
        backend = open_backend(name, settings)
        try:
            await backend.models()
        except NotAuthorized:
            await backend.aclose()
            if not left:
                raise
            settings = _with_key(settings, url)
        except BackendError:
            # It has no list, or is away: the run itself will say so.
            return backend
        else:
            return backend
    raise AssertionError("the last try returns or raises")


def _needs_one(url: str) -> bool:
    """Whether there is no key for the one server that takes nobody without."""
    from mellea_cli.backends.keys import api_key

    return urlsplit(url).hostname == "api.openai.com" and not api_key(os.environ).strip()


def _with_key(settings: BackendSettings, url: str) -> BackendSettings:
    import dataclasses

    from mellea_cli.ui.secret import ask_secret

    host = urlsplit(url).hostname or url
    key = ask_secret(f"key for {host} (it is not shown, and kept for this run only):", sys.stderr)
    if not key:
        raise UsageError(f"{host} wants a key, and none was given", hint="use --key-file FILE, or set OPENAI_API_KEY")
    return dataclasses.replace(settings, api_key=key)
