"""The main run of `mellea themes`: summarised rows in, labelled rows out, each one counted on its way."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mellea_cli.errors import OutputError
from mellea_cli.io.journal import Answers
from mellea_cli.io.themes_file import JOINT
from mellea_cli.items import Failure, Item, Outcome, Row, Success
from mellea_cli.pipelines.theme_prompts import NONE, OTHER, Kind, Theme, label_pipeline
from mellea_cli.run.batch import Items, RunIO
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.theme_discovery import ours, verdict

# Which question an edited themes file asks, and which answers to earlier questions still hold.
#
# A row's answer depends on what the model was shown: definitions, kinds and examples, and the names by which it was to
# call them. The journal remembers every list that was asked about. So a theme that only got another name goes on being
# asked about by its first one, and the answer is renamed on its way out. When themes were taken out, an answer to the
# longer list holds wherever none of those was in it: the model had the choice, and chose others.

_FACT = "themes"
_MOST_REMEMBERED = 40

Identity = tuple[str, str, tuple[str, ...]]


class Remembers(Protocol):
    """Where a run notes what the next one should know: the journal."""

    def facts(self) -> dict[str, str]:
        """What is noted."""

    def note_facts(self, facts: Mapping[str, str]) -> None:
        """Note something; other facts stay."""


@dataclass(frozen=True)
class Question:
    """One list of themes as it is asked about, and what it means in the words of the themes file.

    Args:
        asked: the themes as the model is shown them.
        names: what the file calls each of them, by the name that is asked; in the file's order.
        earlier: longer lists that were asked about before and hold all of these, shortest first.
    """

    asked: tuple[Theme, ...]
    names: Mapping[str, str]
    earlier: tuple[tuple[Theme, ...], ...] = ()

    def renamed(self, outcome: Outcome) -> Outcome:
        """The outcome in the words and the order of the themes file."""
        return _translated(outcome, self.names) if isinstance(outcome, Success) else outcome

    def carried(self, plan: RunPlan, answers: Answers) -> Callable[[Item], Outcome | None]:
        """A look-up of answers to earlier questions that also answer this one.

        Args:
            plan: the plan of this question.
            answers: where answers are kept.

        Returns:
            A function that gives an item's outcome under this question's names, or `None` when it must be asked about.
        """
        plans = [dataclasses.replace(plan, pipeline=label_pipeline(earlier)) for earlier in self.earlier]
        here = {_identity(theme): theme.name for theme in self.asked}
        names = [{theme.name: here.get(_identity(theme)) for theme in earlier} for earlier in self.earlier]

        def look_up(item: Item) -> Outcome | None:
            for before, known in zip(plans, names, strict=True):
                outcome = answers.lookup(before.key(item.text, item.id))
                if isinstance(outcome, Success) and all(known.get(name, name) for name in _themes(outcome)):
                    return _translated(outcome, {name: now for name, now in known.items() if now is not None})
            return None

        return look_up


def settle_question(themes: Sequence[Theme], journal: Remembers) -> Question:
    """Decide how `themes` are asked about, given what was asked before, and remember it.

    Args:
        themes: what the themes file holds.
        journal: where earlier lists are noted.
    """
    remembered = _remembered(journal)
    wanted = {_identity(theme): theme.name for theme in themes}
    longer = [old for old in remembered if set(wanted) <= set(map(_identity, old))]
    longer.sort(key=len)
    asked = tuple(theme for theme in (longer[0] if longer else themes) if _identity(theme) in wanted)
    if asked not in remembered:
        kept = [*remembered, asked][-_MOST_REMEMBERED:]
        journal.note_facts({_FACT: json.dumps([list(map(dataclasses.asdict, old)) for old in kept])})
    called = {_identity(theme): theme.name for theme in asked}
    names = {called[identity]: name for identity, name in wanted.items()}
    return Question(asked, names, tuple(old for old in longer if len(old) > len(asked)))


def _identity(theme: Theme) -> Identity:
    """What makes a theme this one for the model, whatever it is called."""
    return theme.definition, theme.kind, theme.examples


def _remembered(journal: Remembers) -> list[tuple[Theme, ...]]:
    """The lists that were asked about, oldest first; what cannot be read is as good as not there."""
    try:
        noted: list[list[dict[str, Any]]] = json.loads(journal.facts().get(_FACT, "[]"))
        return [tuple(Theme(**{**one, "examples": tuple(one["examples"])}) for one in old) for old in noted]
    except (ValueError, TypeError, KeyError):
        return []


def _themes(outcome: Success) -> list[str]:
    return list(outcome.values.get("themes") or ())


def _translated(outcome: Success, names: Mapping[str, str]) -> Success:
    """The outcome under other names, in the order of `names`; what is no theme's name stays."""
    said = _themes(outcome)
    quotes = outcome.values.get("theme_quotes") or {}
    themes = [new for old, new in names.items() if old in said]
    values = {
        "themes": themes or said,
        "theme_quotes": {new: quotes[old] for old, new in names.items() if old in quotes},
    }
    return dataclasses.replace(outcome, values=values)


