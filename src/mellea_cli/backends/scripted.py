"""Answers by rule, without a model: for tests, demonstrations and benchmarks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Self
from zlib import crc32

from mellea_cli.backends.base import BackendSettings
from mellea_cli.errors import UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Token, Usage, estimate_tokens

# Function that returns a text, a text in the pieces in which it streams, or an exception to raise
Reply = Callable[[GenerateRequest], str | Sequence[str] | Exception]


class ScriptedBackend:
    """A backend that answers deterministically, with no model and no network. `auto` never chooses it.

    Without `reply` a request with a schema gets a valid and plausible instance of it, and any other the first sentence
    of its last user message. A text in tags such as `<feedback>` is used instead of the whole message.

    Args:
        reply: answers requests instead.
        chunk_delay_s: seconds between two chunks.
        chunk_characters: characters of a chunk, at least 1.
        models: names that `models` lists; any name is answered.
    """

    name = "scripted"
    slots = None

    def __init__(
        self,
        reply: Reply | None = None,
        *,
        chunk_delay_s: float = 0.0,
        chunk_characters: int = 16,
        models: Sequence[str] = ("scripted",),
    ) -> None:
        if chunk_characters < 1:
            raise UsageError("chunk_characters must be at least 1")
        self._reply = reply or plausible_reply
        self._delay_s = chunk_delay_s
        self._chunk_characters = chunk_characters
        self._models = list(models)
        self._closed = False

    @classmethod
    def from_settings(cls, _: BackendSettings) -> Self:
        return cls()

    async def prepare(self, model: str) -> None:
        """Do nothing: there is nothing to start."""

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the reply in chunks, then its end with the usage; raise the reply when it is an exception."""
        if self._closed:
            raise UsageError("the scripted backend has been closed")
        reply = self._reply(request)
        if request.top_logprobs and request.output_schema is None and not isinstance(reply, Exception):
            likely = plausible_logprobs(request)
            label = max(likely, key=lambda label: likely[label])
            yield Chunk(label, tokens=(Token(label, likely),))
            reply = ""
        if isinstance(reply, Exception):
            raise reply
        size = self._chunk_characters
        pieces = [reply[at : at + size] for at in range(0, len(reply), size)] if isinstance(reply, str) else list(reply)
        # Other tasks run meanwhile, as they do while a real server works.
        await asyncio.sleep(self._delay_s)
        for number, piece in enumerate(pieces):
            if self._delay_s and number:
                await asyncio.sleep(self._delay_s)
            yield Chunk(piece, tokens=plausible_tokens(piece) if request.top_logprobs else ())
        asked = sum(len(message.content) for message in request.messages)
        usage = Usage(estimate_tokens(asked), estimate_tokens(sum(map(len, pieces))))
        yield Chunk(finish_reason="stop", usage=usage)

    async def models(self) -> list[str]:
        return list(self._models)

    async def aclose(self) -> None:
        """Refuse every later request, as a closed connection would."""
        self._closed = True


_TAGGED = re.compile(r"<(\w+)>\n?(.*?)\n?</\1>", re.DOTALL)


def plausible_reply(request: GenerateRequest) -> str:
    """Answer from the request's own words: an instance of its schema, or a sentence of its last user message."""
    said = [message.content for message in reversed(request.messages) if message.role == "user"]
    # A re-prompt has no text in tags; its question is the message before.
    tagged = next((found for text in said if (found := _TAGGED.findall(text))), None)
    subject = tagged[-1][1] if tagged else said[0] if said else ""
    if request.output_schema is None:
        return first_sentence(subject)
    return json.dumps(SchemaFaker(subject).value(request.output_schema), ensure_ascii=False, separators=(",", ":"))


def plausible_logprobs(request: GenerateRequest) -> dict[str, float]:
    """Log-probabilities of the usual labels for the last user message, from its known words."""
    said = request.messages[-1].content.lower()
    good, bad = _POSITIVE.search(said) is not None, _NEGATIVE.search(said) is not None
    label = "mixed" if good and bad else "positive" if good else "negative" if bad else "neutral"
    return {one: -0.1 if one == label else -3.6 for one in ("positive", "negative", "mixed", "neutral")}


def plausible_tokens(piece: str) -> tuple[Token, ...]:
    """The characters of a piece as tokens, in whose place there might be a text, a null or the other bool."""
    others = dict.fromkeys(('"', "n", "t", "f"), -3.0)
    return tuple(Token(one, {**others, one: -0.2}) for one in piece)


_POSITIVE = re.compile(r"\b(love[sd]?|great|good|excellent|friendly|fast|thanks?|happy|perfect|best|easy|nice)\b")
_NEGATIVE = re.compile(
    r"\b(bad|slow|broken|crash(es|ed)?|errors?|fail(s|ed)?|not|never|wrong|worst|late|lost|rude|hate[sd]?)\b"
)
_URGENT = re.compile(r"\b(lost|refund|crash(es|ed)?|charged|billed|cancel(ling)?|urgent|now|immediately)\b")
_SENTENCE_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f")
_SENTENCE = re.compile(rf".*?[{re.escape(''.join(_SENTENCE_ENDS))}]+(?=\s|$)", re.DOTALL)
_MAX_WORDS = 25
_MAX_DEPTH = 3


