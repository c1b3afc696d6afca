"""How a run ended: for people as a short table, for programs as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from mellea_cli.messages import Usage
from mellea_cli.ui.console import clean
from mellea_cli.ui.number_format import count, duration, rate

if TYPE_CHECKING:
    from mellea_cli.engine.endpoint import EndpointFigures
    from mellea_cli.ui.theme import Line, Palette, Role, Span


# What each endpoint of a pool did, as lines for people and as a record for programs.


def endpoint_lines(endpoints: Sequence[EndpointFigures], between: str) -> Iterator[tuple[bool, str]]:
    """A line for each endpoint, and whether it serves; what is not worth saying is left out."""
    for one in endpoints:
        facts = [one.name, f"{count(one.answered)} answered ({one.share:.0%})"]
        if one.median_s is not None:
            facts.append(f"{_short(one.median_s)} median")
        if one.usage.total_tokens:
            facts.append(f"{count(one.usage.total_tokens)} tokens")
        if one.failures:
            facts.append(f"{count(one.failures)} of {count(one.requests)} requests failed")
        if one.state:
            facts.append(f"{one.state}: {one.reason}" if one.reason else one.state)
        yield not one.state, between.join(facts)


def endpoint_record(one: EndpointFigures) -> dict[str, Any]:
    """What `--json` says of an endpoint. Keys are only ever added."""
    return {
        "name": one.name,
        "backend": one.backend,
        "model": one.model,
        "requests": one.requests,
        "answered": one.answered,
        "failures": one.failures,
        "probes": one.probes,
        "prompt_tokens": one.usage.prompt_tokens,
        "completion_tokens": one.usage.completion_tokens,
        "median_s": None if one.median_s is None else round(one.median_s, 3),
        "share": round(one.share, 4),
        "state": one.state or None,
        "reason": one.reason or None,
    }


def _short(seconds: float) -> str:
    """A latency: with decimals while they mean something."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


# The themes of a labelled run: counts and bars, and how the rows add up.

_BAR_CELLS = 24
_NAME_CELLS = 32
_LABEL_CELLS = 10


@dataclass(frozen=True, slots=True)
class Themed:
    """What a run that labelled rows with themes has counted."""

    file: str
    """Where the themes are; empty when they were not kept."""
    counts: Mapping[str, int]
    """Rows by theme, in the themes' order; a row with several counts for each."""
    rows: int | None
    """Items in the input; `None` when nobody knows."""
    labelled: int = 0
    other: int = 0
    none: int = 0
    failed: int = 0
    quotes: int = 0
    """Quotes that were found in their rows' texts, letter by letter."""
    audited: bool = False
    """Whether the rows of the output were read back and counted again."""

    @property
    def accounted(self) -> int:
        """Rows that ended as one of the four."""
        return self.labelled + self.other + self.none + self.failed


def themed_record(themed: Themed) -> dict[str, Any]:
    """The counts and how they add up, for programs. Keys are only ever added."""
    return {
        "themes_file": themed.file or None,
        "rows": themed.rows,
        "accounted": themed.accounted,
        "labelled": themed.labelled,
        "other": themed.other,
        "none": themed.none,
        "failed": themed.failed,
        "themes": dict(themed.counts),
        "quotes": themed.quotes,
        "audited": themed.audited,
    }


def plain_themes(themed: Themed) -> Iterator[str]:
    """The themes as lines without colour or signs, then the figures."""
    for name, number in _ordered(themed):
        yield f"theme: {name}: {count(number)} ({_share(number, themed)})"
    for label, text in _figures(themed):
        yield f"{label}: {text}"


