"""Files that a chat is given: text as it is, JSONL and CSV as rows, a `summarise` output as data."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mellea_cli.errors import InputError
from mellea_cli.io.source import SourceOptions, open_source
from mellea_cli.items import Item

# Rows that a chat can be asked about: read once, chosen by question, cited by id.

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


_ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".json")
_LARGEST_TEXT = 4 << 20
_LONGEST_CELL = 300


@dataclass(frozen=True, slots=True)
class Document:
    """A text file."""

    name: str
    text: str


def read_file(path: str) -> Document | Table:
    """Read a file for a chat: rows where it holds rows with a text, otherwise its text.

    Raises:
        InputError: it cannot be read, is too large, or is no text.
    """
    name = path.lower().removesuffix(".gz")
    if name.endswith(_ROW_SUFFIXES):
        try:
            return _table(path, SourceOptions(on_bad_row="skip"), _plain_row)
        except InputError:
            if path.lower().endswith(".gz") or not Path(path).is_file():
                raise
            # Rows without a column that is the text: what stands there is shown as it is.
    return Document(Path(path).name, _text(path))


def read_data(path: str) -> Table:
    """Read a `summarise` output.

    Raises:
        InputError: it cannot be read, or is not such an output.
    """
    try:
        return _table(path, SourceOptions(text_field="summary", on_bad_row="skip"), _judged_row)
    except InputError as error:
        if "summary" in error.message:
            raise InputError(
                "is not an output of mellea summarise: there is no column 'summary'",
                path=path,
                hint=f"make one with: mellea summarise {path} -o out.jsonl; or attach it as it is: -f {path}",
            ) from error
        raise


def _table(path: str, options: SourceOptions, row_of: Any) -> Table:
    with open_source(path, options) as source:
        items = list(source)
        rows = [row_of(item) for item in items if item.text.strip()]
        if not rows:
            raise InputError("there are no rows with a text in it", path=path)
        # Rows that failed in a run have no summary: there is nothing to tell about them.
        return Table(Path(path).name, rows, source.skipped + len(items) - len(rows))


def _plain_row(item: Item) -> Row:
    rest = [
        f"{name}: {_cell(value)}"
        for name, value in item.fields.items()
        if value not in (None, "", item.text) and str(value) != str(item.id)
    ]
    return Row(str(item.id), " | ".join([_cell(item.text), *rest]))


def _judged_row(item: Item) -> Row:
    """A row of a `summarise` output: how it was judged and what it says, without what the model need not know."""
    issues = item.fields.get("issues")
    # JSON holds the issues in one column, CSV in one for each part.
    parts: Mapping[str, Any] = issues if isinstance(issues, Mapping) else item.fields
    sentiment, urgency = _word(item.fields.get("sentiment")), _word(parts.get("urgency"))
    complaint, praise = _word(parts.get("main_complaint")), _word(parts.get("positive_aspect"))
    stratum = "/".join(filter(None, (sentiment, urgency)))
    told = [stratum]
    told += [f"complaint: {_cell(complaint)}"] if complaint else []
    told += [f"praise: {_cell(praise)}"] if praise else []
    told.append(_cell(item.text))
    return Row(str(item.id), " | ".join(filter(None, told)), stratum, complaint)


def _word(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in {"none", "null", "n/a"} else text


def _cell(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def _text(path: str) -> str:
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > _LARGEST_TEXT:
            raise InputError(f"is larger than {_LARGEST_TEXT >> 20} MB", path=path, hint="attach a part of it")
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    if b"\0" in data[:8192]:
        raise InputError("is not a text file", path=path, hint="attach text, JSONL or CSV")
    return data.decode("utf-8-sig", "replace")
