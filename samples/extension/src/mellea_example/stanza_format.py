"""Format: `Name: value` on each line, and a blank line between rows, as in Debian's control files."""

import json
from collections.abc import Iterator
from typing import Any

from mellea_cli.errors import InputError
from mellea_cli.io.formats import RawRow, RowOutput, RowStream, TextInput
from mellea_cli.io.writers import FreeNames
from mellea_cli.items import Row


class StanzaFormat:
    """Reads and writes stanzas; the suffix is `.stanza`."""

    def rows(self, source: TextInput) -> RowStream:
        return RowStream(_read(source))

    def layout(self, output: RowOutput) -> "StanzaLayout":
        return StanzaLayout(output)


def _read(source: TextInput) -> Iterator[RawRow | InputError]:
    lines = source.lines()
    fields: dict[str, Any] = {}
    first = 0
    for number, line in lines:
        text = line.decode(lines.codec, "replace").strip()
        name, colon, value = text.partition(":")
        if not text and fields:
            yield first, fields, None
            fields = {}
        elif text and not colon:
            yield InputError("not `Name: value`", path=source.name, line=number)
        elif text:
            first = first if fields else number
            fields[name.strip()] = value.strip()
    if fields:
        yield first, fields, None


class StanzaLayout:
    """The form of one output: a row needs nothing that only the end shows, so its first bytes are the final ones."""

    partial_is_final = True

    def __init__(self, output: RowOutput) -> None:
        self._names = FreeNames(output.note)

    def partial_line(self, row: Row) -> bytes:
        added = {self._names.find(name, row.item.fields): value for name, value in row.added.items()}
        cells = {**row.item.fields, **added}
        return "".join(f"{name}: {_one_line(value)}\n" for name, value in cells.items()).encode() + b"\n"

    def render_partial(self, line: bytes) -> bytes:
        return line

    def render(self, row: Row) -> bytes:
        return self.partial_line(row)

    def end(self) -> bytes:
        return b""


def _one_line(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(value)
