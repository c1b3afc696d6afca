"""Full screens over rows: the pager of `mellea show`, and the review, where each key is saved before the next one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import ConditionalContainer, HSplit, Layout, VSplit, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.output import ColorDepth, Output

from mellea_cli.errors import MelleaError, OutputError, UsageError, name_some, nearest
from mellea_cli.io.columns import same_names
from mellea_cli.io.corrections import Correction, Corrections, CorrectionsFile, now, same_value
from mellea_cli.io.row_filter import NamedColumn, RowFilter, cell_text, condition_hint, has_text, in_order
from mellea_cli.report.agreement import ReviewField, ReviewRow, evidence
from mellea_cli.report.figures import many
from mellea_cli.ui.console import clean, make_console
from mellea_cli.ui.terminal import editing_mode
from mellea_cli.ui.theme import (
    STYLES,
    UNICODE,
    Line,
    Palette,
    Role,
    Span,
    cells_of,
    clip,
    judgement_role,
    pad,
    shorten,
    width,
    wrap,
)

# The names of colours in prompt_toolkit; what is selected stands out without colours, too.
_LOOK: Mapping[Role, str] = {
    **{role: {"none": "", "bold": "bold", "dim": "dim"}.get(look, f"ansi{look}") for role, look in STYLES.items()},
    "cursor": "reverse",
}


def _full_screen(
    draw: Callable[[int, int], Sequence[Line]],
    keys: KeyBindings,
    asked: tuple[Condition, Callable[[], str], Buffer],
    environ: Mapping[str, str],
    streams: tuple[Input | None, Output | None] = (None, None),
) -> Application[None]:
    """An application that fills the terminal with lines.

    Args:
        draw: the lines for a number of columns and rows.
        keys: what keys do.
        asked: when a line at the bottom is typed, its name, and its text.
        environ: the environment.
        streams: input and output other than the terminal.
    """

    def text() -> StyleAndTextTuples:
        size = application.output.get_size()
        drawn: StyleAndTextTuples = []
        for line in draw(size.columns, size.rows):
            drawn += [*((_LOOK[role], part) for role, part in line), ("", "\n")]
        return drawn[:-1]

    is_asking, name, typed = asked
    body = Window(FormattedTextControl(text, focusable=True, show_cursor=False), wrap_lines=False)
    label = Window(FormattedTextControl(lambda: [("bold", f"{name()}: ")]), dont_extend_width=True, height=1)
    bottom = ConditionalContainer(VSplit([label, Window(BufferControl(typed), height=1)]), filter=is_asking)
    application: Application[None] = Application(
        layout=Layout(HSplit([body, bottom]), focused_element=body),
        key_bindings=keys,
        full_screen=True,
        editing_mode=editing_mode(environ),
        color_depth=ColorDepth.DEPTH_1_BIT if environ.get("NO_COLOR") else ColorDepth.DEPTH_4_BIT,
        input=streams[0],
        output=streams[1],
    )
    application.ttimeoutlen = 0.05
    return application


def _type(application: Application[None], line: Buffer, text: str) -> None:
    """Let the user type at the bottom, from this text on."""
    line.text = text
    line.cursor_position = len(text)
    application.layout.focus(line)


# The pager.

Row = Mapping[str, Any]

_SAMPLE = 200  # Rows by which widths and the usual columns are chosen
_GAP = 2
_NARROWEST = 4
_PROSE = 24  # Cells from which a column is prose, which wraps
_ROW_LINES = 5  # Lines of one row in the table; Enter shows all of it
_TAB = 4
_HELP_KEYS = 24
_KEYS = {
    "table": "q quit  / search  n next  s sort  w where  c columns  Enter row  ? keys",
    "row": "q back  Left Right other rows  Up Down scroll  ? keys",
    "help": "q back",
}
_ASKING = "Enter takes it, Esc leaves it as it was"
_HELP = (
    ("Up Down, j k", "one row"),
    ("PgUp PgDn, b Space", "one screen"),
    ("Home End, g G", "first and last row"),
    ("Left Right", "columns that do not fit; in a row: the row before and after"),
    ("Enter", "one whole row, and back"),
    ("/", "search in every column; n and N go on"),
    ("s", "sort by a column; -NAME from the end; nothing restores the file's order"),
    ("w", "only rows that meet a condition, such as: urgency == \"high\""),
    ("c", "columns to show, separated by commas"),
    ("q Esc", "back; in the table q quits"),
)  # fmt: skip


class _Rows:
    """Rows that are read as far as somebody looks; what was read stays in memory."""

    def __init__(self, stream: Iterable[Row]) -> None:
        self._stream = iter(stream)
        self._read: list[Row] = []
        self.complete = False

    def get(self, index: int) -> Row | None:
        while not self.complete and len(self._read) <= index:
            row = next(self._stream, None)
            if row is None:
                self.complete = True
            else:
                self._read.append(row)
        return self._read[index] if 0 <= index < len(self._read) else None

    def __iter__(self) -> Iterator[Row]:
        index = 0
        while (row := self.get(index)) is not None:
            yield row
            index += 1

    def count(self) -> int:
        """Read to the end and count."""
        for _ in self:
            pass
        return len(self._read)

    @property
    def known(self) -> str:
        """How many rows there are, as far as it is known."""
        return f"{len(self._read):,}" + ("" if self.complete else "+")


def _column_hint(name: str, names: Sequence[str]) -> str:
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"there are {name_some(names)}"


class RowPager:
    """Pages rows in the terminal.

    Args:
        name: the file.
        rows: the rows as tables have them; they are read as far as they are looked at.
        columns: the columns to show, as the user names them; empty for the usual ones.
        usual: puts the columns of the first rows in the order in which they are shown if nobody chooses.
    """

    def __init__(
        self, name: str, rows: Iterable[Row], columns: Sequence[str], usual: Callable[[Sequence[Row]], list[str]]
    ) -> None:
        self._name = name
        self._base = self._rows = _Rows(rows)
        self._sample = [row for index in range(_SAMPLE) if (row := self._base.get(index)) is not None]
        self._names = list(dict.fromkeys(name for row in self._sample for name in row))
        self.columns = [NamedColumn(name) for name in columns or usual(self._sample)]
        self._chosen = bool(columns)
        self.where: RowFilter | None = None
        self.sort = ""
        self.search = ""
        self.top = self.row = self._left = self._scrolled = 0
        self.mode = "table"  # `table`, `row` or `help`
        self.question = ""  # What the line at the bottom asks
        self.note = ""  # One sentence about the last key
        self._size = (80, 24)
        self.glyphs = UNICODE

    # What is drawn.

    def lines(self, columns: int, rows: int) -> list[Line]:
        """The screen, in this many lines of at most this many cells."""
        self._size = (columns, rows)
        body = {"table": self._table, "row": self._whole_row, "help": self._help}[self.mode](columns, rows - 3)
        body = body[: rows - 3]
        body += [()] * (rows - 3 - len(body))
        return [self._title(columns), *body, (("frame", self.glyphs.across * columns),), self._status(columns)]

    def _title(self, columns: int) -> Line:
        at = f"row {self.row + 1:,} of {self._rows.known}" if self._rows.get(0) is not None else "no rows"
        facts = [at]
        facts += [f"where {self.where.expression}"] if self.where else []
        facts += [f"sorted by {self.sort}"] if self.sort else []
        facts += [f"search {self.search}"] if self.search else []
        line: Line = (("strong", clean(self._name)), ("quiet", "  " + clean(f" {self.glyphs.dot} ".join(facts))))
        return clip(line, columns)

    def _status(self, columns: int) -> Line:
        return clip(
            (("warn", self.note) if self.note else ("quiet", _ASKING if self.question else _KEYS[self.mode]),), columns
        )

    def _table(self, columns: int, height: int) -> list[Line]:
        shown = self._fitting(columns)
        head: list[tuple[Role, str]] = [("plain", " ")]
        for column, cells in shown:
            head += [
                ("label", _filled(shorten(clean(column.name), cells, self.glyphs.cut), cells)),
                ("plain", " " * _GAP),
            ]
        lines: list[Line] = [clip(tuple(head), columns)]
        self._show_selected(height - 1, shown)
        index = self.top
        while len(lines) < height and (row := self._rows.get(index)) is not None:
            lines += self._row_lines(row, shown, columns, selected=index == self.row)
            index += 1
        return lines

    def _fitting(self, columns: int) -> list[tuple[NamedColumn, int]]:
        """The columns that there is room for from the first one shown on, with their widths."""
        room = columns - 1
        wanted = {column.name: self._wanted(column) for column in self.columns}
        fitting: list[NamedColumn] = []
        for column in self.columns[self._left :]:
            least = min(wanted[column.name], _PROSE)
            if fitting and room < least + _GAP:
                break
            fitting.append(column)
            room -= least + _GAP
        widths = {column.name: min(wanted[column.name], _PROSE) for column in fitting}
        # Prose shares what is left.
        while (spare := columns - 1 - sum(widths.values()) - _GAP * len(fitting)) > 0:
            growing = [column.name for column in fitting if widths[column.name] < wanted[column.name]]
            if not growing:
                break
            for name in growing[:spare]:
                widths[name] += max(1, min(spare // len(growing), wanted[name] - widths[name]))
        return [(column, max(1, min(widths[column.name], columns - 1))) for column in fitting]

    def _wanted(self, column: NamedColumn) -> int:
        longest = max((cells_of(clean(cell_text(column.value(row)))) for row in self._sample), default=0)
        return max(_NARROWEST, min(longest, 400), cells_of(clean(column.name)))

    def _row_lines(
        self, row: Row, shown: Sequence[tuple[NamedColumn, int]], columns: int, *, selected: bool
    ) -> list[Line]:
        wrapped = [(wrap(clean(cell_text(column.value(row))), cells), cells) for column, cells in shown]
        height = min(_ROW_LINES, max((len(lines) for lines, _ in wrapped), default=1))
        drawn: list[Line] = []
        for number in range(height):
            line: list[tuple[Role, str]] = [("cursor", " ") if selected else ("plain", " ")]
            for lines, cells in wrapped:
                text = lines[number] if number < len(lines) else ""
                if number == height - 1 and len(lines) > height:
                    room = cells - 2
                    text = text if cells_of(text) <= room else shorten(text, room, "").rpartition(" ")[0]
                    text += f" {self.glyphs.cut}"
                role = judgement_role(text) if len(lines) == 1 else "plain"
                line += self._marked(_filled(text, cells), "strong" if selected and role == "plain" else role)
                line.append(("plain", " " * _GAP))
            drawn.append(clip(tuple(line), columns))
        return drawn

    def _marked(self, text: str, role: Role) -> Iterator[tuple[Role, str]]:
        """A text with what was searched for marked."""
        folded, wanted = text.casefold(), self.search.casefold()
        if not wanted or len(folded) != len(text):
            yield (role, text)
            return
        at = 0
        while (found := folded.find(wanted, at)) >= 0:
            yield (role, text[at:found])
            yield ("cursor", text[found : found + len(wanted)])
            at = found + len(wanted)
        yield (role, text[at:])

    def _show_selected(self, height: int, shown: Sequence[tuple[NamedColumn, int]]) -> None:
        """Move the table so that the selected row is on the screen as a whole."""
        self.top = min(self.top, self.row)
        used = 0
        for index in range(self.row, self.top - 1, -1):
            row = self._rows.get(index)
            used += len(self._row_lines(row, shown, self._size[0], selected=False)) if row is not None else 0
            if used > height and index < self.row:
                self.top = index + 1
                return

    def _whole_row(self, columns: int, height: int) -> list[Line]:
        row = self._rows.get(self.row)
        lines: list[Line] = []
        for name, value in (row or {}).items():
            text = clean(cell_text(value), one_line=False)
            if not text:
                continue
            label = clean(name)
            parts = [piece for part in text.splitlines() for piece in (wrap(part, columns - _TAB) or [""])]
            if len(parts) == 1 and cells_of(label) + cells_of(parts[0]) + 2 <= columns:
                lines.append((("label", f"{label}  "), *self._marked(parts[0], judgement_role(parts[0]))))
            else:
                lines.append((("label", label),))
                lines += [(("plain", " " * _TAB), *self._marked(part, "plain")) for part in parts]
        self._scrolled = max(0, min(self._scrolled, len(lines) - height))
        return [clip(line, columns) for line in lines[self._scrolled :]]

    def _help(self, columns: int, height: int) -> list[Line]:  # noqa: ARG002 - one of three
        lines: list[Line] = [()]
        for keys, what in _HELP:
            for part in wrap(what, max(_NARROWEST, columns - _HELP_KEYS)):
                lines.append(clip((*pad((("strong", f"  {keys}"),), _HELP_KEYS), ("plain", part)), columns))
                keys = ""  # noqa: PLW2901 - they stand in the first line
        return lines

    # What keys do.

    def press(self, key: str) -> None:
        """Take a key that moves, or that changes what is shown; the name is prompt_toolkit's."""
        self.note = ""
        if key in ("?", "h"):
            self.mode = "table" if self.mode == "help" else "help"
        elif key in ("enter", "escape"):
            into = key == "enter" and self.mode == "table" and self._rows.get(self.row) is not None
            self.mode, self._scrolled = ("row" if into else "table"), 0
        elif key in ("n", "N"):
            self._find(1 if key == "n" else -1)
        elif key in ("left", "right"):
            step = 1 if key == "right" else -1
            if self.mode == "row":
                self._go(self.row + step)
            elif step < 0 or self._left + len(self._fitting(self._size[0])) < len(self.columns):
                self._left = max(0, self._left + step)
        elif self.mode == "row":
            page = self._size[1] - 4
            self._scrolled += {"down": 1, "j": 1, "up": -1, "k": -1, "pagedown": page, "pageup": -page}.get(key, 0)
        else:
            self._move(key)

    def _move(self, key: str) -> None:
        match key:
            case "down" | "j":
                self._go(self.row + 1)
            case "up" | "k":
                self._go(self.row - 1)
            case "home" | "g":
                self._go(0)
            case "end" | "G":
                self._go(self._rows.count() - 1)
            case "pagedown" | "pageup":
                step = 1 if key == "pagedown" else -1
                shown = self._fitting(self._size[0])
                room, index = self._size[1] - 4, self.top if step < 0 else self.row
                if step > 0:
                    self.top = self.row = self._last_visible(room, shown)
                    return
                while index > 0 and room > 0 and (row := self._rows.get(index - 1)) is not None:
                    room -= len(self._row_lines(row, shown, self._size[0], selected=False))
                    index -= room >= 0
                self.top = self.row = index

    def _last_visible(self, room: int, shown: Sequence[tuple[NamedColumn, int]]) -> int:
        """The first row that the screen does not show as a whole, or the last of all."""
        index = self.top
        while (row := self._rows.get(index)) is not None:
            room -= len(self._row_lines(row, shown, self._size[0], selected=False))
            if room < 0:
                return max(index, self.top + 1) if self._rows.get(self.top + 1) is not None else index
            index += 1
        return max(0, index - 1)

    def _go(self, index: int) -> None:
        self._scrolled = 0
        if index < 0 or self._rows.get(index) is None:
            self.note = "this is the first row" if index < 0 else "this is the last row"
            index = max(0, self.row)
        self.row = index

    def _find(self, step: int) -> None:
        if not self.search:
            self.note = "nothing is searched: / searches"
            return
        total = None if step > 0 else self._rows.count()
        index = self.row + step
        while index >= 0 and (row := self._rows.get(index)) is not None:
            if has_text(row, self.search):
                self._go(index)
                return
            index += step
        self.note = f"no {'further' if step > 0 else 'earlier'} row has {self.search!r}" if total != 0 else "no rows"

    def answer(self, question: str, text: str) -> bool:
        """Take what was typed at the bottom: `search`, `sort by`, `where` or `columns`.

        Returns:
            Whether it could be taken; else the note says what is wrong.
        """
        text = text.strip()
        self.note = ""
        try:
            if question == "search":
                self._search(text)
            elif question == "columns":
                self._choose(text)
            else:
                self._select(text if question == "where" else None, text if question == "sort by" else self.sort)
        except MelleaError as error:
            self.note = clean(f"{error.message}: {error.hint}" if error.hint else error.message)
            return False
        return True

    def initial(self, question: str) -> str:
        """What stands at the bottom before something is typed."""
        if question == "columns":
            return ", ".join(column.name for column in self.columns)
        if question == "where":
            return self.where.expression if self.where else ""
        return {"search": self.search, "sort by": self.sort}.get(question, "")

    def _search(self, text: str) -> None:
        self.search = text
        row = self._rows.get(self.row)
        if text and not (row is not None and has_text(row, text)):
            self._find(1)
            if self.note:
                self.note = f"no row from here on has {text!r}"

    def _choose(self, text: str) -> None:
        names = [name for part in text.split(",") if (name := part.strip(" `"))]
        for name in names:
            self._require(name)
        if names:
            self.columns, self._left = [NamedColumn(name) for name in names], 0

    def _select(self, where: str | None, sort: str) -> None:
        """Show the rows that meet a condition, sorted; `None` keeps the condition."""
        condition = self.where if where is None else RowFilter(where) if where else None
        for name in condition.names if condition else ():
            self._require(name, condition_hint)
        key = NamedColumn(self._require(sort.removeprefix("-"))) if sort else None
        found: Iterable[Row] = self._base
        if condition is not None:
            found = (row for row in self._base if condition.matches(row))
        if key is not None:
            found = in_order(found, key.value, descending=sort.startswith("-"))
        self._rows = self._base if found is self._base else _Rows(found)
        self.where, self.sort = condition, sort
        self.top = self.row = 0

    def _require(self, name: str, hint: Callable[[str, Sequence[str]], str] = _column_hint) -> str:
        if not any(NamedColumn(name).is_in(row, ()) for row in self._sample) and not same_names(name, self._names):
            raise UsageError(f"no column {name!r}", hint=hint(name, self._names))
        return name

    # The terminal.

    def run(self, environ: Mapping[str, str]) -> None:
        """Page until the user quits."""
        self.glyphs = Palette(make_console(sys.stdout, environ)).glyphs
        self._application(environ).run()

    def _application(
        self, environ: Mapping[str, str], source: Input | None = None, screen_output: Output | None = None
    ) -> Application[None]:
        keys = KeyBindings()
        asking = Condition(lambda: bool(self.question))

        def accept(buffer: Buffer) -> bool:
            if not self.answer(self.question, buffer.text):
                return True  # The text stays, to be corrected.
            self.question = ""
            application.layout.focus_last()
            return False

        def stop_asking(event: KeyPressEvent) -> None:
            self.question = self.note = ""
            event.app.layout.focus_last()

        def ask(question: str) -> Callable[[KeyPressEvent], None]:
            def start(_: KeyPressEvent) -> None:
                self.question, self.mode, self.note = question, "table", ""
                _type(application, line, self.initial(question))

            return start

        line = Buffer(multiline=False, accept_handler=accept)
        for key, name in _MOVES.items():
            keys.add(key, filter=~asking)(lambda _, name=name: self.press(name))
        for key, question in (("/", "search"), ("s", "sort by"), ("w", "where"), ("c", "columns")):
            keys.add(key, filter=~asking)(ask(question))
        in_table = Condition(lambda: self.mode == "table")
        keys.add("q", filter=~asking & ~in_table)(lambda _: self.press("escape"))
        keys.add("q", filter=~asking & in_table)(lambda event: event.app.exit())
        for key in ("c-c", "c-d"):
            keys.add(key, filter=~asking)(lambda event: event.app.exit())
        keys.add("escape", filter=asking, eager=True)(stop_asking)
        keys.add("c-c", filter=asking)(stop_asking)

        def draw(columns: int, rows: int) -> list[Line]:
            return self.lines(columns, rows - bool(self.question))

        asked = (asking, lambda: self.question, line)
        application = _full_screen(draw, keys, asked, environ, (source, screen_output))
        return application


