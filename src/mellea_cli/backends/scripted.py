"""Answers without a model: for tests, demonstrations and benchmarks. It is never chosen by itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence

from mellea_cli.backends.instances import Instances, first_sentence
from mellea_cli.errors import UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Usage

Reply = Callable[[GenerateRequest], str | Sequence[str] | Exception]
"""What to answer: a text, a text in the pieces it is to stream in, or an exception to raise."""

_MARKED = re.compile(r"<(\w+)>\n?(.*?)\n?</\1>", re.DOTALL)
_LETTERS_PER_TOKEN = 4


class ScriptedBackend:
    """A backend that answers by rule, deterministically, with no model and no network.

    Without `reply` a request with a schema gets a valid and plausible instance of it, and any other a sentence of its
    last user message; text between marks such as `<feedback>` stands for the message where there is any. The same
    request always gets the same answer. Nothing chooses this backend by itself: it must be asked for by name.

    Args:
        reply: what to answer instead.
        chunk_delay_s: seconds between two chunks, to look like a model at work.
        chunk_letters: letters in a chunk, at least 1.
        models: what `models` lists; any name is answered.
    """

    def __init__(
        self,
        reply: Reply | None = None,
        *,
        chunk_delay_s: float = 0.0,
        chunk_letters: int = 16,
        models: Sequence[str] = ("scripted",),
    ) -> None:
        if chunk_letters < 1:
            raise UsageError("chunk_letters must be at least 1")
        self._reply = reply or plausible_reply
        self._delay_s = chunk_delay_s
        self._letters = chunk_letters
        self._models = list(models)
        self._closed = False

    @property
    def name(self) -> str:
        """The name under which the registry lists it."""
        return "scripted"

    @property
    def slots(self) -> int | None:
        """`None`: it works on any number of requests at once."""
        return None

    async def prepare(self, model: str) -> None:
        """Do nothing: there is nothing to start."""

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the reply in chunks, then its end with the usage. Raises what the reply says."""
        if self._closed:
            raise UsageError("the scripted backend has been closed")
        reply = self._reply(request)
        if isinstance(reply, Exception):
            raise reply
        size = self._letters
        pieces = [reply[at : at + size] for at in range(0, len(reply), size)] if isinstance(reply, str) else list(reply)
        # Others must get their turn, as they would while a real server works.
        await asyncio.sleep(self._delay_s)
        for number, piece in enumerate(pieces):
            if self._delay_s and number:
                await asyncio.sleep(self._delay_s)
            yield Chunk(piece)
        asked = sum(len(message.content) for message in request.messages)
        answered = sum(map(len, pieces))
        usage = Usage(-(-asked // _LETTERS_PER_TOKEN), -(-answered // _LETTERS_PER_TOKEN))
        yield Chunk(finish_reason="stop", usage=usage)

    async def models(self) -> list[str]:
        """Return the names given at construction."""
        return list(self._models)

    async def aclose(self) -> None:
        """Refuse every later request, as a closed connection would."""
        self._closed = True


def plausible_reply(request: GenerateRequest) -> str:
    """Answer a request from its own words: an instance of its schema, or a sentence of its last user message."""
    text = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
    marked = _MARKED.findall(text)
    subject = marked[-1][1] if marked else text
    if request.output_schema is None:
        return first_sentence(subject)
    return json.dumps(Instances(subject).value(request.output_schema), ensure_ascii=False, separators=(",", ":"))
