"""The review's screen: one row at a time, judged by keys, and each key is saved before the next one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Point
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import ConditionalContainer, HSplit, Layout, VSplit, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.styles import Style

from mellea_cli.errors import OutputError
from mellea_cli.io.corrections import Correction, Corrections, CorrectionsFile, now, same_value
from mellea_cli.report.agreement import ReviewField, ReviewRow, evidence
from mellea_cli.report.figures import many
from mellea_cli.ui.chat_screen import editing_mode
from mellea_cli.ui.console import clean, make_console
from mellea_cli.ui.theme import Line, Palette, Role, Span, cells_of, clip, judgement_role, pad, shorten, width, wrap

_MOST_KEYS = 9


@dataclass(frozen=True, slots=True)
class _Action:
    """What a key has done: where, and what the person had said before about the fields that it has judged."""

    at: int
    fields: Sequence[tuple[str, Correction | None]]
    moved: bool


class Review:
    """The rows of a review and what one person says about them. Every judgement is in the file when a method returns.

    Args:
        rows: the rows to judge, in order.
        fields: the fields to judge.
        said: what this person has said before.
        file: the corrections file.
        who: the person.
        before: how many rows the person has judged in earlier sessions, and how many of them were changed.
    """

    def __init__(
        self,
        rows: Sequence[ReviewRow],
        fields: Sequence[ReviewField],
        said: Corrections,
        file: CorrectionsFile,
        who: str,
        before: tuple[int, int] = (0, 0),
    ) -> None:
        self.rows = rows
        self.fields = fields
        self.at = 0
        self.chosen = 0
        """The index of the field that keys change."""
        self.earlier, _ = self.reviewed, self.changed = before
        self.message = ""
        self._file = file
        self._who = who
        self._said = {
            (one.record.number, name): correction
            for one in rows
            for name, correction in said.row(one.record.id, one.record.text).items()
        }
        self._actions: list[_Action] = []

    @property
    def total(self) -> int:
        """All rows of the review, those of earlier sessions included."""
        return self.earlier + len(self.rows)

    @property
    def row(self) -> ReviewRow | None:
        """The row on the screen; `None` when all are judged."""
        return self.rows[self.at] if self.at < len(self.rows) else None

    @property
    def field(self) -> ReviewField:
        """The field that keys change."""
        return self.fields[self.chosen]

    def value(self, field: ReviewField) -> Any:
        """The value of a field of this row: this person's, else the model's. Others' would lead a second opinion."""
        record = self.rows[self.at].record
        said = self._said.get((record.number, field.name))
        return said.person if said is not None else record.model_value(field.name)

    def is_changed(self, field: ReviewField) -> bool:
        """Whether the person's value of a field of this row is not the model's."""
        return not same_value(self.value(field), self.rows[self.at].record.model_value(field.name))

    def choose(self, step: int) -> None:
        """Choose another field."""
        self.chosen = (self.chosen + step) % len(self.fields)

    def accept(self) -> None:
        """Say that every field of this row is right as it stands, and show the next row."""
        if self.row is None:
            return
        self.reviewed += 1
        self.changed += any(map(self.is_changed, self.fields))
        self._judge([(field, self.value(field)) for field in self.fields], moved=True)

    def label(self, number: int) -> None:
        """Give the chosen field the choice with this number, counted from 1; 0 is no value. In a list it is toggled."""
        field = self.field
        if self.row is None or not field.has_choices or number > len(field.choices):
            return
        value: Any = field.choices[number - 1] if number else None
        if field.is_list:
            now_there = list(self.value(field) or ())
            value = [one for one in field.choices if (one in now_there) != (one == value)] if number else []
        elif field.kind == "bool" and number:
            value = value == "true"
        self._judge([(field, value)])

    def edit(self, text: str) -> None:
        """Give the chosen field the value that was typed.

        Raises:
            ValueError: it is none for this field.
        """
        if self.row is not None:
            self._judge([(self.field, self.field.typed(text))])

    def skip(self) -> None:
        """Show the next row, without a judgement of this one."""
        if self.row is not None:
            self._actions.append(_Action(self.at, (), moved=True))
            self.at += 1

    def undo(self) -> None:
        """Take the last key back."""
        if not self._actions:
            self.message = "nothing to undo"
            return
        action = self._actions.pop()
        self.at = action.at
        if self.row is None or not action.fields:
            return
        if action.moved:
            self.reviewed -= 1
            self.changed -= any(map(self.is_changed, self.fields))
        record = self.row.record
        restored = []
        for name, before in action.fields:
            last = self._said[record.number, name]
            restored.append(before or _withdrawn(last))
            if before is None:
                del self._said[record.number, name]
            else:
                self._said[record.number, name] = before
        self._file.add(restored)

    def _judge(self, values: Sequence[tuple[ReviewField, Any]], *, moved: bool = False) -> None:
        row, record, time = self.rows[self.at], self.rows[self.at].record, now()
        before = [(field.name, self._said.get((record.number, field.name))) for field, _ in values]
        judged = [
            Correction(
                record.id,
                record.text,
                field.name,
                record.model_value(field.name),
                value,
                self._who,
                time,
                row.sample,
                row.seed,
                row.size,
            )
            for field, value in values
        ]
        self._file.add(judged)
        self._said.update({(record.number, one.field): one for one in judged})
        self._actions.append(_Action(self.at, before, moved))
        self.at += moved


