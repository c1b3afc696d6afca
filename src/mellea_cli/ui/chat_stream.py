"""Everything a chat prints that is not an answer."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, ClassVar, Literal

from markdown_it import MarkdownIt
from rich.color import ColorSystem
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax

from mellea_cli.ui.console import Unechoed, clean, encodable, make_console, print_table, say_error
from mellea_cli.ui.live_panels import Area
from mellea_cli.ui.theme import Palette, Role, wrap

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult


# Cuts Markdown that is still arriving into blocks: those that are finished never change again.

Kind = Literal["text", "item", "open", "code", "close"]

_FENCE = re.compile(r"( *)(`{3,}|~{3,})[ \t]*([^`]*)$")
_ITEM = re.compile(r"( *)([-*+]|\d{1,9}[.)])([ \t]+|$)")
_HEADING = re.compile(r" {0,3}#{1,6}([ \t]|$)")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer that is finished.

    Args:
        kind: `text` for a block of Markdown, `item` for an item of a list with all that is in it; a code block comes as
            `open`, its lines as `code`, and `close`.
        text: the Markdown; for `open` the language, for `code` one line.
        gap: whether an empty line stands before it.
    """

    kind: Kind
    text: str
    gap: bool = False


class Blocks:
    """Takes text as it comes and gives finished pieces; what is left is the tail."""

    def __init__(self) -> None:
        self._rest = ""
        self._lines: list[str] = []
        self._item: int | None = None
        """Where the text of the list's item begins; `None` outside of lists."""
        self._blank = False
        self._fence = ""
        """The fence of the code block that is open."""
        self._indent = 0
        self._inner = ""
        """The fence of a code block inside a list's item."""
        self._last: Kind | None = None
        self._gap = False

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what it finishes."""
        *lines, self._rest = (self._rest + text).split("\n")
        return [piece for line in lines for piece in self._line(line.removesuffix("\r"))]

    def end(self) -> list[Piece]:
        """The answer has ended: return all that is left."""
        pieces = list(self._line(self._rest)) if self._rest else []
        self._rest = ""
        pieces += self._finish()
        if self._fence:
            self._fence = ""
            pieces.append(Piece("close", ""))
        return pieces

    @property
    def tail(self) -> Piece | None:
        """What is not finished, as it would be if the answer ended here; `None` when there is nothing."""
        if self._fence:
            return Piece("code", self._cut(self._rest)) if self._rest else None
        lines = [*self._lines, self._rest] if self._rest else self._lines
        if not any(lines):
            return None
        kind: Kind = "item" if self._item is not None else "text"
        return Piece(kind, "\n".join(lines), self._gap if self._lines else self._last is not None)

    def _line(self, line: str) -> Iterator[Piece]:
        if self._fence:
            yield self._code(line)
            return
        fence, item = _FENCE.match(line), _ITEM.match(line)
        if self._item is not None and self._belongs(line, fence):
            return
        if not line.strip():
            yield from self._finish()
        elif fence:
            yield from self._finish()
            yield Piece("open", fence[3].strip().split(" ")[0], self._begin("open"))
            self._fence, self._indent = fence[2], len(fence[1])
        elif item and not _RULE.match(line) and self._may_begin(item):
            yield from self._finish()
            self._begin("item")
            self._item = item.end(2) + 1
            self._lines.append(line)
        elif _HEADING.match(line) or (_RULE.match(line) and not self._lines):
            yield from self._finish()
            self._begin("text")
            self._lines.append(line)
            yield from self._finish()
        else:
            if self._item is not None:
                yield from self._finish()
            if not self._lines:
                self._begin("text")
            self._lines.append(line)

    def _belongs(self, line: str, fence: re.Match[str] | None) -> bool:
        """Whether a line is part of the list's item, which then has it."""
        if self._inner:
            if fence and fence[2].startswith(self._inner) and not fence[3].strip():
                self._inner = ""
            self._lines.append(line)
            return True
        if not line.strip():
            # Whether the item goes on after it, the next line will tell.
            self._blank = True
            return True
        inside = len(line) - len(line.lstrip(" ")) >= (self._item or 0)
        if not inside and (self._blank or fence or _ITEM.match(line) or _HEADING.match(line) or _RULE.match(line)):
            return False
        if fence and inside:
            self._inner = fence[2]
        if self._blank:
            self._lines.append("")
            self._blank = False
        self._lines.append(line)
        return True

    def _may_begin(self, item: re.Match[str]) -> bool:
        """A number in the middle of a paragraph begins no list, except the first one."""
        return not self._lines or self._item is not None or not item[2][0].isdigit() or item[2][:-1] == "1"

    def _code(self, line: str) -> Piece:
        bare = line.strip()
        if bare.startswith(self._fence) and not bare.strip(self._fence[0]):
            self._fence = ""
            return Piece("close", "")
        return Piece("code", self._cut(line))

    def _cut(self, line: str) -> str:
        """A line of code without the fence's own indentation."""
        own = len(line) - len(line.lstrip(" "))
        return line[min(own, self._indent) :]

    def _begin(self, kind: Kind) -> bool:
        """A block begins; return whether an empty line stands before it: only items may stand close together."""
        close = kind == self._last == "item" and not self._blank
        self._gap = self._last is not None and not close
        self._last, self._blank = kind, False
        return self._gap

    def _finish(self) -> list[Piece]:
        """End the block that is open, if one is."""
        kind: Kind = "item" if self._item is not None else "text"
        lines, self._lines, self._item, self._inner = self._lines, [], None, ""
        return [Piece(kind, "\n".join(lines), self._gap)] if lines else []


