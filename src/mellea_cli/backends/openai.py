"""Any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from mellea_cli.backends import security
from mellea_cli.backends.base import chunks_of
from mellea_cli.backends.http import Event, WireClient
from mellea_cli.backends.http_errors import ErrorHints, RateLimitStatus, one_line
from mellea_cli.backends.security import is_loopback
from mellea_cli.backends.wire_format import EventData, FixedPart, OncePer, a_count, a_text, an_object, valid_unicode
from mellea_cli.errors import BackendError, ContentFiltered, ServerFault, StreamBroken, UsageError
from mellea_cli.messages import Chunk, Completion, GenerateRequest, Options, Usage

# What a request gives up when an OpenAI-compatible server refuses a parameter by name.

# What can be given up when a server refuses it, and the words by which a refusal names it.
_NAMED_BY: Mapping[str, re.Pattern[str]] = {
    "response_format": re.compile(r"response_format|json[_ ]schema|json_object|grammar|structured", re.IGNORECASE),
    "stream_options": re.compile(r"\bstream_options\b"),
    "reasoning_effort": re.compile(r"\breasoning_effort\b"),
    "chat_template_kwargs": re.compile(r"\bchat_template_kwargs\b"),
    "max_tokens": re.compile(r"\bmax_tokens\b"),
    "temperature": re.compile(r"\btemperature\b"),
    "top_p": re.compile(r"\btop_p\b"),
    "seed": re.compile(r"\bseed\b"),
}
# The user chose these, so a refusal must say that the server has no such thing, not that the value is a bad one.
CHOSEN = frozenset({"max_tokens", "temperature", "top_p", "seed"})
_NO_SUCH_THING = re.compile(r"support|unknown|unrecogni[sz]ed|not permitted|unexpected|extra", re.IGNORECASE)
_REFUSALS = frozenset({400, 404, 422, 501})
_JSON_OBJECT: Mapping[str, Any] = {"type": "json_object"}


def refused(error: BackendError, body: Mapping[str, Any]) -> str:
    """Return what a server's refusal of `body` says to give up, or nothing when it is about something else."""
    if error.status not in _REFUSALS:
        return ""
    for name, words in _NAMED_BY.items():
        if name not in body or not words.search(error.message):
            continue
        if name == "response_format":
            return _weaker(body[name])
        if name not in CHOSEN or _NO_SUCH_THING.search(error.message):
            return name
    return ""


def _weaker(response_format: object) -> str:
    """Return which of our own two forms was refused; one that the user wrote is the user's."""
    if isinstance(response_format, dict) and "json_schema" in response_format:
        return "json_schema"
    return "json_object" if response_format is _JSON_OBJECT else ""


def without(body: Mapping[str, Any], given_up: frozenset[str]) -> dict[str, Any]:
    """Return the body in the form that a server takes which refuses some parameters."""
    kept = {name: value for name, value in body.items() if name not in given_up}
    if "max_tokens" in given_up and "max_tokens" in body:
        kept["max_completion_tokens"] = body["max_tokens"]
    wanted = body.get("response_format")
    if "json_schema" in given_up and isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        kept["messages"] = _with_schema(body["messages"], wanted["json_schema"]["schema"])
        kept["response_format"] = _JSON_OBJECT
        if "json_object" in given_up:
            del kept["response_format"]
    return kept


def _with_schema(messages: list[dict[str, Any]], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put the schema into the last message, as the server does not hold the model to it."""
    rule = f"Answer with nothing but one JSON object that follows this JSON schema:\n{json.dumps(schema)}"
    if not messages:
        return [{"role": "user", "content": rule}]
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']}\n\n{rule}"}]


# A request in the words of OpenAI's chat completions.

_OURS = frozenset({"model", "messages", "stream"})


def chat_body(request: GenerateRequest, *, is_openai: bool) -> dict[str, Any]:
    """Return the body of a request for an answer in one piece.

    Args:
        request: what is asked.
        is_openai: whether OpenAI's own server is asked, which knows fewer parameters than the compatible ones.

    Raises:
        UsageError: an option has no place on this wire.
    """
    options = request.options
    if options.context_window is not None:
        raise UsageError(
            "an OpenAI-compatible server sets its context window itself, a request cannot choose it",
            hint="set it where the server is started, or use --backend ollama",
        )
    if wrong := _OURS & options.native.keys():
        raise UsageError(f"the option {min(wrong)!r} cannot be set here: it is part of every request")
    chosen = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_tokens": options.max_tokens,
        "seed": options.seed,
        "stop": list(options.stop) or None,
    }
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        **{name: value for name, value in chosen.items() if value is not None},
        **_thinking(options, is_openai=is_openai),
    }
    if request.output_schema is not None:
        body["response_format"] = _FORMATS(request.output_schema)
    body.update(options.native)
    return body


def _response_format(schema: Mapping[str, Any]) -> FixedPart:
    return FixedPart(
        type="json_schema", json_schema={"name": _schema_name(schema), "schema": dict(schema), "strict": True}
    )


_FORMATS = OncePer(_response_format)


def _thinking(options: Options, *, is_openai: bool) -> dict[str, Any]:
    """Say whether to reason first in the words that servers know: an effort, and the chat template's own switch."""
    thinking = options.thinking
    if thinking is None:
        return {}
    if isinstance(thinking, str):
        return {"reasoning_effort": thinking}
    if is_openai:
        return {"reasoning_effort": "medium"} if thinking else {}
    effort = "medium" if thinking else "none"
    return {"reasoning_effort": effort, "chat_template_kwargs": {"enable_thinking": thinking}}


def _schema_name(schema: Mapping[str, Any]) -> str:
    """Return the schema's title as the wire allows it: letters, digits, `_` and `-`, at most 64."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title") or ""))[:64] or "answer"


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
        key = security.key_named(key_variable, os.environ) if api_key is None else api_key
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
                hint=f"set {key_variable or security.API_KEY} or --key-file FILE, or choose a server with --base-url",
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
    def allowance(self) -> RateLimitStatus | None:
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
    if variable == security.API_KEY:
        return f"set {variable}, or --key-file FILE, to a key of this server"
    return f"set {variable} to a key of this server" if variable else "name the variable with its key as key_env"


def _advice(base_url: str, key_variable: str) -> ErrorHints:
    return ErrorHints(
        unreachable="is the server running? --base-url sets its address, and --backend local needs no server",
        not_authorized=_how_to_get_in(key_variable),
        endpoint_missing="does --base-url end as the server's API does, mostly in /v1?",
        model_missing=f"choose one of {base_url.rstrip('/')}/models with --model",
    )
