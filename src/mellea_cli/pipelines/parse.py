"""JSON out of a model's text: what stands around it is dropped, and small slips of form are repaired.

Nothing is guessed: where two different values would do, none is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

Validate = Callable[[str], Any]
"""Turns JSON into a value of the wanted type, or raises a `ValidationError`."""

# Reasoning. Makers name and bracket its tags as they like: `<think>`, `<seed:think>`, `[THINK]`, `◁think▷`.

_NAME = (
    r"(?:[\w.-]{1,20}:)?\w{0,20}?(?:think|thinking|thoughts?|reason|reasoning|analysis|scratchpad|reflection|reflect"
    r"|deliberation|monologue)"
)
_OPENING = re.compile(
    rf"<{_NAME}>|\[{_NAME}\]|◁{_NAME}▷|<\|(?:start_?)?{_NAME}\|>|<\|inner_prefix\|>|\|startthink\|"
    r"|<\|channel>thought|<\|start_thinking\|>",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"</{_NAME}>|\[/{_NAME}\]|◁/{_NAME}▷|<\|(?:/|end_?){_NAME}\|>|<\|inner_suffix\|>|\|endthink\|"
    r"|<channel\|>|<\|end_thinking\|>|<\|begin\|>assistant<\|content\|>|\bassistantfinal|here is my response:",
    re.IGNORECASE,
)
# Harmony, the format of gpt-oss: a message in the final channel is the answer.
_CHANNEL = re.compile(r"<\|channel\|>")
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")


def without_reasoning(text: str) -> str:
    """Drop the reasoning around an answer; empty when there is nothing else.

    A block may lack its opening tag, as where the prompt has opened it, or end with another tag than it began with.
    """
    if "<|channel|>" in text:
        final = list(_FINAL.finditer(text))
        return text[final[-1].end() :] if final else text[: _CHANNEL.search(text).start()]  # type: ignore[union-attr]
    kept: list[str] = []
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        kept.append(text[at : opening.start()])
        closing = _CLOSING.search(text, opening.end())
        # Without an end it was cut off while it reasoned.
        at = len(text) if closing is None else closing.end()
    text = "".join([*kept, text[at:]])
    end = len(text)
    for closing in reversed(list(_CLOSING.finditer(text))):
        if rest := text[closing.end() : end].strip():
            return rest
        end = closing.start()
    return text[:end]


# Marks of a chat template, such as the end of a turn: what follows the answer's end is another turn.
_MARK = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>]{1,40}\uff5c>|</?s>|<(?:end|start)_of_turn>|<(?:eos|bos|pad)>|\[/?INST\]|\[EOS\]",
    re.IGNORECASE,
)
_CODE_FENCE = re.compile(r"\A\s*```[\w-]*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
_FENCES = re.compile(r"```[ \t]*[\w-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)


def parse_json(text: str, validate: Validate) -> tuple[Any, bool]:
    """Find the one value of the wanted type in a model's text.

    Args:
        text: what the model wrote.
        validate: makes the value from JSON.

    Returns:
        The value, and whether the text had to be repaired. White space, reasoning and a code fence around the whole
        answer are no repair.

    Raises:
        ValidationError: there is no such value; the error is that of the best candidate.
        AmbiguousAnswer: there are several different ones.
    """
    from pydantic import ValidationError

    bare = text.strip().removeprefix("\ufeff")
    if bare.startswith(("{", "[")):
        # Most answers are right as they stand, and a tag may stand inside one.
        with suppress(ValidationError):
            return validate(bare), False
    bare = without_reasoning(bare).strip()
    if fenced := _CODE_FENCE.match(bare):
        bare = fenced[1].strip()
    try:
        return validate(bare), False
    except ValidationError as error:
        reason = error
    for read in (_as_it_stands, _repaired):
        for candidates in _candidates(bare):
            values, errors = read(candidates, validate)
            if len(values) > 1:
                raise AmbiguousAnswer(len(values))
            if values:
                return values[0], True
            if len(errors) == 1:
                # What is wrong with the only object says more than that there is text around it.
                reason = errors[0]
    raise reason


class AmbiguousAnswer(ValueError):
    """Several different values would do."""

    def __init__(self, count: int) -> None:
        super().__init__(f"it holds {count} different JSON answers; give exactly one")


def _candidates(text: str) -> Iterator[list[str]]:
    """Lists of texts that may be the value, the most likely ones first: fenced blocks, then balanced brackets."""
    pieces = [piece for piece in _MARK.split(text) if piece.strip()]
    text = next((piece for piece in pieces if any(sign in piece for sign in "{[")), "".join(pieces[:1]))
    if "```" in text:
        yield [block.strip() for block in _FENCES.findall(text) if block.strip()]
    yield _balanced(text)
    yield [text.strip()]


_MOST_CANDIDATES = 100
"""Bracketed texts that are looked at; an answer with more is none."""
_SIGNS = re.compile(r"""["'“{}\[\]]""")
_STRINGS = {
    '"': re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL),
    "'": re.compile(r"(?:[^'\\]|\\.)*'", re.DOTALL),
    "“": re.compile(r"(?:[^“”\\]|\\.)*”", re.DOTALL),
}
_OPENED_BY = {"}": "{", "]": "["}
_LOOK_BACK = 40


