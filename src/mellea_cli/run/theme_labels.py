"""Labelling rows with themes: which question an edited themes file asks, and whether the figures add up."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mellea_cli.errors import OutputError
from mellea_cli.io.journal import Answers
from mellea_cli.io.themes_file import JOINT
from mellea_cli.items import Item, Outcome, Row, Success
from mellea_cli.pipelines.theme_prompts import NONE, OTHER, Kind, Theme, label_pipeline
from mellea_cli.run.batch import Items, RunIO
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.theme_discovery import Texts, added_value, read_judgement

_FACT = "themes"
_MOST_REMEMBERED = 40

Identity = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True)
class LabelQuestion:
    """A list of themes as the model is asked about it, and its meaning in the words of the themes file.

    An answer depends on what the model is shown: definitions, kinds, examples and the names to choose from. The journal
    remembers every list that was asked about, so a theme that only got another name is still asked about by its first
    one, and the answer is renamed.
    """

    asked: tuple[Theme, ...]
    about: str  # the column that is labelled; empty for the feedback
    names: Mapping[str, str]  # the name in the file for each name that is asked, in the file's order
    # Longer lists that were asked about before and contain all of these, shortest first.
    earlier: tuple[tuple[Theme, ...], ...] = ()

    def renamed(self, outcome: Outcome) -> Outcome:
        return _translated(outcome, self.names) if isinstance(outcome, Success) else outcome

    def carried(self, plan: RunPlan, answers: Answers) -> Callable[[Item], Outcome | None]:
        """A look-up of answers to earlier questions that also answer this one, `None` for an item that must be asked.

        An answer to a longer list holds when none of the themes that were taken out is in it: the model had the choice,
        and chose others.
        """
        plans = [dataclasses.replace(plan, pipeline=label_pipeline(earlier, self.about)) for earlier in self.earlier]
        current = {_identity(theme): theme.name for theme in self.asked}
        names = [{theme.name: current.get(_identity(theme)) for theme in earlier} for earlier in self.earlier]

        def look_up(item: Item) -> Outcome | None:
            for before, known in zip(plans, names, strict=True):
                outcome = answers.lookup(before.key(item.text, item.id))
                if isinstance(outcome, Success) and all(known.get(name, name) for name in _themes(outcome)):
                    return _translated(outcome, {name: now for name, now in known.items() if now is not None})
            return None

        return look_up


def settle_question(themes: Sequence[Theme], journal: Answers, about: str = "") -> LabelQuestion:
    """Decide how `themes` are asked about, given what the journal says was asked before, and remember it."""
    remembered = _remembered(journal)
    themes = [dataclasses.replace(theme, parent="") for theme in themes]  # nobody is asked about it
    wanted = {_identity(theme): theme.name for theme in themes}
    longer = sorted((old for old in remembered if set(wanted) <= set(map(_identity, old))), key=len)
    asked = tuple(theme for theme in (longer[0] if longer else themes) if _identity(theme) in wanted)
    if asked not in remembered:
        kept = [*remembered, asked][-_MOST_REMEMBERED:]
        journal.note_facts({_FACT: json.dumps([list(map(dataclasses.asdict, old)) for old in kept])})
    asked_names = {_identity(theme): theme.name for theme in asked}
    names = {asked_names[identity]: name for identity, name in wanted.items()}
    return LabelQuestion(asked, about, names, tuple(old for old in longer if len(old) > len(asked)))


def _identity(theme: Theme) -> Identity:
    """Everything about a theme but its name: what makes it the same one after a renaming."""
    return theme.definition, theme.kind, theme.examples


def _remembered(journal: Answers) -> list[tuple[Theme, ...]]:
    try:
        noted: list[list[dict[str, Any]]] = json.loads(journal.facts().get(_FACT, "[]"))
        return [tuple(Theme(**{**one, "examples": tuple(one["examples"])}) for one in old) for old in noted]
    except (ValueError, TypeError, KeyError):
        return []  # noted by another version: the rows are asked again


def _themes(outcome: Success) -> list[str]:
    return list(outcome.values.get("themes") or ())


def _translated(outcome: Success, names: Mapping[str, str]) -> Success:
    """The outcome under other names, in the order of `names`; `other` and `none` stay."""
    labels = _themes(outcome)
    quotes = outcome.values.get("theme_quotes") or {}
    values = {
        "themes": [new for old, new in names.items() if old in labels] or labels,
        "theme_quotes": {new: quotes[old] for old, new in names.items() if old in quotes},
    }
    return dataclasses.replace(outcome, values=values)


class LabelRun:
    """The batch run that labels rows (`run_io`), with counts of the rows that have been written.

    `texts` reads the column that is labelled; without it that is the feedback.
    """

    def __init__(
        self, themes: Sequence[Theme], question: LabelQuestion, plan: RunPlan, run_io: RunIO, texts: Texts | None = None
    ) -> None:
        self._texts = texts
        self.counts = LabelCounts(tuple(theme.name for theme in themes))
        self._kinds = {theme.name: theme.kind for theme in themes}
        self._question = question
        self._to_row = run_io.to_row
        self._edited = run_io.edited
        carried, by_hand = question.carried(plan, run_io.answers), run_io.carried
        self.run_io = dataclasses.replace(
            run_io,
            source=_LabelledTexts(run_io.source, texts),
            to_row=self._row,
            carried=lambda item: carried(item) or (by_hand(item) if by_hand is not None else None),
        )

    def _row(self, item: Item, outcome: Outcome) -> Row:
        filled_in = isinstance(outcome, Success) and not outcome.values  # by a person
        agreed = outcome if filled_in else self._question.renamed(outcome)
        if self._texts is None and not filled_in:
            agreed = agreeing(self._kinds, item, agreed)
        if item.position in self._edited:
            row = self._to_row(item, agreed)
            self.counts.add_edited(_labels(row.added.get("themes")))
            return row
        values = agreed.values if isinstance(agreed, Success) else {"themes": None}
        self.counts.add(values["themes"], values.get("theme_quotes") or {}, item.text, f"row {item.id}")
        return self._to_row(item, agreed)


def agreeing(kinds: Mapping[str, Kind], item: Item, outcome: Outcome) -> Outcome:
    """The outcome without labels that contradict the row's summary; `kinds` has the kind of each theme.

    A row without a complaint has no theme of complaints, and likewise for praise: for a text of a few words small
    models take the nearest theme, whether the words are kind or not.
    """
    judgement = read_judgement(item.fields)
    if judgement is None or not judgement.phrases or not isinstance(outcome, Success):
        return outcome
    labels = outcome.values["themes"]
    kept = [name for name in labels if kinds.get(name, "both") in ("both", *judgement.phrases)]
    if len(kept) == len(labels):
        return outcome
    quotes = {name: quote for name, quote in outcome.values["theme_quotes"].items() if name in kept}
    return dataclasses.replace(outcome, values={"themes": kept or [OTHER], "theme_quotes": quotes})


def labelled_text(item: Item, texts: Texts | None) -> str:
    """The text of an item that is labelled: that of a column, or the feedback; empty where nothing is to be asked.

    A row without complaint and praise has nothing to label. One that failed when it was summarised, or never was, has.
    """
    if texts is not None:
        return "\n".join(texts(item))
    judgement = read_judgement(item.fields)
    return item.text if judgement is None or judgement.phrases else ""


class _LabelledTexts:
    """A source in which the text of an item is what is labelled."""

    def __init__(self, source: Items, texts: Texts | None) -> None:
        self._source = source
        self._texts = texts
        self.stop = source.stop

    @property
    def skipped(self) -> int:
        return self._source.skipped

    def __iter__(self) -> Iterator[Item]:
        for item in self._source:
            text = labelled_text(item, self._texts)
            yield item if text == item.text else dataclasses.replace(item, text=text)


class Unreconciled(OutputError):
    """The counts of a run and the rows of its output do not agree: neither can be trusted."""

    kind = "unreconciled"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="type the same command with --fresh; if that does not help, please report it")


@dataclass
class LabelCounts:
    """Rows by label; `rows` of them are accounted for."""

    names: tuple[str, ...]
    themes: Counter[str] = field(default_factory=Counter)  # a row with several counts for each of them
    labelled: int = 0  # rows with at least one theme
    other: int = 0
    none: int = 0
    failed: int = 0
    quotes: int = 0

    @property
    def rows(self) -> int:
        return self.labelled + self.other + self.none + self.failed

    def add(self, labels: Sequence[str] | None, quotes: Mapping[str, str], text: str, where: str) -> None:
        """Count the row `where` with its labels, `None` when it failed, and the quotes from its text by theme.

        Raises `Unreconciled` when a label is no theme, occurs twice, has no quote, or a quote is not in the text.
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
            raise Unreconciled(f"{where}: has no label")
        if list(labels) != [name for name in self.names if name in set(labels)]:
            raise Unreconciled(f"{where}: is labelled {', '.join(labels)}, which are not themes in their order")
        if set(quotes) != set(labels):
            raise Unreconciled(f"{where}: has quotes for {len(quotes)} of {len(labels)} themes")
        for name, quote in quotes.items():
            if not quote or quote not in text:
                raise Unreconciled(f"{where}: the quote for {name!r} is not in its text")
        self.themes.update(labels)
        self.quotes += len(quotes)

    def add_edited(self, labels: Sequence[str] | None) -> None:
        """Count a row that a person has changed: it may have any labels, and quotes for none of them."""
        known = [name for name in self.names if name in (labels or ())]
        self.themes.update(known)
        self.labelled += bool(known)
        self.none += not known and list(labels or ()) == [NONE]
        self.failed += not labels
        self.other += bool(labels and not known and list(labels) != [NONE])


