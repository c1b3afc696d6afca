"""Ready-made requirements that code can check.

Their reasons are worded for the model: they say what is wrong and what to do instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mellea_cli.requirements.requirement import Requirement, ValidationResult

_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*\s+(?=[^\s\W\d_a-z])")
# Ends with a full stop and is no sentence: "e.g. X", "Dr. Y", "No. 5", a single letter as in "J. Smith".
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|nr|st|mr|mrs|ms|dr|prof|inc|ltd|co|u\.s|a\.m|p\.m)"
    r"|\b[^\W\d_])\.$",
    re.IGNORECASE,
)


def one_sentence(field: str | None = None) -> Requirement:
    """The answer, or one text field of it, is exactly one sentence on one line."""

    def reason(text: str) -> str | None:
        if "\n" in text.strip():
            return "it spans several lines; write it as one sentence on one line"
        found = len(sentences(text))
        return None if found == 1 else f"it has {found} sentences; write exactly one sentence"

    return _text_requirement("It is exactly one sentence.", reason, field)


def fewer_words(limit: int, field: str | None = None) -> Requirement:
    """The answer, or one text field of it, has fewer than `limit` words, counted at white space."""

    def reason(text: str) -> str | None:
        found = len(text.split())
        return None if found < limit else f"it has {found} words; use fewer than {limit}"

    return _text_requirement(f"It has fewer than {limit} words.", reason, field)


def _text_requirement(description: str, reason: Callable[[str], str | None], field: str | None) -> Requirement:
    """A requirement on the answer's text, or on a field of the parsed answer; a field that is null meets it."""

    def validate(subject: Any) -> ValidationResult:
        output = subject.last_output()
        text = output.value if field is None else getattr(output.parsed, field, None)
        wrong = None if text is None else reason(text)
        if wrong is None:
            return ValidationResult(True)
        return ValidationResult(False, reason=wrong if field is None else f"about the field {field!r}: {wrong}")

    return Requirement(description if field is None else f"{field}: {description}", validate)


def not_cut(limits: dict[str, int]) -> Requirement:
    """No text field of the parsed answer is as long as the schema allows: there the server cut it.

    Args:
        limits: the greatest length of each field in characters, by the field's name.
    """

    def validate(subject: Any) -> ValidationResult:
        parsed = subject.last_output().parsed
        for name, limit in limits.items():
            value = getattr(parsed, name, None)
            if isinstance(value, str) and len(value) >= limit:
                return ValidationResult(False, reason=f"the field {name!r} was cut off; say it in fewer words")
        return ValidationResult(True)

    return Requirement("No field is cut off.", validate, check_only=True)


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
