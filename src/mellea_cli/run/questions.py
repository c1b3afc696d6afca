"""Which question an edited themes file asks, and which answers to earlier questions still hold.

A row's answer depends on what the model was shown: definitions, kinds and examples, and the names by which it was to
call them. The journal remembers every list that was asked about. So a theme that only got another name goes on being
asked about by its first one, and the answer is renamed on its way out. When themes were taken out, an answer to the
longer list holds wherever none of those was in it: the model had the choice, and chose others.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mellea_cli.items import Item, Outcome, Success
from mellea_cli.pipelines.themes import Theme, label_pipeline
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.reuse import Answers

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
