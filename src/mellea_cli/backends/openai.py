"""Any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from mellea_cli.backends import keys
from mellea_cli.backends.allowance import Allowance
from mellea_cli.backends.base import chunks_of
from mellea_cli.backends.concessions import CHOSEN, refused, without
from mellea_cli.backends.connection import is_loopback
from mellea_cli.backends.decoding import EventData, a_count, a_text, an_object, valid_unicode
from mellea_cli.backends.http import Event, WireClient
from mellea_cli.backends.openai_body import chat_body
from mellea_cli.backends.wire_errors import Advice, one_line
from mellea_cli.errors import BackendError, ContentFiltered, ServerFault, StreamBroken, UsageError
from mellea_cli.messages import Chunk, Completion, GenerateRequest, Usage

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_LOG = logging.getLogger(__name__)

# A server on this machine answers a look at its properties at once.
_LOOK_S = 2.0


class OpenAIBackend:
    """Talks to one OpenAI-compatible server.

    The compatible servers differ in what they take. A parameter that a server refuses by name is given up for all
    later requests of this backend: a JSON schema becomes JSON mode with the schema in the prompt, and then the prompt
    alone; `max_tokens` becomes `max_completion_tokens`; the rest is left out, and the log says so.

    Args:
        base_url: up to and including `/v1`; `None` takes `OPENAI_BASE_URL`, else OpenAI's own.
        api_key: `None` takes that of `key_variable`. Only OpenAI's own server insists on one.
        key_variable: the environment variable that holds the key, empty for none; before the usual one comes the file
            that `MELLEA_KEY_FILE` names.
        max_connections: at most this many connections; `None` sets no limit, the engine has its own.
        connect_timeout_s: seconds that opening a connection may take.
        name: the name in the registry and in messages.
        slots: requests that the server works on at once, where that is known.
        keep_alive: whether a connection is used again; llama.cpp's server promises that and then closes it.

    Raises:
        UsageError: the address or the key cannot be used, or OpenAI's own server was chosen without a key.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        max_connections: int | None = None,
        connect_timeout_s: float = 10.0,
        name: str = "openai",
        slots: int | None = None,
        keep_alive: bool = True,
    ) -> None:
        self.together = False
        """Whether texts that arrive together are one chunk; otherwise each of the wire's is one."""
        base_url = server_url(base_url)
        key = keys.key_named(key_variable, os.environ) if api_key is None else api_key
        self._wire = WireClient(
            base_url,
            api_key=key,
            headers=None if keep_alive else {"Connection": "close"},
            max_connections=max_connections,
            connect_timeout_s=connect_timeout_s,
            advice=_advice(base_url, key_variable),
        )
        self._is_openai = urlsplit(self._wire.base_url).hostname == "api.openai.com"
        if self._is_openai and not key.strip():
            raise UsageError(
                "api.openai.com wants a key",
                hint=f"set {key_variable or keys.API_KEY} or --key-file FILE, or choose a server with --base-url",
            )
        self._name = name
        self._slots = slots
        self._given_up: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The name under which the registry lists it."""
        return self._name

    @property
    def slots(self) -> int | None:
        """Requests the server works on at once, or `None` when nobody knows."""
        return self._slots

    @property
    def allowance(self) -> Allowance | None:
        """What the server's headers last said is left, where it says so."""
        return self._wire.allowance

    async def prepare(self, model: str) -> None:
        """Do nothing: many compatible servers have no list of models, so only a request shows what is there."""

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Send one request and yield its chunks; `mellea_cli.backends.base.Backend.stream` has the contract."""
        body = chat_body(request, is_openai=self._is_openai)
        body.update(stream=True, stream_options={"include_usage": True}, **request.options.native)
        given_up = self._given_up
        while True:
            answer, sent = _Answer(self._wire.base_url), without(body, given_up)
            try:
                async with aclosing(self._wire.stream("/chat/completions", sent, EventData)) as batches:
                    async for events in batches:
                        # Only what has let an answer through is remembered.
                        if not given_up <= self._given_up:
                            self._given_up |= given_up
                        for chunk in chunks_of(answer, events, together=self.together):
                            yield chunk
            except BackendError as error:
                # Behind the finish reason only the token counts and the closing mark can be lost.
                if not (isinstance(error, StreamBroken) and answer.finished):
                    error.partial = answer.text
                    more = "" if answer.begun else refused(error, sent)
                    if not more:
                        raise
                    level = logging.WARNING if more in CHOSEN - {"max_tokens"} else logging.INFO
                    _LOG.log(level, "%s refuses %s: going on without it", self._wire.base_url, more)
                    given_up |= {more}
                    continue
            yield answer.end()
            return

    async def places(self) -> int | None:
        """Requests that a llama.cpp server on this machine works on at once; `None` where nobody says so.

        No other server is asked: what its root answers to is not part of the protocol.
        """
        if not is_loopback(self._wire.base_url):
            return None
        try:
            async with asyncio.timeout(_LOOK_S):
                told = await self._wire.get_json("/props", at_root=True)
        except (BackendError, TimeoutError):
            return None
        places = told.get("total_slots") if isinstance(told, dict) else None
        return places if isinstance(places, int) and places >= 1 else None

    def whole_body(self, request: GenerateRequest) -> dict[str, Any]:
        """The body of a request whose answer comes in one piece, without what this server has refused so far."""
        return without(chat_body(request, is_openai=self._is_openai), self._given_up)

    async def models(self) -> list[str]:
        """Names from the server's list. Raises `BackendError` when it has none."""
        listed = await self._wire.get_json("/models")
        entries = listed.get("data", []) if isinstance(listed, dict) else []
        return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._wire.aclose()