_MOVES = {
    **{key: key for key in ("up", "down", "left", "right", "home", "end", "pageup", "pagedown", "enter", "escape")},
    **{key: key for key in ("j", "k", "g", "G", "n", "N", "?", "h")},
    " ": "pagedown",
    "b": "pageup",
    "c-f": "pagedown",
    "c-b": "pageup",
}


def _filled(text: str, cells: int) -> str:
    return text + " " * max(0, cells - width((("plain", text),)))


# The review.

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
        self.chosen = 0  # The index of the field that keys change
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
        """Give the chosen field the choice with this number, counted from 1. In a list it is toggled; 0 is no value."""
        field = self.field
        if self.row is None or not field.has_choices or number > len(field.choices):
            return
        if not number and field.kind == "label":
            self.message = f"{field.name} is one of {name_some(field.choices, 12)}"
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
            restored.append(before or replace(last, when=now(), withdrawn=True))
            if before is None:
                del self._said[record.number, name]
            else:
                self._said[record.number, name] = before
        self._file.add(restored)

    def _judge(self, values: Sequence[tuple[ReviewField, Any]], *, moved: bool = False) -> None:
        row, record = self.rows[self.at], self.rows[self.at].record
        origin = self._who, now(), row.sample, row.seed, row.size
        before = [(field.name, self._said.get((record.number, field.name))) for field, _ in values]
        judged = [
            Correction(record.id, record.text, field.name, record.model_value(field.name), value, *origin)
            for field, value in values
        ]
        self._file.add(judged)
        self._said.update({(record.number, one.field): one for one in judged})
        self._actions.append(_Action(self.at, before, moved))
        self.at += moved


