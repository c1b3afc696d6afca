"""OpenAI's chat completions, as OpenAI and the compatible servers speak them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self
from urllib.parse import urlsplit

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.http import DONE, Event, WireClient
from mellea_cli.backends.http_errors import Hints, one_line
from mellea_cli.backends.model_ids import ModelIdentifier
from mellea_cli.backends.rate_limits import RateLimitStatus
from mellea_cli.backends.security import API_KEY, NetworkPolicy, Secrets, is_loopback, redact_url, validate_key
from mellea_cli.backends.wire_format import (
    CachedJson,
    IdentityCache,
    as_object,
    as_text,
    as_token_count,
    cached_message,
    prompt_was_cut,
    read_tokens,
    valid_unicode,
)
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    ContentFiltered,
    ContextTooLong,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    ServerFault,
    StreamBroken,
    UsageError,
    name_some,
    nearest_first,
)
from mellea_cli.messages import Chunk, Completion, GenerateRequest, Options, Usage

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_LOG = logging.getLogger(__name__)

# A server on this machine answers a look at its properties at once.
_PROPERTIES_S = 2.0
_WINDOW_STEP = 512  # Windows are multiples of this many tokens
_LIST_S = 10.0


def server_url(base_url: str | None) -> str:
    """Return the address to use: the given one, else `OPENAI_BASE_URL`, else OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL


