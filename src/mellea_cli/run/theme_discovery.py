"""Finds themes: candidates out of batches of phrases, and which of them the phrases speak for.

Every call goes through a batch run of its own over lines instead of rows: so it has the same engine, limits and
journal, and a second discovery over the same rows asks nothing.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from mellea_cli.items import Item
from mellea_cli.pipelines.pipeline import Pipeline, Step
from mellea_cli.pipelines.theme_prompts import (
    GENERAL_DEFINITION,
    PROPOSE_BATCH,
    Polarity,
    Theme,
    define_pipeline,
    defined_by,
    distinct,
    is_general,
    is_vague,
    numbered,
    propose_pipeline,
    sort_pipeline,
    stems,
    telling_words,
)

# Which phrases themes are made of: a sample of complaints and praise in which every stratum has its share.

SAMPLE = 96
"""Complaints, and again praises, that are looked at."""
_LONGEST = 120
_PARTS: Mapping[Polarity, str] = {"complaint": "main_complaint", "praise": "positive_aspect"}
_OURS = "mellea_"

Stratum = tuple[Polarity, str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `mellea summarise` said about one row.

    Args:
        phrases: its complaint and its praise, where it has them.
        sentiment: its sentiment; empty when the row failed.
        urgency: its urgency; likewise.
    """

    phrases: Mapping[Polarity, str]
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
    phrases = {said: text for said in get_args(Polarity) if (text := _phrase(parts.get(_PARTS[said])))}
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


def sample_phrases(items: Iterable[Item], *, most: int = SAMPLE, seed: int = 0) -> dict[Polarity, Counter[str]]:
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
    drawn: dict[Polarity, Counter[str]] = {}
    for said in get_args(Polarity):
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


Ask = Callable[[Pipeline, Sequence[Item]], Awaitable[Sequence[Mapping[str, Any] | None]]]
"""Asks a pipeline about items; gives their values in order, `None` for one that failed."""

_EXAMPLE_LENGTH = 80
# Themes that each of several batches is asked for.
_CANDIDATES = 4
# Themes at most that a phrase is put to one of.
_MOST_CANDIDATES = 18
_ROUNDS = 2
# Phrases that a theme's definition is made of.
_DEFINED_BY = 8
# From so many phrases on, a theme that a single one speaks for is none.
_MANY = 30


@dataclass
class _Found:
    """A theme on its way: what speaks for it."""

    name: str
    definition: str
    said: Polarity
    weight: int
    phrases: list[str]


async def discover(phrases: Mapping[Polarity, Counter[str]], ask: Ask, *, most: int) -> tuple[Theme, ...]:
    """Find themes in phrases.

    Args:
        phrases: complaints and praise, with how often each one stands for itself.
        ask: the way to the model.
        most: themes at most, complaints and praise together.

    Returns:
        Themes, complaints first, each kind with the most common one first; empty when nothing could be found.
    """
    rooms = _rooms({said: counts.total() for said, counts in phrases.items()}, most)
    themes: list[Theme] = []
    for said, room in rooms.items():
        found = await _themes_of(said, phrases[said], ask, room)
        taken = {theme.name.casefold() for theme in themes}
        themes += [_as_theme(one, taken) for one in found]
    return tuple(themes)


def first_question(phrases: Mapping[Polarity, Counter[str]], most: int) -> tuple[Step, str]:
    """The first thing that is asked, to be looked at: its step and its text."""
    said, room = next(iter(_rooms({kind: counts.total() for kind, counts in phrases.items()}, most).items()))
    batches = _batches(list(phrases[said]), PROPOSE_BATCH)
    return propose_pipeline(said, _wanted(batches, room)).steps[0], numbered(batches[0])