# One finished block of Markdown as lines for a terminal.

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


# An answer on a terminal while it arrives: finished blocks are printed once, only the last one is drawn again.

_FRAME_S = 0.08
# A drawing that takes long is not repeated at once: this share of the time at most goes into it.
_SHARE = 6
_WAIT_S = 0.5
_WIDEST = 100
_CODE_INDENT = "  "


def unmarked(text: str) -> str:
    """Leave text as it is."""
    return text


class AnswerView:
    """Shows one answer.

    What is finished goes to the terminal's own history and is never written again, so nothing that has scrolled away
    is repainted and a resize finds it whole. The unfinished block stands in a few lines at the bottom, of which only
    its end is seen when it is higher than the terminal.

    Args:
        stream: the terminal.
        environ: the environment, for colours.
        mark: puts marks into a block's text before it is shown.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str], *, mark: Callable[[str], str] = unmarked) -> None:
        self._setter = Typesetter(stream, environ)
        self._area = Area(stream)
        self._mark = mark
        self._blocks = Blocks()
        self._code: CodeLines | None = None
        self._done: list[Piece] = []
        self._letters = 0
        self._began = time.monotonic()
        self._next = 0.0
        self._due = False
        self._timer: asyncio.TimerHandle | None = None

    async def show(self, pieces: AsyncIterator[str]) -> None:
        """Show an answer until its pieces end, or raise. Call `finish` then, whatever happened."""
        self._wait()
        async for piece in pieces:
            self.feed(piece)
            self._soon()

    def feed(self, text: str) -> None:
        """Take more of the answer."""
        self._letters += len(text)
        self._done += self._blocks.feed(text)

    @property
    def letters(self) -> int:
        """Letters of the answer that have been taken."""
        return self._letters

    def draw(self) -> None:
        """Bring the terminal up to date."""
        size = self._area.size()
        width = max(1, min(size[0] - 1, _WIDEST))
        above = "".join(f"{line}\r\n" for line in self._settled(width))
        tail = self._tail(width, size[0] - 1)
        self._area.draw(tail[-max(1, size[1] - 2) :], size, above=above)

    def finish(self, ending: str = "") -> None:
        """Print what is left, and how it ended when that is not as it should be."""
        if self._timer is not None:
            self._timer.cancel()
        self._done += self._blocks.end()
        width = max(1, min(self._area.size()[0] - 1, _WIDEST))
        lines = self._settled(width)
        if ending:
            lines.append(self._setter.plain(f"-- {ending} --", "yellow"))
        self._area.close(above="".join(f"{line}\r\n" for line in lines))

    def _settled(self, width: int) -> list[str]:
        """The lines of the pieces that have been finished since the last time."""
        lines: list[str] = []
        done, self._done = self._done, []
        code: list[str] = []
        for piece in done:
            if piece.kind == "code":
                code.append(piece.text)
                continue
            lines += self._code_lines(code)
            code = []
            if piece.gap:
                lines.append("")
            if piece.kind == "open":
                self._code = CodeLines(piece.text, self._setter)
            elif piece.kind == "close":
                self._code = None
            else:
                lines += self._setter.markdown(self._mark(piece.text), width)
        return lines + self._code_lines(code)

    def _code_lines(self, code: list[str]) -> list[str]:
        return [_CODE_INDENT + line for line in self._code.lines(code)] if self._code and code else []

    def _tail(self, width: int, whole: int) -> list[str]:
        """The lines of what is not finished."""
        tail = self._blocks.tail
        if tail is None:
            if self._letters:
                return []
            return [self._setter.plain(f"waiting for the model, {time.monotonic() - self._began:.0f} s", "dim")[:whole]]
        if tail.kind == "code":
            # Its end is what grows; one line is all there is room for.
            room = whole - len(_CODE_INDENT)
            return [_CODE_INDENT + self._code.partial(tail.text.expandtabs(4)[-room:])] if self._code else []
        return [""] * tail.gap + self._setter.markdown(self._mark(tail.text), width)

    def _wait(self) -> None:
        """Show that we wait, until the first piece comes."""
        if not self._letters:
            self.draw()
            self._timer = asyncio.get_running_loop().call_later(_WAIT_S, self._wait)

    def _soon(self) -> None:
        """Draw, but not too often."""
        if self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = True
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._next - time.monotonic()), self._frame)

    def _frame(self) -> None:
        self._due = False
        began = time.monotonic()
        self.draw()
        ended = time.monotonic()
        self._next = ended + max(_FRAME_S, _SHARE * (ended - began))


_LONGEST_COPY = 100_000


class ChatScreen:
    """The terminal of a chat.

    Args:
        stream: the terminal.
        environ: the environment, for colours.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._environ = environ
        self._palette = Palette(make_console(stream, environ))

    def note(self, text: str) -> None:
        """Say one line that nobody need act upon."""
        for line in wrap(clean(text), max(20, make_console(self._stream, self._environ).width - 1)):
            self._line("quiet", line)

    def blank(self) -> None:
        """Print an empty line."""
        self._line("plain", "")

    def error(self, message: str, hint: str) -> None:
        """Say what went wrong and what to do."""
        say_error(self._stream, self._environ, message, hint)

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> None:
        """Print rows."""
        print_table(rows, headers=headers, stream=self._stream, environ=self._environ)

    def turn(self, question: str, answer: str, ending: str = "") -> None:
        """Print a turn of earlier."""
        for number, line in enumerate(clean(question, one_line=False).split("\n")):
            self._line("strong", f"{'  ' if number else '> '}{line}")
        view = AnswerView(self._stream, self._environ)
        view.feed(answer)
        view.finish(ending)
        self.blank()

    def copy(self, text: str) -> bool:
        """Put text on the clipboard, through the terminal; `False` when it is too long for that."""
        code = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
        if len(code) > _LONGEST_COPY:
            return False
        self._stream.write(f"\x1b]52;c;{code}\x07")
        self._stream.flush()
        return True

    def silent_keys(self, keyboard: IO[str]) -> Unechoed:
        """Keeps keys that are pressed during an answer from being shown; they wait for the prompt."""
        return Unechoed(keyboard)

    def _line(self, role: Role, text: str) -> None:
        self._stream.write(self._palette.ansi(((role, self._palette.fit(text)),)) + "\n")
        self._stream.flush()
