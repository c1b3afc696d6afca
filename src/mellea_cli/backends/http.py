"""The one wire client: connections, time limits, error classes, and JSON events off a streamed answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin

from mellea_cli.backends.http_errors import (
    ErrorHints,
    ErrorObject,
    RateLimitStatus,
    class_of,
    describe,
    one_line,
    read_rate_limits,
    reason_phrase,
    retry_after_s,
)
from mellea_cli.backends.security import NetworkPolicy, checked_key, checked_url, open_transport, without_secrets
from mellea_cli.backends.wire_format import MAX_LINE, Decoder, EventData, WholeBody, all_decoded, decoded, encoded
from mellea_cli.errors import BackendError, BackendUnavailable, EndpointMissing, StreamBroken, UsageError

if TYPE_CHECKING:
    import httpx
    from httpx_aiohttp import AiohttpTransport


# How a response is left: read to its end, cut, or broken.

_DRAIN_S = 1.0


async def drain(chunks: AsyncGenerator[bytes, None]) -> None:
    """Read to the end of a response that has said everything, so that its connection can be used again."""
    with suppress(TimeoutError, StreamBroken):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in chunks:
                pass


async def close(response: httpx.Response) -> None:
    """Give the connection back, or cut it when the response is not at its end."""
    import httpx

    with suppress(httpx.HTTPError):
        await response.aclose()


def safe(exc: BaseException) -> BaseException:
    """Return a cause that may be shown: aiohttp's response errors carry the request's headers, and so the key."""
    import aiohttp

    links: list[BaseException | None] = [exc, exc.__cause__, exc.__context__]
    if any(isinstance(link, aiohttp.ClientResponseError) for link in links):
        return ConnectionError(type(exc).__name__)
    return exc


Event = dict[str, Any]

_DONE = "[DONE]"

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are read."""