class _Answer:
    """One answer as its events arrive."""

    __slots__ = ("_parts", "_refusal", "_url", "_usage", "begun", "finished")

    def __init__(self, url: str) -> None:
        self._url = url
        self._parts: list[str] = []
        self._refusal = ""
        self._usage: Usage | None = None
        self.begun = False
        self.finished = False

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def plain(self, event: Event) -> str | None:
        """Take an event of the form that nearly all have, and return its text; `None` for one that is to be `read`."""
        choices = event.get("choices")
        if self.finished or type(choices) is not list or not choices or event.get("usage"):
            return None
        choice = choices[0]
        if type(choice) is not dict or choice.get("finish_reason"):
            return None
        delta = choice.get("delta")
        if type(delta) is not dict or len(delta) != 1 or type(text := delta.get("content")) is not str or not text:
            return None
        self.begun = True
        text = valid_unicode(text)
        self._parts.append(text)
        return text

    def read(self, event: Event) -> Chunk | None:
        """Turn an event into a chunk, or into nothing when it says nothing new."""
        self.begun = True
        if usage := an_object(event.get("usage")):
            self._usage = Usage(a_count(usage.get("prompt_tokens")), a_count(usage.get("completion_tokens")))
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or self.finished:
            return None
        choice = an_object(choices[0])
        delta = an_object(choice.get("delta")) or an_object(choice.get("message"))
        finish = a_text(choice.get("finish_reason"))
        text = _text(delta.get("content"))
        thinking = a_text(delta.get("reasoning_content")) or a_text(delta.get("reasoning"))
        if text:
            self._parts.append(text)
        if refusal := delta.get("refusal"):
            self._refusal += str(refusal)
        if finish:
            self._finish(finish)
        elif not text and not thinking:
            return None
        return Chunk(text, thinking, finish or None)

    def _finish(self, finish: str) -> None:
        if self._refusal:
            raise ContentFiltered(f"the model refuses: {one_line(self._refusal)}")
        if finish == "error":
            raise ServerFault(f"{self._url} gave up in the middle of an answer")
        self.finished = True

    def end(self) -> Chunk:
        """Return the last chunk, with the usage. Raises `StreamBroken` when no finish reason came."""
        if not self.finished:
            raise StreamBroken(f"the answer from {self._url} ended without a finish reason", partial=self.text)
        return Chunk(usage=self._usage)


def whole_answer(url: str, body: Event) -> Completion:
    """Read an answer that came in one piece.

    Args:
        url: who gave it, for messages.
        body: the answer's JSON object.

    Raises:
        BackendError: it is refused, broken or has no finish reason.
    """
    answer = _Answer(url)
    chunk = answer.read(body)
    last = answer.end()
    finish = (chunk.finish_reason if chunk else None) or "stop"
    return Completion(answer.text, finish, last.usage or Usage(), thinking=chunk.thinking if chunk else "")


def _text(content: object) -> str:
    """Return a delta's text; some servers send a list of parts, of which those that are text count."""
    if isinstance(content, str):
        return valid_unicode(content)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return valid_unicode("".join(text for text in texts if isinstance(text, str)))
    return ""


def server_url(base_url: str | None) -> str:
    """Return the address that is used: the one given, else `OPENAI_BASE_URL`, else OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL


def _how_to_get_in(variable: str) -> str:
    if variable == keys.API_KEY:
        return f"set {variable}, or --key-file FILE, to a key of this server"
    return f"set {variable} to a key of this server" if variable else "name the variable with its key as key_env"


def _advice(base_url: str, key_variable: str) -> Advice:
    return Advice(
        unreachable="is the server running? --base-url sets its address, and --backend local needs no server",
        not_authorized=_how_to_get_in(key_variable),
        endpoint_missing="does --base-url end as the server's API does, mostly in /v1?",
        model_missing=f"choose one of {base_url.rstrip('/')}/models with --model",
    )
