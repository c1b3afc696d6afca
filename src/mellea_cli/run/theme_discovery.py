"""Theme discovery: a sample of phrases, candidate themes from batches of them, and which candidates they support.

For labelled rows it proposes changes: themes for `other`, splits of large themes, merges of those that go together.

Every question goes through a sub-run over lines instead of rows, so it has the same engine, limits and journal, and a
second discovery over the same rows sends nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode
from mellea_cli.events import Observer
from mellea_cli.io.columns import column_value
from mellea_cli.io.journal import Answers
from mellea_cli.io.themes_file import Proposal
from mellea_cli.items import Item, Outcome, Row, Success
from mellea_cli.messages import Usage
from mellea_cli.pipelines.own_fields import read_cell
from mellea_cli.pipelines.pipeline import Column, Pipeline, Step
from mellea_cli.pipelines.theme_prompts import (
    GENERAL_DEFINITION,
    NONE,
    OTHER,
    PROPOSE_BATCH,
    Kind,
    Polarity,
    Theme,
    content_words,
    define_pipeline,
    defined_by,
    distinct,
    is_general,
    is_vague,
    numbered,
    propose_pipeline,
    sort_pipeline,
    stems,
)
from mellea_cli.run.batch import RunIO, RunResult, Tally, run_batch
from mellea_cli.run.executor import Servers
from mellea_cli.run.plan import Caps, RunPlan

SAMPLE = 96  # phrases of each polarity, at most
_LONGEST_PHRASE = 120
_COLUMNS: Mapping[Polarity, str] = {"complaint": "main_complaint", "praise": "positive_aspect"}

_EXAMPLE_LENGTH = 80
_PER_BATCH = 4  # themes that each of several batches is asked for
_MOST_CANDIDATES = 18  # in the closed list that a phrase is sorted into
_ROUNDS = 2
_DEFINING_PHRASES = 8
# With so many phrases, a theme needs the support of more than one.
_MANY = 30

Stratum = tuple[Kind, str, str]
# Asks a pipeline about items; returns their values in order, `None` for one that failed.
Ask = Callable[[Pipeline, Sequence[Item]], Awaitable[Sequence[Mapping[str, Any] | None]]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answers of `mellea summarise` about one row; `phrases` are its complaint and its praise, if any."""

    phrases: Mapping[Polarity, str]
    sentiment: str = ""
    urgency: str = ""


def read_judgement(fields: Mapping[str, Any]) -> Judgement | None:
    """Read the judgement of a row from nested columns or from flat ones; `None` without one, such as a failed row."""
    issues = added_value(fields, "issues")
    if not isinstance(issues, Mapping):
        issues = {name: added_value(fields, name) for name in (*_COLUMNS.values(), "urgency")}
    sentiment, urgency = added_value(fields, "sentiment"), issues.get("urgency")
    if not sentiment and not any(issues.values()):
        return None
    phrases: dict[Polarity, str] = {}
    for polarity, column in _COLUMNS.items():
        value = issues.get(column)
        if isinstance(value, str) and (phrase := " ".join(value.split())[:_LONGEST_PHRASE]):
            phrases[polarity] = phrase
    return Judgement(
        phrases, sentiment if isinstance(sentiment, str) else "", urgency if isinstance(urgency, str) else ""
    )


def added_value(fields: Mapping[str, Any], name: str) -> Any:
    """The value of the column that a run added last: `NAME`, or `mellea_NAME` where the input had a `NAME` itself."""
    found, column, number = fields.get(name), f"mellea_{name}", 1
    while column in fields:
        found, number = fields[column], number + 1
        column = f"mellea_{name}_{number}"
    return found


def column_texts(column: Column) -> Texts:
    """A function that reads the texts of a column: one, or each entry of a list; none where it is empty.

    The column has the type of the own field whose answers it holds, or no type.
    """

    def read(item: Item) -> list[str]:
        value = column_value(item.fields, column.name)
        if not column.type and isinstance(value, str) and value[:1] == "[":
            value = read_cell(Column(column.name, type="list"), value)
        elif column.type:
            value = read_cell(column, value)
        texts = value if isinstance(value, list) else [value]
        return [" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip()]

    return read


@dataclass
class _Reservoir:
    """A uniform random sample of the phrases of one stratum (Vitter's algorithm R), with the ids of their rows."""

    seen: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)

    def add(self, phrase: tuple[str, str], most: int, draw: random.Random) -> None:
        self.seen += 1
        if len(self.kept) < most:
            self.kept.append(phrase)
        elif (place := draw.randrange(self.seen)) < most:
            self.kept[place] = phrase