def _withdrawn(one: Correction) -> Correction:
    return Correction(
        one.item, one.text, one.field, one.model, one.person, one.who, now(), one.sample, one.seed, one.size, True
    )


# What the screen shows.

_KINDS: Mapping[str, Role] = {"complaint": "bad", "praise": "good", "quote": "mixed"}
_SAMPLES = {"random": "random sample", "doubtful": "doubtful row", "edited": "edited row"}
_LEAST_TEXT = 3
_KEYS = ("Enter accept", "1-9 label", "0 none", "↑↓ field", "e edit", "s skip", "u undo", "q quit")
_ASCII_KEYS = ("Enter accept", "1-9 label", "0 none", "Up/Down field", "e edit", "s skip", "u undo", "q quit")


def screen_lines(review: Review, size: tuple[int, int], palette: Palette, scroll: int = 0) -> list[Line]:
    """The screen of a review, at most `size` columns and rows; `scroll` lines of the text are above what is shown."""
    columns, rows = size
    row = review.row
    if row is None:
        return [clip((("strong", "All rows are judged. "), ("plain", "u takes the last one back, q ends.")), columns)]
    head = [_head(review, row, columns, palette), (("frame", palette.glyphs.across * columns),)]
    foot = [(("frame", palette.glyphs.across * columns),), *_foot(review, columns, palette)]
    room = rows - len(head) - len(foot)
    fields = [
        line
        for index, field in enumerate(review.fields)
        for line in _field(review, field, columns, palette, is_chosen=index == review.chosen)
    ]
    text = list(_text(row, columns, palette))
    space = max(_LEAST_TEXT, room - len(fields) - 1)
    fields = _around_chosen(fields, max(1, room - min(space, len(text)) - 1))
    space = max(1, room - len(fields) - 1)
    start = max(0, min(scroll, len(text) - space))
    shown = text[start : start + space]
    if len(text) > start + space:
        more = f"{palette.glyphs.cut} {many(len(text) - start - space + 1, 'more line')}: PageDown"
        shown[-1] = clip((("quiet", more),), columns)
    shown += [()] * (space - len(shown))
    return [*head, *shown, (), *fields, *foot][:rows]


def _head(review: Review, row: ReviewRow, columns: int, palette: Palette) -> Line:
    dot = f" {palette.glyphs.dot} "
    parts = [f"row {palette.safe(row.record.id)}", _SAMPLES[row.sample]]
    parts += [f"confidence {row.confidence:.2f}"] if row.confidence is not None else []
    left: Line = (("strong", f"{review.earlier + review.at + 1} of {review.total}"), ("plain", dot + dot.join(parts)))
    right = f"{review.changed} changed"
    line = pad(clip(left, columns), columns - len(right) - 1)
    return (*line, ("quiet", f" {right}")) if width(line) + len(right) < columns else line


def _text(row: ReviewRow, columns: int, palette: Palette) -> Iterator[Line]:
    text = palette.fit(clean(row.record.words, one_line=False))
    marks = evidence(row.record, text)
    at = 0
    for paragraph in text.split("\n"):
        for line in wrap(paragraph, columns - 1):
            start = text.index(line, at) if line else at
            at = start + len(line)
            yield tuple(_spans(line, start, marks))