# Whether the figures add up: what was labelled while the run went on, against what stands in the output.

_HINT = "type the same command with --fresh; if that does not help, please report it"


class Unreconciled(OutputError):
    """The figures of a run and the rows of its output do not agree: neither can be trusted."""

    kind = "unreconciled"


@dataclass
class Figures:
    """What became of the rows.

    Args:
        names: the themes, in their order.
        themes: rows by theme; a row with several counts for each of them.
        labelled: rows with at least one theme.
        other: rows that say something for which there is no theme.
        none: rows that praise nothing and complain about nothing.
        failed: rows without an answer.
        quotes: quotes that were checked against their rows' texts.
    """

    names: tuple[str, ...]
    themes: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    other: int = 0
    none: int = 0
    failed: int = 0
    quotes: int = 0

    @property
    def rows(self) -> int:
        """Rows that are accounted for."""
        return self.labelled + self.other + self.none + self.failed

    def enter(self, item: Item, outcome: Outcome) -> None:
        """Count the row of `item`, with its labels in the words of the themes file; raises as `count` does."""
        if isinstance(outcome, Failure):
            self.count(None, {}, item.text, f"row {item.id}")
        else:
            values = outcome.values
            self.count(values["themes"], values["theme_quotes"] or {}, item.text, f"row {item.id}")

    def count(self, labels: Sequence[str] | None, quotes: Mapping[str, str], text: str, where: str) -> None:
        """Count one row in.

        Args:
            labels: its themes, or `other` or `none`; `None` when it failed.
            quotes: its quotes by theme.
            text: the text that they are taken from.
            where: which row it is, for messages.

        Raises:
            Unreconciled: a label is no theme, stands twice, has no quote, or a quote does not stand in the text.
        """
        if labels is None:
            self.failed += 1
            return
        if list(labels) in ([OTHER], [NONE]):
            self.other += labels[0] == OTHER
            self.none += labels[0] == NONE
            labels = ()
        elif labels:
            self.labelled += 1
        else:
            raise Unreconciled(f"{where}: has no label at all", hint=_HINT)
        if list(labels) != [name for name in self.names if name in set(labels)]:
            raise Unreconciled(
                f"{where}: is labelled {', '.join(labels)}, which are not themes in their order", hint=_HINT
            )
        if set(quotes) != set(labels):
            raise Unreconciled(f"{where}: has quotes for {len(quotes)} of {len(labels)} themes", hint=_HINT)
        for name, quote in quotes.items():
            if not quote or quote not in text:
                raise Unreconciled(f"{where}: the quote for {name!r} does not stand in its text", hint=_HINT)
        self.themes.update(labels)
        self.quotes += len(quotes)


