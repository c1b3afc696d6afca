"""JSON out of a model's text: what stands around it is dropped, and small slips of form are repaired.

Nothing is guessed: where two different values would do, none is taken.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

Validate = Callable[[str], Any]  # Turns JSON into a value of the wanted type, or raises a `ValidationError`

# Reasoning. Makers name and bracket its tags as they like: `<think>`, `<seed:think>`, `[THINK]`, `◁think▷`.

_NAME = (
    r"(?:[\w.-]{1,20}:)?\w{0,20}?(?:think|thinking|thoughts?|reason|reasoning|analysis|scratchpad|reflection|reflect"
    r"|deliberation|monologue|cot)"
)
_ANSWER = r"(?:final_?)?(?:answer|response|output|result|solution|json)"
# A block of any other name at the beginning.
_BLOCK = re.compile(
    rf"\s*(?:<(?!{_ANSWER}|tool|function|[!?])([^\W\d][\w.:-]*)[^<>]*>.*?</\1>|【(.{{1,20}}?)】.*?【/\2】)",
    re.IGNORECASE | re.DOTALL,
)
_MOST_BLOCKS = 10
_OPENING = re.compile(
    rf"<\s?{_NAME}(?:\s[^<>]{{0,80}})?>|\[{_NAME}\]|◁{_NAME}▷|<\|(?:start_?|begin_?)?{_NAME}(?:_start)?\|>"
    r"|<\|inner_prefix\|>|\|startthink\||<\|channel>thought|<\|start_thinking\|>|<unused94>|&lt;think(?:ing)?&gt;",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"<\s?/\s?{_NAME}\s?>|\[(?:/|END_){_NAME}\]|◁/{_NAME}▷|<\|(?:/|end_?){_NAME}\|>|<\|{_NAME}_end\|>|<\|inner_suffix\|>"
    r"|\|endthink\||<unused95>|&lt;/think(?:ing)?&gt;|<channel\|>|<\|end_thinking\|>"
    r"|<\|begin\|>assistant<\|content\|>|\bassistantfinal|here is my response:|\.\.\.done thinking\."
    r"|<\|(?:start_response|begin_of_(?:box|solution))\|>",
    re.IGNORECASE,
)
# What tells the answer from drafts in front of it.
_ANSWER_MARK = re.compile(
    rf"<{_ANSWER}>|(?:\bfinal |^\*\*|^#+ ?)(?:answer|response|output|json)\b[*:\s]*(?=[`{{])",
    re.IGNORECASE | re.MULTILINE,
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
    for _ in range(_MOST_BLOCKS):
        if (block := _BLOCK.match(text)) is not None and "{" in text[block.end() :]:
            text = text[block.end() :]
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
    r"<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>]{1,40}\uff5c>|</?s>|<(?:end|start)_of_turn>|<(?:eos|bos|pad)>|\[/?INST\]"
    r"|\[EOS\]|<!\[CDATA\[|\]\]>",
    re.IGNORECASE,
)
_WIDE_SIGNS = str.maketrans("\uff5b\uff5d\uff3b\uff3d", "{}[]")
_CODE_FENCE = re.compile(r"\A\s*```[\w-]*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
_FENCES = re.compile(r"```[ \t]*[\w-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_FIRST_KEY = re.compile(r"""["'*]*\w+["'*]*\s*:""")


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
    if not re.search(r'(?<!\\)"', bare):
        bare = _unescaped(bare)
    if fenced := _CODE_FENCE.match(bare):
        bare = fenced[1].strip()
    try:
        return validate(bare), False
    except ValidationError as error:
        reason = error
    for held in _held_in(bare, text):
        values, errors = _valid(held, validate)
        if len(values) > 1:
            marks = list(_ANSWER_MARK.finditer(bare))
            if len(marks) != 1:
                raise AmbiguousAnswer(len(values))
            return parse_json(_ANSWER_MARK.split(bare)[1], validate)[0], True
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


def _unescaped(text: str) -> str:
    """A text whose quotes are all escaped, as it was before that."""
    if "&#" in text or "&quot;" in text:
        return html.unescape(text)
    if '"' in text:
        with suppress(ValueError):
            return str(json.loads(f'"{text}"', strict=False))
    return text


def _held_in(bare: str, text: str) -> Iterator[list[Any]]:
    """Lists of values, the most likely ones first: those as JSON has them before those that are nearly JSON."""
    pieces = [piece for piece in _MARK.split(bare) if piece.strip()]
    answer = next((piece for piece in pieces if "{" in piece or "[" in piece), "".join(pieces[:1]))
    answer = answer.translate(_WIDE_SIGNS).strip()
    for loosely in (False, True):
        if "```" in answer:
            yield [one for block in _FENCES.findall(answer) for one in _values_in(block, loosely=loosely)]
        yield list(_values_in(answer, loosely=loosely))
    with suppress(ValueError, RecursionError):
        yield [json.loads(answer)]
    # Brackets are missing at an end.
    last = answer[answer.find("{") :] if "{" in answer else "{" + answer.rstrip("}") if _FIRST_KEY.match(answer) else ""
    with suppress(ValueError, RecursionError):
        yield [_Reader(last[:_LONGEST].strip("`\n ") + "\n", open_ended=True).whole()]
    # A tag that was taken for the end of the reasoning may be one that the answer itself is about, or all is reasoning.
    all_of_it = not bare and "<|channel|>" not in text
    helds = list(_values_in(text, loosely=True))
    yield [held for held in helds if all_of_it or _CLOSING.search(said := str(held)) or _OPENING.search(said)]


_Found = tuple[list[Any], "list[ValidationError]"]


def _valid(helds: list[Any], validate: Validate) -> _Found:
    """The different values of the wanted type among some, or in them, and the errors of those that are none."""
    values: list[Any] = []
    errors: list[ValidationError] = []
    for held in helds:
        found, failed = _unwrapped(held, validate, _DEEPEST_WRAPPER)
        errors += failed
        values += [value for value in found if value not in values]
    if len(helds) > 1 and not values and (merged := _merged(helds)):
        values, _ = _unwrapped(merged, validate, 0)
    return values, errors


_DEEPEST_WRAPPER = 4


def _unwrapped(held: Any, validate: Validate, depth: int) -> _Found:
    """The values of the wanted type that are `held` itself or stand inside it, and why it is none itself."""
    from pydantic import ValidationError

    reasons: list[ValidationError] = []
    shaped = held
    # Keys first: only then are the labels below them looked at.
    for _ in range(4):
        try:
            # A half of a surrogate pair is no text.
            return [validate(json.dumps(shaped, ensure_ascii=False).encode("utf-8", "replace").decode())], []
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
        return inner or [value for value in held.values() if isinstance(value, str) and "{" in value]
    if isinstance(held, list):
        return [merged] if (merged := _merged(held)) else held[:1] if all(one == held[0] for one in held) else []
    if isinstance(held, str):
        with suppress(ValueError, RecursionError):
            return [json.loads(held)]
        return list(_values_in(held, loosely=True))
    return []


def _merged(parts: list[Any]) -> dict[str, Any]:
    """The object that parts make together where each has keys of its own; else an empty one."""
    if not all(isinstance(part, dict) for part in parts):
        return {}
    merged = {key: value for part in parts for key, value in part.items()}
    return merged if len(parts) > 1 and len(merged) == sum(map(len, parts)) else {}


_MOST_VALUES = 100  # Brackets that are looked at; an answer with more is none
_LONGEST = 20_000
_BRACKET = re.compile(r"[{\[]")
_decoder = json.JSONDecoder(parse_constant=lambda _: None)


def _values_in(text: str, *, loosely: bool) -> Iterator[Any]:
    """Every object and list in a text, those inside another one left out; read `loosely` where they are nearly JSON."""
    reader = _Reader(text[-_LONGEST:] if loosely else text)
    for _ in range(_MOST_VALUES):
        if (found := _BRACKET.search(reader.text, reader.at)) is None:
            return
        reader.at = found.start()
        try:
            if loosely:
                yield reader.value()
            else:
                value, reader.at = _decoder.raw_decode(text, reader.at)
                yield value
        except (ValueError, RecursionError):
            # A bracket without a counterpart, as in prose, is passed over.
            reader.at = found.end()


# A value whose form is nearly JSON's. White space, comments and signs that say nothing. Possessive, as a hostile text
# must not be tried in many ways:
_S = r"(?:\s|\\[nrt]|[\u200b\ufeff]|(?://|\#)[^\n]*+|/\*.{0,300}?\*/|<!--.{0,300}?-->|<br ?/?>|\.{3}|(?<=\n)>)*+"
_Q = r"[\"'“”„«`\u2018\uff02]"
_COLON = r"(?:[:\uff1a]|=>?|->)"
_COMMA = r"[,;\uff0c\u3001\uff1b]"
_ENDS = {"“": "”", "”": "”", "„": "“”", "«": "»", "\u2018": "\u2019"}
_SPACE = re.compile(_S, re.DOTALL)
_BETWEEN = re.compile(rf"(?:{_S}{_COMMA})*{_S}", re.DOTALL)
_IS_COLON = re.compile(_S + _COLON, re.DOTALL)
_BARE_KEY = re.compile(r"[\w.$-]+")
_BARE_VALUE = re.compile(r"(?:(?!\s(?://|\#))[^,;\n{}\[\]\uff0c\u3001\uff1b])+")
# What follows a string's end, so that quotes inside it need not be escaped: the key's colon; in an object a bracket or
# the next key, which has quotes or none as the one before; in a list the next value.
_AFTER_LAST = rf"{_S}(?:\Z|[}}\]]|\+{_S}{_Q}|(?:{_COMMA}{_S})+[}}\]]"
_NEXT_QUOTED = rf"(?:{_COMMA}{_S})*{_Q}[^\"'“”\n]{{1,60}}[\"'“”»`\u2019\uff02]{_S}{_COLON}"
_NEXT_BARE = rf"(?:{_COMMA}{_S})*[\w.$-]{{1,60}}{_S}{_COLON}"
_AFTER_QUOTED, _AFTER_BARE, _AFTER_LISTED = (
    re.compile(rf"{_AFTER_LAST}|{following})", re.DOTALL)
    for following in (_NEXT_QUOTED, f"{_NEXT_QUOTED}|{_NEXT_BARE}", rf"{_COMMA}{_S}(?:{_Q}|[{{\[\d-]|true|false|null)")
)
_WORDS = {"True": True, "False": False, "None": None, "undefined": None, "NaN": None, "nan": None}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)|\"", re.DOTALL)