def _spans(line: str, start: int, marks: Sequence[tuple[int, int, str]]) -> Iterator[Span]:
    at = start
    for first, last, kind in marks:
        begin, end = max(first, at), min(last, start + len(line))
        if begin < end:
            yield ("plain", line[at - start : begin - start])
            yield (_KINDS[kind], line[begin - start : end - start])
            at = end
    yield ("plain", line[at - start :])


def _field(review: Review, field: ReviewField, columns: int, palette: Palette, *, is_chosen: bool) -> Iterator[Line]:
    widest = min(18, max(len(one.name) for one in review.fields))
    name = f"{shorten(palette.safe(field.name), widest, palette.glyphs.cut):<{widest}}"
    value = palette.safe(field.shown(review.value(field)))
    role: Role = judgement_role(value) if field.kind == "label" else "plain"
    before = ""
    if review.is_changed(field) and review.row is not None:
        was = palette.safe(field.shown(review.row.record.model_value(field.name))) or "nothing"
        before = f"  (model: {was})"
    lines = wrap(value or palette.glyphs.none, columns - widest - 4)
    lines = lines if is_chosen else lines[:1]
    mark = palette.glyphs.arrow if is_chosen else ""
    for index, line in enumerate(lines):
        start: Line = (
            (
                ("cursor" if is_chosen else "label"),
                f"{mark if not index else '':<2} {name if not index else '':<{widest}} ",
            ),
        )
        yield clip((*start, (role, line), ("quiet", before if index == len(lines) - 1 else "")), columns)
    if is_chosen and field.has_choices:
        keys: list[Span] = [("quiet", " " * (widest + 4))]
        for number, choice in enumerate(field.choices[:_MOST_KEYS], 1):
            keys += [("cursor", f"{number} "), ("plain", f"{palette.safe(choice)}  ")]
        if len(field.choices) > _MOST_KEYS:
            keys.append(("quiet", f"e: {len(field.choices) - _MOST_KEYS} more"))
        yield from _folded(keys, columns)


def _folded(spans: Sequence[Span], columns: int) -> Iterator[Line]:
    """The keys of choices on as many lines as they need."""
    indent = spans[0]
    line: list[Span] = [indent]
    pairs = [spans[at : at + 2] for at in range(1, len(spans), 2)]
    for pair in pairs:
        if width((*line, *pair)) > columns and len(line) > 1:
            yield tuple(line)
            line = [indent]
        line += pair
    yield clip(tuple(line), columns)


def _around_chosen(lines: list[Line], room: int) -> list[Line]:
    """As many lines as there is room for, the chosen field among them."""
    if len(lines) <= room:
        return lines
    chosen = next((index for index, line in enumerate(lines) if line and line[0][0] == "cursor"), 0)
    start = min(max(0, chosen - 1), len(lines) - room)
    return lines[start : start + room]


def _foot(review: Review, columns: int, palette: Palette) -> list[Line]:
    if review.message:
        return [clip((("warn", palette.safe(review.message)),), columns)]
    keys = _KEYS if palette.encoding.lower().startswith("utf") else _ASCII_KEYS
    text = ""
    for key in keys:
        if cells_of(text) + cells_of(key) + 3 > columns:
            break
        text += (f" {palette.glyphs.dot} " if text else "") + key
    return [clip((("quiet", text),), columns)]


# The keys.

_LOOK: Mapping[Role, str] = {
    "plain": "",
    "quiet": "fg:ansibrightblack",
    "strong": "bold",
    "label": "fg:ansicyan",
    "frame": "fg:ansibrightblack",
    "good": "fg:ansigreen bold",
    "bad": "fg:ansired bold",
    "mixed": "fg:ansiyellow bold",
    "warn": "fg:ansiyellow",
    "cursor": "fg:ansicyan bold",
    "done": "fg:ansicyan",
    "rest": "fg:ansibrightblack",
}