def audit(ledger: Figures, read: Iterable[tuple[Item, Sequence[str] | None, Mapping[str, str]]]) -> None:
    """Count the rows of a finished output again, from the file, and compare.

    Args:
        ledger: what was counted while the run went on.
        read: each row of the output: its item, its labels (`None` for a failed one) and its quotes.

    Raises:
        Unreconciled: something does not hold; the first thing that does not is named.
    """
    found = Figures(ledger.names)
    for item, labels, quotes in read:
        found.count(labels, quotes, item.text, f"row {item.id} of the output")
    for name in ledger.names:
        if found.themes[name] != ledger.themes[name]:
            raise Unreconciled(
                f"{name!r} counts {ledger.themes[name]:,} rows, but {found.themes[name]:,} rows are labelled with it",
                hint=_HINT,
            )
    for what in ("labelled", "other", "none", "failed", "quotes"):
        counted, stands = getattr(ledger, what), getattr(found, what)
        if counted != stands:
            raise Unreconciled(f"{what}: {counted:,} were counted, the output has {stands:,}", hint=_HINT)


class Labelled:
    """The ends of a run that labels rows.

    Args:
        themes: what the themes file holds.
        question: how they are asked about.
        plan: the plan of that question.
        ends: the ends as they were opened.

    Attributes:
        ends: the ends for the run.
        figures: what became of the rows that have left it.
    """

    def __init__(self, themes: Sequence[Theme], question: Question, plan: RunPlan, ends: RunIO) -> None:
        self.figures = Figures(tuple(theme.name for theme in themes))
        self._kinds = {theme.name: theme.kind for theme in themes}
        self._question = question
        self._to_row = ends.to_row
        self.ends = dataclasses.replace(
            ends, source=_Speaking(ends.source), to_row=self._row, carried=question.carried(plan, ends.answers)
        )

    def _row(self, item: Item, outcome: Outcome) -> Row:
        agreed = agreeing(self._kinds, item, self._question.renamed(outcome))
        self.figures.enter(item, agreed)
        return self._to_row(item, agreed)


def agreeing(kinds: Mapping[str, Kind], item: Item, outcome: Outcome) -> Outcome:
    """The outcome without labels that contradict what was said about the row when it was summarised.

    A row in which no complaint was found has no theme of complaints, and likewise with praise: of a few short words
    small models take the first theme that is near, whether those words are kind or not.

    Args:
        kinds: the kind of each theme, by its name.
        item: the row, with the columns that `mellea summarise` has added.
        outcome: what came of labelling it.
    """
    said = verdict(item.fields)
    if said is None or not said.phrases or not isinstance(outcome, Success):
        return outcome
    labels = outcome.values["themes"]
    kept = [name for name in labels if kinds.get(name, "both") in ("both", *said.phrases)]
    if len(kept) == len(labels):
        return outcome
    quotes = {name: quote for name, quote in outcome.values["theme_quotes"].items() if name in kept}
    return dataclasses.replace(outcome, values={"themes": kept or [OTHER], "theme_quotes": quotes})


class _Speaking:
    """Items of which those have no text that praise nothing and complain about nothing: there is nothing to ask.

    A row that failed when it was summarised, or never was, keeps its text: nobody knows what it says.
    """

    def __init__(self, source: Items) -> None:
        self._source = source

    @property
    def skipped(self) -> int:
        """Rows that could not be read and were left out."""
        return self._source.skipped

    def __iter__(self) -> Iterator[Item]:
        for item in self._source:
            said = verdict(item.fields)
            yield item if said is None or said.phrases else dataclasses.replace(item, text="")

    def stop(self) -> None:
        """Make an iteration that waits for input end."""
        self._source.stop()


def read_labels(rows: Iterable[Item]) -> Iterator[tuple[Item, Sequence[str] | None, Mapping[str, str]]]:
    """Each row of an output with its labels, `None` for one that failed, and its quotes by theme."""
    for item in rows:
        labels, quotes = ours(item.fields, "themes"), ours(item.fields, "theme_quotes")
        if isinstance(labels, str):
            labels = labels.split(JOINT) if labels else None
        yield item, labels, _as_object(quotes)


def _as_object(quotes: Any) -> Mapping[str, str]:
    found = json.loads(quotes) if isinstance(quotes, str) and quotes else quotes
    return found if isinstance(found, dict) else {}
