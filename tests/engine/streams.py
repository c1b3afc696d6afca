"""Backends whose streams a test writes by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from mellea_cli.messages import Chunk, GenerateRequest, Message, Usage

Stream = Callable[[GenerateRequest], AsyncGenerator[Chunk, None]]


class Streams:
    """A backend that answers request number n by the n-th stream, the last one for all that follow."""

    name = "streams"
    slots = None

    def __init__(self, *streams: Stream) -> None:
        self._streams = streams
        self.requests: list[GenerateRequest] = []
        self.closed = 0

    async def prepare(self, model: str) -> None:
        """Nothing to prepare."""

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Give the next stream, and notice when it is closed."""
        number = len(self.requests)
        self.requests.append(request)
        try:
            async for chunk in self._streams[min(number, len(self._streams) - 1)](request):
                yield chunk
        finally:
            self.closed += 1

    async def models(self) -> list[str]:
        """No names."""
        return []

    async def aclose(self) -> None:
        """Nothing to close."""


def saying(*pieces: str, finish: str | None = "stop", usage: Usage | None = None) -> Stream:
    """A stream of these pieces and an end."""

    async def stream(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        for piece in pieces:
            yield Chunk(piece)
        if finish is not None:
            yield Chunk(finish_reason=finish, usage=usage or Usage(10, len(pieces)))

    return stream


def thinking(text: str) -> Stream:
    """A stream with reasoning and no text."""

    async def stream(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield Chunk(thinking=text)
        yield Chunk(finish_reason="stop", usage=Usage(10, 1))

    return stream


def raising(error: Exception, *before: str) -> Stream:
    """A stream that fails after these pieces."""

    async def stream(_: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        for piece in before:
            yield Chunk(piece)
        raise error

    return stream


def asking(text: str = "hello") -> GenerateRequest:
    """A request."""
    return GenerateRequest("m", (Message("user", text),))
