"""Summary: how a run ended, as a short table for people and as one line of JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import IO, TYPE_CHECKING, Any

from mellea_cli.messages import Usage
from mellea_cli.ui.console import clean, count, duration, make_console, money, plural, rate, say
from mellea_cli.ui.terminal import is_terminal

if TYPE_CHECKING:
    from mellea_cli.engine.endpoint import EndpointFigures
    from mellea_cli.run.row_model import AuditFigures
    from mellea_cli.ui.theme import Line, Palette, Role, Span


@dataclass(frozen=True, slots=True)
class ThemeCounts:
    """What a run that labelled rows with themes has counted."""

    themes_file: str  # Empty when the themes were not kept
    themes: Mapping[str, int]  # Rows by theme, in the file's order; a row with several themes counts for each
    rows: int | None  # Items in the input; `None` when unknown
    labelled: int = 0
    other: int = 0
    none: int = 0
    failed: int = 0
    quotes: int = 0  # Quotes that were found verbatim in their rows' texts
    audited: bool = False  # Whether the rows of the output were read back and counted again
    proposals: int | None = None  # Changes of the themes file that were proposed; `None` when nobody asked

    @property
    def accounted(self) -> int:
        """Rows that ended as one of the four."""
        return self.labelled + self.other + self.none + self.failed


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended."""

    model: str = ""
    backend: str = ""
    pipeline: str = ""
    total: int | None = None  # Items in the input; `None` when the run ended before the input's end was seen
    done: int = 0  # Items with an answer, reused ones included
    failed: int = 0
    asked: int = 0  # Items that were sent to a model
    reused: int = 0  # Items that were not sent: their answer was known, or comes from an identical text of this run
    same: int = 0  # Those of them with the answer of an identical text of this run
    alike: int = 0  # Reused items with the answer of a nearly identical text, of any run
    learned: int = 0  # Items that a row model has answered in this run, without a call
    audit: AuditFigures | None = None  # The agreement that was promised and measured, where a row model answers rows
    offloaded: int = 0  # Texts that a batch queue has answered
    failures: Mapping[str, int] = field(default_factory=dict)  # Failed items by kind
    skipped: int = 0  # Input rows that could not be read
    calls: int | None = None  # Requests sent; `None` when unknown
    retries: int | None = None  # Requests sent again because the transport failed
    repairs: int = 0  # Answers whose form had to be repaired
    usage: Usage = Usage()
    cost: float | None = None  # What the tokens cost; `None` where no price is known
    currency: str = ""  # The sign before the cost; empty for the user's own prices
    elapsed_s: float = 0.0
    items_per_s: float = 0.0  # Items sent to a model, per second, over the whole run
    concurrency: int | None = None
    """The number of requests in flight that adaptive concurrency found; `None` when it was given."""
    output: str = ""  # Where the rows are; empty for stdout, and when the output was not replaced
    unwritten: str = ""  # What became of an output that was not replaced; empty when it was
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """How often each value of a column occurs, such as `{"sentiment": {"positive": 3}}`."""
    stopped: str = ""  # Why the run ended before its input did; empty when it did not
    blank: int = 0  # Items without text
    edited_cells: int = 0  # Cells that a person has changed in the output
    edited_rows: int = 0  # Rows with such cells
    edited_ids: Sequence[str] = ()  # The ids of the first of them
    commonest_failure: str = ""  # The commonest message of the commonest kind of failure
    theme_counts: ThemeCounts | None = None
    next_command: str = ""
    """The command that continues the run or retries failed items; empty when nothing is left to do."""
    exit_code: int = 0
    endpoints: Sequence[EndpointFigures] = ()  # What each endpoint of a pool did; empty without a pool


_NULL_WHEN_EMPTY = frozenset(
    [
        "output",
        "unwritten",
        "stopped",
        "next_command",
        "state",
        "reason",
        "themes_file",
        "commonest_failure",
        "currency",
    ]
)


def to_json(summary: RunSummary) -> str:
    """One line of JSON. Keys are only ever added, never renamed, removed or left out."""
    themes = summary.theme_counts
    record = _record(summary) | {
        "elapsed_s": round(summary.elapsed_s, 3),
        "items_per_s": round(summary.items_per_s, 4),
        "endpoints": [_endpoint_record(endpoint) for endpoint in summary.endpoints],
        "audit": None if summary.audit is None else _audit_record(summary.audit),
        "reconciled": None if themes is None else _record(themes) | {"accounted": themes.accounted},
    }
    del record["theme_counts"]
    return json.dumps(record, ensure_ascii=True)