class SchemaFaker:
    """Example data for a JSON schema, made from a text: valid, plausible and always the same for the same text.

    Strings quote the text, choices follow its known words (moods and urgencies), and the rest comes from its checksum.
    """

    __slots__ = ("_checksum", "_negative", "_positive", "_sentence", "_urgent")

    def __init__(self, text: str) -> None:
        lower = text.lower()
        self._positive = _POSITIVE.search(lower) is not None
        self._negative = _NEGATIVE.search(lower) is not None
        self._urgent = _URGENT.search(lower) is not None
        self._sentence = first_sentence(text)
        self._checksum = crc32(text.encode("utf-8", "replace"))

    def value(self, schema: Mapping[str, Any]) -> Any:
        """Return a value that is valid under `schema`, whose references all point into itself."""
        return self._value(schema, schema, "", 0)

    def _value(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> Any:
        schema = self._resolve(schema, root, name, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(list(schema["enum"]))
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if kind == "object":
            return self._object(schema, root, depth)
        if kind == "array":
            return self._array(schema, root, name, depth)
        return self._scalar(kind, schema)

    def _resolve(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> Mapping[str, Any]:
        """Follow references and choose among alternatives until the schema has one type."""
        while True:
            branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            kinds = schema.get("type")
            if "$ref" in schema:
                schema = _target(root, str(schema["$ref"]))
            elif branches:
                schema = self._branch(branches, name, depth)
            elif isinstance(kinds, list):
                schema = self._branch([{**schema, "type": kind} for kind in kinds], name, depth)
            else:
                return schema

    def _object(self, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
        fields: Mapping[str, Any] = schema.get("properties", {})
        if depth > _MAX_DEPTH:
            # A recursive type must end somewhere, so only its required fields are filled.
            required = schema.get("required", ())
            fields = {name: field for name, field in fields.items() if name in required}
        return {name: self._value(field, root, name, depth + 1) for name, field in fields.items()}

    def _array(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        minimum, maximum = schema.get("minItems", 0), schema.get("maxItems", 1)
        count = max(minimum, 0 if depth > _MAX_DEPTH else min(1, maximum))
        return [self._value(schema.get("items", {}), root, name, depth + 1) for _ in range(count)]

    def _scalar(self, kind: str, schema: Mapping[str, Any]) -> Any:
        if kind == "null":
            return None
        if kind == "boolean":
            return self._positive and not self._negative
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        if schema.get("format") == "date":
            return f"2026-{self._checksum % 12 + 1:02}-{self._checksum % 28 + 1:02}"
        text = self._sentence[: schema.get("maxLength", len(self._sentence))]
        return text.ljust(schema.get("minLength", 0), ".")

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> int | float:
        step = 1 if whole else 0.5
        low = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else None)
        high = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else None)
        if low is None:
            low = 1 if high is None else min(1, high)
        span = 10 if high is None else max(0, int(high - low))
        value = low + self._checksum % (span + 1)
        return int(value) if whole else float(value)

    def _choice(self, values: list[Any]) -> Any:
        mood = "mixed" if self._positive and self._negative else "negative" if self._negative else "positive"
        urgency = "high" if self._urgent else "medium" if self._negative else "low"
        for known in (mood, urgency):
            if known in values:
                return known
        return values[self._checksum % len(values)]

    def _branch(self, branches: list[Mapping[str, Any]], name: str, depth: int) -> Mapping[str, Any]:
        """Choose one of several schemas; null where the text lacks the mood that the field's name asks for."""
        null = next((branch for branch in branches if branch.get("type") == "null"), None)
        others = [branch for branch in branches if branch is not null]
        if null is None or not others:
            return branches[0]
        wanted = True
        if "complaint" in name or "negative" in name or "problem" in name:
            wanted = self._negative
        elif "praise" in name or "positive" in name:
            wanted = self._positive
        return others[0] if wanted and depth <= _MAX_DEPTH else null


def first_sentence(text: str) -> str:
    """Return the first sentence of `text` in one line, with at most 25 words and a punctuation mark."""
    found = _SENTENCE.match(text[:2000].strip())
    words = (found.group() if found else text[:2000]).split()
    sentence = " ".join(words[:_MAX_WORDS]).rstrip(",;:")
    return sentence if sentence.endswith(_SENTENCE_ENDS) else f"{sentence or 'Nothing is said'}."


def _target(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    target: Any = root
    for part in reference.removeprefix("#").split("/"):
        if part:
            target = target[part.replace("~1", "/").replace("~0", "~")]
    return target if isinstance(target, Mapping) else {}
