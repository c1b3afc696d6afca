"""The backends by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.registry import BACKENDS, open_backend
from mellea_cli.errors import UsageError


@pytest.mark.parametrize("name", ["ollama", "openai", "scripted"])
async def test_a_backend_opens_by_its_name(name: str) -> None:
    """Each name opens the backend that bears it, and nothing is sent."""
    backend = open_backend(name, BackendSettings(base_url="http://127.0.0.1:1", concurrency=4))
    assert backend.name == name
    await backend.aclose()


def test_an_unknown_name_lists_the_others() -> None:
    """A name that is not there is a usage error that lists those that are."""
    with pytest.raises(UsageError, match="'olama'") as caught:
        open_backend("olama")
    assert all(name in caught.value.hint for name in BACKENDS)


def test_settings_do_not_show_the_key() -> None:
    """The key stands in no repr."""
    assert "sk-secret" not in repr(BackendSettings(api_key="sk-secret"))


def test_opening_imports_no_http_client() -> None:
    """Start-up is part of the product: backends and their choice load nothing heavy before the first request."""
    code = (
        "import sys, mellea_cli.backends.registry\n"
        "from mellea_cli.backends.registry import BackendSettings, open_backend\n"
        "settings = BackendSettings(base_url='http://127.0.0.1:1')\n"
        "for name in ('ollama', 'openai', 'scripted'): open_backend(name, settings)\n"
        "print(sorted({'httpx', 'aiohttp', 'pydantic', 'rich', 'asyncio'} & set(sys.modules) - {'asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
