"""A comparison as Markdown and as JSON, and both kinds of figures as plain values for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from typing import Any

from mellea_cli.report.compare import Change, Comparison
from mellea_cli.report.figures import Figures, percent
from mellea_cli.report.markdown import plain, table


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
