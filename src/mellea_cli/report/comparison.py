"""Comparison of two outputs: how often each judgement and theme occurs, and which rows are new, gone or changed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from mellea_cli.pipelines.theme_prompts import Theme
from mellea_cli.report.aggregate import Aggregator, ReportOptions
from mellea_cli.report.figures import Figures, Tone, in_order, many, percent, with_interval
from mellea_cli.report.intervals import Interval, benjamini_hochberg, share_difference
from mellea_cli.report.markdown import plain, table
from mellea_cli.report.results import Results
from mellea_cli.report.score import ScoreChange, ScoreKind, score_change

Group = str  # `sentiment`, `urgency`, `theme`, or the name of an own field after `field `
_FIELD = "field "


@dataclass(frozen=True, slots=True)
class Change:
    """How often a judgement or theme occurs in the old rows and in the new ones.

    It holds when it is more than chance, with all compared shares taken together (Benjamini-Hochberg).
    """

    group: Group
    name: str
    old: int
    new: int
    old_share: float  # Of the answered old rows, from 0 to 1
    new_share: float
    old_low: float = 0.0
    old_high: float = 1.0
    new_low: float = 0.0
    new_high: float = 1.0
    points_low: float = -100.0  # The interval of the difference, in percentage points
    points_high: float = 100.0
    p: float = 1.0
    holds: bool = False
    tone: Tone | Literal[""] = ""  # Of a theme: whether these mentions complain or praise
    series: Sequence[float | None] = ()  # Its share in every file, oldest first; `None` where a file has no such column
    series_intervals: Sequence[tuple[float, float] | None] = ()

    @property
    def points(self) -> float:
        """Percentage points that the share went up, or down when negative."""
        return (self.new_share - self.old_share) * 100

    @property
    def arrival(self) -> Literal["came", "went", ""]:
        if self.old and not self.new:
            return "went"
        return "came" if self.new and not self.old else ""

    @property
    def good(self) -> bool | None:
        """Whether it is a change for the better that holds, or for the worse; `None` for any other."""
        better = _MORE_IS_BETTER.get(self.tone or self.name if self.group in (*_JUDGED, "theme") else "")
        return None if better is None or not self.holds else better == (self.points > 0)

    @property
    def verdict(self) -> str:
        """What can be said about it, in a word or two."""
        if not self.holds:
            return "no clear change"
        return {"came": "new", "went": "gone"}.get(self.arrival) or ("up" if self.points > 0 else "down")

    def side(self, which: Literal["old", "new"]) -> str:
        """One of the shares with its interval."""
        low, high = getattr(self, f"{which}_low"), getattr(self, f"{which}_high")
        return with_interval(getattr(self, f"{which}_share"), Interval(low, high))

    def in_series(self, *, intervals: bool = False) -> str:
        """Its share in every file, oldest first; each with its interval if wanted."""
        shown = []
        for share, ends in zip(self.series, self.series_intervals or [None] * len(self.series), strict=True):
            if share is None:
                shown.append("no data")
            else:
                shown.append(with_interval(share, Interval(*ends)) if intervals and ends else percent(share))
        return " → ".join(shown)


_JUDGED = ("sentiment", "urgency")
_MORE_IS_BETTER = {"positive": True, "low": True, "negative": False, "high": False, "praise": True, "complaint": False}


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
    earlier: Sequence[Figures] = ()  # Outputs before the old one, oldest first
    score: ScoreChange | None = None

    def of(self, group: Group) -> list[Change]:
        return [change for change in self.changes if change.group == group]

    @property
    def groups(self) -> list[str]:
        """The groups in their order."""
        return list(dict.fromkeys(change.group for change in self.changes))

    def sections(self) -> Iterator[tuple[str, list[Change]]]:
        """Headings with their changes: themes that are complained about apart from those that are praised."""
        for group in self.groups:
            if group != "theme":
                yield group_name(group), self.of(group)
                continue
            for heading, tone in (("complaints", "complaint"), ("praise", "praise")):
                if changes := [change for change in self.of(group) if change.tone == tone]:
                    yield heading, changes

    @property
    def files(self) -> Sequence[Figures]:
        return (*self.earlier, self.old, self.new)

    @property
    def held(self) -> list[Change]:
        return [change for change in self.changes if change.holds]

    @property
    def themed(self) -> bool:
        return self.old.labels is not None and self.new.labels is not None


def compare(*outputs: Results, themes: Sequence[Theme] = (), score: tuple[ScoreKind, str] | None = None) -> Comparison:
    """Compare the last two of some outputs, oldest first; the others give each share a history.

    Rows are matched by id where both outputs have ids, else by their text.
    """
    options = ReportOptions(themes=themes, score=score)
    read = [_read(results, options) for results in outputs]
    (old_figures, before), (new_figures, after) = read[-2:]
    old, new = outputs[-2:]
    by_id = old.has_ids and new.has_ids
    kept, edited, rejudged = _matched_by_id(before, after) if by_id else _matched_by_text(before, after)
    figures = [one for one, _ in read]
    changes, moved = compared_figures(figures)
    return Comparison(
        old=old_figures,
        new=new_figures,
        matched_by="id" if by_id else "text",
        kept=kept,
        added=new_figures.rows - kept,
        gone=old_figures.rows - kept,
        edited=edited,
        rejudged=rejudged,
        changes=changes,
        earlier=figures[:-2],
        score=moved,
    )


def compared_figures(files: Sequence[Figures]) -> tuple[list[Change], ScoreChange | None]:
    """What moved between the last two of some files, and which moves hold with all of them taken together."""
    changes = list(_changes(files))
    score = score_change(files[-2].score, files[-1].score)
    holding = benjamini_hochberg([change.p for change in changes] + ([score.p] if score else []))
    marked = [replace(change, holds=holds) for change, holds in zip(changes, holding, strict=False)]
    return marked, replace(score, holds=holding[-1]) if score else None


@dataclass(slots=True)
class _SeenRows:
    """The rows of one output by id and by a hash of their text: enough to match them without keeping them."""

    by_id: defaultdict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    by_text: Counter[int] = field(default_factory=Counter)
    judged: dict[int, str] = field(default_factory=dict)


def _read(results: Results, options: ReportOptions) -> tuple[Figures, _SeenRows]:
    aggregator, seen = Aggregator(options), _SeenRows()
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


def _changes(files: Sequence[Figures]) -> Iterator[Change]:
    old, new = files[-2:]

    def change(
        group: Group, name: str, count: Callable[[Figures], int | None], tone: Tone | Literal[""] = ""
    ) -> Change:
        counts = [count(one) for one in files]
        before, after = counts[-2] or 0, counts[-1] or 0
        first, second = old.share(before, old.answered), new.share(after, new.answered)
        difference = share_difference(first.rows, first.of, second.rows, second.of)
        ends = (difference.interval.low * 100, difference.interval.high * 100)
        shares = [
            None if number is None else one.share(number, one.answered)
            for number, one in zip(counts, files, strict=True)
        ]
        return Change(
            group, name, before, after, first.share, second.share, first.low, first.high, second.low, second.high,
            *ends, difference.p, tone=tone, series=[None if share is None else share.share for share in shares],
            series_intervals=[None if share is None else (share.low, share.high) for share in shares],
        )  # fmt: skip

    for kind in ("sentiment", "urgency") if old.judged or new.judged else ():
        known = dict.fromkeys((*old.sentiments, *new.sentiments))
        for name, _ in in_order(getattr(old.mix, kind) + getattr(new.mix, kind), kind, known):
            yield change(kind, name, partial(_judged, kind, name))
    for column in old.fields:
        after = next((one for one in new.fields if (one.name, one.type) == (column.name, column.type)), None)
        if after is not None and column.is_categorical:
            for name in dict([*after.values, *column.values]):
                yield change(f"{_FIELD}{column.name}", name, partial(_field_count, column.name, name))
    if old.labels is None or new.labels is None:
        return
    found = {theme.name: theme for figures in (old, new) for theme in figures.themes if theme.count}
    themes = []
    for name, theme in found.items():
        if theme.kind == "both":
            themes.append(change("theme", name, partial(_mentions, name, "negative"), "complaint"))
            themes.append(change("theme", name, partial(_mentions, name, "positive"), "praise"))
        else:
            themes.append(change("theme", name, partial(_mentions, name, ""), theme.tone))
    yield from sorted(themes, key=lambda change: (-abs(change.points), -change.new))


def _judged(kind: str, name: str, figures: Figures) -> int | None:
    counts: Counter[str] = getattr(figures.mix, kind)
    return counts[name] if figures.judged else None


def _field_count(column: str, name: str, figures: Figures) -> int | None:
    found = next((one for one in figures.fields if one.name == column), None)
    return None if found is None else dict(found.values).get(name, 0)


def _mentions(name: str, polarity: str, figures: Figures) -> int | None:
    """Rows with a theme, or with mentions of it of this polarity; a mixed mention is both complaint and praise."""
    if figures.labels is None:
        return None
    theme = next((one for one in figures.themes if one.name == name), None)
    if theme is None:
        return 0
    return theme.polarity.get(polarity, 0) + theme.polarity.get("mixed", 0) if polarity else theme.count


def held_sentence(comparison: Comparison) -> str:
    """How many of the compared shares have changed beyond chance."""
    changes = comparison.changes
    held = len(comparison.held)
    verb = "has" if held == 1 else "have"
    return f"{held} of {many(len(changes), 'share')} {verb} changed beyond chance"


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
    notes = [f"{figures.name}: {note}" for figures in comparison.files for note in figures.notes]
    old = {field.name: field.summary() for field in comparison.old.fields}
    notes += [
        f"{new.name}: {old[new.name]}; now {new.summary()}"
        for new in comparison.new.fields
        if new.mean is not None and old.get(new.name)
    ]
    one, other = comparison.old.score, comparison.new.score
    if one is not None and other is not None and one.kind == other.kind and one.scale != other.scale:
        notes.append(
            f"{one.label} is not compared: {one.scale} in {comparison.old.name}, {other.scale} in {comparison.new.name}"
        )
    without = [figures.name for figures in (comparison.old, comparison.new) if figures.labels is None]
    if len(without) == 1:
        notes.append(f"themes are not compared: {without[0]} has none")
    themes = [theme for one in (comparison.old, comparison.new) for theme in one.themes if theme.count]
    if not without and any(not theme.kind for theme in themes):
        notes.append(
            "no themes file has the kinds of these themes: those whose rows are mostly positive count as praise, the "
            "others as complaints"
        )
    if any(not change.holds and (change.points_low > 0 or change.points_high < 0) for change in comparison.changes):
        compared = many(len(comparison.changes), "share")
        notes.append(
            f"some intervals exclude 0 although the change is not clear: {compared} are compared at once, and of so "
            "many intervals some exclude 0 by chance"
        )
    if 2 * (comparison.kept - comparison.edited) > max(1, comparison.old.rows, comparison.new.rows):
        notes.append("most rows are in both files: the intervals, made for rows of different customers, are too wide")
    return notes


def points(change: Change) -> str:
    """How a share moved, with its unit and interval: `+3.1 points (0.4 to 5.8)`."""
    moved = change.points
    text = f"{moved:+.1f}" if abs(moved) >= 0.05 else "0"
    return f"{text} points ({change.points_low:.1f} to {change.points_high:.1f})"


def comparison_to_markdown(comparison: Comparison, title: str) -> str:
    """Render a comparison as Markdown."""
    old, new = comparison.old, comparison.new
    lines = [f"# {plain(title)}", ""]
    lines += [f"- before: {plain(one.name)}, {plain(one.reconciliation())}" for one in comparison.earlier]
    lines += [f"- old: {plain(old.name)}, {plain(old.reconciliation())}"]
    lines += [f"- new: {plain(new.name)}, {plain(new.reconciliation())}", f"- {row_sentence(comparison)}"]
    lines += [f"- {held_sentence(comparison)}"]
    lines += [f"- {plain(comparison.score.sentence())}", ""] if comparison.score is not None else [""]
    series = bool(comparison.earlier)
    for heading, changes in comparison.sections():
        rows = [
            [
                plain(change.name),
                f"{change.old:,}",
                f"{change.new:,}",
                f"{change.side('old')} → {change.side('new')}",
                *([change.in_series(intervals=True)] if series else []),
                points(change),
                change.verdict,
            ]
            for change in changes
        ]
        header = ["old", "new", "share", *(["all files"] if series else []), "change", "beyond chance"]
        lines += [*table([plain(heading), *header], rows), ""]
    for note in theme_notes(comparison):
        lines += [plain(note), ""]
    return "\n".join(lines)


def comparison_to_json(comparison: Comparison) -> str:
    """Render a comparison as JSON. Keys are only ever added."""
    sides = ("name", "rows", "answered", "blank", "failed", "unreadable", "non_answers")
    rows = ("matched_by", "kept", "added", "gone", "edited", "rejudged")
    shares = ("old_share", "new_share", "old_low", "old_high", "new_low", "new_high")

    def side(figures: Figures) -> dict[str, Any]:
        return {name: getattr(figures, name) for name in sides}

    record: dict[str, Any] = {
        "old": side(comparison.old),
        "new": side(comparison.new),
        "earlier": [side(figures) for figures in comparison.earlier],
        "rows": {name: getattr(comparison, name) for name in rows},
        "changes": [
            asdict(change)
            | {name: round(getattr(change, name), 6) for name in shares}
            | {name: round(getattr(change, name), 4) for name in ("points_low", "points_high")}
            | {"points": round(change.points, 4), "arrival": change.arrival or None, "tone": change.tone or None}
            | {"series": [None if share is None else round(share, 6) for share in change.series]}
            | {"series_intervals": [ends and [round(end, 6) for end in ends] for ends in change.series_intervals]}
            for change in comparison.changes
        ],
        "score": asdict(comparison.score) if comparison.score is not None else None,
        "themes_compared": comparison.themed,
    }
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"
