"""Where a server is and how to get there: addresses, keys, proxies, and the pool of connections."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from httpx_aiohttp import AiohttpTransport

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