Texts = Callable[[Item], Sequence[str]]  # The texts of a column in an item's row


Drawn = dict[Kind, list[tuple[str, str]]]  # Phrases with the ids of their rows


def sample_phrases(
    items: Iterable[Item], *, most: int = SAMPLE, seed: int = 0, texts: Texts | None = None
) -> dict[Kind, Counter[str]]:
    """The phrases of `draw_phrases`, with how often each was drawn."""
    drawn = draw_phrases(items, most=most, seed=seed, texts=texts)
    return {kind: Counter(phrase for phrase, _ in phrases) for kind, phrases in drawn.items()}


def draw_phrases(items: Iterable[Item], *, most: int = SAMPLE, seed: int = 0, texts: Texts | None = None) -> Drawn:
    """Draw a stratified sample of phrases from summarised rows; memory does not grow with the input.

    The strata are sentiment and urgency. Each gets a share of the sample by its size, and at least an even part of a
    quarter of it, so that the few urgent complaints are not lost among the many others.

    Args:
        items: the rows.
        most: phrases of each kind, at most.
        seed: the same seed draws the same phrases.
        texts: reads a column, whose texts take the place of complaints and praise and are of the kind `both`.

    Returns:
        At most `most` phrases of each kind in random order.
    """
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    strata: dict[Stratum, _Reservoir] = {}
    for item in items:
        judgement = read_judgement(item.fields)
        if texts is not None:
            judgement = judgement or Judgement({})
            phrases: list[tuple[Kind, str]] = [("both", text[:_LONGEST_PHRASE]) for text in texts(item)]
        elif judgement is not None:
            phrases = list(judgement.phrases.items())
        else:
            continue
        for kind, phrase in phrases:
            stratum = (kind, judgement.sentiment, judgement.urgency)
            strata.setdefault(stratum, _Reservoir()).add((phrase, str(item.id)), most, draw)
    drawn: Drawn = {}
    for kind in get_args(Polarity) if texts is None else ("both",):
        own = {stratum: strata[stratum] for stratum in sorted(strata) if stratum[0] == kind}
        shares = _shares({stratum: reservoir.seen for stratum, reservoir in own.items()}, most)
        sampled = [phrase for stratum, share in shares.items() for phrase in own[stratum].kept[:share]]
        draw.shuffle(sampled)
        drawn[kind] = sampled
    return drawn


