"""One panel: an item, an excerpt of its text, and its answer as it fills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mellea_cli.ui.answer import fields
from mellea_cli.ui.figures import count, duration
from mellea_cli.ui.itemstate import Fate, PanelView, Phase, StepView
from mellea_cli.ui.paint import Line, Palette, Role, Span, cells_of, judged, pad, shorten, width, wrap
from mellea_cli.ui.plaintext import clean

_LABEL_CELLS_LEAST, _LABEL_CELLS = 9, 11
_TAIL_CHARS = 2_000
"""Of an answer without structure, the last so many characters are considered."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A label and what belongs to it."""

    label: str
    value: str
    role: Role = "plain"
    growing: bool = False
    """The value's end is where the stream is."""


def card(panel: PanelView, size: tuple[int, int], palette: Palette, beat: int = 0) -> list[Line]:
    """Draw a panel.

    Args:
        panel: what to draw.
        size: columns and rows, borders included; every line comes out exactly that wide, and exactly so many come.
        palette: signs and encoding of the terminal.
        beat: a number that grows from frame to frame; moves the sign of a step that has nothing to show yet.
    """
    columns, rows = size
    inner, room = columns - 4, rows - 2
    alone, over = len(panel.steps) == 1, panel.fate is not Fate.RUNNING
    entries = [entry for step in panel.steps for entry in _entries(step, palette, beat, alone=alone, over=over)]
    frame = _frame_role(panel)
    left: Span = (frame, f"{palette.glyphs.down} ")
    right: Span = (frame, f" {palette.glyphs.down}")
    body = _body(panel, entries, (inner, room), palette)
    empty: Line = (left, ("plain", " " * inner), right)
    return [
        _top(panel, entries, columns, frame, palette),
        *((left, *pad(line, inner), right) for line in body),
        *[empty] * (room - len(body)),
        _bottom(panel, columns, frame, palette),
    ]


def animated(panel: PanelView) -> bool:
    """Whether the panel changes though nothing arrives."""
    return panel.fate is Fate.RUNNING and any(step.phase is Phase.ASKED and not step.text for step in panel.steps)


def _frame_role(panel: PanelView) -> Role:
    if panel.fate is Fate.FAILED:
        return "bad"
    troubled = panel.fate is Fate.RUNNING and any(step.phase in (Phase.FAILED, Phase.RETRYING) for step in panel.steps)
    return "warn" if troubled else "frame"


def _entries(step: StepView, palette: Palette, beat: int, *, alone: bool, over: bool) -> Iterator[_Entry]:
    name = "" if alone else step.name.replace("_", " ")
    growing = step.phase is Phase.STREAMING and not over
    found = None if step.clipped else fields(step.text)
    if found:
        for field in found:
            value = palette.safe(field.value)
            yield _Entry(palette.safe(field.label), value, judged(value), growing and field is found[-1])
    elif step.text and found is None:
        yield _Entry(name, palette.fit(clean(step.text[-_TAIL_CHARS:])), "plain", growing)
    elif over:
        return
    elif growing:
        yield _Entry(name, "", "plain", growing)
    elif step.phase is Phase.ASKED:
        spinner = palette.glyphs.spinner
        yield _Entry(name, spinner[beat % len(spinner)] + (" reading" if alone else ""), "quiet")
    elif step.phase is Phase.WAITING and not alone:
        yield _Entry(name, palette.glyphs.dot, "quiet")
    if step.reason and step.phase is not Phase.DONE and not over:
        yield _Entry("again" if step.attempt > 1 else "void", palette.fit(clean(step.reason)), "warn")


def _body(panel: PanelView, entries: list[_Entry], size: tuple[int, int], palette: Palette) -> list[Line]:
    inner, room = size
    text = palette.safe(panel.text)
    excerpt = wrap(text, inner)
    # While there is no answer yet, the room is the text's; then the answer's.
    unanswered = panel.fate is Fate.RUNNING and all(not step.text for step in panel.steps)
    most = max(1, room - len(entries) - 1) if unanswered else 2 if room >= 9 else 1
    shown = min(len(excerpt), most if room >= 4 else 0)
    if 0 < shown < len(excerpt):
        excerpt[shown - 1] = shorten(f"{excerpt[shown - 1]} {excerpt[shown]}", inner, palette.glyphs.cut)
    lines: list[Line] = [(("quiet", line),) for line in excerpt[:shown]]
    if panel.fate is Fate.FAILED:
        message = palette.fit(clean(panel.message)) or "failed"
        entries = [*entries[: max(0, room - shown - 2)], _Entry("", message, "bad")]
    return lines + _laid_out(entries, (inner, room - shown), palette)


