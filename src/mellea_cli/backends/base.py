"""The one interface between the engine and a kind of model server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any, Protocol

from mellea_cli.messages import Chunk, GenerateRequest


class Reader(Protocol):
    """Reads one answer's events."""

    def plain(self, event: dict[str, Any]) -> str | None:
        """Take an event that holds a piece of text and nothing else, and return the text; `None` for any other."""

    def read(self, event: dict[str, Any]) -> Chunk | None:
        """Turn any event into a chunk, or into nothing when it says nothing new."""


def chunks_of(answer: Reader, events: Iterable[dict[str, Any]], *, together: bool) -> Iterator[Chunk]:
    """Read events that have arrived at once.

    Args:
        answer: the answer they are parts of.
        events: the events.
        together: whether texts that follow each other are put into one chunk: each chunk is handed through several
            layers.
    """
    texts: list[str] = []
    for event in events:
        if together and (text := answer.plain(event)) is not None:
            texts.append(text)
            continue
        if texts:
            yield Chunk("".join(texts))
            texts.clear()
        if (chunk := answer.read(event)) is not None:
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
