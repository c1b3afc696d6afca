"""Pipeline view: what a pipeline asks, and a few rows with text, prompt, answers and repairs side by side."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from mellea_cli.messages import Message
from mellea_cli.ui.console import clean, make_console
from mellea_cli.ui.terminal import is_terminal
from mellea_cli.ui.theme import Line, Palette, Role, cells_of, clip, judgement_role, pad, shorten, width, wrap

_INDENT = 2
_NARROW = 60  # Columns below which there is no room for two side by side
_WIDEST = 160
_REPAIR_LINES = 3
_UNBOUNDED = 10_000


@dataclass(frozen=True, slots=True)
class ShownStep:
    """What one step sends: the messages that all rows share, and the last one as an example of a row."""

    name: str
    shared: Sequence[Message]
    row: str
    schema: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclass(slots=True)
class TriedRow:
    """One row of a try.

    Args:
        id: its id.
        text: its text.
        prompts: the message about it by step, where that is more than its text.
        answers: its columns.
        asked: the columns that were asked now; the others were remembered.
        repairs: what was wrong with earlier answers.
        error: why there is no answer; empty when there is one.
    """

    id: str
    text: str
    prompts: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    repairs: list[str] = field(default_factory=list)
    error: str = ""


def print_lines(make: Callable[[int, Palette], Iterable[Line]], stream: IO[str], environ: Mapping[str, str]) -> None:
    """Print what `make` returns for a width and a palette; unbroken lines anywhere but at a terminal."""
    console = make_console(stream, environ)
    palette = Palette(console)
    columns = max(24, console.width - 1) if is_terminal(stream, environ) else _UNBOUNDED
    palette.print(make(columns, palette), stream)


def step_lines(steps: Sequence[ShownStep], columns: int, palette: Palette) -> Iterator[Line]:
    """Everything that each step sends: prompt, worked examples, a row, and the schema of the answer."""
    for step in steps:
        yield clip((("label", "step "), ("strong", palette.safe(step.name))), columns)
        for note in step.notes:
            yield from _indented(note, columns, palette, "warn")
        number = 0
        for message in step.shared:
            number += message.role == "user"
            what = {"user": f"user (example {number})", "assistant": "assistant (its answer)"}
            yield clip((("quiet", what.get(message.role, message.role)),), columns)
            yield from _indented(message.content, columns, palette)
        yield (("quiet", "user (a row)"),)
        yield from _indented(step.row, columns, palette)
        yield (("quiet", "schema of the answer"),)
        yield from _indented(json.dumps(step.schema, ensure_ascii=False), columns, palette)
        yield ()


def system_lines(steps: Sequence[ShownStep], columns: int, palette: Palette) -> Iterator[Line]:
    """The instructions of each step, without its examples."""
    for step in steps:
        examples = sum(message.role == "user" for message in step.shared)
        more = f", then {examples} example{'s' if examples > 1 else ''}" if examples else ""
        yield clip((("label", "prompt"), ("quiet", f" of the step {palette.safe(step.name)}{more}")), columns)
        for message in step.shared:
            if message.role == "system":
                yield from _indented(message.content, columns, palette, "quiet")
    yield ()


def try_lines(rows: Sequence[TriedRow], columns: int, palette: Palette) -> Iterator[Line]:
    """The rows of a try: text and prompt on the left, answers and repairs on the right; below each other if narrow."""
    columns = min(columns, _WIDEST)
    gap = f" {palette.glyphs.down} "
    left = columns if columns < _NARROW else (columns - cells_of(gap)) // 2
    right = columns if columns < _NARROW else columns - cells_of(gap) - left
    for row in rows:
        yield _heading(row, columns, palette)
        first, second = list(_question(row, left, palette)), list(_answers(row, right, palette))
        if columns < _NARROW:
            yield from (*first, *second)
            continue
        for one, other in itertools.zip_longest(first, second, fillvalue=()):
            yield (*pad(one, left), ("frame", gap), *other)


def _heading(row: TriedRow, columns: int, palette: Palette) -> Line:
    across = palette.glyphs.across
    state = f"asked: {', '.join(row.asked)}" if row.asked else "" if row.error else "remembered"
    state = state if row.text.strip() else "no text"
    name = shorten(palette.safe(row.id), columns // 3, palette.glyphs.cut)
    state = shorten(palette.safe(state), columns - cells_of(name) - 8, palette.glyphs.cut)
    begin: Line = (("frame", across * 2), ("strong", f" {name} "))
    end: Line = (("quiet", f" {state} "), ("frame", across)) if state else ()
    return (*begin, ("frame", across * max(0, columns - width(begin) - width(end))), *end)


def _question(row: TriedRow, cells: int, palette: Palette) -> Iterator[Line]:
    yield from _block(row.text, cells, palette, "plain")
    for step, prompt in row.prompts.items():
        yield (("label", "prompt"), ("quiet", shorten(f" of {palette.safe(step)}", cells - 6, palette.glyphs.cut)))
        yield from _block(prompt, cells, palette, "quiet")


def _answers(row: TriedRow, cells: int, palette: Palette) -> Iterator[Line]:
    answers = list(_flat(row))
    names = min(max((cells_of(palette.safe(name)) for name, _, _ in answers), default=0), cells * 2 // 5)
    for name, value, asked in answers:
        label = shorten(palette.safe(name), names, palette.glyphs.cut)
        role: Role = "strong" if asked else "plain"
        text = palette.safe(_cell(value, palette)) or palette.glyphs.none
        role = "quiet" if value is None else judgement_role(text) if judgement_role(text) != "plain" else role
        for index, part in enumerate(wrap(text, cells - names - 1)):
            yield (*pad((("label", "" if index else label),), names + 1), (role, part))
    repairs = [f"{number} times: {one}" if number > 1 else one for one, number in Counter(row.repairs).items()]
    for mark, problems, role in ((palette.glyphs.bad, [row.error], "bad"), (palette.glyphs.retry, repairs, "warn")):
        for problem in filter(None, problems):
            room = cells - cells_of(mark) - 1
            lines = wrap(palette.safe(problem), room)
            if len(lines) > _REPAIR_LINES:
                last = shorten(" ".join(lines[_REPAIR_LINES - 1 :]), room, palette.glyphs.cut)
                lines = [*lines[: _REPAIR_LINES - 1], last]
            for index, part in enumerate(lines):
                yield ((role, " " * cells_of(mark) if index else mark), (role, f" {part}"))


def _flat(row: TriedRow) -> Iterator[tuple[str, Any, bool]]:
    """Each answer with its name and whether it was asked now; nested columns as their parts."""
    for name, value in row.answers.items():
        parts = value if isinstance(value, dict) else {name: value}
        yield from ((part, one, name in row.asked) for part, one in parts.items())


def _cell(value: Any, palette: Palette) -> str:
    if value is None:
        return palette.glyphs.none
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "[]"
    return json.dumps(value, ensure_ascii=False)


def _block(text: str, cells: int, palette: Palette, role: Role) -> Iterator[Line]:
    for line in clean(text, one_line=False).split("\n"):
        for part in wrap(palette.fit(line.rstrip()), cells):
            yield ((role, part),)


def _indented(text: str, columns: int, palette: Palette, role: Role = "plain") -> Iterator[Line]:
    for line in text.split("\n"):
        # What follows in an entry of a list stands below its text.
        hanging = 2 if line.startswith("- ") else 0
        for index, part in enumerate(_block(line, columns - _INDENT - hanging, palette, role)):
            yield (("plain", " " * (_INDENT + hanging * bool(index))), *part)
