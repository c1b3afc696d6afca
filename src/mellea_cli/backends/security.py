"""Where the key of a paid server comes from: a private file or the environment, never a flag that others could see."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from httpx_aiohttp import AiohttpTransport


# Where a server is and how to get there: addresses, keys, proxies, and the pool of connections.

_KEEP_ALIVE_S = 30.0


def checked_url(url: str) -> str:
    """Return `url` without a trailing slash.

    Raises:
        UsageError: it is not an http or https address, or it carries a user name, a query or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        shown = without_secrets(url) or "an empty text"
        raise UsageError(
            f"{shown} is not a server's address", hint="write it as http://HOST:PORT, with /v1 if it has one"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            f"the address {without_secrets(url)} may not carry a user name, a query or a fragment",
            hint="put the key into OPENAI_API_KEY, or into a file for --key-file",
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def checked_key(key: str) -> str:
    """Return `key` without white space around it. Raises `UsageError` when it cannot stand in a header."""
    key = key.strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise UsageError("the API key contains white space or letters that no key has", hint="copy it again")
    return key


def without_secrets(url: str) -> str:
    """Return the part of an address that can be shown: no user name, no query."""
    try:
        parts = urlsplit(url.strip())
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "the address"


def is_loopback(url: str) -> bool:
    """Tell whether an address stays on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_transport(base_url: str, max_connections: int | None) -> AiohttpTransport:
    """Return a transport with a pool of its own; must be called inside the event loop that will use it.

    The pool's size is `max_connections`, and without limit when that is `None`: the libraries' own limit of 100 would
    be a second, hidden one. Cookies are not kept, and of the environment only proxies and certificates are read: a
    netrc file's password has nothing to do with a model server.

    Raises:
        UsageError: the environment names a kind of proxy that is not supported.
    """
    import httpx
    from httpx_aiohttp import AiohttpTransport

    proxy = proxy_for(base_url)
    # The certificates take 20 ms to load, and a plain http address never meets them as redirects are not followed.
    secure = base_url.startswith("https:")
    context = httpx.create_ssl_context(verify=secure)

    def session() -> ClientSession:
        import aiohttp

        limit = 0 if max_connections is None else max_connections
        connector = aiohttp.TCPConnector(limit=limit, keepalive_timeout=_KEEP_ALIVE_S, ssl=context)
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), skip_auto_headers=("Accept", "User-Agent")
        )

    return AiohttpTransport(verify=context, client=session, proxy=httpx.Proxy(proxy) if proxy else None)


def proxy_for(base_url: str) -> str:
    """Return the proxy that the environment names for an address, or nothing. Loopback never takes one.

    Raises:
        UsageError: it is not an http proxy.
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(base_url)
    if is_loopback(base_url) or proxy_bypass(parts.hostname or ""):
        return ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and not proxy.startswith(("http://", "https://")):
        raise UsageError(
            f"the proxy {without_secrets(proxy)} is of a kind that is not supported",
            hint="set HTTPS_PROXY to an http proxy, or NO_PROXY to the server's host",
        )
    return proxy


# How far traffic may go: every connection that this program opens asks here first.

LOCAL_ONLY = "MELLEA_LOCAL_ONLY"
ALLOW_HTTP = "MELLEA_ALLOW_HTTP"

_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What may be connected to.

    Args:
        local_only: nothing but this machine.
        allow_http: other machines without TLS too, where everybody on the way can read along.
    """

    local_only: bool = False
    allow_http: bool = False

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Read `MELLEA_LOCAL_ONLY` and `MELLEA_ALLOW_HTTP`."""
        return cls(_is_on(environ.get(LOCAL_ONLY, "")), _is_on(environ.get(ALLOW_HTTP, "")))

    def permit(self, url: str) -> None:
        """Let an address pass.

        Raises:
            UsageError: it leads to another machine and nothing may, or without TLS and that may not be.
        """
        if is_loopback(url):
            return
        shown = without_secrets(url)
        if self.local_only:
            raise UsageError(
                f"{shown} is not on this machine, and --local-only allows nothing else",
                hint=f"use --backend local or a server on this machine, or drop --local-only ({LOCAL_ONLY})",
            )
        if url.lower().startswith("http:") and not self.allow_http:
            raise UsageError(
                f"{shown} is another machine without TLS: feedback and key could be read on the way",
                hint="use https, or --allow-http where the network can be trusted",
            )

    def permit_program(self, name: str) -> None:
        """Let a program run that connects on its own to wherever its own settings say.

        Raises:
            UsageError: nothing but this machine may be connected to.
        """
        if self.local_only:
            raise UsageError(
                f"{name} would connect to a package index, and --local-only allows nothing outside this machine",
                hint=f"fetch the model first without --local-only ({LOCAL_ONLY}): mellea models pull NAME",
            )


def _is_on(text: str) -> bool:
    return text.strip().lower() in _TRUE


KEY_FILE = "MELLEA_KEY_FILE"
"""Names a file with the key; it counts before `OPENAI_API_KEY`."""
API_KEY = "OPENAI_API_KEY"

_MOST_BYTES = 4_096
_named: set[str] = set()
_HEADER = re.compile(r"(?i)(['\"]?authorization['\"]?\s*[:=]\s*)?['\"]?bearer\s+[^\s'\"]+['\"]?")
_LOGIN = re.compile(r"://[^/@\s'\"]+@")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def api_key(environ: Mapping[str, str]) -> str:
    """The key: what stands in the file that `MELLEA_KEY_FILE` names, else `OPENAI_API_KEY`, else nothing.

    Raises:
        UsageError: the file cannot be read, others may read it too, or it holds something other than one key.
    """
    named = environ.get(KEY_FILE, "")
    return read_key(Path(named).expanduser()) if named else environ.get(API_KEY, "")


def key_named(variable: str, environ: Mapping[str, str]) -> str:
    """The key that the environment holds under this name; the usual one may stand in a file instead.

    Raises:
        UsageError: as `api_key`.
    """
    if variable == API_KEY:
        return api_key(environ)
    _named.add(variable)
    return environ.get(variable, "")


def read_key(path: Path) -> str:
    """Read a key from a file that nobody but its owner may read.

    Its mode is checked on the open file, so that it cannot be another one by the time it is read. Windows has no such
    modes: there the folder of the user keeps others out, and nothing is checked.

    Raises:
        UsageError: as `api_key`.
    """
    try:
        # A pipe, as from `<(pass show KEY)`, is as good as a file.
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and mode & _OTHERS:
                raise UsageError(
                    f"{path}: others may read or change this key file (mode {stat.S_IMODE(mode):04o})",
                    hint=f"make it private: chmod 600 {path}; if others could see the key, have it replaced",
                )
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: the key file cannot be read: {error.strerror or error}", hint="check --key-file"
        ) from error
    lines = content.decode("utf-8", "replace").removeprefix("\ufeff").split()
    if len(lines) != 1 or len(content) > _MOST_BYTES:
        what = "is empty" if not lines else "holds more than one key"
        raise UsageError(f"{path}: the key file {what}", hint="it holds the key and nothing else")
    return lines[0]


def scrubbed(text: str, environ: Mapping[str, str]) -> str:
    """Take every key, headers that carry one, and logins in addresses out of a text that is about to be written.

    No message of ours holds any of them; this is for what nobody has foreseen: the words of a bug.
    """
    known = {environ.get(variable, "").strip() for variable in (API_KEY, *_named)}
    with suppress(UsageError):
        known.add(api_key(environ).strip())
    for key in known - {""}:
        text = text.replace(key, "***")
    return _LOGIN.sub("://***@", _HEADER.sub("***", text))
