"""Requirements that code can check, ready-made.

Each returns a `Requirement` whose reasons are worded for the model: they say what is wrong and what to do instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mellea_cli.requirements.requirement import Answered, Requirement, Subject, ValidationResult, simple_validate

_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*\s+(?=[^\s\W\d_a-z])")
# What ends with a full stop and is no sentence: "e.g. X", "Dr. Y", "No. 5", a single letter as in "J. Smith".
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|nr|st|mr|mrs|ms|dr|prof|inc|ltd|co|u\.s|a\.m|p\.m)"
    r"|\b[^\W\d_])\.$",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """Split text at the ends of its sentences; abbreviations and decimal points do not end one."""
    parts: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        candidate = text[start : match.end()].strip()
        if _ABBREVIATION.search(candidate):
            continue
        parts.append(candidate)
        start = match.end()
    rest = text[start:].strip()
    return [*parts, rest] if rest else parts


def one_sentence() -> Requirement:
    """The answer is exactly one sentence on one line."""

    def judge(text: str) -> bool | tuple[bool, str]:
        if "\n" in text.strip():
            return False, "it spans several lines; write it as one sentence on one line"
        found = len(sentences(text))
        if found == 1:
            return True
        return False, f"it has {found} sentences; write exactly one sentence"

    return Requirement("It is exactly one sentence.", simple_validate(judge))


def fewer_words(limit: int) -> Requirement:
    """The answer has fewer than `limit` words, counted at white space."""

    def judge(text: str) -> bool | tuple[bool, str]:
        found = len(text.split())
        if found < limit:
            return True
        return False, f"it has {found} words; use fewer than {limit}"

    return Requirement(f"It has fewer than {limit} words.", simple_validate(judge))


def one_of(allowed: Iterable[str]) -> Requirement:
    """The answer is one of the `allowed` words, letter by letter."""
    choices = tuple(allowed)

    def judge(text: str) -> bool | tuple[bool, str]:
        if text.strip() in choices:
            return True
        return False, f"it must be one of: {', '.join(choices)}"

    return Requirement(f"It is one of: {', '.join(choices)}.", simple_validate(judge))


def matches(pattern: str) -> Requirement:
    """The whole answer matches a regular expression."""
    compiled = re.compile(pattern)

    def judge(text: str) -> bool | tuple[bool, str]:
        if compiled.fullmatch(text.strip()):
            return True
        return False, f"it does not match the pattern {pattern}"

    return Requirement(f"It matches the pattern {pattern}.", simple_validate(judge))


def json_schema(model: Any) -> Requirement:
    """The answer is JSON that `model` (any type that pydantic can describe) accepts."""

    def judge(text: str) -> bool | tuple[bool, str]:
        from pydantic import TypeAdapter, ValidationError

        try:
            TypeAdapter(model).validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the answer"
            return False, f"{place}: {first['msg']}"
        return True

    return Requirement("It is JSON of the type that was asked for.", simple_validate(judge))


def on_field(name: str, requirement: Requirement) -> Requirement:
    """Apply a requirement to one text field of a structured answer.

    The field is looked up on the parsed answer; its reasons are given the field's name. A field that is null holds.
    """

    async def validate(subject: Subject) -> ValidationResult:
        output = subject.last_output()
        value = getattr(getattr(output, "parsed", None), name, None)
        if value is None:
            return ValidationResult(True)
        verdict = await requirement.check(Answered(str(value)))
        if verdict:
            return verdict
        return ValidationResult(False, reason=f"about the field {name!r}: {verdict.reason}", error=verdict.error)

    return Requirement(f"{name}: {requirement.description}", validate)


def not_cut(limits: dict[str, int]) -> Requirement:
    """No text field of the parsed answer is as long as the schema allows: there it was cut, not ended.

    Args:
        limits: the greatest length of each field in characters, by the field's name.
    """

    def validate(subject: Any) -> ValidationResult:
        parsed = getattr(subject.last_output(), "parsed", None)
        for name, limit in limits.items():
            value = getattr(parsed, name, None)
            if isinstance(value, str) and len(value) >= limit:
                return ValidationResult(False, reason=f"the field {name!r} was cut off; say it in fewer words")
        return ValidationResult(True)

    return Requirement("No field is cut off.", validate, check_only=True)