def _audit_record(audit: AuditFigures) -> dict[str, Any]:
    rounded = [
        {"field": one.field, "agreement": round(one.agreement, 4), "low": round(one.low, 4), "high": round(one.high, 4)}
        for one in audit.fields
    ]
    return _record(audit) | {"fields": rounded, "kept": audit.kept}


def _endpoint_record(endpoint: EndpointFigures) -> dict[str, Any]:
    median = endpoint.median_s
    rounded = {"median_s": None if median is None else round(median, 3), "share": round(endpoint.share, 4)}
    return _record(endpoint) | rounded


def _record(value: RunSummary | ThemeCounts | EndpointFigures | AuditFigures) -> dict[str, Any]:
    """A dataclass with its usage as numbers, and null for texts that say nothing when empty."""
    record: dict[str, Any] = {one.name: getattr(value, one.name) for one in fields(value)}
    if usage := record.pop("usage", None):
        record |= {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
        }
    return {key: None if one == "" and key in _NULL_WHEN_EMPTY else one for key, one in record.items()}


def print_summary(summary: RunSummary, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print the summary to stderr: drawn at a terminal, as plain lines anywhere else."""
    if not is_terminal(stream, environ):
        for text in plain_summary(summary):
            say(stream, text)
        return
    from mellea_cli.ui.theme import Palette

    console = make_console(stream, environ)
    palette = Palette(console)
    palette.print(drawn_summary(summary, max(20, console.width - 1), palette), stream)


def plain_summary(summary: RunSummary) -> Iterator[str]:
    """The summary as sentences, a line each, without colour or glyphs."""
    for _, text in _headline(summary):
        yield text
    for label, _, text in _facts(summary, ", "):
        yield f"{label}: {text}"
    if (themes := summary.theme_counts) is not None:
        for name, number in _by_count(themes):
            yield f"theme: {name}: {count(number)} ({_share(number, themes.accounted)})"
        for label, text in _theme_facts(themes):
            yield f"{label}: {text}"
    for column, counts in summary.values.items():
        yield f"{column}: " + ", ".join(f"{value} {count(number)}" for value, number in ordered_values(counts))


_LABEL_CELLS = 12


def drawn_summary(summary: RunSummary, columns: int, palette: Palette) -> Iterator[Line]:
    """The summary for a terminal of `columns` cells; only a command to copy may be longer than that."""
    from mellea_cli.ui.theme import wrap

    glyphs = palette.glyphs
    complete = not summary.failed and not summary.stopped
    sign: Span = ("good", glyphs.ok) if complete else ("bad", glyphs.bad) if summary.stopped else ("warn", "!")
    yield ()
    start: Line = (sign, ("plain", " "))
    for role, text in _headline(summary):
        for part in wrap(palette.fit(clean(text)), columns - 3):
            yield (*start, (role, part))
            start = (("plain", "  "),)
    yield ()
    yield from _labelled(_facts(summary, f" {glyphs.dot} "), columns, palette)
    yield from _value_charts(summary.values, columns, palette)
    if (themes := summary.theme_counts) is not None:
        yield ()
        yield from _theme_chart(themes, columns, palette)
        yield ()
        yield from _labelled(((label, "plain", text) for label, text in _theme_facts(themes)), columns, palette)
    yield ()


def _labelled(facts: Iterator[tuple[str, Role, str]], columns: int, palette: Palette) -> Iterator[Line]:
    from mellea_cli.ui.theme import wrap

    for label, role, text in facts:
        fitted = palette.fit(clean(text))
        # A command stays in one piece, or it could not be copied: the terminal wraps it.
        parts = [fitted] if label == "next" else wrap(fitted, columns - _LABEL_CELLS)
        for index, part in enumerate(parts):
            yield (("label", f"{f'  {label}' if index == 0 else '':<{_LABEL_CELLS}}"), (role, part))


def _headline(summary: RunSummary) -> Iterator[tuple[Role, str]]:
    if summary.stopped:
        yield "bad", summary.stopped if summary.stopped.startswith("stopped") else f"stopped: {summary.stopped}"
    total = summary.total if summary.total is not None else summary.done + summary.failed
    if not summary.asked and summary.done and not summary.stopped:
        known = f"all {count(summary.done)} answers were" if summary.done > 1 else "the answer was"
        yield "strong", f"{known} known already{'' if summary.calls else ', nothing was sent'}"
    else:
        items = plural(total, "item")
        yield "strong", f"{count(summary.done)} of {items} answered in {duration(summary.elapsed_s)}"


_MAX_KINDS = 5


def _facts(summary: RunSummary, between: str) -> Iterator[tuple[str, Role, str]]:
    """Label, role and text of each fact that is not trivial."""
    yield from _item_facts(summary, between)
    yield from _cost_facts(summary, between)
    if summary.output:
        yield "output", "plain", summary.output
    if summary.unwritten:
        yield "output", "warn", summary.unwritten
    if summary.next_command:
        yield "next", "strong", summary.next_command


def _item_facts(summary: RunSummary, between: str) -> Iterator[tuple[str, Role, str]]:
    if summary.failed:
        kinds = sorted(summary.failures.items(), key=lambda pair: -pair[1])
        parts = [f"{count(number)} {kind}" for kind, number in kinds[:_MAX_KINDS]]
        parts += [f"{len(kinds) - _MAX_KINDS} more kinds"] if len(kinds) > _MAX_KINDS else []
        total = f"{count(summary.failed)}: " if len(kinds) > 1 else ""
        yield "failed", "bad", total + between.join(parts) or count(summary.failed)
        if summary.commonest_failure and summary.commonest_failure not in summary.stopped:
            number = plural(max(summary.failures.values(), default=summary.failed), "time", "times")
            yield "why", "bad", f"{number}: {clean(summary.commonest_failure)}"
    if summary.skipped:
        yield "skipped", "warn", f"{plural(summary.skipped, 'row', 'rows')} that could not be read"
    if (known := summary.reused - summary.same - summary.alike) > 0 and summary.asked:
        yield "reused", "plain", plural(known, "answer of an earlier run", "answers of earlier runs")
    if summary.edited_rows:
        more = ", …" if summary.edited_rows > len(summary.edited_ids) else ""
        where = f"{plural(summary.edited_rows, 'row', 'rows')} ({', '.join(map(clean, summary.edited_ids))}{more})"
        yield "by hand", "plain", f"{plural(summary.edited_cells, 'cell', 'cells')} edited in {where}, kept"
    if summary.offloaded:
        yield "queue", "plain", f"{plural(summary.offloaded, 'answer', 'answers')} by batches"
    if summary.same:
        yield "same", "plain", f"{count(summary.same)} answered with an identical text, without a call"
    if summary.alike:
        yield "alike", "plain", f"{plural(summary.alike, 'row', 'rows')} shared the answer of a nearly identical text"


def _audit_facts(audit: AuditFigures, between: str) -> Iterator[tuple[str, Role, str]]:
    """The rows without the full reading, what was promised for them, and what was measured."""
    promised = f"{audit.promised:.1%}"
    if not audit.rows:
        yield "learned", "plain", f"no rows: the row model was never sure enough for an agreement of {promised}"
        return
    yield "learned", "plain", f"{plural(audit.rows, 'row', 'rows')} by the row model, without a call"
    yield "promised", "plain", f"they agree with the full reading in {promised} or more"
    if not audit.audited:
        yield "measured", "warn", "nothing: no such row was drawn for the audit"
        return
    parts = [f"{one.field} {one.agreement:.1%} ({one.low:.1%} to {one.high:.1%})" for one in audit.fields]
    drawn = f"in {plural(audit.audited, 'audited row', 'audited rows')}"
    yield "measured", "plain" if audit.kept else "warn", f"{between.join(map(clean, parts))} {drawn}"


def _cost_facts(summary: RunSummary, between: str) -> Iterator[tuple[str, Role, str]]:
    usage = summary.usage
    if summary.audit is not None:
        yield from _audit_facts(summary.audit, between)
    if summary.asked and summary.elapsed_s > 0:
        speed = [f"{rate(summary.items_per_s)} items/s"]
        if usage.completion_tokens:
            speed.append(f"{rate(usage.completion_tokens / summary.elapsed_s)} tokens/s")
        if summary.concurrency is not None:
            speed.append(f"{count(summary.concurrency)} in flight")
        yield "speed", "plain", between.join(speed)
    if usage.total_tokens:
        cached = f" ({count(usage.cached_tokens)} of them cached)" if usage.cached_tokens else ""
        tokens = f"{count(usage.prompt_tokens)} in{cached}{between}{count(usage.completion_tokens)} out"
        yield "tokens", "plain", tokens
    if summary.cost is not None and usage.total_tokens:
        yield "cost", "plain", money(summary.cost, summary.currency)
    if summary.calls:
        retries = between + plural(summary.retries, "retry", "retries") if summary.retries else ""
        yield "calls", "plain", count(summary.calls) + retries
    if summary.repairs:
        yield "repairs", "plain", plural(summary.repairs, "answer") + " repaired in form"
    for endpoint in summary.endpoints:
        yield "endpoint", "warn" if endpoint.state else "plain", endpoint_line(endpoint, between)


def endpoint_line(endpoint: EndpointFigures, between: str) -> str:
    """What one endpoint of a pool did."""
    facts = [endpoint.name, f"{count(endpoint.answered)} answered ({endpoint.share:.0%})"]
    if (median := endpoint.median_s) is not None:
        facts.append(f"{median:.2f} s median" if median < 1 else f"{median:.1f} s median")
    if endpoint.usage.total_tokens:
        facts.append(f"{count(endpoint.usage.total_tokens)} tokens")
    if endpoint.failures:
        facts.append(f"{count(endpoint.failures)} of {count(endpoint.requests)} requests failed")
    if endpoint.state:
        facts.append(f"{endpoint.state}: {endpoint.reason}" if endpoint.reason else endpoint.state)
    return between.join(facts)


_VALUE_ORDER = ("positive", "mixed", "neutral", "negative", "high", "medium", "low")
_MAX_VALUES = 6
_VALUE_CELLS = 16
_BAR_CELLS = 24


def ordered_values(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Known values in their own order, others by how common they are; the rarest are added up."""
    known = {value: index for index, value in enumerate(_VALUE_ORDER)}
    pairs = sorted(counts.items(), key=lambda pair: (known.get(pair[0], len(known)), -pair[1], pair[0]))
    others = sum(number for _, number in pairs[_MAX_VALUES:])
    shown = [(clean(value), number) for value, number in pairs[:_MAX_VALUES]]
    return [*shown, ("others", others)] if others else shown


def _value_charts(values: Mapping[str, Mapping[str, int]], columns: int, palette: Palette) -> Iterator[Line]:
    """A small bar chart for each column, all with the same widths."""
    from mellea_cli.ui.theme import Bar, ChartSize, bar_chart, judgement_role, shorten

    charts: dict[str, list[Bar]] = {}
    for column, counts in values.items():
        if total := sum(counts.values()):
            pairs = [(palette.fit(value), number) for value, number in ordered_values(counts)]
            charts[palette.fit(clean(column))] = [
                Bar(value, number, _share(number, total), judgement_role(value)) for value, number in pairs
            ]
    size = ChartSize.of(
        [bar for bars in charts.values() for bar in bars], columns, _LABEL_CELLS, _VALUE_CELLS, _BAR_CELLS
    )
    for column, bars in charts.items():
        yield ()
        label = f"  {shorten(column, _LABEL_CELLS - 3, palette.glyphs.cut)}"
        yield from bar_chart(label, bars, sum(bar.number for bar in bars), size, palette)


_THEME_CELLS = 32


def _theme_chart(themes: ThemeCounts, columns: int, palette: Palette) -> Iterator[Line]:
    from mellea_cli.ui.theme import Bar, ChartSize, bar_chart

    named: list[tuple[str, int, Role]] = [(palette.fit(name), number, "plain") for name, number in _by_count(themes)]
    named += [(name, number, "quiet") for name, number in (("other", themes.other), ("none", themes.none)) if number]
    bars = [
        Bar(name, number, _share(number, themes.accounted), "done" if role == "plain" else role, role)
        for name, number, role in named
    ]
    size = ChartSize.of(bars, columns, _LABEL_CELLS, min(_THEME_CELLS, max(8, columns // 2)), _BAR_CELLS)
    yield from bar_chart("  themes", bars, max((bar.number for bar in bars), default=0), size, palette)


def _theme_facts(themes: ThemeCounts) -> Iterator[tuple[str, str]]:
    """How the rows add up, and what was checked."""
    parts = [f"{count(themes.labelled)} with themes", f"{count(themes.other)} other", f"{count(themes.none)} none"]
    parts.append(f"{count(themes.failed)} failed")
    total = f"{' + '.join(parts)} = {count(themes.accounted)} rows"
    if themes.rows is not None and themes.rows != themes.accounted:
        total += f" of {count(themes.rows)}; {count(themes.rows - themes.accounted)} not reached"
    yield "rows", total
    how = "read back from the output" if themes.audited else "counted as they were written"
    yield "checked", f"{count(sum(themes.themes.values()))} labels, {count(themes.quotes)} quotes verbatim, {how}"
    if themes.themes_file:
        yield "themes in", themes.themes_file


def _by_count(themes: ThemeCounts) -> list[tuple[str, int]]:
    # The sort is stable: themes with equal counts keep the order of the file.
    return sorted(((clean(name), number) for name, number in themes.themes.items()), key=lambda pair: -pair[1])


def _share(number: int, total: int) -> str:
    return f"{number / total:.0%}" if total else "0%"