class OpenAIBackend:
    """Client of one OpenAI-compatible server.

    The compatible servers accept different parameters. A parameter that a server refuses by name is dropped from all
    later requests of this backend: a JSON schema becomes JSON mode with the schema in the prompt, and then the prompt
    alone; `max_tokens` becomes `max_completion_tokens`; others are omitted and logged.

    Args:
        model_id: the model that a session asks there: `MelleaSession(OpenAIBackend("gpt-5.1"))`.
        base_url: up to and including `/v1`; `None` for `OPENAI_BASE_URL`, else OpenAI's own.
        api_key: `None` for the key of `key_variable`. Only OpenAI's own server requires one.
        key_variable: the variable in `secrets` with the key; empty for none.
        name: the name in the registry and in messages.
        slots: requests that the server works on at once, where known.
        keep_alive: whether to reuse connections; llama.cpp's server promises that and then closes them.
        model_options: options of every call of a session, by `ModelOption` or by the server's own names.
        timeout: maximum time for one request of a session in seconds; `None` for no limit.
        max_connections, connect_timeout_s, merge_chunks, network, secrets: see `BackendSettings`.

    Raises:
        UsageError: the address or the key cannot be used, or OpenAI's own server was chosen without a key.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each setting
        self,
        model_id: str | ModelIdentifier = "",
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        key_variable: str = API_KEY,
        max_connections: int | None = None,
        connect_timeout_s: float = 10.0,
        merge_chunks: bool = False,
        name: str = "openai",
        slots: int | None = None,
        keep_alive: bool = True,
        network: NetworkPolicy | None = None,
        secrets: Secrets | None = None,
        model_options: Mapping[str, Any] | None = None,
        timeout: float | None = 600.0,
    ) -> None:
        self.model_id, self.model_options, self.timeout = model_id, dict(model_options or {}), timeout
        self._opened_with: dict[str, Any] = {
            "base_url": base_url,
            "api_key": api_key,
            "key_variable": key_variable,
            "name": name,
            "keep_alive": keep_alive,
            "network": network,
            "secrets": secrets,
        }
        base_url = server_url(base_url)
        key = (secrets or Secrets.from_environ(os.environ)).key(key_variable) if api_key is None else api_key
        self._wire = WireClient(
            base_url,
            api_key=key,
            headers=_headers(base_url, key, keep_alive=keep_alive),
            max_connections=max_connections,
            connect_timeout_s=connect_timeout_s,
            hints=_hints(base_url, key_variable),
            network=network,
        )
        self._is_openai = urlsplit(self._wire.base_url).hostname == "api.openai.com"
        if self._is_openai and not key.strip():
            raise UsageError(
                "api.openai.com wants a key",
                hint=f"set {key_variable or API_KEY} or --key-file FILE, or choose a server with --base-url",
            )
        self.name = name
        self.slots = slots
        self._merge_chunks = merge_chunks
        self._dropped: frozenset[str] = frozenset()
        self._most_tokens: int | None = None  # The most that an answer may have, where the server has said so
        self._untried = True  # Whether no request has shown yet what the server takes
        self._listed: list[str] | None = None  # The server's models, once an error made it necessary to ask

    def reopened(self, concurrency: int) -> OpenAIBackend:
        """A backend of the same server for one session, which has connections of its own."""
        return OpenAIBackend(**self._opened_with, max_connections=concurrency)

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Self:
        return cls(
            base_url=settings.base_url,
            api_key=settings.api_key,
            key_variable=settings.key_variable,
            max_connections=settings.concurrency,
            connect_timeout_s=settings.connect_timeout_s,
            merge_chunks=settings.merge_chunks,
            network=settings.network,
            secrets=settings.secrets,
        )

    @property
    def rate_limit_status(self) -> RateLimitStatus | None:
        return self._wire.rate_limit_status

    async def prepare(self, model: str) -> None:
        """Do nothing: many compatible servers have no list of models, so only a request shows what is there."""

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        body = chat_body(request, is_openai=self._is_openai)
        body.update(stream=True, stream_options={"include_usage": True}, **request.options.native)
        if self._most_tokens and body.get("max_tokens", 0) > self._most_tokens:
            body["max_tokens"] = self._most_tokens
        dropped = self._dropped
        while True:
            answer = _Answer(self._wire.base_url, merge_chunks=self._merge_chunks)
            sent = without_parameters(body, dropped) if dropped else body
            try:
                async with aclosing(self._wire.stream("/chat/completions", sent)) as batches:
                    async for events in batches:
                        # Only a reduced request that is answered shows that the server lacks the parameter.
                        if not dropped <= self._dropped:
                            self._dropped |= dropped
                        self._untried = False
                        for chunk in answer.read(events):
                            yield chunk
            except BackendError as error:
                # After the finish reason only the token counts and `[DONE]` can be lost, whatever is reported then.
                if not (answer.finished and (isinstance(error, StreamBroken) or answer.text)):
                    error.partial = answer.text or error.partial
                    if not answer.begun and (most := allowed_tokens(error, body.get("max_tokens"))):
                        level = logging.INFO if request.options.most_reasoning else logging.WARNING
                        self._limit_tokens(error, most, level)
                        body["max_tokens"] = most
                        continue
                    if _CUT_AS_ERROR.search(error.message):
                        yield Chunk(finish_reason="length")
                        return
                    if not (refused := "" if answer.begun else self._refused(error, sent)):
                        raise await self._explained(error, request.model) from error.__cause__
                    level = logging.WARNING if refused in USER_PARAMETERS - {"max_tokens"} else logging.INFO
                    _LOG.log(level, "%s refuses %s: going on without it", self._wire.base_url, refused)
                    dropped |= {refused}
                    continue
            for chunk in answer.last_chunks():
                if (usage := chunk.usage) and usage.prompt_tokens and usage.prompt_tokens % _WINDOW_STEP == 0:
                    self._check_prompt(request, usage.prompt_tokens, answer.text)
                yield chunk
            return

    def _refused(self, error: BackendError, sent: Mapping[str, Any]) -> str:
        """What to drop from a request after its refusal; empty when that has another reason."""
        refused = refused_parameter(error, sent)
        if not refused and self._untried and _SAYS_NOTHING.fullmatch(_ADDRESS.sub("", error.message)):
            refused = _refused_form(sent)
        self._untried = self._untried and bool(refused)
        return refused

    def _limit_tokens(self, error: BackendError, most: int, level: int) -> None:
        """Remember the most tokens that the server allows; what is left of a context depends on the request."""
        if "context length" not in error.message:
            _LOG.log(level, "%s allows %d tokens for an answer: going on with these", self._wire.base_url, most)
            self._most_tokens = most

    def _check_prompt(self, request: GenerateRequest, tokens: int, text: str) -> None:
        """Raise `ContextTooLong` for a prompt that was cut silently, as an Ollama does behind this protocol.

        Some servers leave cached tokens out of the count. Only a count that is the size of a window tells of a cut.
        """
        if prompt_was_cut(request.messages, tokens):
            raise ContextTooLong(
                f"{self._wire.base_url} has cut the prompt to {tokens} tokens: it is too long for the context window",
                partial=text,
                hint="enlarge the window at the server (OLLAMA_CONTEXT_LENGTH), or use its own protocol: -b ollama",
            )

    async def _explained(self, error: BackendError, model: str) -> BackendError:
        """Name the server's models in an error that may be about the model's name; they are asked for once.

        Some servers answer an unknown name as they answer an unknown path: the list tells one from the other.
        """
        if not isinstance(error, ModelMissing | EndpointMissing):
            return error
        if self._listed is None:
            try:
                async with asyncio.timeout(_LIST_S):
                    self._listed = await self.models()
            except (BackendError, TimeoutError):
                self._listed = []
        others = [name for name in nearest_first(model, self._listed) if name != model]
        if not others or (isinstance(error, EndpointMissing) and (error.status != 404 or model in self._listed)):
            return error
        hint = f"choose one of its models with --model: {name_some(others)}"
        return ModelMissing(error.message, status=error.status, partial=error.partial, hint=hint)

    async def read_slots(self) -> int | None:
        """Ask a llama.cpp server on this machine how many requests it works on at once; `None` when unknown.

        Other servers are not asked: the protocol does not define what their root answers.
        """
        if not is_loopback(self._wire.base_url):
            return None
        try:
            async with asyncio.timeout(_PROPERTIES_S):
                properties = as_object(await self._wire.get_json("/props", at_root=True))
        except (BackendError, TimeoutError):
            return None
        slots = properties.get("total_slots")
        return slots if isinstance(slots, int) and slots >= 1 else None

    def batch_body(self, request: GenerateRequest) -> dict[str, Any]:
        """Body of a request for an answer in one piece, without the parameters that this server has refused."""
        return without_parameters(chat_body(request, is_openai=self._is_openai), self._dropped)

    async def models(self) -> list[str]:
        listed = await self._wire.get_json("/models")
        if isinstance(listed, dict):
            listed = next(
                (found for key in ("data", "models", "result") if isinstance(found := listed.get(key), list)), []
            )
        entries = [entry if isinstance(entry, dict) else {"id": entry} for entry in listed if entry]
        names = [entry.get("id") or entry.get("name") or entry.get("model") for entry in entries]
        return [name for name in names if isinstance(name, str)]

    async def aclose(self) -> None:
        await self._wire.aclose()


def _headers(base_url: str, key: str, *, keep_alive: bool) -> dict[str, str]:
    """Headers of every request besides the usual ones; Azure's older addresses want the key in one of their own."""
    headers = {} if keep_alive else {"Connection": "close"}
    if key.strip() and (urlsplit(base_url).hostname or "").endswith((".azure.com", ".azure-api.net")):
        headers["api-key"] = validate_key(key)
    return headers


