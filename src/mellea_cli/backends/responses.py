"""How a response is left: read to its end, cut, or broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING

from mellea_cli.errors import StreamBroken

if TYPE_CHECKING:
    import httpx

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