def _shares(sizes: Mapping[Stratum, int], most: int) -> dict[Stratum, int]:
    total = sum(sizes.values())
    if total <= most:
        return dict(sizes)
    floor = most // 4 // len(sizes)
    rest = most - floor * len(sizes)
    return {stratum: min(size, floor + rest * size // total) for stratum, size in sizes.items()}


async def discover(phrases: Mapping[Kind, Counter[str]], ask: Ask, *, most: int, about: str = "") -> tuple[Theme, ...]:
    """Find at most `most` themes in phrases that are counted by kind; `about` is the column that they come from.

    Returns:
        Themes, complaints first, each kind with the most frequent one first; empty when none could be found.
    """
    return tuple(theme for theme, _ in await _discover(phrases, ask, most, about))


async def _discover(
    phrases: Mapping[Kind, Counter[str]], ask: Ask, most: int, about: str, known: Sequence[str] = ()
) -> list[tuple[Theme, _Candidate]]:
    themes: list[tuple[Theme, _Candidate]] = []
    for kind, limit in _limits(phrases, most).items():
        taken = {theme.name.casefold() for theme, _ in themes}
        for found in await _find(_Topic(kind, about), phrases[kind], ask, limit, known):
            name = f"{found.name} ({kind})" if found.name.casefold() in taken else found.name
            short = [phrase for phrase in found.phrases if len(phrase) <= _EXAMPLE_LENGTH] or found.phrases
            examples = tuple(phrase[:_EXAMPLE_LENGTH] for phrase in short[:2])
            themes.append((Theme(name, found.definition, kind, examples), found))
    return themes


def first_question(phrases: Mapping[Kind, Counter[str]], most: int, about: str = "") -> tuple[Step, str]:
    """The step and the text of the first question, for a preview."""
    kind, limit = next(iter(_limits(phrases, most).items()))
    batches = _batches(list(phrases[kind]))
    return propose_pipeline(kind, _themes_per_batch(batches, limit), about).steps[0], numbered(batches[0])


def _limits(phrases: Mapping[Kind, Counter[str]], most: int) -> dict[Kind, int]:
    """The most themes of each kind: by its share of the phrases, and at least a quarter where there are any."""
    sizes: dict[Kind, int] = {kind: counts.total() for kind in get_args(Kind) if (counts := phrases.get(kind))}
    if len(sizes) < 2:
        return dict.fromkeys(sizes, most)
    (first, size), (second, _) = sizes.items()
    least = max(1, most // 4)
    limit = min(max(round(most * size / sum(sizes.values())), least), most - least)
    return {kind: number for kind, number in ((first, limit), (second, most - limit)) if number}


@dataclass(frozen=True, slots=True)
class _Topic:
    """What the phrases are, and the column that they come from, if they come from one."""

    kind: Kind
    about: str


@dataclass
class _Candidate:
    """A candidate theme and the phrases that were sorted into it; `weight` counts how often they occur."""

    name: str
    definition: str
    phrases: list[str]
    weight: int


async def _find(
    topic: _Topic, phrases: Counter[str], ask: Ask, limit: int, known: Sequence[str] = ()
) -> list[_Candidate]:
    found: list[_Candidate] = []
    left = list(phrases)
    # Phrases that no theme of the first round fits get a round of their own: next to frequent themes the model
    # overlooks the others.
    for _ in range(_ROUNDS):
        proposed = await _propose(topic, left, ask, limit, [*known, *(theme.name for theme in found)])
        if not proposed:
            break
        sorted_in = await _sort(topic, proposed, sorted(left, key=lambda phrase: (-phrases[phrase], phrase)), ask)
        for name, definition in proposed:
            own = sorted_in[name]
            found.append(_Candidate(name, definition, own, sum(phrases[phrase] for phrase in own)))
        if not any(theme.phrases for theme in found):
            return found[:limit]  # sorting has failed: the proposed themes are kept, without examples
        placed = {phrase for theme in found for phrase in theme.phrases}
        left = [phrase for phrase in phrases if phrase not in placed]
        if len(left) < PROPOSE_BATCH:
            break
    least = 2 if phrases.total() >= _MANY else 1
    kept = sorted((theme for theme in found if theme.weight >= least), key=lambda theme: -theme.weight)[:limit]
    await _define(topic, kept, ask)
    return kept


async def _propose(
    topic: _Topic, lines: Sequence[str], ask: Ask, limit: int, known: Sequence[str]
) -> list[tuple[str, str]]:
    """Names and definitions of new candidates, those first that most batches proposed.

    There are more than `limit`: which ones are frequent is only known once phrases are sorted into them.
    """
    batches = _batches(lines)
    pipeline = propose_pipeline(topic.kind, _themes_per_batch(batches, limit), topic.about)
    answers = await ask(pipeline, _as_items(map(numbered, batches)))
    candidates = [(name, definition) for answer in answers if answer for name, definition in answer["themes"]]
    support = Counter(stems(name) for name, _ in candidates)

    def rank(candidate: tuple[str, str]) -> tuple[int, bool]:
        return -support[stems(candidate[0])], is_vague(candidate[0])

    # Of several that mean the same, the one with the plainest name is kept.
    kept = distinct(
        sorted(candidates, key=lambda candidate: (*rank(candidate), len(content_words(candidate[0])))), known
    )
    # Between equal ranks the order of the batches decides.
    places: dict[frozenset[str], int] = {}
    for place, (name, _) in enumerate(candidates):
        places.setdefault(stems(name), place)
    kept.sort(key=lambda candidate: (*rank(candidate), places[stems(candidate[0])]))
    return kept[: limit if len(batches) == 1 else max(limit, _MOST_CANDIDATES)]


def _themes_per_batch(batches: Sequence[Sequence[str]], limit: int) -> int:
    # With few lines the model is asked for fewer themes: it would make some up.
    most = limit if len(batches) == 1 else _PER_BATCH
    return max(1, min(most, min(map(len, batches)) // 2))


def _batches(lines: Sequence[str]) -> list[list[str]]:
    """The lines in batches of about equal size, so that the last one says as much as the first."""
    number = -(-len(lines) // PROPOSE_BATCH)
    ends = [len(lines) * place // number for place in range(number + 1)]
    return [list(lines[start:end]) for start, end in itertools.pairwise(ends)]


async def _sort(
    topic: _Topic, themes: Sequence[tuple[str, str]], phrases: Sequence[str], ask: Ask
) -> dict[str, list[str]]:
    answers = await ask(sort_pipeline(topic.kind, themes, topic.about), _as_items(phrases))
    by_theme: dict[str, list[str]] = {name: [] for name, _ in themes}
    for phrase, answer in zip(phrases, answers, strict=True):
        if answer and answer["theme"] in by_theme:
            by_theme[answer["theme"]].append(phrase)
    return by_theme


async def _define(topic: _Topic, themes: Sequence[_Candidate], ask: Ask) -> None:
    """Replace the definitions, which were made from one batch, by ones made from all of a theme's phrases."""
    asked = []
    for theme in themes:
        if is_general(theme.name):
            theme.definition = GENERAL_DEFINITION[topic.kind]
        else:
            asked.append(theme)
    texts = [defined_by(theme.name, numbered(theme.phrases[:_DEFINING_PHRASES])) for theme in asked]
    answers = await ask(define_pipeline(topic.kind, topic.about), _as_items(texts)) if asked else ()
    for theme, answer in zip(asked, answers, strict=True):
        if answer:
            theme.definition = " ".join(answer["definition"].split())


def _as_items(texts: Iterable[str]) -> list[Item]:
    return [Item(place, f"question {place + 1}", text) for place, text in enumerate(texts)]


# A large theme: in so many rows, and in this share of the rows that say something.
_LARGE_ROWS, _LARGE_SHARE, _MOST_LARGE = 30, 0.25, 3
_SPLIT_SAMPLE = 48
_MOST_PARTS = 4
# A mixed theme: parts with at least this share of its sampled quotes each, and with this share together.
_PART, _PARTS = 0.2, 0.6
LEAST_OTHER = 10  # Rows without a theme that are worth a search for new ones
_LEAST_ROWS = 3  # that a new theme needs, or a merge
_GO_TOGETHER = 0.6  # Cohen's kappa of two labels
_SHOWN_ROWS = 10


def most_questions(other: Collection[int], counts: Counter[str], rows: int, most: int) -> int:
    """The most questions that proposals need.

    Args:
        other: the phrases of rows without a theme, by kind.
        counts: the rows of each theme.
        rows: the rows that say something.
        most: the new themes, at most.
    """
    sizes = [(min(size, SAMPLE), 0) for size in other if size]
    sizes += [(min(counts[name], _SPLIT_SAMPLE), _MOST_PARTS) for name in large_themes(counts, rows)]
    asked = sum((1 + (size >= PROPOSE_BATCH)) * (size + -(-size // PROPOSE_BATCH)) + parts for size, parts in sizes)
    return asked + (most if any(other) else 0)


def large_themes(counts: Counter[str], rows: int) -> list[str]:
    """The themes that are large enough to be split."""
    least = max(_LARGE_ROWS, _LARGE_SHARE * rows)
    return [name for name, number in counts.most_common(_MOST_LARGE) if number >= least]


class LabelledSample:
    """What the rows of a labelled output say about their themes, from one pass over them.

    Args:
        rows: each row with its labels and its quotes by theme.
        themes: the themes.
        seed: the same seed draws the same phrases and quotes.
        texts: reads the column that is labelled.
    """

    def __init__(
        self,
        rows: Iterable[tuple[Item, Sequence[str] | None, Mapping[str, str]]],
        themes: Sequence[Theme],
        *,
        seed: int = 0,
        texts: Texts | None = None,
    ) -> None:
        self.themes = {theme.name: theme for theme in themes}
        self.rows = 0  # that say something
        self.without_theme = 0  # of these
        self.counts: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()  # Rows with both
        self.together: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.quotes = {theme.name: _Reservoir() for theme in themes}
        self._draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
        self._texts = texts
        drawn = draw_phrases(self._others(rows), seed=seed, texts=texts)
        self.other = drawn if self.without_theme >= LEAST_OTHER else {}

    def _others(self, rows: Iterable[tuple[Item, Sequence[str] | None, Mapping[str, str]]]) -> Iterator[Item]:
        """The rows that no theme fits. Small models call some of them `none`, although they complain or praise."""
        for item, labels, quotes in rows:
            said = read_judgement(item.fields) if self._texts is None else None
            if not labels or (NONE in labels and (said is None or not said.phrases)):
                continue
            self.rows += 1
            if OTHER in labels or NONE in labels:
                self.without_theme += 1
                yield item
            known = [name for name in self.themes if name in labels]
            self.counts.update(known)
            for name in known:
                if quote := quotes.get(name):
                    self.quotes[name].add((quote, str(item.id)), _SPLIT_SAMPLE, self._draw)
            for pair in itertools.combinations(known, 2):
                self.pairs[pair] += 1
                if len(shown := self.together.setdefault(pair, [])) < _SHOWN_ROWS:
                    shown.append((str(item.id), " … ".join(filter(None, map(quotes.get, pair)))))

    def most_questions(self, most: int) -> int:
        """The most questions that `propose` asks."""
        return most_questions(list(map(len, self.other.values())), self.counts, self.rows, most)


async def propose(sample: LabelledSample, ask: Ask | None, *, most: int, about: str = "") -> list[Proposal]:
    """Propose changes of the themes that rows were labelled with: at most `most` new ones, splits and merges.

    Without `ask` there are merges only.
    """
    found = list(_merges(sample))
    if ask is not None:
        merged = {name for proposal in found for name in proposal.replaces}
        found = [*await _new_themes(sample, ask, most, about), *await _splits(sample, ask, about, merged), *found]
    return [dataclasses.replace(proposal, number=number) for number, proposal in enumerate(found, start=1)]


async def _new_themes(sample: LabelledSample, ask: Ask, most: int, about: str) -> list[Proposal]:
    phrases = {kind: Counter(phrase for phrase, _ in drawn) for kind, drawn in sample.other.items()}
    proposals = []
    for theme, found in await _discover(phrases, ask, most, about, list(sample.themes)):
        drawn = sample.other[theme.kind]
        rows = [(row, phrase) for phrase, row in drawn if phrase in found.phrases]
        if len(rows) >= _LEAST_ROWS:
            what = f"texts of {about}" if about else f"{theme.kind}s"
            reason = f"{len(rows)} of {len(drawn)} sampled {what} in rows without a theme say this."
            proposals.append(Proposal("new", reason, (theme,), rows=tuple(rows[:_SHOWN_ROWS])))
    return proposals


async def _splits(sample: LabelledSample, ask: Ask, about: str, merged: Container[str]) -> list[Proposal]:
    proposals = []
    for name in large_themes(sample.counts, sample.rows):
        whole, drawn = sample.themes[name], sample.quotes[name].kept
        if name in merged or not drawn:
            continue
        phrases = {whole.kind: Counter(quote for quote, _ in drawn)}
        found = await _discover(phrases, ask, _MOST_PARTS, about, list(sample.themes))
        parts = [(theme, part) for theme, part in found if part.weight >= _PART * len(drawn)]
        inside = sum(part.weight for _, part in parts)
        if len(parts) < 2 or inside < _PARTS * len(drawn):
            continue
        number = sample.counts[name]
        reason = (
            f"{name!r} is in {number:,} of {sample.rows:,} rows that say something "
            f"({number / sample.rows:.0%}), and {inside} of {len(drawn)} sampled quotes are about {len(parts)} things."
        )
        themes = tuple(dataclasses.replace(theme, parent=whole.parent or name) for theme, _ in parts)
        shown = [[(row, quote) for quote, row in drawn if quote in part.phrases][:5] for _, part in parts]
        proposals.append(Proposal("split", reason, themes, (name,), tuple(itertools.chain(*shown))))
    return proposals


def _merges(sample: LabelledSample) -> Iterator[Proposal]:
    def kappa(pair: tuple[str, str]) -> float:
        one, other = (sample.counts[name] for name in pair)
        chance = one * (sample.rows - other) + other * (sample.rows - one)
        return 2 * (sample.pairs[pair] * sample.rows - one * other) / chance if chance else 0.0

    taken: set[str] = set()
    for pair in sorted(sample.pairs, key=lambda pair: (-kappa(pair), pair)):
        first, second = sorted((sample.themes[name] for name in pair), key=lambda theme: -sample.counts[theme.name])
        same = first.kind == second.kind or "both" in (first.kind, second.kind)
        if kappa(pair) < _GO_TOGETHER or sample.pairs[pair] < _LEAST_ROWS or not same or not taken.isdisjoint(pair):
            continue
        taken.update(pair)
        reason = (
            f"{sample.pairs[pair]:,} rows have both: of {sample.counts[first.name]:,} with {first.name!r} "
            f"and {sample.counts[second.name]:,} with {second.name!r}."
        )
        theme = dataclasses.replace(
            first,
            definition=textwrap.shorten(f"{first.definition} {second.definition}", 300, placeholder=" …"),
            kind=first.kind if first.kind == second.kind else "both",
            examples=(*first.examples[:1], *second.examples[:1]),
        )
        yield Proposal("merge", reason, (theme,), (first.name, second.name), tuple(sample.together[pair]))


class SubRunStopped(Exception):
    """A sub-run was stopped, by the user, a limit or the server: the main run does not begin."""

    def __init__(self, result: RunResult) -> None:
        super().__init__(result.stopped)
        self.result = result  # with the totals of all sub-runs


@dataclass
class SubRun:
    """Asks pipelines about lines in memory, one batch run after the other, before the main run."""

    plan: RunPlan  # each run has its own pipeline and the remaining limits
    servers: Servers
    answers: Answers
    begin: Callable[[Pipeline, int], Observer]  # starts to display a run of so many questions
    stop: Stop
    retry_failed: bool = True
    used: Tally = field(default_factory=Tally)  # calls and tokens of all runs so far
    retries: int = 0
    elapsed_s: float = 0.0
    # The mean usage of a call in the run with the longest calls: the next run's may be as long.
    _longest_call: Usage = field(default_factory=Usage)

    @property
    def caps(self) -> Caps:
        return self.plan.caps.left(self.used.usage, self.elapsed_s, self._longest_call)

    async def ask(self, pipeline: Pipeline, items: Sequence[Item]) -> Sequence[Mapping[str, Any] | None]:
        """Ask `pipeline` about each of `items`; returns their values in order, `None` for one that failed.

        Raises `SubRunStopped` when the run is stopped.
        """
        rows = _RowsInMemory(len(items))
        run_io = RunIO(
            source=_ItemsInMemory(items),
            rows=rows,
            to_row=_values_row,
            answers=self.answers,
            total=len(items),
            retry_failed=self.retry_failed,
        )
        plan = dataclasses.replace(self.plan, pipeline=pipeline, caps=self.caps)
        result = await run_batch(plan, self.servers, run_io, observer=self.begin(pipeline, len(items)), stop=self.stop)
        self.used.spend(result.tally.usage, result.tally.calls)
        self.retries += result.retries
        self.elapsed_s += result.elapsed_s
        calls, usage = max(1, result.tally.calls), result.tally.usage
        mean = Usage(-(-usage.prompt_tokens // calls), -(-usage.completion_tokens // calls))
        self._longest_call = max(self._longest_call, mean, key=lambda usage: usage.total_tokens)
        if result.stopped:
            # Its counts are of questions, not of the rows that a summary speaks about.
            nothing = dataclasses.replace(result, tally=Tally(), elapsed_s=0.0, retries=0, finished=False)
            raise SubRunStopped(self.added_to(nothing))
        return rows.values

    def added_to(self, result: RunResult) -> RunResult:
        """The main run's result with the totals of the sub-runs added."""
        result.tally.spend(self.used.usage, self.used.calls)
        return dataclasses.replace(
            result, elapsed_s=result.elapsed_s + self.elapsed_s, retries=result.retries + self.retries
        )


def without_main_run(subrun: SubRun | None) -> RunResult:
    """The result of a command that needed no main run after its sub-runs."""
    result = RunResult(
        tally=Tally(),
        elapsed_s=0.0,
        retries=0,
        peak_in_flight=0,
        concurrency=0,
        bad_rows=0,
        exit_code=ExitCode.OK,
        finished=False,
    )
    return result if subrun is None else subrun.added_to(result)


def _values_row(item: Item, outcome: Outcome) -> Row:
    return Row(item, {"values": outcome.values} if isinstance(outcome, Success) else {})


class _ItemsInMemory(list[Item]):
    skipped = 0

    def stop(self) -> None: ...


class _RowsInMemory:
    def __init__(self, number: int) -> None:
        self.values: list[Mapping[str, Any] | None] = [None] * number

    def add(self, row: Row) -> None:
        self.values[row.item.position] = row.added.get("values")

    def flush(self) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...
