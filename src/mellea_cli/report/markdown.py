"""Markdown report for chats and mails; feedback is written as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mellea_cli.report.figures import (
    FieldFigures,
    Figures,
    Mix,
    Quote,
    ReviewFigures,
    Split,
    Trend,
    in_order,
    many,
    review_sentence,
    with_interval,
)
from mellea_cli.report.score import ScoreFigures

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$&])")
_LEADING = re.compile(r"^(?:([#=+-])|(\d+)([.)]))")
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")
_LINKED = re.compile(r"(?i)\b(https?|ftp|www)(?=[:.])")
_LONGEST_QUOTE = 400


def to_markdown(figures: Figures, title: str, next_steps: Sequence[str] = ()) -> str:
    """Render a report as Markdown."""
    lines = [f"# {plain(title)}", ""]
    if not figures.rows:
        return "\n".join([*lines, "No rows: there is nothing to report.", ""])
    lines += [f"{figures.reconciliation()}.", ""]
    if figures.failures:
        kinds = ", ".join(f"{number:,} {plain(kind)}" for kind, number in figures.failures.items())
        lines += [f"Failed: {kinds}.", ""]
    for note in figures.notes:
        lines += [f"> {plain(note)}", ""]
    for kind in ("sentiment", "urgency") if figures.judged else ():
        lines += [*_mix(figures, kind), ""]
    for field in figures.fields:
        lines += [*_field(field, figures), ""]
    if figures.answered and (figures.judged or figures.fields or figures.themes):
        lines += [figures.sureness(), ""]
    if figures.score is not None:
        lines += [*_score(figures.score), ""]
    lines += _themes(figures)
    if figures.review is not None:
        lines += _review(figures.review)
    if figures.urgent:
        lines += ["## Most urgent", "", *(_quote(quote) for quote in figures.urgent), ""]
    if figures.trend is not None and figures.trend.points:
        lines += [*_trend(figures.trend, figures.sentiments), ""]
    for split in figures.splits:
        lines += [*_split(split, figures), ""]
    for step in next_steps:
        lines += [f"Next: `{step.replace('`', '')}`", ""]
    return "\n".join(lines)


def plain(text: str, most: int | None = None) -> str:
    """Escape text so that Markdown shows its characters, in one line: no markup, no links, no mentions.

    A text of more than `most` characters ends with an ellipsis.
    """
    text = " ".join(_INVISIBLE.sub(" ", text).split())
    if most is not None and len(text) > most:
        text = text[: most - 1].rstrip() + "…"
    # An invisible word joiner keeps Markdown viewers from making links and from notifying people.
    text = _LINKED.sub(lambda match: match[1][0] + "\u2060" + match[1][1:], text).replace("@", "@\u2060")
    text = _SPECIAL.sub(r"\\\1", text)
    return _LEADING.sub(lambda match: f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}", text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table: the first `left` columns are aligned left, the others hold numbers."""
    rule = ["---"] * left + ["--:"] * (len(header) - left)
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def _mix(figures: Figures, kind: str) -> list[str]:
    counts = figures.mix.sentiment if kind == "sentiment" else figures.mix.urgency
    rows = [
        [plain(name), f"{number:,}", figures.shown(number)]
        for name, number in in_order(counts, kind, figures.sentiments)
    ]
    return table([kind, "rows", "share"], rows)


def _score(score: ScoreFigures) -> list[str]:
    parts = ", ".join(f"{number:,} {plain(name)}" for name, number in score.parts)
    head = ["## Score", "", f"{plain(score.column)}: {plain(score.sentence())}: {parts}.", ""]
    if not score.impacts:
        return head[:-1]
    rows = [
        [
            plain(one.name),
            plain(one.group.removeprefix("field ")),
            f"{one.rows:,}",
            score.shown(one.score),
            f"{score.shown(one.impact, signed=True)} ({score.shown(one.low)} to {score.shown(one.high)})",
            "yes" if one.holds else "",
        ]
        for one in score.impacts
    ]
    about = f"Impact: {score.label} of all rows minus {score.label} without the rows of the line, in {score.unit}."
    header = ["rows with", "of", "rows", score.label, "impact", "beyond chance"]
    return [*head, about, "", *table(header, rows, left=2)]


