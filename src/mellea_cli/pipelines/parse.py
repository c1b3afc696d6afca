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
    r"|deliberation|monologue|cot)"
)
# Usual words too, which are a mark of reasoning only as a tag.
_TAG = rf"(?:{_NAME}|chain_of_thought|plan|planning|draft|rationale|explanation|critique|details)"
_OPENING = re.compile(
    rf"<\s?{_TAG}(?:\s[^<>]{{0,80}})?>|\[{_NAME}\]|◁{_NAME}▷|<\|(?:start_?|begin_?)?{_NAME}(?:_start)?\|>"
    r"|<\|inner_prefix\|>|\|startthink\||<\|channel>thought|<\|start_thinking\|>|<unused94>|&lt;think(?:ing)?&gt;",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"<\s?/\s?{_TAG}\s?>|\[/{_NAME}\]|◁/{_NAME}▷|<\|(?:/|end_?){_NAME}\|>|<\|{_NAME}_end\|>|<\|inner_suffix\|>"
    r"|\|endthink\||<unused95>|&lt;/think(?:ing)?&gt;|<channel\|>|<\|end_thinking\|>"
    r"|<\|begin\|>assistant<\|content\|>|\bassistantfinal|here is my response:",
    re.IGNORECASE,
)
# Harmony, the format of gpt-oss: a message in the final channel is the answer.
_CHANNEL = re.compile(r"<\|channel\|>")
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<{]*(?:<\|constrain\|>[^<{]*)?(?:<\|message\|>)?")
# Without one a call in the commentary may be it: gateways imitate a schema by a tool.
_CALL = re.compile(r"<\|channel\|>\s*commentary\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(?=\s*\{)")


def without_reasoning(text: str) -> str:
    """Drop the reasoning around an answer; empty when there is nothing else.

    A block may lack its opening tag, as where the prompt has opened it, or end with another tag than it began with.
    """
    if "<|channel|>" in text:
        final = list(_FINAL.finditer(text)) or list(_CALL.finditer(text))
        # The mark is in the text, so it is found.
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
_ESCAPED = ('{\\"', "{&quot;")
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
    if bare.startswith(_ESCAPED):
        bare = bare.replace('\\"', '"').replace("&quot;", '"')
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
    # A tag that was taken for the end of the reasoning may be one that the answer itself is about.
    tagged = [one for one in _balanced(text) if _OPENING.search(one) or _CLOSING.search(one)]
    for candidates in (tagged, [bare[bare.find("{") :].strip("`\n ") + "}"]):  # Or its last brace alone is missing.
        values, _ = _repaired(candidates, validate)
        if len(values) == 1:
            return values[0], True
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
    yield (outer := _balanced(text))
    # A brace more on each side, as of a template or a formula.
    yield [inner for one in outer if one.startswith(("{{", "{ {")) for inner in _balanced(one[1:-1])]
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
            try:
                held = json.loads(as_json(candidate[:_LONGEST_LENIENT], lenient=True))
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
    shaped = held
    # Keys first: only then are the labels below them looked at.
    for _ in range(3):
        try:
            return [validate(json.dumps(shaped))], []
        except ValidationError as error:
            reasons = [error]
            if (shaped := _folded(shaped, error)) is None:
                break
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
        return held[:1] if all(one == held[0] for one in held) else []
    if isinstance(held, str):
        try:
            value = json.loads(as_json(held))
        except (ValueError, RecursionError):
            return []
        return [] if isinstance(value, str) else [value]
    return []


_TOKENS = r""" (?: // | \# ) [^\n]* | /\* .*? \*/ | '(?:[^'\\]|\\.)*' | “(?:[^“”\\]|\\.)*” | [A-Za-z_]\w*
    | ,(?=\s*[}\]]) | [\uff0c\uff1a\u00a0\u200b\u3000\ufeff] """
_TOKEN = re.compile(rf' "(?:[^"\\]|\\.)*" | {_TOKENS}', re.VERBOSE | re.DOTALL)
# A quote inside a string that is not escaped: what follows is no part of the structure.
_LENIENT_TOKEN = re.compile(rf' "(?:[^"\\]|\\.|"(?!\s*(?:[,:}}\]]|\n\s*"|$)))*" | {_TOKENS}', re.VERBOSE | re.DOTALL)
_LONGEST_LENIENT = 20_000
_WORDS = {"True": "true", "False": "false", "None": "null", "undefined": "null", "NaN": "null", "nan": "null"}
_SIGNS_OUTSIDE = {"\uff0c": ",", "\uff1a": ":"}
_RAW = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPE = re.compile(r'\\(.)|"', re.DOTALL)
_NEXT_KEY = re.compile(r'\s*\n\s*["\']')


def as_json(text: str, *, lenient: bool = False) -> str:
    """Repair the form of a value: commas, comments, Python's literals and quotes, bare keys, signs in strings.

    With `lenient` a quote inside a string need not be escaped.
    """
    return (_LENIENT_TOKEN if lenient else _TOKEN).sub(_repair_token, text)


def _repair_token(found: re.Match[str]) -> str:
    piece = found[0]
    comma = "," if _NEXT_KEY.match(found.string, found.end()) else ""
    if piece[0] in "\"'“":
        inner = _ESCAPE.sub(_repair_escape, piece[1:-1])
        if inner.count("\n") == 1:
            # A line that was wrapped.
            inner = inner.replace("\n", " ")
        return '"' + "".join(_RAW.get(sign, " ") if sign < " " else sign for sign in inner) + '"' + comma
    if piece == "," or piece.startswith(("/", "#")):
        return ""
    if not piece.isascii():
        return _SIGNS_OUTSIDE.get(piece, " ")
    if re.match(r"\s*:", found.string[found.end() : found.end() + 20]):
        return f'"{piece}"'
    return _WORDS.get(piece, piece) + comma


def _repair_escape(found: re.Match[str]) -> str:
    if found[1] is None:
        return '\\"'
    return found[0] if found[1] in '"\\/bfnrtu' else found[1]


def _folded(held: Any, error: ValidationError) -> Any:
    """`held` with labels and keys as the type spells them; `None` when none differ only by case, blanks and signs.

    A note in parentheses behind a label does not count.
    """
    folded = json.loads(json.dumps(held))
    changed = False
    for detail in error.errors(include_url=False):
        place = [
            part for part in detail["loc"] if not (isinstance(part, str) and part.startswith(("literal[", "enum")))
        ]
        if detail["type"] == "missing" and place:
            changed = _rename_key(_at(folded, place[:-1]), str(place[-1])) or changed
        if detail["type"] not in ("literal_error", "enum"):
            continue
        labels = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        alike = [label for label in labels if _plain_label(label) == _plain_label(detail["input"])]
        if len(alike) == 1 and place and _put(folded, place, alike[0]):
            changed = True
    return folded if changed else None


def _plain_label(label: object) -> str:
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    text = re.sub(r"[\W_]+", " ", re.sub(r"\(.*\)", "", label)) if isinstance(label, str) else ""
    return text.strip().casefold()


def _rename_key(held: Any, name: str) -> bool:
    plain = re.sub(r"[\W_]", "", name).casefold()
    alike = [key for key in held if re.sub(r"[\W_]", "", key).casefold() == plain] if isinstance(held, dict) else []
    if len(alike) == 1:
        held[name] = held.pop(alike[0])
    return len(alike) == 1


def _at(held: Any, place: list[int | str]) -> Any:
    for part in place:
        try:
            held = held[part]
        except (KeyError, IndexError, TypeError):
            return None
    return held


def _put(held: Any, place: list[int | str], value: Any) -> bool:
    held = _at(held, place[:-1])
    if isinstance(held, dict | list) and (not isinstance(held, dict) or place[-1] in held):
        held[place[-1]] = value  # type: ignore[index]  # a name in an object, a number in a list
        return True
    return False