# What the screen shows.

_KINDS: Mapping[str, Role] = {"complaint": "bad", "praise": "good", "quote": "mixed"}
_SAMPLES = {"random": "random sample", "doubtful": "doubtful row", "edited": "edited row"}
_LEAST_TEXT = 3
_REVIEW_KEYS = ("Enter accept", "1-9 label", "0 none", "↑↓ field", "e edit", "s skip", "u undo", "q quit")
_ASCII_KEYS = tuple(key.replace("↑↓", "Up/Down") for key in _REVIEW_KEYS)


def screen_lines(review: Review, size: tuple[int, int], palette: Palette, scroll: int = 0) -> list[Line]:
    """The screen of a review, at most `size` columns and rows; `scroll` lines of the text are above what is shown."""
    columns, rows = size
    row = review.row
    if row is None:
        return [clip((("strong", "All rows are judged. "), ("plain", "u takes the last one back, q ends.")), columns)]
    head = [_head(review, row, columns, palette), (("frame", palette.glyphs.across * columns),)]
    foot = [(("frame", palette.glyphs.across * columns),), *_foot(review, columns, palette)]
    room = rows - len(head) - len(foot)
    text = list(_text(row, columns, palette))
    fields = _fields(review, columns, palette, is_whole=True)
    if len(fields) > room - 1 - len(text):
        fields = _fields(review, columns, palette, is_whole=False)
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