class ReviewScreen:
    """Shows a review on the terminal until it ends or the person leaves.

    Args:
        review: the review.
        stream: the terminal.
        environ: the environment.
    """

    def __init__(self, review: Review, stream: IO[str], environ: Mapping[str, str]) -> None:
        self._review = review
        self._palette = Palette(make_console(stream, environ))
        self._scroll = 0
        self._editing = False
        self._error: OutputError | None = None
        self._line = Buffer(multiline=False)
        is_editing = Condition(lambda: self._editing)
        body = Window(FormattedTextControl(self._body, focusable=True, get_cursor_position=lambda: Point(0, 0)))
        edited = ConditionalContainer(
            VSplit(
                [
                    Window(FormattedTextControl(self._prompt), dont_extend_width=True, height=1),
                    Window(BufferControl(self._line), height=1),
                ]
            ),
            is_editing,
        )
        self._body_window = body
        self._app: Application[None] = Application(
            layout=Layout(HSplit([body, edited]), focused_element=body),
            key_bindings=self._keys(is_editing),
            style=Style.from_dict({role: look for role, look in _LOOK.items() if look}),
            full_screen=True,
            editing_mode=editing_mode(environ),
        )

    def run(self) -> None:
        """Show it.

        Raises:
            OutputError: a judgement cannot be saved.
        """
        self._app.run()
        if self._error is not None:
            raise self._error

    def _body(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        rows = size.rows - self._editing
        found: StyleAndTextTuples = []
        for line in screen_lines(self._review, (size.columns, rows), self._palette, self._scroll):
            found += [(f"class:{role}" if role != "plain" else "", text) for role, text in line]
            found.append(("", "\n"))
        return found[:-1]

    def _prompt(self) -> StyleAndTextTuples:
        return [("class:cursor", f"{self._palette.safe(self._review.field.name)}: ")]

    def _do(self, work: Any) -> None:
        """Do what a key means; a file that cannot be written ends the screen with its error."""
        review = self._review
        review.message = ""
        at = review.at
        try:
            work()
        except OutputError as error:
            self._error = error
            self._app.exit()
            return
        if review.at != at:
            self._scroll, review.chosen = 0, 0

    def _keys(self, is_editing: Condition) -> KeyBindings:
        keys, review, viewing = KeyBindings(), self._review, ~is_editing

        def on(*names: str) -> Any:
            def add(work: Any) -> Any:
                for name in names:
                    keys.add(name, filter=viewing)(lambda _: self._do(work))
                return work

            return add

        on("enter", "a", " ")(review.accept)
        on("s")(review.skip)
        on("u", "backspace")(review.undo)
        on("down", "j", "tab")(lambda: review.choose(1))
        on("up", "k", "s-tab")(lambda: review.choose(-1))
        on("pagedown")(lambda: self._scrolled(5))
        on("pageup")(lambda: self._scrolled(-5))
        for number in range(_MOST_KEYS + 1):
            on(str(number))(lambda number=number: review.label(number))
        on("e")(self._begin_edit)

        @keys.add("q", filter=viewing)
        @keys.add("c-c")
        @keys.add("c-d")
        def _(event: KeyPressEvent) -> None:
            event.app.exit()

        @keys.add("enter", filter=is_editing)
        def _(_: KeyPressEvent) -> None:
            self._do(self._end_edit)

        @keys.add("escape", filter=is_editing, eager=True)
        def _(_: KeyPressEvent) -> None:
            self._leave_edit()

        return keys

    def _scrolled(self, lines: int) -> None:
        row = self._review.row
        size = self._app.output.get_size()
        most = len(list(_text(row, size.columns, self._palette))) - 1 if row is not None else 0
        self._scroll = max(0, min(self._scroll + lines, most))

    def _begin_edit(self) -> None:
        if self._review.row is None:
            return
        self._editing = True
        text = clean(self._review.field.shown(self._review.value(self._review.field)))
        self._line.text = text
        self._line.cursor_position = len(text)
        self._app.layout.focus(self._line)
        self._review.message = "Enter saves, Esc leaves it as it was; an empty line is no value"

    def _end_edit(self) -> None:
        try:
            self._review.edit(self._line.text)
        except ValueError as error:
            self._review.message = str(error)
            return
        self._leave_edit()

    def _leave_edit(self) -> None:
        self._editing = False
        self._review.message = ""
        self._app.layout.focus(self._body_window)


def run_review(review: Review, stream: IO[str]) -> None:
    """Let a person judge the rows at the terminal.

    Raises:
        OutputError: a judgement cannot be saved.
    """
    ReviewScreen(review, stream, os.environ).run()
