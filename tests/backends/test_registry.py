"""The backends by name, and the choice among them against real Ollamas on loopback."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from loopback import ModelServer
from mellea_cli.backends import registry
from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.registry import (
    BACKENDS,
    DEFAULT_OLLAMA_MODEL,
    BackendChoice,
    choose_backend,
    open_backend,
    resolve_backend,
)
from mellea_cli.errors import ModelMissing, UsageError
from mellea_cli.models.catalogue import DEFAULT_MODEL


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


Serve = Callable[..., ModelServer]


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded backend can run every model, whatever is installed here."""
    monkeypatch.setattr(registry, "can_run_embedded", lambda _: True)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_an_ollama_with_the_model_is_taken(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running Ollama that has the wanted model, the default one or another, is the choice."""
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    assert await choose_backend(None) == BackendChoice(
        "ollama", DEFAULT_OLLAMA_MODEL, f"Ollama at {server.url} has {DEFAULT_OLLAMA_MODEL}"
    )
    assert (await choose_backend("test-model")).backend == "ollama"
    assert server.state.lookups == ["/api/tags", "/api/tags"]


async def test_an_ollama_without_the_model_is_not(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the exact model the embedded one is the choice, and the reason says so."""
    server = serve(models=("granite4.1:8b",))
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    choice = await choose_backend(None)
    assert choice == BackendChoice(
        "local",
        DEFAULT_MODEL,
        f"Ollama at {server.url} does not have granite4.1:3b; using the embedded model {DEFAULT_MODEL}",
    )


async def test_no_ollama_at_all(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing listens the embedded model is the choice, by default the catalogue's default."""
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{silent_port}")
    choice = await choose_backend(None)
    assert choice == BackendChoice(
        "local",
        DEFAULT_MODEL,
        f"no Ollama answers at http://127.0.0.1:{silent_port}; using the embedded model {DEFAULT_MODEL}",
    )
    assert (await choose_backend("mine.gguf")).model == "mine.gguf"


@pytest.mark.parametrize("host", ["http://ollama.example:11434", "192.0.2.7"])
async def test_another_machine_is_not_asked(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote OLLAMA_HOST is never contacted by itself, and the reason says how to have it asked."""
    monkeypatch.setenv("OLLAMA_HOST", host)
    choice = await choose_backend(None)
    assert choice.backend == "local"
    assert "--backend ollama" in choice.reason


async def test_a_host_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken OLLAMA_HOST does not stop a run that needs no Ollama."""
    monkeypatch.setenv("OLLAMA_HOST", "box:port")
    choice = await choose_backend(None)
    assert choice.backend == "local"
    assert "OLLAMA_HOST" in choice.reason


async def test_a_server_that_is_no_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else on the port, or something that never answers, counts as no Ollama."""
    release = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as peer:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{peer.sockets[0].getsockname()[1]}")
        monkeypatch.setattr("mellea_cli.backends.registry._ANSWER_S", 0.05)
        choice = await choose_backend(None)
        release.set()
    assert choice.backend == "local"
    assert "no Ollama answers" in choice.reason


@pytest.mark.parametrize(("model", "hint"), [(None, "pip install"), ("exotic", "ollama pull exotic")])
async def test_nothing_can_do_it(
    silent_port: int, model: str | None, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When neither has the model the error says why, and how to get it."""
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{silent_port}")
    monkeypatch.setattr(registry, "can_run_embedded", lambda _: False)
    with pytest.raises(ModelMissing, match="no Ollama answers") as caught:
        await choose_backend(model)
    assert hint in caught.value.hint


async def test_what_the_user_chose_is_taken_without_asking(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named backend gets its default model, an address means the OpenAI protocol, and nothing is contacted."""
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    assert await resolve_backend("ollama", None, None) == BackendChoice("ollama", DEFAULT_OLLAMA_MODEL, "")
    assert await resolve_backend("local", None, None) == BackendChoice("local", DEFAULT_MODEL, "")
    assert (await resolve_backend("auto", "m", server.openai_url)).backend == "openai"
    with pytest.raises(UsageError, match="named"):
        await resolve_backend("openai", None, server.openai_url)
    assert server.state.lookups == []