_API_START = "does --base-url end where the server's API begins, mostly in /v1?"


def _hints(base_url: str, key_variable: str) -> Hints:
    base_url = redact_url(base_url)
    if key_variable == API_KEY:
        not_authorized = f"set {API_KEY}, or --key-file FILE, to a key of this server"
    elif key_variable:
        not_authorized = f"set {key_variable} to a key of this server"
    else:
        not_authorized = "name the variable with its key as key_env"
    return {
        BackendUnavailable: "is the server running? --base-url sets its address, and --backend local needs no server",
        NotAuthorized: not_authorized,
        EndpointMissing: (
            _API_START
            if not base_url.rstrip("/").endswith("/chat/completions")
            else f"--base-url goes up to and including /v1: {base_url.rstrip('/').removesuffix('/chat/completions')}"
        ),
        ModelMissing: f"choose one of {base_url.rstrip('/')}/models with --model",
    }


_REQUEST_FIELDS = frozenset({"model", "messages", "stream"})


def chat_body(request: GenerateRequest, *, is_openai: bool) -> dict[str, Any]:
    """Return the body of a request for an answer in one piece.

    OpenAI's own server knows fewer parameters than the compatible ones. Raises `UsageError` for an option that the
    protocol has no parameter for.
    """
    options = request.options
    if options.context_window is not None:
        raise UsageError(
            "an OpenAI-compatible server sets its context window itself, a request cannot choose it",
            hint="set it where the server is started, or use --backend ollama",
        )
    if wrong := _REQUEST_FIELDS & options.native.keys():
        raise UsageError(f"the option {min(wrong)!r} cannot be set here: it is part of every request")
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [cached_message(message.role, message.content) for message in request.messages],
    }
    parameters = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_tokens": options.max_tokens,
        "seed": options.seed,
        "stop": list(options.stop) or None,
    }
    body.update({name: value for name, value in parameters.items() if value is not None})
    if request.top_logprobs:
        body.update(logprobs=True, top_logprobs=request.top_logprobs)
    if options.thinking is not None:
        body.update(_thinking_parameters(options, is_openai=is_openai))
    if request.output_schema is not None:
        body["response_format"] = _response_format(request.output_schema)
    body.update(options.native)
    return body


