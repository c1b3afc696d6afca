"""The one interface between the engine and a kind of model server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Protocol

from mellea_cli.messages import Chunk, GenerateRequest


def each(chunks: Iterable[Chunk | None]) -> Iterator[Chunk]:
    """Hand on the chunks as they are; `None` is left out."""
    return (chunk for chunk in chunks if chunk is not None)


def joined(chunks: Iterable[Chunk | None]) -> Iterator[Chunk]:
    """Put texts that have arrived together into one chunk: each one is handed through several layers.

    Args:
        chunks: what was read at once; `None` is left out.
    """
    texts: list[str] = []
    for chunk in chunks:
        if chunk is None:
            continue
        if chunk.finish_reason is None and chunk.usage is None and not chunk.thinking:
            texts.append(chunk.text)
            continue
        if texts:
            yield Chunk("".join(texts))
            texts.clear()
        yield chunk
    if texts:
        yield Chunk("".join(texts))


class Backend(Protocol):
    """How to talk to one kind of model server.

    A backend sends what it is given once: it neither retries nor counts requests in flight, the engine does.
    Every error it lets out is a `mellea_cli.errors.BackendError` (or `UsageError` for a request that the wire has no
    place for), its cause chained.
    """

    @property
    def name(self) -> str:
        """The name under which the registry lists it, such as `"ollama"`."""

    @property
    def slots(self) -> int | None:
        """Requests the server works on at once, or `None` when it does not say."""

    async def prepare(self, model: str) -> None:
        """Make sure that `model` can answer: start what must be started, check what can be checked.

        Called once before a run's first request; `stream` works without it. Raises `BackendError` or
        `ModelFileError`, with the command that mends it as the hint.
        """

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Send one request and yield its chunks as they arrive.

        Exactly one chunk carries a `finish_reason`. A stream that ends without one raises `StreamBroken`. Closing the
        generator closes the connection, which is how a request is cancelled.
        """

    async def models(self) -> list[str]:
        """Names that `GenerateRequest.model` may take on this server."""

    async def aclose(self) -> None:
        """Close every connection and stop what `prepare` started. May be called twice."""
