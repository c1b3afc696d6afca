"""Addresses and proxies."""

from __future__ import annotations

import pytest

from mellea_cli.backends.http import proxy_for
from mellea_cli.backends.security import is_loopback, redact_url, validate_url
from mellea_cli.errors import UsageError


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
    """A password or a query in the address is refused without being shown."""
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
