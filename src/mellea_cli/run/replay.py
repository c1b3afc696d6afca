"""A backend that gives answers which came by a batch, and asks the real one for all others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from mellea_cli.backends.allowance import Allowance, Metered
from mellea_cli.backends.base import Backend
from mellea_cli.io.jobs import JobBook
from mellea_cli.messages import Chunk, Completion, GenerateRequest


def digest(request: GenerateRequest) -> bytes:
    """What tells one request from every other: 16 bytes."""
    facts = [
        request.model,
        [[message.role, message.content] for message in request.messages],
        request.options.max_tokens,
        request.output_schema,
    ]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).digest()


class Replaying:
    """Stands in front of a backend; see `mellea_cli.backends.base.Backend`.

    A request whose first answer came by a batch gets that answer, so what was wrong with it is judged as always and
    asked about again. Every other request, also the one that asks again, goes to the backend.

    Args:
        backend: the real one.
        book: where the replies are.
        replays: custom ids by the digest of their request.
    """

    def __init__(self, backend: Backend, book: JobBook, replays: Mapping[bytes, str]) -> None:
        self._backend = backend
        self._book = book
        self._replays = replays

    @property
    def name(self) -> str:
        """The real backend's name."""
        return self._backend.name

    @property
    def slots(self) -> int | None:
        """The real backend's slots."""
        return self._backend.slots

    @property
    def allowance(self) -> Allowance | None:
        """What the server's headers last said is left, where it says so."""
        return self._backend.allowance if isinstance(self._backend, Metered) else None

    async def prepare(self, model: str) -> None:
        """Prepare the real backend."""
        await self._backend.prepare(model)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer that is there, or the backend's."""
        name = self._replays.get(digest(request)) if self._replays else None
        reply = self._book.standing(name) if name else None
        if isinstance(reply, Completion):
            yield Chunk(reply.text, "", reply.finish_reason, reply.usage)
            return
        async with aclosing(self._backend.stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def models(self) -> list[str]:
        """The real backend's models."""
        return await self._backend.models()

    async def aclose(self) -> None:
        """Close the real backend."""
        await self._backend.aclose()