def _thinking_parameters(options: Options, *, is_openai: bool) -> dict[str, Any]:
    """Servers know two parameters for reasoning: an effort, and the chat template's own switch."""
    if isinstance(options.thinking, str):
        return {"reasoning_effort": options.thinking}
    if is_openai:
        return {"reasoning_effort": "medium"} if options.thinking else {}
    effort = "medium" if options.thinking else "none"
    return {"reasoning_effort": effort, "chat_template_kwargs": {"enable_thinking": options.thinking}}


def _json_schema_format(schema: Mapping[str, Any]) -> CachedJson:
    # The protocol allows a name of at most 64 characters.
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title") or ""))[:64] or "answer"
    return CachedJson(type="json_schema", json_schema={"name": name, "schema": dict(schema), "strict": True})


_response_format = IdentityCache(_json_schema_format)

# Parameters that can be dropped when a server refuses them, and the words by which an error message names them.
_DROPPABLE: Mapping[str, re.Pattern[str]] = {
    "response_format": re.compile(
        r"(?:response|output)_?format|schema|json[_ ](?:object|mode|output)|grammar|structured|additionalProperties"
        r"|guided[_ ]|unimplemented keys|constrained decoding|outlines|requested parameters",
        re.IGNORECASE,
    ),
    "stream_options": re.compile(r"\bstream_options\b|\binclude_usage\b"),
    "stream": re.compile(
        r"\bstream(?:ing)?\b.{0,60}(?:support|allowed|disabled|remove|implemented|available|must be false)"
        r"|remove 'stream'|verified to stream|not support streaming",
        re.IGNORECASE,
    ),
    "chat_template_kwargs": re.compile(r"\bchat_template|\benable_thinking\b"),
    "max_tokens": re.compile(r"\bmax_?tokens\b", re.IGNORECASE),
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "top_p": re.compile(r"\btop_p\b"),
    "seed": re.compile(r"\bseed\b"),
    "stop": re.compile(r"\bstop\b"),
    # Last, as servers also call the models that refuse the others "reasoning models".
    "reasoning_effort": re.compile(r"\breasoning|\bthink|\bbudget 0\b|(?-i:['`\"]none['`\"])", re.IGNORECASE),
}
_NO_SYSTEM = re.compile(
    r"system[ _](?:role|message|prompt|instruction)s?\b.{0,40}\b(?:not|unsupported|cannot)\b|developer instruction"
    r"|roles must alternate|only user,? (?:and|or) assistant roles|support '?system\b|supported, got system"
    r"|(?:unexpected|invalid|unsupported) (?:value:? |role:? )+['\"`]?system|\brole:? ['\"`]?system\b.{0,40}\bnot\b"
    r"|\brole\b.{0,60}(?:should be|permitted|must be|valid role:|one of)(?!.{0,80}system)|valid role: user",
    re.IGNORECASE,
)
# The user chose these: one is dropped only when the server does not know it, not when its value is wrong.
USER_PARAMETERS = frozenset({"max_tokens", "temperature", "top_p", "seed", "stop"})
_NOT_KNOWN = re.compile(
    # A server that samples always wants a temperature above zero, which is the program's own.
    r"support|deprecated|unknown|unrecogni[sz]ed|not (?:permitted|allowed)|unexpected|extra|\bpositive\b|invalid field"
    r"|greater than (?:0|zero)|only \S+ is allowed|\(0(?:\.0+)?,|(?:>|above|at least|between) ?0|cannot both"
    r"|(?:only|has to|must) be (?:set to )?1\b",
    re.IGNORECASE,
)
_LOW_EFFORT = re.compile(r"\blow\b")
_REFUSALS = frozenset({400, 404, 422, 501})
# Statuses that mostly mean something else
_ALSO_REFUSES = {"stream": 403, "response_format": 500, "system": 500}
_FAULT_STATUS = 500  # Servers that do not check what they get fail at parameters that they do not know
_JSON_MODE: Mapping[str, Any] = {"type": "json_object"}


