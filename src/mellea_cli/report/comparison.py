"""A comparison as Markdown and as JSON, and both kinds of figures as plain values for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from typing import Any, Literal

from mellea_cli.report.aggregate import Counting
from mellea_cli.report.figures import Figures, in_order, part, percent
from mellea_cli.report.markdown import plain, table
from mellea_cli.report.results import Record, Results

# What changed between two outputs: how often each judgement and theme occurs, and which rows came and went.

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


def comparison_to_markdown(comparison: Comparison, title: str) -> str:
    """Write a comparison as Markdown."""
    old, new = comparison.old, comparison.new
    lines = [f"# {plain(title)}", "", f"- old: {plain(old.name)}, {plain(old.reconciliation())}"]
    lines += [f"- new: {plain(new.name)}, {plain(new.reconciliation())}", f"- {row_sentence(comparison)}", ""]
    for group in ("sentiment", "urgency", "theme"):
        changes = comparison.of(group)
        if changes:
            lines += [*table([group, "old", "new", "share", "change"], [_cells(change) for change in changes]), ""]
    for note in theme_notes(comparison):
        lines += [plain(note), ""]
    return "\n".join(lines)


def comparison_to_json(comparison: Comparison) -> str:
    """Write a comparison as JSON. Keys are only ever added."""
    record = {
        "old": _side(comparison.old),
        "new": _side(comparison.new),
        "rows": {
            "matched_by": comparison.matched_by,
            "kept": comparison.kept,
            "added": comparison.added,
            "gone": comparison.gone,
            "edited": comparison.edited,
            "rejudged": comparison.rejudged,
        },
        "changes": [
            {
                "group": change.group,
                "name": change.name,
                "old": change.old,
                "new": change.new,
                "old_share": round(change.old_share, 6),
                "new_share": round(change.new_share, 6),
                "points": round(change.points, 4),
                "arrival": change.arrival or None,
            }
            for change in comparison.changes
        ],
        "themes_compared": comparison.themed,
    }
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


def figures_to_json(figures: Figures) -> str:
    """Write the figures of a report as JSON. Keys are only ever added."""
    record = {"answered": figures.answered, "rows": figures.rows, **_value(figures)}
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


def row_sentence(comparison: Comparison) -> str:
    """What became of the rows, in one line."""
    parts = [f"{comparison.added:,} new", f"{comparison.gone:,} gone", f"{comparison.kept:,} in both"]
    parts += [f"{comparison.edited:,} of these edited"] if comparison.edited else []
    parts += [f"{comparison.rejudged:,} judged otherwise"] if comparison.rejudged else []
    return f"rows by {comparison.matched_by}: {', '.join(parts)}"


def theme_notes(comparison: Comparison) -> list[str]:
    """Why themes are not compared, and what else a reader should know; often nothing."""
    notes = [f"{figures.name}: {note}" for figures in (comparison.old, comparison.new) for note in figures.notes]
    bare = [figures.name for figures in (comparison.old, comparison.new) if figures.labels is None]
    if len(bare) == 1:
        notes.append(f"themes are not compared: {bare[0]} has none")
    return notes


def points(change: Change) -> str:
    """How a share moved, in percentage points: `+3.1`, `-12`, `0`; with what came or went."""
    moved = change.points
    text = f"{moved:+.0f}" if abs(moved) >= 9.95 else f"{moved:+.1f}"
    text = "0" if abs(moved) < 0.05 else text
    return f"{text} ({change.arrival})" if change.arrival else text


def _cells(change: Change) -> list[str]:
    shares = f"{percent(change.old_share)} → {percent(change.new_share)}"
    return [plain(change.name), f"{change.old:,}", f"{change.new:,}", shares, points(change)]


def _side(figures: Figures) -> dict[str, Any]:
    return {
        "name": figures.name,
        "rows": figures.rows,
        "answered": figures.answered,
        "blank": figures.blank,
        "failed": figures.failed,
        "unreadable": figures.unreadable,
    }


def _value(value: Any) -> Any:
    """Dataclasses as objects, dates as ISO text, everything else as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _value(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_value(part) for part in value]
    return value.isoformat() if isinstance(value, date) else value
