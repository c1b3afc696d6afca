"""The wire client: connections, error classes, and JSON events of a streamed answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit
from weakref import WeakSet

from mellea_cli.backends.http_errors import (
    DEFAULT_HINTS,
    HUNG_UP,
    ErrorObject,
    Hints,
    classify,
    describe_failure,
    is_error,
    one_line,
    page_title,
    reason_phrase,
)
from mellea_cli.backends.rate_limits import RateLimitStatus, read_rate_limits, retry_after_s
from mellea_cli.backends.security import (
    NetworkPolicy,
    check_certificates,
    is_loopback,
    redact_url,
    validate_key,
    validate_url,
)
from mellea_cli.backends.wire_format import MAX_LINE, AnyDecoder, decode, decode_all, encode, glued_objects, unwrapped
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    BadOutput,
    EndpointMissing,
    NotAuthorized,
    RateLimited,
    ServerFault,
    StreamBroken,
    UsageError,
)

if TYPE_CHECKING:
    import httpx
    from aiohttp import ClientSession, TCPConnector
    from aiohttp.connector import Connection
    from httpx_aiohttp import AiohttpTransport

Event = dict[str, Any]

MAX_ERROR_BODY = 64 * 1024  # Bytes of an error's body that are read

DONE: Event = {"done": True}  # The event that SSE's `[DONE]` becomes: an orderly end

_DONE = "[DONE]"
_STARTS = re.compile(r"\b(?:loading|starting|waking|building)\b", re.IGNORECASE)  # Titles of hosts that start a server
_KEEPS_ALIVE = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})  # Data that is no JSON and says nothing
_GZIP = 31  # zlib's code for a gzip header
_GZIP_START = b"\x1f"
_MOVED = frozenset({307, 308})
_NO_ANSWER = frozenset({202, 204})
_DRAIN_S = 1.0
_LONGEST_HEADER = 1 << 16  # Proxies add long ones
_KEEP_ALIVE_S = 30.0


class WireClient:
    """JSON over HTTP to one server.

    Nothing is imported or opened before the first request. Connections are kept and shared.

    Args:
        base_url: http or https address that every path is appended to.
        api_key: sent as a bearer token when not empty; no message contains it.
        headers: sent with every request.
        max_connections: `None` for no limit.
        connect_timeout_s: maximum seconds for opening a connection.
        hints: hints of errors, in addition to the default ones.
        network: hosts that may be reached; `None` takes the policy from the environment.

    Raises:
        UsageError: `base_url` is no address or may not be reached, or no header can carry `api_key`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        max_connections: int | None = None,
        connect_timeout_s: float = 10.0,
        hints: Hints | None = None,
        network: NetworkPolicy | None = None,
    ) -> None:
        self.base_url, mark, query = validate_url(base_url).partition("?")
        self._query = mark + query
        self._moves: dict[str, str] = {}  # Where the server has sent a path to
        (network or NetworkPolicy.from_environ(os.environ)).check_url(self.base_url)
        self._secret = validate_key(api_key)
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **(headers or {})}
        if self._secret:
            self._headers["Authorization"] = f"Bearer {self._secret}"
        self._max_connections = max_connections
        # No time limit on reading: the engine sets deadlines, and cancels.
        self._timeout = {"connect": connect_timeout_s, "read": None, "write": None, "pool": None}
        self._hints = {**DEFAULT_HINTS, **(hints or {})}
        self._transport: AiohttpTransport | None = None
        # Parsed once: building httpx's types costs more than the rest of a request's head.
        self._default_headers: httpx.Headers | None = None
        self._urls: dict[str, httpx.URL] = {}
        self._closed = False
        self.rate_limit_status: RateLimitStatus | None = None  # Status from the latest response with rate-limit headers

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[list[Event], None]:
        """POST `body` and yield the events of the answer, in lists of those that have arrived together.

        The generator ends with the response, or at SSE's `[DONE]`, which it yields as `DONE`. Closing it closes the
        connection.

        Raises:
            BackendError: `StreamBroken` when the answer had begun, else the class for what happened.
        """
        url, model = self.base_url + path, str(body.get("model", ""))
        response = await self._send("POST", url, encode(body), resend=True)
        try:
            # Looked up as bytes: each access through httpx's headers costs several calls.
            names = b" ".join([name for name, _ in response.headers.raw]).lower()
            if not 200 <= response.status_code < 300:
                raise await self._refusal(response, url, model)
            if response.status_code in _NO_ANSWER:
                raise ServerFault(f"{url} answered {reason_phrase(response.status_code)}, which is no answer yet")
            if b"ratelimit" in names:
                self.rate_limit_status = read_rate_limits(response.headers) or self.rate_limit_status
            decoder = AnyDecoder()
            async with aclosing(self._chunks(response, url)) as chunks:
                async for data in chunks:
                    if payloads := decoder.feed(data):
                        events, failure, done = self._parse(payloads, url, model)
                        if events:
                            yield events
                        if failure is not None:
                            raise failure
                        if done:
                            await _drain(chunks)
                            return
            events, failure, _ = self._parse(decoder.flush(), url, model)
            if events:
                yield events
            if failure is not None:
                raise failure
            if decoder.text:
                raise self._not_an_answer(response.status_code, decoder.text, url, model)
        finally:
            await _release(response)

    async def get_json(self, path: str, *, at_root: bool = False) -> Any:
        """GET `path`, below the base URL or at the server's root, and return the answer's JSON."""
        return await self._json("GET", urljoin(self.base_url, path) if at_root else self.base_url + path, None)

    async def post_json(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST `body` and return the answer's JSON."""
        return await self._json("POST", self.base_url + path, body)

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        *,
        content: AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Upload or download a file: send `content` and provide the answer's bytes as they arrive.

        Raises:
            BackendError: `StreamBroken` when the answer had begun, else the class for what happened.
        """
        url = self.base_url + path
        response = await self._send(method, url, content, headers)
        try:
            if not response.is_success:
                raise await self._refusal(response, url, "")
            async with aclosing(self._chunks(response, url)) as chunks:
                yield chunks
        finally:
            await _release(response)

    async def aclose(self) -> None:
        """Close every connection. May be called twice; a later request raises `UsageError`."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _json(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        response = await self._send(method, url, None if body is None else encode(body))
        try:
            if not response.is_success:
                raise await self._refusal(response, url, str((body or {}).get("model", "")))
            text = await self._read_body(response, url, MAX_LINE)
        finally:
            await _release(response)
        if isinstance(value := decode(text), ValueError):
            hint = self._hints.get(EndpointMissing, "")
            raise EndpointMissing(f"{url} answered with something other than JSON", hint=hint) from value
        return value

    async def _send(
        self,
        method: str,
        url: str,
        content: bytes | AsyncIterable[bytes] | None,
        headers: Mapping[str, str] | None = None,
        *,
        resend: bool = False,
    ) -> httpx.Response:
        """Send a request and return the response's head.

        With `resend` it is sent again when a connection that was kept ends before the first byte: the server closed it
        meanwhile, as llama.cpp's does after each streamed answer. That is no sign of an outage. And a redirect is
        followed, and remembered, where it leads to the same server, which may see the key.
        """
        import aiohttp
        import httpx

        if self._closed:
            raise UsageError(f"the connection to {self.base_url} has been closed")
        if self._transport is None:
            self._transport = open_transport(self.base_url, self._max_connections)
            self._default_headers = httpx.Headers(self._headers)
        target = self._moves.get(url, url)
        request = httpx.Request(
            method,
            self._urls.get(target) or self._urls.setdefault(target, httpx.URL(target + self._query)),
            headers=self._default_headers if headers is None else {**self._headers, **headers},
            content=content,
            extensions={"timeout": self._timeout},
        )
        while True:
            was_kept.set(False)
            try:
                response = await self._transport.handle_async_request(request)
            except (httpx.TransportError, aiohttp.ClientError, OSError) as exc:
                reason, cause = self._clean(describe_failure(exc)), _safe_cause(exc)
            else:
                if resend and response.status_code in _MOVED and url not in self._moves:
                    target = urljoin(url, response.headers.get("location", "")).partition("?")[0]
                    if urlsplit(target)[:2] == urlsplit(url)[:2]:
                        await _release(response)
                        self._moves[url] = target
                        return await self._send(method, url, content, headers, resend=True)
                return response
            if not (resend and was_kept.get() and reason == HUNG_UP):
                break
        # Raised outside of the handler, which would attach the unsafe error as the context.
        raise BackendUnavailable(
            f"cannot reach {url}: {reason}", hint=self._hints.get(BackendUnavailable, "")
        ) from cause

    async def _chunks(self, response: httpx.Response, url: str) -> AsyncGenerator[bytes, None]:
        import aiohttp
        import httpx
        from aiohttp.http_exceptions import HttpProcessingError

        unpack: Callable[[bytes], bytes] | None = None
        begun = False
        try:
            # The transport's own stream: each of httpx's layers above it costs as much per chunk as decoding does.
            stream = aiter(cast("httpx.AsyncByteStream", response.stream))
            async with aclosing(cast("AsyncGenerator[bytes, None]", stream)) as chunks:
                async for data in chunks:
                    if not begun:
                        begun, encoding = True, response.headers.get("content-encoding", "")
                        unpack = _unpacker(data, encoding, url) if encoding or data.startswith(_GZIP_START) else None
                    yield data if unpack is None else unpack(data)
        except (httpx.HTTPError, aiohttp.ClientError, HttpProcessingError, OSError, zlib.error) as exc:
            raise StreamBroken(f"the connection to {url} broke in the middle of an answer") from _safe_cause(exc)

    def _parse(self, payloads: list[str], url: str, model: str) -> tuple[list[Event], BackendError | None, bool]:
        """Return the events of the payloads up to a failure, the failure, and whether `[DONE]` was among them."""
        events: list[Event] = []
        done = _DONE in payloads
        if done:
            del payloads[payloads.index(_DONE) :]
        for payload, event in zip(payloads, decode_all(payloads), strict=True):
            several = glued_objects(payload) if isinstance(event, ValueError | list) else []
            if len(several) > 1 or (several and (isinstance(event, ValueError) or "choices" in several[0])):
                inner, inner_failure, _ = self._parse([json.dumps(one) for one in several], url, model)
                events += inner
                if inner_failure is not None:
                    return events, inner_failure, False
                continue
            if not event or payload.strip(' ":').lower() in _KEEPS_ALIVE:
                continue
            if isinstance(event, ValueError):
                failure = StreamBroken(f"{url} sent what is not JSON: {self._clean(one_line(payload, 80))}")
                failure.__cause__ = event
                return events, failure, False
            if not isinstance(event, dict):
                error = ErrorObject.read(event) if isinstance(event, list) else ErrorObject()
                if not (error.status or error.codes):
                    return events, StreamBroken(f"{url} sent JSON that is not an object"), False
                return events, self._error(error.status or 500, error, {}, url, model, inside=True), False
            # Nearly every event is a piece of an answer, which is seen without a call.
            piece = event if "choices" in event else unwrapped(event)
            if (piece.get("error") or not piece.get("choices") or "base_resp" in piece) and is_error(piece):
                error = ErrorObject.read(piece)
                return events, self._error(error.status or 500, error, {}, url, model, inside=True), False
            events.append(piece)
        if done:
            events.append(DONE)
        return events, None, done

    def _not_an_answer(self, status: int, text: str, url: str, model: str) -> BackendError:
        """The error for a 200 with a web page or other text: mostly the wrong address."""
        if text.startswith("<"):
            hint = self._hints.get(EndpointMissing, "")
            title = page_title(text)
            said = f"{url} answered with a web page" + (f": {title}" if title else "")
            if _STARTS.search(title):
                return ServerFault(said, status=status)
            return EndpointMissing(said, status=status, hint=hint)
        return self._error(status, ErrorObject.parse(text), {}, url, model)

    async def _refusal(self, response: httpx.Response, url: str, model: str) -> BackendError:
        try:
            text = await self._read_body(response, url, MAX_ERROR_BODY)
        except StreamBroken:
            text = ""
        error = ErrorObject.parse(text)
        # Not followed: it would send the key to another host.
        if response.has_redirect_location:
            target = redact_url(urljoin(url, response.headers["location"]))
            failure = self._error(response.status_code, ErrorObject(f"it redirects to {target}"), {}, url, model)
            path = url.removeprefix(self.base_url)
            if target.endswith(path):
                failure.hint = f"if this is the same server: --base-url {target.removesuffix(path)}"
            return failure
        return self._error(response.status_code, error, response.headers, url, model)

    def _error(
        self, status: int, error: ErrorObject, headers: Mapping[str, str], url: str, model: str, *, inside: bool = False
    ) -> BackendError:
        kind = classify(status, error, headers)
        text = one_line(error.message)
        if error.param and error.param not in text:
            text = f"{text} ({one_line(error.param, 80)})"
        text = "" if text.casefold() in reason_phrase(status).casefold() else self._clean(text)
        verdict = "reported an error inside the answer" if inside else f"answered {reason_phrase(status)}"
        hint = self._hints.get(kind, "").replace("{model}", model)
        if kind is NotAuthorized and error.sign_in:
            hint = f"{hint}, or at {one_line(error.sign_in)}"
        asked = retry_after_s(headers)
        return kind(
            f"{url} {verdict}" + (f": {text}" if text else ""),
            status=error.status if inside else status,
            retry_after_s=error.wait_s if asked is None and kind is RateLimited else asked,
            partial=error.output if kind is BadOutput else "",
            hint=hint,
        )

    async def _read_body(self, response: httpx.Response, url: str, limit: int) -> str:
        parts, size = [], 0
        async with aclosing(self._chunks(response, url)) as chunks:
            async for data in chunks:
                parts.append(data)
                size += len(data)
                if size >= limit:
                    break
        return b"".join(parts)[:limit].decode("utf-8", "replace")

    def _clean(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


def post_json(url: str, body: Mapping[str, Any], timeout_s: float) -> None:
    """Post one message to an address that the network policy allows. No redirect is followed.

    Raises:
        BackendUnavailable: it was not taken; the error names the host only, because such addresses often hold a secret.
    """
    import httpx

    check_certificates(url)
    host = urlsplit(url).hostname
    try:
        # A proxy of the environment would take a message for this machine to another one.
        answer = httpx.post(url, json=body, timeout=timeout_s, trust_env=not is_loopback(url))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else "cannot connect"
        raise BackendUnavailable(f"{host}: {reason}") from error
    if not answer.is_success:
        raise BackendUnavailable(f"{host} refused the message: status {answer.status_code}", status=answer.status_code)


def _unpacker(head: bytes, encoding: str, url: str) -> Callable[[bytes], bytes] | None:
    """Return what unpacks a body, by its first bytes rather than by what its header says; `None` for a plain one.

    Raises:
        EndpointMissing: it is packed in a way that was not asked for.
    """
    if head.startswith(_GZIP_START):
        return zlib.decompressobj(_GZIP).decompress
    encoding = encoding.strip().lower()
    if encoding == "deflate":
        return zlib.decompressobj(zlib.MAX_WBITS if head.startswith(b"x") else -zlib.MAX_WBITS).decompress
    if encoding in ("br", "zstd", "compress"):
        message = f"{url} answered with data packed as {encoding}, which was not asked for"
        raise EndpointMissing(message, hint="switch that off at the server, or at the proxy in front of it")
    return None


async def _drain(chunks: AsyncGenerator[bytes, None]) -> None:
    """Read a finished response to its end, so that its connection can be used again."""
    with suppress(TimeoutError, StreamBroken):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in chunks:
                pass


async def _release(response: httpx.Response) -> None:
    """Return the connection to the pool, or close it when the response is not at its end."""
    import httpx

    with suppress(httpx.HTTPError):
        await response.aclose()


def _safe_cause(exc: BaseException) -> BaseException:
    """Return a cause without secrets: aiohttp's response errors hold the request's headers, and so the key."""
    import aiohttp

    links: list[BaseException | None] = [exc, exc.__cause__, exc.__context__]
    if any(isinstance(link, aiohttp.ClientResponseError) for link in links):
        return ConnectionError(type(exc).__name__)
    return exc


# Whether the current task's request went out on a connection that an earlier one had used
was_kept: ContextVar[bool] = ContextVar("was_kept", default=False)


@cache
def _connector_class() -> type[TCPConnector]:
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        """Connection pool that tells kept connections from new ones in `was_kept`."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._used: WeakSet[Any] = WeakSet()

        async def connect(self, *args: Any, **kwargs: Any) -> Connection:
            connection = await super().connect(*args, **kwargs)
            was_kept.set(connection.protocol in self._used)
            self._used.add(connection.protocol)
            return connection

    return Connector


def open_transport(base_url: str, max_connections: int | None) -> AiohttpTransport:
    """Open a transport with its own connection pool, inside the event loop that will use it.

    Raises:
        UsageError: the environment names a kind of proxy that is not supported.
    """
    import httpx
    from httpx_aiohttp import AiohttpTransport

    proxy = proxy_for(base_url)
    check_certificates(base_url)
    # The certificates take 20 ms to load, and a plain http address never needs them as redirects are not followed.
    context = httpx.create_ssl_context(verify=base_url.startswith("https:"))

    def session() -> ClientSession:
        import aiohttp

        # The library's own limit of 100 connections would be a second, hidden one. Of the environment only proxies and
        # certificates are read: a netrc file's password has nothing to do with a model server.
        limit = 0 if max_connections is None else max_connections
        connector = _connector_class()(limit=limit, keepalive_timeout=_KEEP_ALIVE_S, ssl=context)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "User-Agent"),
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )

    return AiohttpTransport(verify=context, client=session, proxy=httpx.Proxy(proxy) if proxy else None)


def proxy_for(base_url: str) -> str:
    """Return the proxy that the environment names for an address, empty for none. Loopback never uses one.

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
            f"the proxy {redact_url(proxy)} is of a kind that is not supported",
            hint="set HTTPS_PROXY to an http proxy, or NO_PROXY to the server's host",
        )
    return proxy