def refused_parameter(error: BackendError, body: Mapping[str, Any]) -> str:
    """Return what to drop from `body` after a server's refusal, empty when the refusal has another reason.

    Besides parameters that can be `json_schema` and `json_object`, the two values of `response_format`, and
    `no_effort`, a `reasoning_effort` of `none` where the server knows a low one, and `system`, the role.
    """
    said = _ADDRESS.sub("", error.message)
    if _NO_SYSTEM.search(said) and any(message["role"] == "system" for message in body["messages"]):
        return "system" if _refuses(error, "system") else ""
    for name, pattern in _DROPPABLE.items():
        if name not in body or not pattern.search(said) or not _refuses(error, name):
            continue
        if name == "reasoning_effort" and body[name] == "none" and _LOW_EFFORT.search(said):
            return "no_effort"
        if name == "response_format":
            return _refused_form(body)
        if name not in USER_PARAMETERS or _NOT_KNOWN.search(said):
            return name
    return ""


def _refused_form(body: Mapping[str, Any]) -> str:
    """The value of `response_format` to give up; empty for none, and for one that was written by the user."""
    form = body.get("response_format")
    if isinstance(form, dict) and "json_schema" in form:
        return "json_schema"
    return "json_object" if form is _JSON_MODE else ""


def _refuses(error: BackendError, name: str) -> bool:
    # An error inside an answer may have no status.
    if error.status is None or error.status in _REFUSALS or error.status == _ALSO_REFUSES.get(name):
        return True
    return error.status == _FAULT_STATUS and bool(_NOT_KNOWN.search(error.message))


_ADDRESS = re.compile(r"https?://\S+")
# Refusals that do not tell what is refused: mostly it is the schema.
_SAYS_NOTHING = re.compile(
    r"\s*answered 4(?:00|22) [\w ]+"
    r"(?:: (?:bad request\W*(?:parameter error)?|provider returned error|api.{0,6}参数有误.*"
    r"|(?:request contains an? )?invalid[ _](?:argument|request|input|parameter)s?(?:[ _](?:body|error))?)\W*)?",
    re.IGNORECASE,
)
_TOKENS_NAMED = re.compile(
    r"max_?(?:(?:completion|output|new)_?)?tokens|maximum tokens|(?:output|completion) tokens|in the completion",
    re.IGNORECASE,
)
_ROOM = re.compile(r"context length is (\d+) tokens\b.{0,90}?(\d+) (?:in the messages|input tokens)", re.DOTALL)
_FEWEST_TOKENS = 64
_LIMIT_STATUSES = frozenset({400, 413, 416, 422})