def _fields(review: Review, columns: int, palette: Palette, *, is_whole: bool) -> list[Line]:
    """Every field with its value; without `is_whole` only the chosen one on as many lines as it needs."""
    return [
        line
        for index, field in enumerate(review.fields)
        for line in _field(review, field, columns, palette, is_chosen=index == review.chosen, is_whole=is_whole)
    ]


def _field(
    review: Review, field: ReviewField, columns: int, palette: Palette, *, is_chosen: bool, is_whole: bool
) -> Iterator[Line]:
    widest = min(18, max(len(one.name) for one in review.fields))
    name = f"{shorten(palette.safe(field.name), widest, palette.glyphs.cut):<{widest}}"
    value = palette.safe(field.shown(review.value(field)))
    role: Role = judgement_role(value) if field.kind == "label" else "plain"
    before = ""
    if review.is_changed(field) and review.row is not None:
        was = palette.safe(field.shown(review.row.record.model_value(field.name))) or "nothing"
        before = f"  (model: {was})"
    room = columns - widest - 4
    lines = wrap(value or palette.glyphs.none, room)
    if len(lines) > 1 and not (is_chosen or is_whole):
        lines = [shorten(value, room, palette.glyphs.cut)]
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
    keys = _REVIEW_KEYS if palette.encoding.lower().startswith("utf") else _ASCII_KEYS
    text = ""
    for key in keys:
        if cells_of(text) + cells_of(key) + 3 > columns:
            break
        text += (f" {palette.glyphs.dot} " if text else "") + key
    return [clip((("quiet", text),), columns)]