class _Reader:
    """Reads values from `at` on: quotes, commas, comments, Python's literals and bare words may be wrong in form.

    Raises `ValueError` for another form, and, unless `open_ended`, for brackets that are not closed.
    """

    def __init__(self, text: str, *, open_ended: bool = False) -> None:
        self.text = text
        self.at = 0
        self._open_ended = open_ended

    def _pass(self, signs: re.Pattern[str]) -> str:
        """Go past signs; return the one behind them, empty at the end."""
        if found := signs.match(self.text, self.at):
            self.at = found.end()
        return self.text[self.at : self.at + 1]

    def whole(self) -> Any:
        """Read the only value."""
        value = self.value()
        if self._pass(_SPACE):
            raise ValueError("something follows the value")
        return value

    def value(self, after: re.Pattern[str] = _AFTER_LISTED) -> Any:
        sign = self._pass(_SPACE)
        if sign == "{":
            return self._object()
        if sign == "[":
            return [self.value() for _ in self._until("]")]
        if sign and re.match(_Q, sign):
            text = self._string(after)
            while self._pass(_SPACE) == "+":
                self.at += 1
                self._pass(_SPACE)
                text += self._string(after)
            return text
        word = found[0].strip() if (found := _BARE_VALUE.match(self.text, self.at)) else ""
        if found is None or not word:
            raise ValueError("a value is missing")
        self.at = found.end()
        with suppress(ValueError):
            return json.loads(word)
        return _WORDS.get(word, word)

    def _until(self, end: str) -> Iterator[str]:
        """Yield the first sign of each part of an object or a list."""
        self.at += 1
        while (sign := self._pass(_BETWEEN)) and sign != end:
            yield sign
        if not (sign or self._open_ended):
            raise ValueError("a bracket is not closed")
        self.at += len(sign)

    def _object(self) -> dict[str, Any]:
        held: dict[str, Any] = {}
        for sign in self._until("}"):
            start = self.at
            if quoted := re.match(_Q, sign):
                key = self._string(_IS_COLON)
            else:
                self._pass(_BARE_KEY)
                key = self.text[start : self.at]
            if not key or not _IS_COLON.match(self.text, self.at):
                raise ValueError("a key or its colon is missing")
            self._pass(_IS_COLON)
            held[key] = self.value(_AFTER_QUOTED if quoted else _AFTER_BARE)
        return held

    def _string(self, after: re.Pattern[str]) -> str:
        """Read a string up to the first quote that what may follow one follows."""
        start, opener = self.at + 1, self.text[self.at : self.at + 1]
        for end in re.compile(rf"\\.|[{_ENDS.get(opener, opener)}]", re.DOTALL).finditer(self.text, start):
            if end[0][0] != "\\" and after.match(self.text, end.end()):
                self.at = end.end()
                inner = _ESCAPE.sub(_repair_escape, self.text[start : end.start()])
                if inner.count("\n") == 1:
                    # A line that was wrapped.
                    inner = inner.replace("\n", " ")
                return str(json.loads('"' + re.sub(r"[\0-\x08\x0b\x0c\x0e-\x1f]", " ", inner) + '"', strict=False))
        raise ValueError("a string has no end")