def allowed_tokens(error: BackendError, sent: int | None) -> int:
    """Return how many tokens an answer may have, by the refusal of a limit of `sent`; 0 for another refusal."""
    said = _ADDRESS.sub("", error.message).partition(": ")[2]  # behind the status
    if sent is None or error.status not in _LIMIT_STATUSES or not _TOKENS_NAMED.search(said):
        return 0
    if room := _ROOM.search(said):
        most = int(room[1]) - int(room[2])
    else:
        most = max((number for number in map(int, re.findall(r"(?<![-\d])\d+", said)) if number < sent), default=0)
        most -= bool(re.search(r"exclusive|(?:lower|less) than `?\d|lower than that", said))
    return most if _FEWEST_TOKENS <= most < sent else 0


def without_parameters(body: Mapping[str, Any], dropped: frozenset[str]) -> dict[str, Any]:
    """Return a request's body for a server that refuses some parameters."""
    kept = {name: value for name, value in body.items() if name not in dropped}
    if "no_effort" in dropped and kept.get("reasoning_effort") == "none":
        kept["reasoning_effort"] = "low"
    if "max_tokens" in dropped and "max_tokens" in body:
        kept["max_completion_tokens"] = body["max_tokens"]
    if "stream" in dropped:
        kept.pop("stream_options", None)
    if "system" in dropped:
        kept["messages"] = _without_system(body["messages"])
    wanted = body.get("response_format")
    if "json_schema" in dropped and isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        kept["messages"] = schema_in_prompt(kept["messages"], wanted["json_schema"]["schema"])
        kept["response_format"] = _JSON_MODE
        if "json_object" in dropped:
            del kept["response_format"]
    return kept