def _laid_out(entries: list[_Entry], size: tuple[int, int], palette: Palette) -> list[Line]:
    """Give each entry a line, and those that need more what is left; where the stream is comes first."""
    inner, room = size
    if len(entries) > room:  # what is empty goes first, then reasons, then what came first
        entries = [entry for entry in entries if entry.value or entry.growing]
    if len(entries) > room:
        entries = [entry for entry in entries if entry.role != "warn"]
        entries = entries[max(0, len(entries) - room) :]
    if not entries or room <= 0:
        return []
    labels = min(_LABEL_CELLS, max(cells_of(entry.label) for entry in entries), max(0, inner - 8))
    if labels and inner >= 30:  # values do not move to the side when a longer label comes
        labels = max(labels, _LABEL_CELLS_LEAST)
    room_for_value = inner - labels - 1 if labels else inner
    wrapped = [wrap(entry.value, room_for_value - entry.growing) for entry in entries]
    given = [1] * len(entries)
    spare = room - len(entries)
    longer = [index for index, parts in enumerate(wrapped) if len(parts) > 1]
    for index in sorted(longer, key=lambda index: _claim(entries[index], index)):
        extra = min(spare, len(wrapped[index]) - 1)
        given[index] += extra
        spare -= extra
    lines: list[Line] = []
    for entry, parts, number in zip(entries, wrapped, given, strict=True):
        lines += _entry_lines(
            entry, _cut(parts, number, room_for_value, palette, growing=entry.growing), labels, palette
        )
    return lines


def _claim(entry: _Entry, index: int) -> tuple[bool, bool, int]:
    """Who gets lines that are left, smallest first: where the stream is, then from the end, reasons at last."""
    return (not (entry.growing or (entry.role == "bad" and not entry.label)), entry.role == "warn", -index)


def _cut(parts: list[str], number: int, cells: int, palette: Palette, *, growing: bool) -> list[str]:
    """`number` of the lines: the last ones while they grow, else the first ones."""
    if len(parts) <= number:
        return parts
    cut = palette.glyphs.cut
    if growing:
        first, *rest = parts[-number:]
        return [cut + first if cells_of(first) + cells_of(cut) < cells else cut + first[cells_of(cut) :], *rest]
    kept = parts[:number]
    kept[-1] = shorten(f"{kept[-1]} {parts[number]}", cells, cut)
    return kept


def _entry_lines(entry: _Entry, parts: list[str], labels: int, palette: Palette) -> list[Line]:
    lines: list[Line] = []
    for index, part in enumerate(parts):
        label = shorten(entry.label, labels, palette.glyphs.cut) if index == 0 else ""
        spans: list[Span] = []
        if labels:
            spans.append(("label", label + " " * (labels + 1 - cells_of(label))))
        if entry.value:
            spans.append((entry.role, part))
        elif not entry.growing:
            spans.append(("quiet", palette.glyphs.none))
        if entry.growing and index == len(parts) - 1:
            spans.append(("cursor", palette.glyphs.cursor))
        lines.append(tuple(spans))
    return lines


def _badge(panel: PanelView, entries: list[_Entry], palette: Palette) -> Span | None:
    """The few words at the right of the title that say how it stands."""
    glyphs = palette.glyphs
    sentiment = next(
        (entry for entry in entries if entry.label == "sentiment" and judged(entry.value) != "plain"), None
    )
    if panel.fate is Fate.FAILED:
        return "bad", f"{glyphs.bad} {palette.fit(clean(panel.kind))}".rstrip()
    if panel.fate is Fate.OK:
        return (sentiment.role, f"{glyphs.ok} {sentiment.value}") if sentiment else ("good", glyphs.ok)
    for step in panel.steps:
        if step.phase is Phase.RETRYING:
            return "warn", f"{glyphs.retry} {step.attempt} in {step.retry_in_s}s"
        if step.phase is Phase.FAILED:
            return "warn", f"{glyphs.bad} {step.attempt}"
    attempt = max((step.attempt for step in panel.steps), default=1)
    if sentiment:
        return sentiment.role, sentiment.value
    return ("warn", f"{glyphs.retry} {attempt}") if attempt > 1 else None


def _top(panel: PanelView, entries: list[_Entry], columns: int, frame: Role, palette: Palette) -> Line:
    glyphs = palette.glyphs
    badge = _badge(panel, entries, palette)
    left, right = glyphs.corners[0] + glyphs.across, glyphs.across + glyphs.corners[1]
    room = columns - 6 - (cells_of(badge[1]) + 2 if badge else 0)
    if badge and room < 4:
        badge, room = None, columns - 6
    title = shorten(palette.safe(panel.id) or glyphs.none, room, glyphs.cut)
    line: Line = ((frame, left), ("strong", f" {title} "))
    tail: Line = ((badge[0], f" {badge[1]} "),) if badge else ()
    fill = columns - width(line) - width(tail) - len(right)
    return (*line, (frame, glyphs.across * fill), *tail, (frame, right))


def _bottom(panel: PanelView, columns: int, frame: Role, palette: Palette) -> Line:
    glyphs = palette.glyphs
    note = ""
    if panel.fate is not Fate.RUNNING and panel.latency_s > 0:
        note = f" {duration(panel.latency_s)}"
        note += f" {glyphs.dot} {count(panel.tokens)} tokens " if panel.tokens else " "
    if len(note) > columns - 6:
        note = ""
    across = glyphs.across * (columns - 3 - len(note))
    return ((frame, glyphs.corners[2] + across), ("quiet", note), (frame, glyphs.across + glyphs.corners[3]))