def _repair_escape(found: re.Match[str]) -> str:
    escape = found[1]
    if escape is None:
        return '\\"'
    if len(escape) == 3:
        return f"\\u00{escape[1:]}"
    return found[0] if len(escape) > 1 or escape in '"\\/bfnrt' else escape


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
        given = detail["input"]
        if detail["type"] != "missing" and place and (shaped := _reshaped(detail["type"], given)) != given:
            changed = _put(folded, place, shaped) or changed
        if detail["type"] not in ("literal_error", "enum"):
            continue
        labels = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        alike = _alike(detail["input"], labels, str(place[-1]) if place else "")
        if len(alike) == 1 and place and _put(folded, place, alike[0]):
            changed = True
    return folded if changed else None


# One number in a text; one with signs for thousands, which differ by country, is none.
_ONE_NUMBER = re.compile(r"[^\d-]*(-?\d+)(?:[.,](\d{1,2}))?(?![.,/]?\d)\D*")
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _reshaped(error: str, given: Any) -> Any:  # noqa: PLR0911 - one for each error
    """A value in the form that an error asks for: `4 stars` as a number, the only entry as a list; else as it is."""
    if isinstance(given, dict):
        only = next(iter(given.values())) if len(given) == 1 else given
        return given.get("value", given.get("label", only))
    if error == "list_type":
        return [given] if given else []
    if error == "string_type" and not given:
        return None
    if error == "string_type" and given is not True:
        return "; ".join(map(str, given)) if isinstance(given, list) else str(given)
    if error == "bool_parsing":
        return _plain(given)
    if error in ("int_parsing", "float_parsing") and (said := _plain(given)) in _NUMBER_WORDS:
        return _NUMBER_WORDS.index(said)
    if error in ("int_parsing", "float_parsing") and (found := _ONE_NUMBER.fullmatch(given)):
        return f"{found[1]}.{found[2] or 0}"
    return given