def schema_in_prompt(messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages with the schema in the last one, for a server that does not constrain the answer."""
    rule = f"Answer with nothing but one JSON object that follows this JSON schema:\n{json.dumps(schema)}"
    *earlier, last = messages or [{"role": "user", "content": ""}]
    return [*earlier, {**last, "content": f"{last['content']}\n\n{rule}".lstrip()}]


def _without_system(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages with the system's text at the beginning of the first other one."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    first = others[0] if others else {"role": "user", "content": ""}
    return [{**first, "content": "\n\n".join([*system, first["content"]]).strip()}, *others[1:]]


# Finish reasons by meaning, in lower case, the first that fits; any other is a good end. Servers hand on those of their
# engines.
_OVERFLOW = re.compile(r"context")
_FAULT = re.compile(
    r"error|fail|abort|cancel|time_?out|time_?limit|overload|unavailable|insufficient|malformed|unspecified|unexpected"
    r"|rate_limit|interrupt|connect|exception|shut_?down|crash|killed|evicted|preempted|stalled|^unknown$|^other$"
)
_FILTERED = re.compile(
    r"filter|safety|sensitive|prohibited|recitation|block|spii|refus|flagged|guardrail|moderat|violat|^language$|toxic"
    r"|polic|censor|\brisk|harm|armor|jailbreak"
)
_CUT = re.compile(r"length|max|limit|truncat|incomplete|cut_?off|budget|^tokens?$")
# Servers that refuse a request when reasoning has used up the limit.
_CUT_AS_ERROR = re.compile(
    r"could not finish the message because max_tokens|max completion tokens reached|complete request: max_output_tokens"
    r"|max_tokens\W+ must be greater than \W?thinking",
    re.IGNORECASE,
)
_BAD_END = re.compile("|".join(pattern.pattern for pattern in (_OVERFLOW, _FAULT, _FILTERED, _CUT)))


class _Answer:
    """State of one answer while its events arrive."""

    def __init__(self, url: str, *, merge_chunks: bool = False) -> None:
        self._url = url
        self._merge_chunks = merge_chunks
        self._parts: list[str] = []
        self._call: list[str] = []
        self._call_index: object = None  # That of the first call; some servers count from 1
        self._refusal = ""
        self._half = ""
        self._other: Event | None = None  # An event that is no part of a chat completion, where none is one
        self._counts = 0
        self._finish = ""
        self._usage: Usage | None = None
        self.begun = False
        # Whether the server has said that the answer is at its end. More may still follow.
        self.finished = False

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def read(self, events: Sequence[Event]) -> list[Chunk]:
        """Turn events that have arrived together into chunks; an event without news gives none."""
        self.begun = True
        chunks: list[Chunk] = []
        texts: list[str] = []
        for event in events:
            text = _plain_text(event)
            if text is not None:
                self._parts.append(text)
                self.finished = False
                if self._merge_chunks:
                    texts.append(text)
                else:
                    chunks.append(Chunk(text))
                continue
            if texts:
                chunks.append(Chunk("".join(texts)))
                texts.clear()
            if (chunk := self._read(event)) is not None:
                chunks.append(chunk)
        if texts:
            chunks.append(Chunk("".join(texts)))
        return chunks

    def _read(self, event: Event) -> Chunk | None:
        if event is DONE:
            self.finished = self.finished or bool(self._parts or self._call or self._finish or self._usage)
            return None
        if usage := as_object(event.get("usage")):
            self._usage = _read_usage(usage)
            self._counts += 1
        choices = event.get("choices")
        if not choices and event.get("finish_reason"):
            choices = [event]
        if not isinstance(choices, list) or not choices:
            is_other = not usage or not event.keys().isdisjoint(("type", "content", "output", "message"))
            if "choices" not in event and is_other and "ping" not in str(event.get("type", "")):
                self._other = event
            return None
        choice = as_object(choices[0])
        delta = choice.get("delta")
        delta = {"content": delta} if isinstance(delta, str) else as_object(delta)
        # Some servers repeat the whole message next to an empty last delta.
        if not delta and ("delta" not in choice or not self._parts):
            message = choice.get("message")
            delta = {"content": message} if isinstance(message, str) else as_object(message)
        content = delta.get("content", delta.get("text"))
        if not delta:
            content = choice.get("text") or choice.get("content")  # As of plain completions
        text, thinking = ("", "") if content in (None, "") else _read_content(self._with_half(content))
        thinking = thinking or _read_thinking(delta)
        if text:
            self._parts.append(text)
            self.finished = False
        elif usage and self._counts == 1 and self._parts:
            self.finished = True  # Counts that come once come at the end
        if refusal := delta.get("refusal"):
            self._refusal += str(refusal)
        if "tool_calls" in delta or "function_call" in delta:
            self._read_call(delta)
        finish = choice.get("finish_reason") or choice.get("finishReason") or delta.get("finish_reason")
        if finish := as_text(finish.get("type") if isinstance(finish, dict) else finish):
            # The engine's own reason counts where it says more.
            native = as_text(choice.get("native_finish_reason"))
            self._finish = (native if _BAD_END.search(native.lower()) else finish).lower().replace("-", "_")
            self.finished = True
        tokens = read_tokens(as_object(choice.get("logprobs")).get("content"))
        return Chunk(text, thinking, tokens=tokens) if text or thinking or tokens else None

    def _with_half(self, content: object) -> object:
        """`content` with the half of a surrogate pair that the chunk before ended in; its own last half is kept."""
        if not isinstance(content, str) or content.isascii():
            return content
        content, self._half = self._half + content, ""
        if "\ud800" <= content[-1] <= "\udbff":
            content, self._half = content[:-1], content[-1]
        return content

    def _read_call(self, delta: Event) -> None:
        """Keep the arguments of the first tool call, or the next piece of them."""
        calls = delta.get("tool_calls")
        for call in map(as_object, calls if isinstance(calls, list) else [{"function": delta.get("function_call")}]):
            index, given = call.get("index", 0), as_object(call.get("function")).get("arguments")
            self._call_index = index if self._call_index is None else self._call_index
            if index != self._call_index or not given:
                continue
            self._call.append(given if isinstance(given, str) else json.dumps(given))

    def last_chunks(self) -> list[Chunk]:
        """Return what the end of the stream completes; the last chunk has the finish reason and the usage.

        Raises:
            BackendError: the answer is not at its end, or the finish reason is a fault.
        """
        if not self.finished and self._other is not None and not self._parts:
            shown = one_line(json.dumps(self._other, ensure_ascii=False), 80)
            raise EndpointMissing(f"{self._url} answers, but not with a chat completion: {shown}", hint=_API_START)
        if not self.finished:
            raise StreamBroken(f"the answer from {self._url} ended without a finish reason", partial=self.text)
        finish = self._finish
        if self._refusal:
            raise ContentFiltered(f"the model refuses: {one_line(self._refusal)}")
        if _OVERFLOW.search(finish):
            raise ContextTooLong(f"{self._url} ended the answer: {finish}", partial=self.text)
        if _FAULT.search(finish) and not _FILTERED.search(finish):
            raise ServerFault(f"{self._url} gave up in the middle of an answer: {finish}", partial=self.text)
        chunks = []
        if self._half:
            self._parts.append("\ufffd")
            chunks.append(Chunk("\ufffd"))
        # A gateway that imitates a JSON schema by a tool sends the answer as the arguments of its call.
        if self._call and not self.text.strip():
            self._parts = [valid_unicode("".join(self._call))]
            chunks.append(Chunk(self._parts[0]))
        reason = "content_filter" if _FILTERED.search(finish) else "length" if _CUT.search(finish) else "stop"
        chunks.append(Chunk(finish_reason=reason, usage=self._usage))
        return chunks


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    details = as_object(usage.get("completion_tokens_details"))
    cached = as_object(usage.get("prompt_tokens_details")).get("cached_tokens")
    for name in ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"):
        cached = cached or usage.get(name)
    return Usage(
        as_token_count(usage.get("prompt_tokens")),
        as_token_count(usage.get("completion_tokens")),
        as_token_count(details.get("reasoning_tokens", usage.get("reasoning_tokens"))),
        as_token_count(cached),
    )


def _read_thinking(delta: Event) -> str:
    for name in ("reasoning_content", "reasoning", "thinking"):
        value = delta.get(name)
        if text := as_text(value.get("text") if isinstance(value, dict) else value):
            return text
    details = delta.get("reasoning_details")
    return _part_texts(details, "text") if isinstance(details, list) else ""


def _plain_text(event: Event) -> str | None:
    """Return the text of an event that holds nothing else, as nearly all do; `None` for any other."""
    choices = event.get("choices")
    if type(choices) is not list or not choices or event.get("usage"):
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("finish_reason") or choice.get("logprobs"):
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1 or type(text := delta.get("content")) is not str or not text:
        return None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return None
    return text


def _read_content(content: object) -> tuple[str, str]:
    """Return a delta's text and reasoning; some servers send a list of parts."""
    if isinstance(content, list):
        return _part_texts(content, "text"), _part_texts(content, "thinking")
    if isinstance(content, dict):
        text = content.get("text")
        return as_text(text) if isinstance(text, str) else valid_unicode(json.dumps(content)), ""
    # Some servers read each piece as JSON, which makes numbers of digits.
    return as_text(json.dumps(content) if isinstance(content, int | float) else content), ""


def _part_texts(parts: Sequence[object], key: str) -> str:
    texts = []
    for part in parts:
        value = part.get(key) if isinstance(part, dict) else part if key == "text" else None
        if key == "text" and value is None and isinstance(part, dict) and part.get("type") == "text":
            value = part.get("content")
        # The thoughts of a part are parts again.
        value = value.get("value") if isinstance(value, dict) else value
        texts.append(_part_texts(value, "text") if isinstance(value, list) else as_text(value))
    return valid_unicode("".join(texts))


def read_completion(url: str, body: Event) -> Completion:
    """Read an answer in one piece. Raises `BackendError`, with `url`, when it is refused, broken or unfinished."""
    answer = _Answer(url)
    thinking = "".join(chunk.thinking for chunk in answer.read([body]))
    last = answer.last_chunks()[-1]
    return Completion(answer.text, last.finish_reason or "stop", last.usage or Usage(), thinking=thinking)