def drawn_themes(themed: Themed, columns: int, palette: Palette) -> Iterator[Line]:
    """The themes as a bar chart for a terminal of `columns` cells, then the figures."""
    from mellea_cli.ui.theme import cells_of, clip, pad, shorten, wrap

    glyphs = palette.glyphs
    pairs = [(palette.fit(clean(name)), number) for name, number in _ordered(themed)]
    pairs += [(name, number) for name, number in (("other", themed.other), ("none", themed.none)) if number]
    names = min(max((cells_of(name) for name, _ in pairs), default=0), _NAME_CELLS, max(8, columns // 2))
    digits = max((len(count(number)) for _, number in pairs), default=1)
    bar = min(_BAR_CELLS, columns - _LABEL_CELLS - names - digits - 11)
    most = max((number for _, number in pairs), default=0)
    yield ()
    label = "themes"
    for place, (name, number) in enumerate(pairs):
        role: Role = "plain" if place < len(themed.counts) else "quiet"
        line: list[Span] = [("label", f"  {label:<{_LABEL_CELLS}}")]
        line += pad(((role, shorten(name, names, glyphs.cut)),), names + 2)
        if bar >= 4:
            filled = max(1, round(bar * number / most)) if number else 0
            line += [
                ("done" if role == "plain" else "quiet", glyphs.block * filled),
                ("plain", " " * (bar - filled + 2)),
            ]
        line += [("plain", f"{count(number):>{digits}}"), ("quiet", f" {_share(number, themed):>4}")]
        yield clip(tuple(line), columns)
        label = ""
    yield ()
    for what, text in _figures(themed):
        for index, part in enumerate(wrap(palette.fit(clean(text)), columns - _LABEL_CELLS - 2)):
            yield (("label", f"  {what if not index else '':<{_LABEL_CELLS}}"), ("plain", part))


def _ordered(themed: Themed) -> list[tuple[str, int]]:
    """The most common theme first; of equals the one that stands first in the file."""
    return sorted(((clean(name), number) for name, number in themed.counts.items()), key=lambda pair: -pair[1])


def _share(number: int, themed: Themed) -> str:
    return f"{number / themed.accounted:.0%}" if themed.accounted else "0%"


def _figures(themed: Themed) -> Iterator[tuple[str, str]]:
    """How the rows add up, and what was checked."""
    parts = [f"{count(themed.labelled)} with themes", f"{count(themed.other)} other", f"{count(themed.none)} none"]
    parts.append(f"{count(themed.failed)} failed")
    told = f"{' + '.join(parts)} = {count(themed.accounted)} rows"
    if themed.rows is not None and themed.rows != themed.accounted:
        told += f" of {count(themed.rows)}; {count(themed.rows - themed.accounted)} not reached"
    yield "rows", told
    labels = sum(themed.counts.values())
    where = "read back from the output" if themed.audited else "counted as they were written"
    yield "checked", f"{count(labels)} labels, {count(themed.quotes)} quotes verbatim, {where}"
    if themed.file:
        yield "themes in", themed.file


_ORDER = ("positive", "mixed", "neutral", "negative", "high", "medium", "low")
_KINDS_SHOWN = 5
_VALUES_SHOWN = 6


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What is said at the end of a run."""

    model: str = ""
    backend: str = ""
    pipeline: str = ""
    total: int | None = None
    """Items in the input; `None` when the run ended before its end was seen."""
    done: int = 0
    """Items with an answer, reused ones included."""
    failed: int = 0
    reused: int = 0
    """Items that were not asked about: their answers were there, or come from an identical text of this run."""
    same: int = 0
    """Those of them that have the answer of an identical text of this run."""
    offloaded: int = 0
    """Texts that a batch queue has answered."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed items by kind."""
    skipped: int = 0
    """Input rows that could not be read."""
    calls: int | None = None
    """Requests sent, or `None` when nobody counted."""
    retries: int | None = None
    usage: Usage = Usage()
    elapsed_s: float = 0.0
    found: int | None = None
    """Requests in flight that were found to be the best, where that was sought."""
    output: str = ""
    """Where the rows are; empty for stdout, and when they were not put there."""
    unwritten: str = ""
    """What became of the output when no rows were put into its place; empty when they were."""
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """How often each value of a column occurs, such as `{"sentiment": {"positive": 3}}`."""
    stopped: str = ""
    """Why the run ended before its input did; empty when it did not."""
    blank: int = 0
    """Items with nothing to ask about."""
    themed: Themed | None = None
    """The themes and their counts, when rows were labelled."""
    next_command: str = ""
    """What to type to go on or to try what failed again; empty when there is nothing to do."""
    exit_code: int = 0
    endpoints: Sequence[EndpointFigures] = ()
    """What each endpoint of a pool did; empty without a pool."""

    @property
    def asked(self) -> int:
        """Items that a model was asked about."""
        return max(0, self.done + self.failed - self.reused - self.blank)

    @property
    def items_per_s(self) -> float:
        """Items asked about, a second, over the whole run."""
        return self.asked / self.elapsed_s if self.elapsed_s > 0 else 0.0


def to_json(summary: RunSummary) -> str:
    """One line of JSON. Keys are only ever added, never renamed, removed or left out."""
    record: dict[str, Any] = {
        "model": summary.model,
        "backend": summary.backend,
        "pipeline": summary.pipeline,
        "total": summary.total,
        "done": summary.done,
        "failed": summary.failed,
        "reused": summary.reused,
        "failures": dict(summary.failures),
        "skipped": summary.skipped,
        "calls": summary.calls,
        "retries": summary.retries,
        "prompt_tokens": summary.usage.prompt_tokens,
        "completion_tokens": summary.usage.completion_tokens,
        "elapsed_s": round(summary.elapsed_s, 3),
        "items_per_s": round(summary.items_per_s, 3),
        "output": summary.output or None,
        "values": {column: dict(counts) for column, counts in summary.values.items()},
        "stopped": summary.stopped or None,
        "next_command": summary.next_command or None,
        "exit_code": summary.exit_code,
        "same": summary.same,
        "concurrency": summary.found,
        "unwritten": summary.unwritten or None,
        "endpoints": [endpoint_record(one) for one in summary.endpoints],
        "offloaded": summary.offloaded,
        "blank": summary.blank,
        "reconciled": None if summary.themed is None else themed_record(summary.themed),
    }
    return json.dumps(record, ensure_ascii=True)


def print_summary(summary: RunSummary, stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print the closing table: drawn at a terminal, as plain lines anywhere else.

    Args:
        summary: what to say.
        stream: usually stderr.
        environ: the environment, for colours and for what the terminal can do.
    """
    from mellea_cli.ui.console import is_terminal, make_console, say

    if not is_terminal(stream, environ):
        for text in plain_lines(summary):
            say(stream, text)
        return
    from mellea_cli.ui.theme import Palette

    console = make_console(stream, environ)
    palette = Palette(console)
    lines = drawn_lines(summary, max(20, console.width - 1), palette)
    stream.write("".join(f"{palette.ansi(line)}\n" for line in lines))
    stream.flush()


def plain_lines(summary: RunSummary) -> Iterator[str]:
    """The closing words as sentences, a line each, without colour or signs."""
    for _, text in _headline(summary):
        yield text
    for label, _, text in _rows(summary, ", "):
        yield f"{label}: {text}"
    if summary.themed is not None:
        yield from plain_themes(summary.themed)
    for column, counts in summary.values.items():
        yield f"{column}: " + ", ".join(f"{value} {count(number)}" for value, number in _ordered_values(counts))


def drawn_lines(summary: RunSummary, columns: int, palette: Palette) -> Iterator[Line]:
    """The closing table for a terminal of `columns` cells; only a command to copy may be longer than that."""
    from mellea_cli.ui.theme import wrap

    glyphs = palette.glyphs
    well = not summary.failed and not summary.stopped
    sign: Span = ("good", glyphs.ok) if well else ("bad", glyphs.bad) if summary.stopped else ("warn", "!")
    yield ()
    start: Line = (sign, ("plain", " "))
    for role, text in _headline(summary):
        for part in wrap(palette.fit(clean(text)), columns - 3):
            yield (*start, (role, part))
            start = (("plain", "  "),)
    yield ()
    for label, role, text in _rows(summary, f" {glyphs.dot} "):
        told = palette.fit(clean(text))
        # A command stays in one piece, or it could not be copied: the terminal breaks it where it must.
        parts = [told] if label == "next" else wrap(told, columns - _LABEL_CELLS - 2)
        for index, part in enumerate(parts):
            yield (("label", f"  {label if index == 0 else '':<{_LABEL_CELLS}}"), (role, part))
    yield from _charts(summary.values, columns, palette)
    if summary.themed is not None:
        yield from drawn_themes(summary.themed, columns, palette)
    yield ()


def _headline(summary: RunSummary) -> Iterator[tuple[Role, str]]:
    took = f"in {duration(summary.elapsed_s)}"
    if summary.stopped:
        yield "bad", summary.stopped if summary.stopped.startswith("stopped") else f"stopped: {summary.stopped}"
    settled = summary.done + summary.failed
    total = summary.total if summary.total is not None else settled
    if not summary.asked and summary.done and not summary.stopped:
        there = f"all {count(summary.done)} answers were" if summary.done > 1 else "the answer was"
        yield "strong", f"{there} there already, nothing was asked"
    else:
        yield "strong", f"{count(summary.done)} of {_many(total, 'item')} answered {took}"


def _many(number: int, name: str) -> str:
    """A number of things by its right name."""
    return f"{count(number)} {name}" if number == 1 else f"{count(number)} {name}s"


def _rows(summary: RunSummary, between: str) -> Iterator[tuple[str, Role, str]]:
    """Label, role and text of each fact worth saying."""
    usage, asked = summary.usage, summary.asked
    if summary.failed:
        kinds = sorted(summary.failures.items(), key=lambda pair: -pair[1])
        told = between.join(f"{count(number)} {kind}" for kind, number in kinds[:_KINDS_SHOWN])
        rest = f"{between}{len(kinds) - _KINDS_SHOWN} more kinds" if len(kinds) > _KINDS_SHOWN else ""
        several = len(kinds) > 1
        yield (
            "failed",
            "bad",
            (f"{count(summary.failed)}: " if several else "") + (told or count(summary.failed)) + rest,
        )
    yield from _unasked(summary)
    if asked and summary.elapsed_s > 0:
        speed = [f"{rate(summary.items_per_s)} items/s"]
        if usage.completion_tokens:
            speed.append(f"{rate(usage.completion_tokens / summary.elapsed_s)} tokens/s")
        if summary.found is not None and summary.asked:
            speed.append(f"{count(summary.found)} in flight")
        yield "speed", "plain", between.join(speed)
    if usage.total_tokens:
        tokens = f"{count(usage.prompt_tokens)} in{between}{count(usage.completion_tokens)} out"
        yield "tokens", "plain", tokens
    if summary.calls:
        retried = f"{between}{count(summary.retries)} retried" if summary.retries else ""
        yield "calls", "plain", f"{count(summary.calls)}{retried}"
    for serves, line in endpoint_lines(summary.endpoints, between):
        yield "endpoint", "plain" if serves else "warn", line
    yield from _results(summary)


def _results(summary: RunSummary) -> Iterator[tuple[str, Role, str]]:
    """Where the rows are, and what to type next."""
    if summary.output:
        yield "output", "plain", summary.output
    if summary.unwritten:
        yield "output", "warn", summary.unwritten
    if summary.next_command:
        yield "next", "strong", summary.next_command


def _unasked(summary: RunSummary) -> Iterator[tuple[str, Role, str]]:
    """The items that have an answer although no model was asked about them, and rows that are no items."""
    if summary.skipped:
        yield "skipped", "warn", f"{_many(summary.skipped, 'row')} that could not be read"
    if (earlier := summary.reused - summary.same) > 0 and summary.asked:
        yield "reused", "plain", f"{_many(earlier, 'answer')} that {'was' if earlier == 1 else 'were'} there already"
    if summary.offloaded:
        yield "queue", "plain", f"{_many(summary.offloaded, 'answer')} by batches"
    if summary.same:
        yield "same", "plain", f"{count(summary.same)} answered with an identical text, without a call"


def _ordered_values(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Known values in their own order, others by how common they are; what is too rare to show is added up."""
    known = {value: index for index, value in enumerate(_ORDER)}
    pairs = sorted(counts.items(), key=lambda pair: (known.get(pair[0], len(known)), -pair[1], pair[0]))
    rest = sum(number for _, number in pairs[_VALUES_SHOWN:])
    return [*((clean(value), number) for value, number in pairs[:_VALUES_SHOWN]), *([("others", rest)] if rest else [])]


def _charts(values: Mapping[str, Mapping[str, int]], columns: int, palette: Palette) -> Iterator[Line]:
    """A small bar chart for each column, all drawn on one scale of widths."""
    from mellea_cli.ui.theme import cells_of

    charts = [
        (palette.fit(clean(column)), [(palette.fit(value), number) for value, number in _ordered_values(counts)])
        for column, counts in values.items()
        if sum(counts.values())
    ]
    names = min(max((cells_of(value) for _, pairs in charts for value, _ in pairs), default=0), 16)
    digits = max((len(count(number)) for _, pairs in charts for _, number in pairs), default=0)
    bar = min(_BAR_CELLS, columns - _LABEL_CELLS - names - digits - 11)
    for column, pairs in charts:
        yield ()
        yield from _bars(column, pairs, (names, bar, digits), palette, columns)


def _bars(
    column: str, pairs: list[tuple[str, int]], sizes: tuple[int, int, int], palette: Palette, columns: int
) -> Iterator[Line]:
    from mellea_cli.ui.theme import clip, judged, pad, shorten

    glyphs, total = palette.glyphs, sum(number for _, number in pairs)
    names, bar, digits = sizes
    label = shorten(column, _LABEL_CELLS - 1, glyphs.cut)
    for value, number in pairs:
        name: Line = (("plain", shorten(value, names, glyphs.cut)),)
        line: list[Span] = [*pad((("label", f"  {label}"),), _LABEL_CELLS + 2), *pad(name, names + 2)]
        if bar >= 4:
            filled = max(1, round(bar * number / total)) if number else 0
            line += [(judged(value), glyphs.block * filled), ("plain", " " * (bar - filled + 2))]
        line += [("plain", f"{count(number):>{digits}}"), ("quiet", f" {number / total:>4.0%}")]
        yield clip(tuple(line), columns)
        label = ""