_LONGEST_LABEL = 300


def _alike(given: object, labels: list[str], field: str) -> list[str]:
    """The labels that a text stands for, whose form may differ and which may have a note or the field's name."""
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if not isinstance(given, str) or len(given) > _LONGEST_LABEL:
        return []
    text = re.sub(r"<[^<>]*>", " ", unicodedata.normalize("NFKC", given))
    text = re.sub(r"(?<=\w)\W*[(\[].*[)\]]", "", text)
    name = "[\\W_]".join(map(re.escape, re.split(r"[\W_]", field)))
    text = re.sub(rf"^[\W_]*(?:{name}[\W_]+|\d+[.)]\s)|[\W_]+{name}[\W_]*$", "", text, flags=re.IGNORECASE)
    head, _, note = re.sub(r"(?<=\w)(?:\s[-\u2013\u2014]+\s|\s?[:;]\s)", "\0", text, count=1).partition("\0")
    noted = {label for label in labels if _plain(label) in _plain(note)}
    return [label for label in labels if _plain(label) == _plain(head) and not noted - {label}]


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().casefold()


def _rename_key(held: Any, name: str) -> bool:
    plain = re.sub(r"[\W_]", "", name).casefold()
    alike = (
        [key for key in held if re.sub(r"^\d+\. |[\W_]", "", key).casefold() == plain] if isinstance(held, dict) else []
    )
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
