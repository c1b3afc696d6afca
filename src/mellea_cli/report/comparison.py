"""Comparison of two outputs: how often each judgement and theme occurs, and which rows are new, gone or changed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mellea_cli.report.aggregate import Aggregator
from mellea_cli.report.figures import Figures, in_order, percent, ratio
from mellea_cli.report.markdown import plain, table
from mellea_cli.report.results import Results

Group = str
"""`sentiment`, `urgency`, `theme`, or the name of an own field after `field `."""
_FIELD = "field "


@dataclass(frozen=True, slots=True)
class Change:
    """How often a judgement or theme occurs in the old rows and in the new ones."""

    group: Group
    name: str
    old: int
    new: int
    old_share: float  # Of the answered old rows, from 0 to 1
    new_share: float

    @property
    def points(self) -> float:
        """Percentage points that the share went up, or down when negative."""
        return (self.new_share - self.old_share) * 100

    @property
    def arrival(self) -> Literal["came", "went", ""]:
        if self.old and not self.new:
            return "went"
        return "came" if self.new and not self.old else ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two outputs. Kept and gone rows add up to the old rows, kept and added ones to the new rows."""

    old: Figures
    new: Figures
    matched_by: Literal["id", "text"]
    kept: int
    added: int
    gone: int
    edited: int  # Kept rows whose text differs; 0 when rows are matched by text
    rejudged: int  # Kept rows with the same text whose sentiment or urgency differs
    changes: Sequence[Change]  # Sentiment and urgency in their order, then the themes that moved most

    def of(self, group: Group) -> list[Change]:
        return [change for change in self.changes if change.group == group]

    @property
    def groups(self) -> list[str]:
        """The groups in their order."""
        return list(dict.fromkeys(change.group for change in self.changes))

    @property
    def themed(self) -> bool:
        return self.old.labels is not None and self.new.labels is not None


def compare(old: Results, new: Results) -> Comparison:
    """Compare two outputs, each read once. Rows are matched by id where both have ids, else by their text."""
    old_figures, before = _read(old)
    new_figures, after = _read(new)
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
        changes=list(_changes(old_figures, new_figures)),
    )


@dataclass(slots=True)
class _SeenRows:
    """The rows of one output by id and by a hash of their text: enough to match them without keeping them."""

    by_id: defaultdict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    by_text: Counter[int] = field(default_factory=Counter)
    judged: dict[int, str] = field(default_factory=dict)


def _read(results: Results) -> tuple[Figures, _SeenRows]:
    aggregator, seen = Aggregator(), _SeenRows()
    for record in results:
        aggregator.add(record)
        text, judgement = hash(record.words), f"{record.sentiment}/{record.urgency}"
        seen.by_id[record.id].append((text, judgement))
        seen.by_text[text] += 1
        seen.judged[text] = judgement
    return aggregator.figures(results), seen


def _matched_by_id(before: _SeenRows, after: _SeenRows) -> tuple[int, int, int]:
    kept = edited = rejudged = 0
    for ident, rows in after.by_id.items():
        # An id that occurs several times is matched as often as it occurs in both.
        for (old_text, old_judged), (new_text, new_judged) in zip(before.by_id.get(ident, ()), rows, strict=False):
            kept += 1
            edited += old_text != new_text
            rejudged += old_text == new_text and old_judged != new_judged
    return kept, edited, rejudged


def _matched_by_text(before: _SeenRows, after: _SeenRows) -> tuple[int, int, int]:
    both = before.by_text & after.by_text
    rejudged = sum(number for text, number in both.items() if before.judged[text] != after.judged[text])
    return both.total(), 0, rejudged