def audit(
    counts: LabelCounts,
    read: Iterable[tuple[Item, Sequence[str] | None, Mapping[str, str]]],
    edited: Container[int] = (),
) -> None:
    """Count the rows of a finished output again, from the file; raises `Unreconciled` at the first difference.

    `edited` holds the positions of the rows that a person has changed.
    """
    found = LabelCounts(counts.names)
    for item, labels, quotes in read:
        if item.position in edited:
            found.add_edited(labels)
            continue
        found.add(labels, quotes, item.text, f"row {item.id} of the output")
    for name in counts.names:
        if found.themes[name] != counts.themes[name]:
            raise Unreconciled(
                f"{name!r} counts {counts.themes[name]:,} rows, but {found.themes[name]:,} rows are labelled with it"
            )
    for what in ("labelled", "other", "none", "failed", "quotes"):
        counted, read_back = getattr(counts, what), getattr(found, what)
        if counted != read_back:
            raise Unreconciled(f"{what}: {counted:,} were counted, the output has {read_back:,}")


def _labels(cell: Any) -> Sequence[str] | None:
    """The labels in a cell of a table or of JSON; `None` when there are none."""
    if isinstance(cell, str):
        return cell.split(JOINT) if cell else None
    return cell if isinstance(cell, list) else None


def read_labels(
    rows: Iterable[Item], texts: Texts | None = None
) -> Iterator[tuple[Item, Sequence[str] | None, Mapping[str, str]]]:
    """Each row of an output with its labels, `None` for one that failed, and its quotes by theme.

    `texts` reads the column that is labelled, whose text takes the place of the feedback.
    """
    for item in rows:
        if texts is not None:
            item = dataclasses.replace(item, text=labelled_text(item, texts))  # noqa: PLW2901 - the same item
        labels, quotes = added_value(item.fields, "themes"), added_value(item.fields, "theme_quotes")
        labels = _labels(labels)
        if isinstance(quotes, str) and quotes:
            quotes = json.loads(quotes)
        yield item, labels, quotes if isinstance(quotes, dict) else {}
