"""Answers without a model: for tests, demonstrations and benchmarks. It is never chosen by itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

from mellea_cli.errors import UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Usage

# A plausible, valid and repeatable instance of a JSON schema, made from a text and no model.
#
# Strings quote the text, choices follow its words where the words are known ones (moods and urgencies), and the rest is
# drawn from the text's checksum.

_GLAD = re.compile(r"\b(love[sd]?|great|good|excellent|friendly|fast|thanks?|happy|perfect|best|easy|nice)\b")
_SORE = re.compile(
    r"\b(bad|slow|broken|crash(es|ed)?|errors?|fail(s|ed)?|not|never|wrong|worst|late|lost|rude|hate[sd]?)\b"
)
_PRESSING = re.compile(r"\b(lost|refund|crash(es|ed)?|charged|billed|cancel(ling)?|urgent|now|immediately)\b")
_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f")
_SENTENCE = re.compile(rf".*?[{re.escape(''.join(_ENDS))}]+(?=\s|$)", re.DOTALL)
_MOST_WORDS = 25
_DEEPEST = 3


class SchemaFaker:
    """Makes instances that fit one text.

    Args:
        text: what the values are to be about.
    """

    __slots__ = ("_draw", "_glad", "_pressing", "_sentence", "_sore")

    def __init__(self, text: str) -> None:
        lower = text.lower()
        self._glad = _GLAD.search(lower) is not None
        self._sore = _SORE.search(lower) is not None
        self._pressing = _PRESSING.search(lower) is not None
        self._sentence = first_sentence(text)
        self._draw = crc32(text.encode("utf-8", "replace"))

    def value(self, schema: Mapping[str, Any]) -> Any:
        """Return a value that is valid under `schema`, whose references point into itself."""
        return self._value(schema, schema, "", 0)

    def _value(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> Any:
        schema = self._settled(schema, root, name, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(list(schema["enum"]))
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if kind == "object":
            return self._object(schema, root, depth)
        if kind == "array":
            return self._array(schema, root, name, depth)
        return self._plain(kind, schema)

    def _settled(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> Mapping[str, Any]:
        """Follow references and take one of several types until a plain schema is left."""
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
        if depth > _DEEPEST:
            # A type that holds itself must come to an end somewhere: only what it insists on.
            required = schema.get("required", ())
            fields = {name: field for name, field in fields.items() if name in required}
        return {name: self._value(field, root, name, depth + 1) for name, field in fields.items()}

    def _array(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", 1)
        count = max(least, 0 if depth > _DEEPEST else min(1, most))
        return [self._value(schema.get("items", {}), root, name, depth + 1) for _ in range(count)]

    def _plain(self, kind: str, schema: Mapping[str, Any]) -> Any:
        if kind == "null":
            return None
        if kind == "boolean":
            return self._glad and not self._sore
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        text = self._sentence[: schema.get("maxLength", len(self._sentence))]
        return text.ljust(schema.get("minLength", 0), ".")

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> int | float:
        step = 1 if whole else 0.5
        low = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else None)
        high = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else None)
        if low is None:
            low = 1 if high is None else min(1, high)
        span = 10 if high is None else max(0, int(high - low))
        value = low + self._draw % (span + 1)
        return int(value) if whole else float(value)

    def _choice(self, values: list[Any]) -> Any:
        mood = "mixed" if self._glad and self._sore else "negative" if self._sore else "positive"
        urgency = "high" if self._pressing else "medium" if self._sore else "low"
        for known in (mood, urgency):
            if known in values:
                return known
        return values[self._draw % len(values)]

    def _branch(self, branches: list[Mapping[str, Any]], name: str, depth: int) -> Mapping[str, Any]:
        """Take one of several types; null where nothing of the kind that the field's name asks for is in the text."""
        nothing = next((branch for branch in branches if branch.get("type") == "null"), None)
        others = [branch for branch in branches if branch is not nothing]
        if nothing is None or not others:
            return branches[0]
        wanted = True
        if "complaint" in name or "negative" in name or "problem" in name:
            wanted = self._sore
        elif "praise" in name or "positive" in name:
            wanted = self._glad
        return others[0] if wanted and depth <= _DEEPEST else nothing


def first_sentence(text: str) -> str:
    """Return the first sentence of `text` in one line, with fewer than 30 words and a mark at its end."""
    found = _SENTENCE.match(text[:2000].strip())
    words = (found.group() if found else text[:2000]).split()
    sentence = " ".join(words[:_MOST_WORDS]).rstrip(",;:")
    return sentence if sentence.endswith(_ENDS) else f"{sentence or 'Nothing is said'}."


def _target(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    target: Any = root
    for part in reference.removeprefix("#").split("/"):
        if part:
            target = target[part.replace("~1", "/").replace("~0", "~")]
    return target if isinstance(target, Mapping) else {}


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
    return json.dumps(SchemaFaker(subject).value(request.output_schema), ensure_ascii=False, separators=(",", ":"))