# The keys.


class ReviewScreen:
    """Shows a review on the terminal until it ends or the person leaves."""

    def __init__(self, review: Review, stream: IO[str], environ: Mapping[str, str]) -> None:
        self._review = review
        self._palette = Palette(make_console(stream, environ))
        self._scroll = 0
        self._editing = False
        self._error: OutputError | None = None
        self._line = Buffer(multiline=False, accept_handler=self._end_edit)
        is_editing = Condition(lambda: self._editing)
        asked = (is_editing, lambda: self._palette.safe(review.field.name), self._line)
        self._app = _full_screen(self._lines, self._keys(is_editing), asked, environ)

    def run(self) -> None:
        """Show it.

        Raises:
            OutputError: a judgement cannot be saved.
        """
        self._app.run()
        if self._error is not None:
            raise self._error

    def _lines(self, columns: int, rows: int) -> list[Line]:
        return screen_lines(self._review, (columns, rows - self._editing), self._palette, self._scroll)

    def _do(self, work: Callable[[], None]) -> None:
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
        actions: dict[str, Callable[[], None]] = {
            **dict.fromkeys(("enter", "a", " "), review.accept),
            "s": review.skip,
            **dict.fromkeys(("u", "backspace"), review.undo),
            **dict.fromkeys(("down", "j", "tab"), lambda: review.choose(1)),
            **dict.fromkeys(("up", "k", "s-tab"), lambda: review.choose(-1)),
            "pagedown": lambda: self._scrolled(5),
            "pageup": lambda: self._scrolled(-5),
            **{str(number): partial(review.label, number) for number in range(_MOST_KEYS + 1)},
            "e": self._begin_edit,
        }
        for key, work in actions.items():
            keys.add(key, filter=viewing)(lambda _, work=work: self._do(work))

        @keys.add("q", filter=viewing)
        @keys.add("c-c")
        @keys.add("c-d")
        def _(event: KeyPressEvent) -> None:
            event.app.exit()

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
        review = self._review
        if review.row is None:
            return
        self._editing = True
        _type(self._app, self._line, clean(review.field.shown(review.value(review.field))))
        review.message = "Enter saves, Esc leaves it as it was; an empty line is no value"

    def _end_edit(self, line: Buffer) -> bool:
        try:
            self._do(lambda: self._review.edit(line.text))
        except ValueError as error:
            self._review.message = str(error)
            return True
        self._leave_edit()
        return False

    def _leave_edit(self) -> None:
        self._editing = False
        self._review.message = ""
        self._app.layout.focus_last()