def _changes(old: Figures, new: Figures) -> Iterator[Change]:
    def change(group: Group, name: str, before: int, after: int) -> Change:
        return Change(group, name, before, after, ratio(before, old.answered), ratio(after, new.answered))

    if old.judged or new.judged:
        for name, _ in in_order(old.mix.sentiment + new.mix.sentiment):
            yield change("sentiment", name, old.mix.sentiment[name], new.mix.sentiment[name])
        for name, _ in in_order(old.mix.urgency + new.mix.urgency, "urgency"):
            yield change("urgency", name, old.mix.urgency[name], new.mix.urgency[name])
    fields = {field.name: field for field in new.fields}
    for before_field in old.fields:
        after_field = fields.get(before_field.name)
        if after_field is not None and before_field.type == after_field.type and before_field.is_categorical:
            counts, later = dict(before_field.values), dict(after_field.values)
            for name in {**later, **counts}:
                yield change(f"{_FIELD}{before_field.name}", name, counts.get(name, 0), later.get(name, 0))
    if old.labels is None or new.labels is None:
        return
    before = {theme.name: theme.count for theme in old.themes}
    after = {theme.name: theme.count for theme in new.themes}
    themes = [change("theme", name, before.get(name, 0), after.get(name, 0)) for name in {**after, **before}]
    yield from sorted(themes, key=lambda change: (-abs(change.points), -change.new))


def row_sentence(comparison: Comparison) -> str:
    """The numbers of new, gone and changed rows in one line."""
    parts = [f"{comparison.added:,} new", f"{comparison.gone:,} gone", f"{comparison.kept:,} in both"]
    parts += [f"{comparison.edited:,} of these edited"] if comparison.edited else []
    parts += [f"{comparison.rejudged:,} judged differently"] if comparison.rejudged else []
    return f"rows by {comparison.matched_by}: {', '.join(parts)}"


def group_name(group: Group) -> str:
    """The heading of a group of changes."""
    return group.removeprefix(_FIELD)


def theme_notes(comparison: Comparison) -> list[str]:
    """Notes about the figures of both sides, how numbers have moved, and why themes are not compared."""
    notes = [f"{figures.name}: {note}" for figures in (comparison.old, comparison.new) for note in figures.notes]
    old = {field.name: field.summary() for field in comparison.old.fields}
    notes += [
        f"{new.name}: {old[new.name]}; now {new.summary()}"
        for new in comparison.new.fields
        if new.mean is not None and old.get(new.name)
    ]
    without = [figures.name for figures in (comparison.old, comparison.new) if figures.labels is None]
    if len(without) == 1:
        notes.append(f"themes are not compared: {without[0]} has none")
    return notes


def points(change: Change) -> str:
    """How a share moved, in percentage points: `+3.1`, `-12`, `0`, and `(came)` or `(went)`."""
    moved = change.points
    text = f"{moved:+.0f}" if abs(moved) >= 9.95 else f"{moved:+.1f}"
    text = "0" if abs(moved) < 0.05 else text
    return f"{text} ({change.arrival})" if change.arrival else text


def comparison_to_markdown(comparison: Comparison, title: str) -> str:
    """Render a comparison as Markdown."""
    old, new = comparison.old, comparison.new
    lines = [f"# {plain(title)}", "", f"- old: {plain(old.name)}, {plain(old.reconciliation())}"]
    lines += [f"- new: {plain(new.name)}, {plain(new.reconciliation())}", f"- {row_sentence(comparison)}", ""]
    for group in comparison.groups:
        rows = [
            [
                plain(change.name),
                f"{change.old:,}",
                f"{change.new:,}",
                f"{percent(change.old_share)} → {percent(change.new_share)}",
                points(change),
            ]
            for change in comparison.of(group)
        ]
        if rows:
            lines += [*table([plain(group_name(group)), "old", "new", "share", "change"], rows), ""]
    for note in theme_notes(comparison):
        lines += [plain(note), ""]
    return "\n".join(lines)


def comparison_to_json(comparison: Comparison) -> str:
    """Render a comparison as JSON. Keys are only ever added."""
    sides = ("name", "rows", "answered", "blank", "failed", "unreadable")
    rows = ("matched_by", "kept", "added", "gone", "edited", "rejudged")
    record: dict[str, Any] = {
        "old": {name: getattr(comparison.old, name) for name in sides},
        "new": {name: getattr(comparison.new, name) for name in sides},
        "rows": {name: getattr(comparison, name) for name in rows},
        "changes": [
            asdict(change)
            | {
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
