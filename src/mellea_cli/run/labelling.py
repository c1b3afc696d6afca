"""The main run of `mellea themes`: summarised rows in, labelled rows out, each one counted on its way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mellea_cli.io.themesfile import JOINT
from mellea_cli.items import Item, Outcome, Row, Success
from mellea_cli.pipelines.themes import OTHER, Kind, Theme
from mellea_cli.run.ends import Ends, Items
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.questions import Question
from mellea_cli.run.reconcile import Figures
from mellea_cli.run.sampling import ours, verdict


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

    def __init__(self, themes: Sequence[Theme], question: Question, plan: RunPlan, ends: Ends) -> None:
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
