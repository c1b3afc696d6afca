"""Which phrases themes are made of: a sample of complaints and praise in which every stratum has its share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from mellea_cli.items import Item
from mellea_cli.pipelines.discover import Said

SAMPLE = 96
"""Complaints, and again praises, that are looked at."""
_LONGEST = 120
_PARTS: Mapping[Said, str] = {"complaint": "main_complaint", "praise": "positive_aspect"}
_OURS = "mellea_"

Stratum = tuple[Said, str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `mellea summarise` said about one row.

    Args:
        phrases: its complaint and its praise, where it has them.
        sentiment: its sentiment; empty when the row failed.
        urgency: its urgency; likewise.
    """

    phrases: Mapping[Said, str]
    sentiment: str = ""
    urgency: str = ""


def verdict(fields: Mapping[str, Any]) -> Verdict | None:
    """Read what was said about a row, from nested columns or from flat ones.

    A column that had to give way to one of the input's, such as `mellea_issues`, is the one that counts.

    Returns:
        What was said; `None` when nothing was: the row failed, or no such columns are there.
    """
    issues = ours(fields, "issues")
    parts = (
        issues if isinstance(issues, Mapping) else {name: ours(fields, name) for name in (*_PARTS.values(), "urgency")}
    )
    sentiment, urgency = ours(fields, "sentiment"), parts.get("urgency")
    if not sentiment and not any(parts.values()):
        return None
    phrases = {said: text for said in get_args(Said) if (text := _phrase(parts.get(_PARTS[said])))}
    return Verdict(
        phrases, sentiment if isinstance(sentiment, str) else "", urgency if isinstance(urgency, str) else ""
    )


def ours(fields: Mapping[str, Any], name: str) -> Any:
    """The value of the column that a run of ours added last, also where it had to be called otherwise."""
    found, called, number = fields.get(name), _OURS + name, 1
    while called in fields:
        found, number = fields[called], number + 1
        called = f"{_OURS}{name}_{number}"
    return found


def _phrase(value: Any) -> str:
    return " ".join(value.split())[:_LONGEST] if isinstance(value, str) else ""


@dataclass
class _Reservoir:
    """Some of the phrases of one stratum, each with the same chance."""

    seen: int = 0
    kept: list[str] = field(default_factory=list)

    def add(self, phrase: str, most: int, draw: random.Random) -> None:
        self.seen += 1
        if len(self.kept) < most:
            self.kept.append(phrase)
        elif (place := draw.randrange(self.seen)) < most:
            self.kept[place] = phrase


def sample_phrases(items: Iterable[Item], *, most: int = SAMPLE, seed: int = 0) -> dict[Said, Counter[str]]:
    """Draw phrases from rows that were summarised; memory does not grow with the input.

    The strata are sentiment and urgency. Each gets a share of the sample by its size, and at least an even part of a
    quarter of it, so that the few urgent complaints are not lost among the many others.

    Args:
        items: the rows.
        most: phrases of each kind at most.
        seed: the same seed draws the same phrases.

    Returns:
        For each kind its phrases in the order of their strata, with how often each was drawn.
    """
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    strata: dict[Stratum, _Reservoir] = {}
    for item in items:
        said_about = verdict(item.fields)
        if said_about is None:
            continue
        for said, phrase in said_about.phrases.items():
            stratum = (said, said_about.sentiment, said_about.urgency)
            strata.setdefault(stratum, _Reservoir()).add(phrase, most, draw)
    drawn: dict[Said, Counter[str]] = {}
    for said in get_args(Said):
        own = {stratum: strata[stratum] for stratum in sorted(strata) if stratum[0] == said}
        shares = _shares({stratum: reservoir.seen for stratum, reservoir in own.items()}, most)
        phrases = [phrase for stratum, share in shares.items() for phrase in own[stratum].kept[:share]]
        draw.shuffle(phrases)
        drawn[said] = Counter(phrases)
    return drawn


def _shares(sizes: Mapping[Stratum, int], most: int) -> dict[Stratum, int]:
    total = sum(sizes.values())
    if total <= most:
        return dict(sizes)
    floor = most // 4 // len(sizes)
    rest = most - floor * len(sizes)
    return {stratum: min(size, floor + rest * size // total) for stratum, size in sizes.items()}