def _wanted(batches: Sequence[Sequence[str]], room: int) -> int:
    """How many themes each batch is asked for: fewer where there are few lines, or some would be made up."""
    most = room if len(batches) == 1 else _CANDIDATES
    return max(1, min(most, min(map(len, batches)) // 2))


def _rooms(sizes: Mapping[Polarity, int], most: int) -> dict[Polarity, int]:
    """How many themes each kind may have: by its share, and at least a quarter of them, where it says anything."""
    said = [kind for kind in get_args(Polarity) if sizes.get(kind)]
    if len(said) < 2:
        return dict.fromkeys(said, most)
    total = sum(sizes[kind] for kind in said)
    least = max(1, most // 4)
    first = min(max(round(most * sizes[said[0]] / total), least), most - least)
    rooms = {said[0]: first, said[1]: most - first}
    return {kind: room for kind, room in rooms.items() if room}


async def _themes_of(said: Polarity, phrases: Counter[str], ask: Ask, room: int) -> list[_Found]:
    """The themes of one kind, those that at least two phrases speak for where there are many, most common first.

    What the first themes leave over is looked at once more by itself: beside what is common, the rest is easily missed.
    """
    found: list[_Found] = []
    left = list(phrases)
    for _ in range(_ROUNDS):
        proposed = await _proposed(said, left, ask, room, [one.name for one in found])
        if not proposed:
            break
        common = sorted(left, key=lambda phrase: (-phrases[phrase], phrase))
        by_theme = await _put_to_themes(said, proposed, common, ask)
        for name, definition in proposed:
            own = by_theme[name]
            found.append(_Found(name, definition, said, sum(phrases[phrase] for phrase in own), own))
        if not any(one.phrases for one in found):
            return found[:room]  # sorting has failed: what was proposed stands, without examples
        placed = {phrase for one in found for phrase in one.phrases}
        left = [phrase for phrase in phrases if phrase not in placed]
        if len(left) < PROPOSE_BATCH:
            break
    least = 2 if phrases.total() >= _MANY else 1
    kept = sorted((one for one in found if one.weight >= least), key=lambda one: -one.weight)[:room]
    await _define(said, kept, ask)
    return kept


async def _put_to_themes(
    said: Polarity, themes: Sequence[tuple[str, str]], phrases: Sequence[str], ask: Ask
) -> dict[str, list[str]]:
    """The phrases of each theme, in their order; what fits none is left out."""
    answers = await ask(sort_pipeline(said, themes), _as_items(phrases))
    by_theme: dict[str, list[str]] = {name: [] for name, _ in themes}
    for phrase, answer in zip(phrases, answers, strict=True):
        if answer and answer["theme"] in by_theme:
            by_theme[answer["theme"]].append(phrase)
    return by_theme


async def _define(said: Polarity, themes: Sequence[_Found], ask: Ask) -> None:
    """Say anew what belongs to each theme, now that its phrases are known: at first only a batch's were."""
    asked = [one for one in themes if not is_general(one.name)]
    texts = [defined_by(one.name, numbered(one.phrases[:_DEFINED_BY])) for one in asked]
    answers = await ask(define_pipeline(said), _as_items(texts)) if asked else ()
    for one, answer in zip(asked, answers, strict=True):
        if answer:
            one.definition = " ".join(answer["definition"].split())
    for one in themes:
        if is_general(one.name):
            one.definition = GENERAL_DEFINITION[said]


async def _proposed(
    said: Polarity, lines: Sequence[str], ask: Ask, room: int, known: Sequence[str]
) -> list[tuple[str, str]]:
    """Names and definitions of candidates, those first that most batches came up with, and none that is `known`.

    There are more than there is room for: which ones are common is only known once phrases are put to them.
    """
    batches = _batches(lines, PROPOSE_BATCH)
    answers = await ask(propose_pipeline(said, _wanted(batches, room)), _as_items(map(numbered, batches)))
    candidates = [(name, definition) for answer in answers if answer for name, definition in answer["themes"]]
    support = Counter(stems(name) for name, _ in candidates)

    def rank(pair: tuple[str, str]) -> tuple[int, bool]:
        return -support[stems(pair[0])], is_vague(pair[0])

    # Of those that mean the same the first is kept: that is the plain name, not the one that says more.
    kept = distinct(sorted(candidates, key=lambda pair: (*rank(pair), len(telling_words(pair[0])))), known)
    # Between themes that are as common the order of the batches decides.
    places: dict[frozenset[str], int] = {}
    for place, (name, _) in enumerate(candidates):
        places.setdefault(stems(name), place)
    kept.sort(key=lambda pair: (*rank(pair), places[stems(pair[0])]))
    return kept[: room if len(batches) == 1 else max(room, _MOST_CANDIDATES)]


def _batches(lines: Sequence[str], most: int) -> list[list[str]]:
    """The lines in batches of at most `most`, all about as long: the last one is as telling as the first."""
    number = -(-len(lines) // most)
    ends = [len(lines) * place // number for place in range(number + 1)]
    return [list(lines[start:end]) for start, end in itertools.pairwise(ends)]


def _as_items(texts: Iterable[str]) -> list[Item]:
    return [Item(place, f"question {place + 1}", text) for place, text in enumerate(texts)]


def _as_theme(found: _Found, taken: set[str]) -> Theme:
    name = found.name
    if name.casefold() in taken:
        name = f"{name} ({found.said})"
    short = [phrase for phrase in found.phrases if len(phrase) <= _EXAMPLE_LENGTH] or found.phrases
    examples = tuple(phrase[:_EXAMPLE_LENGTH] for phrase in short[:2])
    return Theme(name, found.definition, found.said, examples)
