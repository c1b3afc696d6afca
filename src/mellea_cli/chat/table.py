"""Rows that a chat can be asked about: read once, chosen by question, cited by id."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

_WORD = re.compile(r"[^\W_]{3,}")
# Words that say nothing about what is asked or told.
_IDLE = frozenset(
    re.findall(
        r"\w+",
        """
        the and for are was were has have had not but with you your they their them this that these those from what
        which who why how when where does did do most about people customers customer users user complain complaint
        complaints all any can could would should will there here very more much many some than then too also just
        into out its our been being get got give list show tell mean says said say data row rows
        feedback review reviews please
        """,
    )
)
_THEMES = 8
_THEME_IDS = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One row, as the model is shown it."""

    id: str
    text: str
    """One line, without the id."""
    stratum: str = ""
    """Rows of one stratum are alike, such as `negative/high`."""
    complaint: str = ""

    @property
    def line(self) -> str:
        """The row with its id."""
        return f"[{self.id}] {self.text}"


@dataclass(frozen=True, slots=True)
class Picked:
    """The rows that are shown for one question."""

    rows: Sequence[Row]
    by_words: int
    """How many were taken because they share words with the question; the rest is spread over all kinds."""


@dataclass(frozen=True)
class Table:
    """The rows of one file."""

    name: str
    rows: Sequence[Row]
    skipped: int = 0
    """Rows that could not be used."""

    @cached_property
    def ids(self) -> frozenset[str]:
        """Every id there is."""
        return frozenset(row.id for row in self.rows)

    @cached_property
    def _frequency(self) -> Counter[str]:
        return Counter(word for row in self.rows for word in words(row.text))

    def overview(self) -> str:
        """Counts over all rows: how they were judged, and the words that complaints share, with ids."""
        lines = [f"{len(self.rows)} rows in all."]
        strata = Counter(row.stratum for row in self.rows if row.stratum)
        if strata:
            lines.append("Sentiment/urgency: " + ", ".join(f"{name} {count}" for name, count in strata.most_common()))
        by_word: defaultdict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            for word in words(row.complaint):
                by_word[word].append(row.id)
        common = sorted(by_word.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:_THEMES]
        themes = [
            f"{word} in {len(ids)}: {' '.join(f'[{one}]' for one in ids[:_THEME_IDS])}"
            for word, ids in common
            if len(ids) > 1
        ]
        if themes:
            lines.append("Words that complaints share, most frequent first: " + "; ".join(themes))
        return "\n".join(lines)

    def pick(self, question: str, room: int, tokens: Callable[[str], int]) -> Picked:
        """Choose rows for a question, at most `room` tokens of them, in their order.

        All of them when they fit. Otherwise half of the room is for rows that share words with the question, rare words
        first, and the rest is dealt out over the strata in proportion to their size.
        """
        costs = {place: tokens(row.line) + 1 for place, row in enumerate(self.rows)}
        if sum(costs.values()) <= room:
            return Picked(self.rows, 0)
        taken: set[int] = set()
        left = self._take(self._nearest(question), room // 2, costs, taken)
        by_words = len(taken)
        self._take(self._spread(), room - (room // 2 - left), costs, taken)
        return Picked([self.rows[place] for place in sorted(taken)], by_words)

    def near(self, text: str, most: int) -> list[Row]:
        """The rows that share the most telling words with a text."""
        return [self.rows[place] for place in self._nearest(text)[:most]]

    @staticmethod
    def _take(places: Iterable[int], room: int, costs: Mapping[int, int], taken: set[int]) -> int:
        for place in places:
            if place not in taken and costs[place] <= room:
                taken.add(place)
                room -= costs[place]
        return room

    def _nearest(self, question: str) -> list[int]:
        asked = words(question)
        scored: list[tuple[float, int]] = []
        for place, row in enumerate(self.rows):
            shared = asked & words(row.text)
            if shared:
                scored.append((-sum(math.log(1 + len(self.rows) / self._frequency[one]) for one in shared), place))
        return [place for _, place in sorted(scored)]

    def _spread(self) -> list[int]:
        """Every place, in an order of which each beginning mirrors the strata's shares."""
        strata: defaultdict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(self.rows):
            strata[row.stratum].append(place)
        ranked = [
            ((number + 0.5) / len(places), place)
            for places in strata.values()
            for number, place in enumerate(_scattered(places))
        ]
        return [place for _, place in sorted(ranked)]


def words(text: str) -> set[str]:
    """The words of a text that may mean something, in lower case, without a plural's s."""
    found = {word.lower() for word in _WORD.findall(text)} - _IDLE
    return {word.removesuffix("s") if len(word) > 4 and not word.endswith("ss") else word for word in found}


def _scattered(places: Sequence[int]) -> list[int]:
    """The places in an order of which each beginning lies all over them."""
    step = max(1, int(len(places) * 0.618))
    while math.gcd(step, len(places)) != 1:
        step += 1
    return [places[number * step % len(places)] for number in range(len(places))]