def _field(field: FieldFigures, figures: Figures) -> list[str]:
    rows = [[plain(name), f"{number:,}", figures.shown(number)] for name, number in field.values]
    if field.other_values:
        rows.append([many(field.other_values, "other value"), "", ""])
    if field.empty:
        rows.append(["(no value)", f"{field.empty:,}", figures.shown(field.empty)])
    head = [f"{plain(field.name)}: {field.summary()}.", *([""] if field.has_chart else [])] if field.summary() else []
    return [*head, *(table([plain(field.name), "rows", "share"], rows) if field.has_chart else [])]


def _themes(figures: Figures) -> Iterator[str]:
    if figures.labels is None:
        return
    yield from ("## Themes", "", f"{figures.label_sentence()}. A row may have several themes.", "")
    header = ["theme", "rows", "share", "high", "medium", "low"]
    rows = [
        [
            f"{plain(parent)} / {plain(theme.name)}" if parent else plain(theme.name),
            f"{theme.count:,}",
            figures.shown(theme.count),
            *(f"{theme.mix.urgency[urgency]:,}" for urgency in ("high", "medium", "low")),
        ]
        for theme, parent in figures.theme_rows()
    ]
    yield from (*table(header, rows), "")
    for theme in figures.themes:
        if not theme.quotes:
            continue
        about = f": {plain(theme.definition)}" if theme.definition else ""
        if theme.kind == "both":
            about += f" ({', '.join(f'{number:,} {name}' for name, number in in_order(theme.polarity) if number)})"
        yield from (f"**{plain(theme.name)}**{about}", "", *(_quote(quote) for quote in theme.quotes[:2]), "")


def _review(review: ReviewFigures) -> Iterator[str]:
    yield from ("## Corrected by review", "", f"{review_sentence(review)}.", "")
    for field in review.fields:
        rows = [
            [
                plain(one.name),
                with_interval(one.model, one.model_interval),
                with_interval(one.corrected, one.interval),
                with_interval(one.sample, one.sample_interval),
            ]
            for one in field.values
        ]
        right = f"{field.right:,} of {field.reviewed:,} right"
        yield from (*table([f"{plain(field.name)} ({right})", "model", "corrected", "sample alone"], rows), "")


def _quote(quote: Quote) -> str:
    judged = ", ".join(filter(None, (quote.urgency, quote.sentiment)))
    return f"- “{plain(quote.text, _LONGEST_QUOTE)}” ({plain(quote.id)}{', ' if judged else ''}{plain(judged)})"


def _trend(trend: Trend, sentiments: Sequence[str]) -> list[str]:
    occurring = {name: 1 for point in trend.points for name in point.mix}
    names = [name for name, _ in in_order(occurring, sentiments=sentiments)]
    rows = [
        [point.name, f"{point.rows:,}", *(f"{point.mix.get(name, 0):,}" for name in names)] for point in trend.points
    ]
    left_out = [f"{many(trend.empty, 'row')} without a date"] if trend.empty else []
    left_out += [f"{many(trend.unreadable, 'row')} whose date cannot be read"] if trend.unreadable else []
    about = f" Not in it: {', '.join(left_out)}." if left_out else ""
    head = [f"## By {trend.bucket} ({plain(trend.column)})", "", f"{many(trend.dated, 'row')} with a date.{about}", ""]
    return [*head, *table([trend.bucket, "rows", *map(plain, names)], rows)]


def _split(split: Split, figures: Figures) -> list[str]:
    themed, judged = figures.labels is not None, ["high urgency"] if figures.judged else []
    judged = ["negative", *judged] if judged and figures.has_sentiment("negative") else judged
    header = [plain(split.column), *(["most frequent theme"] if themed else []), "rows", *judged]
    rows = []
    for group in split.groups:
        theme = f"{plain(group.theme)} ({group.theme_count:,})" if group.theme else ""
        rows.append(
            [plain(group.value), *([theme] if themed else []), *_numbers(figures, group.mix)[: 1 + len(judged)]]
        )
    if split.other_values:
        others = _numbers(figures, split.others)[: 1 + len(judged)]
        rows.append([f"{many(split.other_values, 'other value')}", *([""] if themed else []), *others])
    return [f"## By {plain(split.column)}", "", *table(header, rows, left=2 if themed else 1)]


def _numbers(figures: Figures, mix: Mix) -> list[str]:
    numbers = [mix.sentiment["negative"]] if figures.has_sentiment("negative") else []
    return [f"{mix.rows:,}", *(figures.shown(number, mix.answered) for number in (*numbers, mix.urgency["high"]))]
