"""What changed between two outputs: how often each judgement and theme occurs, and which rows came and went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mellea_cli.report.counting import Counting
from mellea_cli.report.figures import Figures, in_order, part
from mellea_cli.report.reading import Results
from mellea_cli.report.record import Record

Group = Literal["sentiment", "urgency", "theme"]


@dataclass(frozen=True, slots=True)
class Change:
    """How often something occurs in the old rows and in the new ones."""

    group: Group
    name: str
    old: int
    new: int
    old_share: float
    """Of the answered old rows, from 0 to 1."""
    new_share: float

    @property
    def points(self) -> float:
        """Percentage points that the share went up, or down when negative."""
        return (self.new_share - self.old_share) * 100

    @property
    def arrival(self) -> Literal["came", "went", ""]:
        """Whether it is only in the new rows, or only in the old ones."""
        if self.old and not self.new:
            return "went"
        return "came" if self.new and not self.old else ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two outputs side by side. Kept and gone rows add up to the old rows, kept and added ones to the new rows."""

    old: Figures
    new: Figures
    matched_by: Literal["id", "text"]
    """What says that two rows are the same one."""
    kept: int
    added: int
    gone: int
    edited: int
    """Kept rows whose text is another one now; 0 when rows are matched by it."""
    rejudged: int
    """Kept rows with the same text whose sentiment or urgency is another one now."""
    changes: Sequence[Change]
    """Sentiment and urgency in their order, then the themes that moved most."""

    def of(self, group: Group) -> list[Change]:
        """The changes of one kind."""
        return [change for change in self.changes if change.group == group]

    @property
    def themed(self) -> bool:
        """Whether both have themes, so that these can be compared."""
        return self.old.labels is not None and self.new.labels is not None


@dataclass(slots=True)
class _Seen:
    """What is remembered of the rows of one output: enough to find each of them again, and no more."""

    by_id: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    by_text: Counter[int] = field(default_factory=Counter)
    judged: dict[int, str] = field(default_factory=dict)

    def passing(self, records: Iterable[Record]) -> Iterator[Record]:
        """Remember each row on its way."""
        for record in records:
            text = hash(record.words)
            judgement = f"{record.sentiment}/{record.urgency}"
            self.by_id.setdefault(record.id, []).append((text, judgement))
            self.by_text[text] += 1
            self.judged[text] = judgement
            yield record


def compare(old: Results, new: Results) -> Comparison:
    """Compare two outputs, each read once.

    Rows are matched by id where both have ids, else by their text.

    Raises:
        InputError: one of them cannot be read, or is no output of a run.
    """
    before, after = _Seen(), _Seen()
    old_figures, new_figures = _figures(old, before), _figures(new, after)
    by_id = old.has_ids and new.has_ids
    kept, edited, rejudged = _matched_by_id(before, after) if by_id else _matched_by_text(before, after)
    return Comparison(
        old=old_figures,
        new=new_figures,
        matched_by="id" if by_id else "text",
        kept=kept,
        added=new_figures.rows - kept,
        gone=old_figures.rows - kept,
        edited=edited,
        rejudged=rejudged,
        changes=[*_judgements(old_figures, new_figures), *_themes(old_figures, new_figures)],
    )


def _figures(results: Results, seen: _Seen) -> Figures:
    counting = Counting()
    counting.add_all(seen.passing(results))
    return counting.figures(results)


def _matched_by_id(before: _Seen, after: _Seen) -> tuple[int, int, int]:
    kept = edited = rejudged = 0
    for ident, rows in after.by_id.items():
        # An id that occurs several times is matched as often as it occurs in both.
        for (old_text, old_judged), (new_text, new_judged) in zip(before.by_id.get(ident, ()), rows, strict=False):
            kept += 1
            edited += old_text != new_text
            rejudged += old_text == new_text and old_judged != new_judged
    return kept, edited, rejudged


def _matched_by_text(before: _Seen, after: _Seen) -> tuple[int, int, int]:
    both = before.by_text & after.by_text
    rejudged = sum(number for text, number in both.items() if before.judged[text] != after.judged[text])
    return both.total(), 0, rejudged


def _judgements(old: Figures, new: Figures) -> Iterator[Change]:
    kinds: tuple[Group, ...] = ("sentiment", "urgency")
    for kind in kinds:
        before, after = (
            figures.mix.sentiment if kind == "sentiment" else figures.mix.urgency for figures in (old, new)
        )
        for name, _ in in_order(before + after, kind):
            yield _change(kind, name, before[name], after[name], old, new)


def _themes(old: Figures, new: Figures) -> list[Change]:
    if old.labels is None or new.labels is None:
        return []
    before = {theme.name: theme.count for theme in old.themes}
    after = {theme.name: theme.count for theme in new.themes}
    changes = [
        _change("theme", name, before.get(name, 0), after.get(name, 0), old, new)
        for name in dict.fromkeys((*after, *before))
    ]
    return sorted(changes, key=lambda change: (-abs(change.points), -change.new))


def _change(group: Group, name: str, before: int, after: int, old: Figures, new: Figures) -> Change:
    return Change(group, name, before, after, part(before, old.answered), part(after, new.answered))
