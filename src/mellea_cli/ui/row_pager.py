"""Pager of rows: a table that fills the terminal, with search, sorting, a condition and one whole row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mellea_cli.errors import MelleaError, UsageError, name_some, nearest
from mellea_cli.io.columns import same_names
from mellea_cli.io.row_filter import NamedColumn, RowFilter, cell_text, has_text, sort_key
from mellea_cli.ui.console import clean
from mellea_cli.ui.theme import Line, Role, cells_of, clip, judgement_role, pad, shorten, width, wrap

if TYPE_CHECKING:
    from prompt_toolkit.application import Application
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyPressEvent
    from prompt_toolkit.output import Output

Row = Mapping[str, Any]

_SAMPLE = 200  # Rows by which widths and the usual columns are chosen
_GAP = 2
_NARROWEST = 4
_PROSE = 24  # Cells from which a column is prose, which wraps
_ROW_LINES = 5  # Lines of one row in the table; Enter shows all of it
_TAB = 4
_HELP_KEYS = 24
_KEYS = "q quit  / search  n next  s sort  w where  c columns  Enter row  ? keys"
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
    ("Esc", "back"),
    ("q", "quit"),
)  # fmt: skip
_STYLES: Mapping[Role, str] = {
    "plain": "",
    "quiet": "dim",
    "strong": "bold",
    "label": "ansicyan",
    "frame": "dim",
    "good": "ansigreen",
    "bad": "ansired",
    "mixed": "ansiyellow",
    "warn": "ansiyellow",
    "cursor": "reverse",
    "done": "ansicyan",
    "rest": "dim",
}


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

    # What is drawn.

    def lines(self, columns: int, rows: int) -> list[Line]:
        """The screen, in this many lines of at most this many cells."""
        self._size = (columns, rows)
        body = {"table": self._table, "row": self._whole_row, "help": self._help}[self.mode](columns, rows - 3)
        body = body[: rows - 3]
        body += [()] * (rows - 3 - len(body))
        return [self._title(columns), *body, (("frame", "─" * columns),), self._status(columns)]

    def _title(self, columns: int) -> Line:
        at = f"row {self.row + 1:,} of {self._rows.known}" if self._rows.get(0) is not None else "no rows"
        facts = [at]
        facts += [f"where {self.where.expression}"] if self.where else []
        facts += [f"sorted by {self.sort}"] if self.sort else []
        facts += [f"search {self.search}"] if self.search else []
        line: Line = (("strong", clean(self._name)), ("quiet", "  " + clean(" · ".join(facts))))
        return clip(line, columns)

    def _status(self, columns: int) -> Line:
        return clip((("warn", self.note) if self.note else ("quiet", _KEYS),), columns)

    def _table(self, columns: int, height: int) -> list[Line]:
        shown = self._fitting(columns)
        head: list[tuple[Role, str]] = [("plain", " ")]
        for column, cells in shown:
            head += [("label", _filled(shorten(clean(column.name), cells, "…"), cells)), ("plain", " " * _GAP)]
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
                    text += " …"
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

    def answer(self, question: str, text: str) -> None:
        """Take what was typed at the bottom: `search`, `sort by`, `where` or `columns`."""
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
            self._require(name)
        key = NamedColumn(self._require(sort.removeprefix("-"))) if sort else None
        found: Iterable[Row] = self._base
        if condition is not None:
            found = (row for row in self._base if condition.matches(row))
        if key is not None:
            found = sorted(found, key=lambda row: sort_key(key.value(row)), reverse=sort.startswith("-"))
            found = sorted(found, key=lambda row: sort_key(key.value(row))[0] == 2)
        self._rows = self._base if found is self._base else _Rows(found)
        self.where, self.sort = condition, sort
        self.top = self.row = 0

    def _require(self, name: str) -> str:
        if not any(NamedColumn(name).is_in(row, ()) for row in self._sample) and not same_names(name, self._names):
            near = nearest(name, self._names)
            hint = f"did you mean {near}?" if near else f"there are {name_some(self._names)}"
            raise UsageError(f"no column {name!r}", hint=hint)
        return name

    # The terminal.

    def run(self, environ: Mapping[str, str]) -> None:
        """Page until the user quits."""
        self._application(environ).run()

    def _application(
        self, environ: Mapping[str, str], source: Input | None = None, screen_output: Output | None = None
    ) -> Application[None]:
        from prompt_toolkit.application import Application
        from prompt_toolkit.buffer import Buffer
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.layout import ConditionalContainer, HSplit, Layout, VSplit, Window
        from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
        from prompt_toolkit.output import ColorDepth

        keys = KeyBindings()
        asking = Condition(lambda: bool(self.question))

        def accept(buffer: Buffer) -> bool:
            question, self.question = self.question, ""
            self.answer(question, buffer.text)
            application.layout.focus(screen)
            return False

        def stop_asking(event: KeyPressEvent) -> None:
            self.question = ""
            event.app.layout.focus(screen)

        def ask(question: str) -> Callable[[KeyPressEvent], None]:
            def start(event: KeyPressEvent) -> None:
                self.question, self.mode, self.note = question, "table", ""
                line.text = self.initial(question)
                line.cursor_position = len(line.text)
                event.app.layout.focus(line)

            return start

        line = Buffer(multiline=False, accept_handler=accept)
        for key, name in _MOVES.items():
            keys.add(key, filter=~asking)(lambda _, name=name: self.press(name))
        for key, question in (("/", "search"), ("s", "sort by"), ("w", "where"), ("c", "columns")):
            keys.add(key, filter=~asking)(ask(question))
        for key in ("q", "c-c", "c-d"):
            keys.add(key, filter=~asking)(lambda event: event.app.exit())
        keys.add("escape", filter=asking, eager=True)(stop_asking)
        keys.add("c-c", filter=asking)(stop_asking)

        def text() -> StyleAndTextTuples:
            size = application.output.get_size()
            lines = self.lines(size.columns, size.rows)
            kept = lines[:-1] if self.question else lines
            drawn: StyleAndTextTuples = []
            drawn += [(_STYLES[role], part) for one in kept for role, part in (*one, ("plain", "\n"))]
            return drawn[:-1]

        screen = Window(FormattedTextControl(text, focusable=True, show_cursor=False), wrap_lines=False)
        label = Window(FormattedTextControl(lambda: [("bold", f"{self.question}: ")]), dont_extend_width=True, height=1)
        asked = ConditionalContainer(VSplit([label, Window(BufferControl(line), height=1)]), filter=asking)
        application: Application[None] = Application(
            layout=Layout(HSplit([screen, asked]), focused_element=screen),
            key_bindings=keys,
            full_screen=True,
            color_depth=ColorDepth.DEPTH_1_BIT if environ.get("NO_COLOR") else ColorDepth.DEPTH_4_BIT,
            input=source,
            output=screen_output,
        )
        application.ttimeoutlen = 0.05
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