class WireClient:
    """Talks JSON to one server over HTTP.

    Nothing is imported or opened before the first request. Connections are kept and shared; their number follows the
    requests in flight, which the engine limits. There is no time limit on reading either: deadlines belong to the
    engine, which cancels. Redirects are never followed, as they would carry the key to another host.

    Args:
        base_url: what every path is appended to, `http` or `https`.
        api_key: sent as a bearer token when not empty; it appears in no message.
        headers: sent with every request.
        max_connections: at most this many connections at once; `None` sets no limit.
        connect_timeout_s: seconds that opening a connection may take.
        advice: the hints of the errors.

    Raises:
        UsageError: `base_url` is no address or may not be connected to, or `api_key` cannot stand in a header.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        max_connections: int | None = None,
        connect_timeout_s: float = 10.0,
        advice: ErrorHints | None = None,
    ) -> None:
        self.base_url = checked_url(base_url)
        NetworkPolicy.of(os.environ).permit(self.base_url)
        self._secret = checked_key(api_key)
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **(headers or {})}
        if self._secret:
            self._headers["Authorization"] = f"Bearer {self._secret}"
        self._max_connections = max_connections
        self._timeout = {"connect": connect_timeout_s, "read": None, "write": None, "pool": None}
        self._advice = advice or ErrorHints()
        self._transport: AiohttpTransport | None = None
        # Parsed once: taking an address apart costs more than all the rest of a request's head.
        self._urls: dict[str, httpx.URL] = {}
        self._closed = False
        self.allowance: RateLimitStatus | None = None
        """What the latest answer's headers said is left, where they said anything."""

    async def stream(
        self, path: str, body: Mapping[str, Any], decoder: Callable[[], Decoder]
    ) -> AsyncGenerator[list[Event], None]:
        """POST `body` and yield the events of the answer, as many at a time as have arrived together.

        The generator ends with the response, or at SSE's `[DONE]`. Close it to cut the connection.

        Raises:
            BackendError: as fits what happened; `StreamBroken` when it happened after the answer had begun.
        """
        url, model = self.base_url + path, str(body.get("model", ""))
        response = await self._send("POST", url, encoded(body))
        try:
            if not response.is_success:
                raise await self._refusal(response, url, model)
            self.allowance = read_rate_limits(response.headers) or self.allowance
            reader = self._decoder(response, url, decoder)
            async with aclosing(self._chunks(response, url)) as chunks:
                async for data in chunks:
                    if payloads := reader.feed(data):
                        events, failure, done = self._events(payloads, url, model)
                        if events:
                            yield events
                        if failure is not None:
                            raise failure
                        if done:
                            await drain(chunks)
                            return
            events, failure, _ = self._events(reader.flush(), url, model)
            if events:
                yield events
            if failure is not None:
                raise failure
        finally:
            await close(response)

    async def get_json(self, path: str, *, at_root: bool = False) -> Any:
        """GET `path`, at the server's root or below its API, and return its JSON; `BackendError` as fits."""
        return await self._json("GET", urljoin(self.base_url, path) if at_root else self.base_url + path, None)

    async def post_json(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST `body` and return the answer's JSON. Raises `BackendError` as fits what happened."""
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
        """Send a request of any form and hand out its answer's bytes as they arrive: for files, in both directions.

        Raises:
            BackendError: as fits what happened; `StreamBroken` when it happened after the answer had begun.
        """
        url = self.base_url + path
        response = await self._send(method, url, content, headers)
        try:
            if not response.is_success:
                raise await self._refusal(response, url, "")
            async with aclosing(self._chunks(response, url)) as chunks:
                yield chunks
        finally:
            await close(response)

    async def aclose(self) -> None:
        """Close every connection. May be called twice; a request afterwards is a `UsageError`."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _json(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        response = await self._send(method, url, None if body is None else encoded(body))
        try:
            if not response.is_success:
                raise await self._refusal(response, url, str((body or {}).get("model", "")))
            text = await self._body(response, url, MAX_LINE)
        finally:
            await close(response)
        value = decoded(text)
        if isinstance(value, ValueError):
            hint = self._advice.hint(EndpointMissing, "")
            raise EndpointMissing(f"{url} answered with something other than JSON", hint=hint) from value
        return value

    async def _send(
        self,
        method: str,
        url: str,
        content: bytes | AsyncIterable[bytes] | None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        import aiohttp
        import httpx

        transport = self._open()
        request = httpx.Request(
            method,
            self._urls.get(url) or self._urls.setdefault(url, httpx.URL(url)),
            headers={**self._headers, **(headers or {})},
            content=content,
            extensions={"timeout": self._timeout},
        )
        try:
            return await transport.handle_async_request(request)
        except (httpx.TransportError, aiohttp.ClientError, OSError) as exc:
            reason, cause = self._clean(describe(exc)), safe(exc)
        # Raised out here, as inside the handler the unsafe error would come along as the context.
        raise BackendUnavailable(
            f"cannot reach {url}: {reason}", hint=self._advice.hint(BackendUnavailable, "")
        ) from cause

    def _open(self) -> AiohttpTransport:
        if self._closed:
            raise UsageError(f"the connection to {self.base_url} has been closed")
        if self._transport is None:
            self._transport = open_transport(self.base_url, self._max_connections)
        return self._transport

    async def _chunks(self, response: httpx.Response, url: str) -> AsyncGenerator[bytes, None]:
        import aiohttp
        import httpx
        from aiohttp.http_exceptions import HttpProcessingError

        compressed = "content-encoding" in response.headers
        try:
            # The transport's own stream: each of httpx's layers above it costs as much per chunk as decoding does.
            stream = response.aiter_bytes() if compressed else aiter(cast("httpx.AsyncByteStream", response.stream))
            async with aclosing(cast("AsyncGenerator[bytes, None]", stream)) as chunks:
                async for data in chunks:
                    yield data
        except (httpx.HTTPError, aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            raise StreamBroken(f"the connection to {url} broke in the middle of an answer") from safe(exc)

    def _decoder(self, response: httpx.Response, url: str, decoder: Callable[[], Decoder]) -> Decoder:
        kind = response.headers.get("content-type", "").lower()
        if kind.startswith("text/html"):
            hint = self._advice.hint(EndpointMissing, "")
            raise EndpointMissing(f"{url} answered with a web page", status=response.status_code, hint=hint)
        # A server that cannot stream answers with one document, pretty-printed or not.
        whole = decoder is EventData and kind.startswith("application/json")
        return WholeBody() if whole else decoder()

    def _events(self, payloads: list[str], url: str, model: str) -> tuple[list[Event], BackendError | None, bool]:
        """Decode payloads; return those before a failure, the failure, and whether the stream said that it is done."""
        events: list[Event] = []
        done = _DONE in payloads
        if done:
            del payloads[payloads.index(_DONE) :]
        for payload, event in zip(payloads, all_decoded(payloads), strict=True):
            if isinstance(event, ValueError):
                failure = StreamBroken(f"{url} sent what is not JSON: {self._clean(one_line(payload, 80))}")
                failure.__cause__ = event
                return events, failure, False
            if not isinstance(event, dict):
                return events, StreamBroken(f"{url} sent JSON that is not an object"), False
            if event.get("error"):
                error = ErrorObject.read(event)
                return events, self._failure(error.number or 500, error, {}, url, model, inside=True), False
            events.append(event)
        return events, None, done

    async def _refusal(self, response: httpx.Response, url: str, model: str) -> BackendError:
        try:
            text = await self._body(response, url, MAX_ERROR_BODY)
        except StreamBroken:
            text = ""
        error = ErrorObject.parse(text)
        if response.has_redirect_location:
            error = ErrorObject(f"it redirects to {without_secrets(response.headers['location'])}")
        return self._failure(response.status_code, error, response.headers, url, model)

    def _failure(
        self, status: int, error: ErrorObject, headers: Mapping[str, str], url: str, model: str, *, inside: bool = False
    ) -> BackendError:
        kind = class_of(status, error, headers)
        said = one_line(error.message)
        if error.param and error.param not in said:
            said = f"{said} ({one_line(error.param, 80)})"
        said = self._clean(said)
        verdict = "reported an error inside the answer" if inside else f"answered {reason_phrase(status)}"
        return kind(
            f"{url} {verdict}" + (f": {said}" if said else ""),
            status=error.number if inside else status,
            retry_after_s=retry_after_s(headers),
            hint=self._advice.hint(kind, model),
        )

    async def _body(self, response: httpx.Response, url: str, limit: int) -> str:
        parts, size = [], 0
        async with aclosing(self._chunks(response, url)) as chunks:
            async for data in chunks:
                parts.append(data)
                size += len(data)
                if size >= limit:
                    break
        return b"".join(parts)[:limit].decode("utf-8", "replace")

    def _clean(self, text: str) -> str:
        """Take the key out of a server's words: some repeat it."""
        return text.replace(self._secret, "***") if self._secret else text
