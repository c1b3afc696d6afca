"""One finished block of Markdown as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, ClassVar

from markdown_it import MarkdownIt
from rich.color import ColorSystem
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax

from mellea_cli.ui.console import make_console
from mellea_cli.ui.paint import wrap
from mellea_cli.ui.plaintext import clean, encodable

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult

# How far back code is read again for the colours of its next lines.
_CODE_CONTEXT = 40
_CODE_FRESH = 15
_TAB = 4


class _Heading(Heading):
    """A heading that stands where the text does."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        self.text.stylize("bold underline" if self.tag == "h1" else "bold")
        yield self.text


class _Markdown(Markdown):
    """Markdown in which nothing is lost: HTML is text, and a line break is one."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": _Heading}

    def __init__(self, source: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        parser = MarkdownIt(options_update={"html": False}).enable("strikethrough").enable("table")
        self.markup = source
        self.parsed = parser.parse(source)
        for token in self.parsed:
            _keep_breaks(token)


def _keep_breaks(token: Token) -> None:
    for child in token.children or ():
        if child.type == "softbreak":
            child.type = "hardbreak"


class Typesetter:
    """Turns pieces of an answer into lines with escape sequences, all of them our own.

    Args:
        stream: the terminal.
        environ: the environment, for colours.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str]) -> None:
        self._console = make_console(stream, environ)
        self._colours = ColorSystem.STANDARD if self._console.color_system else None

    def markdown(self, source: str, width: int) -> list[str]:
        """The lines of a block, at most `width` cells wide; what cannot be set is shown as it stands."""
        safe = self._safe(source)
        try:
            options = self._console.options.update(width=width, height=None)
            lines = self._console.render_lines(_Markdown(safe), options, pad=False)
            return _trimmed([self._ansi(line) for line in lines])
        except Exception:  # noqa: BLE001 - a model can write what no renderer has seen; the answer must be seen all the same
            return [line for row in safe.split("\n") for line in wrap(row, width) or [""]]

    def plain(self, text: str, look: str = "none") -> str:
        """One line of text in one look."""
        return self._ansi([Segment(self._safe(text), Style.parse(look))])

    def _safe(self, text: str) -> str:
        return encodable(clean(text.expandtabs(_TAB), one_line=False), self._console.encoding)

    def code(self, lines: Iterable[tuple[Style, str]]) -> str:
        """One line of code."""
        return self._ansi(Segment(encodable(text, self._console.encoding), style) for style, text in lines)

    def _ansi(self, line: Iterable[Segment]) -> str:
        parts = [(segment.text, segment.style) for segment in line if not segment.control]
        while parts and not parts[-1][0].strip() and not (parts[-1][1] and parts[-1][1].bgcolor):
            parts.pop()
        if parts and not (parts[-1][1] and parts[-1][1].bgcolor):
            parts[-1] = (parts[-1][0].rstrip(), parts[-1][1])
        return "".join(self._styled(text, style) for text, style in parts)

    def _styled(self, text: str, style: Style | None) -> str:
        if style is None:
            return text
        if self._console.no_color:
            style = style.without_color
        return style.render(text, color_system=self._colours)


def _trimmed(lines: list[str]) -> list[str]:
    """Without empty lines at either end."""
    first = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    last = next((place for place in range(len(lines), 0, -1) if lines[place - 1].strip()), first)
    return lines[first:last]


class CodeLines:
    """Colours a code block line by line: a line that has been given out stays as it is.

    Args:
        language: as the fence names it; code of a language that is not known stays plain.
        setter: knows the terminal.
    """

    def __init__(self, language: str, setter: Typesetter) -> None:
        self._lexer = Syntax("", language or "text").lexer
        self._setter = setter
        self._theme = Syntax.get_theme("ansi_dark")
        self._context: list[str] = []

    def lines(self, new: list[str]) -> list[str]:
        """Colour the next lines of the block."""
        if not new:
            return []
        safe = [clean(line.expandtabs(_TAB), one_line=False) for line in new]
        told = self._coloured(safe)
        self._context += safe
        if len(self._context) > _CODE_FRESH and not safe[-1].strip() and not told[-1]:
            # An empty line at the top level: what follows does not depend on what was before.
            self._context.clear()
        del self._context[:-_CODE_CONTEXT]
        return [self._setter.code(line) for line in told]

    def partial(self, line: str) -> str:
        """Colour a line that is not whole yet, and forget it again."""
        return self._setter.code(self._coloured([clean(line.expandtabs(_TAB), one_line=False)])[0])

    def _coloured(self, new: list[str]) -> list[list[tuple[Style, str]]]:
        if self._lexer is None:
            return [[(Style.null(), line)] for line in new]
        rows: list[list[tuple[Style, str]]] = [[]]
        source = "\n".join([*self._context, *new])
        for token, text in self._lexer.get_tokens(source):
            style = self._theme.get_style_for_token(token)
            for number, part in enumerate(text.split("\n")):
                if number:
                    rows.append([])
                if part:
                    rows[-1].append((style, part))
        first = len(self._context)
        return [rows[place] if place < len(rows) else [] for place in range(first, first + len(new))]