def _balanced(text: str) -> list[str]:
    """Every text between brackets that belong together, those inside another one left out. Takes linear time."""
    spans: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    open_ones = {"{": 0, "[": 0}
    at = 0
    while (found := _SIGNS.search(text, at)) is not None:
        sign, at = found[0], found.end()
        if sign in open_ones:
            stack.append((sign, found.start()))
            open_ones[sign] += 1
        elif sign in _OPENED_BY:
            wanted = _OPENED_BY[sign]
            while open_ones[wanted]:
                # Brackets without a counterpart, as in prose, are passed over.
                opened, start = stack.pop()
                open_ones[opened] -= 1
                if opened == wanted:
                    spans.append((start, at))
                    break
        elif stack:
            # An apostrophe begins a string only where a key or a value may begin.
            before = text[max(0, found.start() - _LOOK_BACK) : found.start()].rstrip()[-1:]
            if (sign != "'" or before in tuple("{[,:")) and (string := _STRINGS[sign].match(text, at)):
                at = string.end()
    outer: list[str] = []
    end = 0
    for start, stop in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= end:
            outer.append(text[start:stop])
            end = stop
    return outer[:_MOST_CANDIDATES]


_Found = tuple[list[Any], "list[ValidationError]"]


def _as_it_stands(candidates: list[str], validate: Validate) -> _Found:
    """The different values among candidates, and the errors of those that are JSON but of another type."""
    from pydantic import ValidationError

    values: list[Any] = []
    errors: list[ValidationError] = []
    for candidate in candidates:
        try:
            value = validate(candidate)
        except ValidationError as error:
            if error.errors(include_url=False)[0]["type"] != "json_invalid":
                errors.append(error)
        else:
            if value not in values:
                values.append(value)
    return values, errors


def _repaired(candidates: list[str], validate: Validate) -> _Found:
    """The different values that candidates hold when their form is repaired, they are unwrapped, or labels folded."""
    values: list[Any] = []
    errors: list[ValidationError] = []
    for candidate in candidates:
        try:
            held = json.loads(as_json(candidate))
        except (ValueError, RecursionError):
            continue
        found, failed = _unwrapped(held, validate, _DEEPEST_WRAPPER)
        errors += failed
        values += [value for value in found if value not in values]
    return values, errors


_DEEPEST_WRAPPER = 4


def _unwrapped(held: Any, validate: Validate, depth: int) -> _Found:
    """The values of the wanted type that are `held` itself or stand inside it, and why it is none itself."""
    from pydantic import ValidationError

    reasons: list[ValidationError] = []
    try:
        return [validate(json.dumps(held))], []
    except ValidationError as error:
        reasons.append(error)
        if (folded := _with_labels_folded(held, error)) is not None:
            try:
                return [validate(json.dumps(folded))], []
            except ValidationError as still:
                reasons = [still]
    values: list[Any] = []
    if depth:
        for inner in _inside(held):
            found, _ = _unwrapped(inner, validate, depth - 1)
            values += [value for value in found if value not in values]
    return values, reasons


def _inside(held: Any) -> list[Any]:
    """What a wrapper holds: an object among an object's values, the only one of a list, the JSON in a string."""
    if isinstance(held, dict):
        inner = [value for value in held.values() if isinstance(value, dict | list)]
        return inner or [
            value for value in held.values() if isinstance(value, str) and value.lstrip()[:1] in tuple("{[")
        ]
    if isinstance(held, list):
        return held if len(held) == 1 else []
    if isinstance(held, str):
        try:
            value = json.loads(as_json(held))
        except (ValueError, RecursionError):
            return []
        return [] if isinstance(value, str) else [value]
    return []


_TOKEN = re.compile(
    r""" "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | “(?:[^“”\\]|\\.)*” | [A-Za-z_]\w* | ,(?=\s*[}\]]) """,
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null", "undefined": "null", "NaN": "null", "nan": "null"}
_RAW = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def as_json(text: str) -> str:
    """Repair the form of a value: trailing commas, Python's literals and quotes, bare keys, line breaks in strings."""
    return _TOKEN.sub(_repair_token, text)


def _repair_token(found: re.Match[str]) -> str:
    piece = found[0]
    if piece[0] in "\"'“":
        inner = piece[1:-1].replace("\\'", "'")
        if piece[0] != '"':
            inner = re.sub(r'(?<!\\)"', '\\"', inner)
        if inner.count("\n") == 1:
            # A line that was wrapped.
            inner = inner.replace("\n", " ")
        return '"' + "".join(_RAW.get(sign, sign) if sign < " " else sign for sign in inner) + '"'
    if piece == ",":
        return ""
    if re.match(r"\s*:", found.string[found.end() : found.end() + 20]):
        return f'"{piece}"'
    return _WORDS.get(piece, piece)


def _with_labels_folded(held: Any, error: ValidationError) -> Any:
    """`held` with labels as the type spells them where only case, blanks or a full stop differ; `None` without any."""
    folded = json.loads(json.dumps(held))
    changed = False
    for detail in error.errors(include_url=False):
        if detail["type"] not in ("literal_error", "enum"):
            continue
        labels = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        alike = [label for label in labels if _plain_label(label) == _plain_label(detail["input"])]
        place = [
            part for part in detail["loc"] if not (isinstance(part, str) and part.startswith(("literal[", "enum")))
        ]
        if len(alike) == 1 and place and _put(folded, place, alike[0]):
            changed = True
    return folded if changed else None


def _plain_label(label: object) -> str:
    text = re.sub(r"[\W_]+", " ", label) if isinstance(label, str) else ""
    return text.strip().casefold()


def _put(held: Any, place: list[int | str], value: Any) -> bool:
    for part in place[:-1]:
        try:
            held = held[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(held, dict | list) and (not isinstance(held, dict) or place[-1] in held):
        held[place[-1]] = value  # type: ignore[index]
        return True
    return False
