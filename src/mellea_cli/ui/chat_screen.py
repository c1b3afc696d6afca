"""The chat's screen: the prompt with its completion, and answers as Markdown while they arrive.

Finished blocks of an answer are printed once, into the terminal's own history; only the unfinished one is redrawn.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Literal

from markdown_it import MarkdownIt
from prompt_toolkit import PromptSession, styles
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.color import ColorSystem
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax

from mellea_cli.errors import UsageError
from mellea_cli.ui.console import clean, encodable, make_console, print_table, say_error
from mellea_cli.ui.terminal import RedrawnArea, editing_mode
from mellea_cli.ui.theme import Palette, Role, wrap

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult

_QUOTES = '"""'
_PROMPT_STYLE = styles.Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack", "prompt": "bold ansicyan"})


class ChatPrompt:
    """Asks the user for the next text. Without a `history` file, what was typed is remembered until the end only."""

    def __init__(
        self, completer: ChatCompleter, toolbar: Callable[[], str], history: Path | None, environ: Mapping[str, str]
    ) -> None:
        self._multiline = False
        self._toolbar = toolbar
        self._session: PromptSession[str] = PromptSession(
            completer=completer,
            complete_while_typing=True,
            history=_history(history),
            enable_history_search=False,
            multiline=True,
            key_bindings=self._key_bindings(),
            editing_mode=editing_mode(environ),
            bottom_toolbar=self._toolbar_text,
            prompt_continuation=lambda width, *_: " " * width,
            style=_PROMPT_STYLE,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
            reserve_space_for_menu=6,
        )

    async def read(self, draft: str = "") -> str:
        """Read a text that begins with `draft`; three quotes around a block of several lines are removed.

        Raises:
            EOFError: Ctrl-D at an empty prompt.
            KeyboardInterrupt: Ctrl-C; what was typed is in the history.
        """
        text = await self._session.prompt_async([("class:prompt", "> ")], default=draft, handle_sigint=False)
        text = text.strip()
        if len(text) >= 2 * len(_QUOTES) and text.startswith(_QUOTES) and text.endswith(_QUOTES):
            return text[len(_QUOTES) : -len(_QUOTES)].strip("\n")
        return text

    async def confirm(self, question: str) -> bool:
        """Ask a question that only y or yes answers with yes."""
        asked: PromptSession[str] = PromptSession(history=InMemoryHistory())
        try:
            answer = await asked.prompt_async(f"{clean(question)} [y/N] ", handle_sigint=False)
        except (EOFError, KeyboardInterrupt):
            return False
        return answer.strip().lower() in {"y", "yes"}

    def toggle_multiline(self) -> bool:
        """Change what Enter does; returns whether it breaks lines now."""
        self._multiline = not self._multiline
        return self._multiline

    def _toolbar_text(self) -> AnyFormattedText:
        keys = "  Enter breaks a line, Alt-Enter sends" if self._multiline else ""
        return [("class:bottom-toolbar.text", f"{clean(self._toolbar())}{keys}")]

    def _key_bindings(self) -> KeyBindings:
        keys = KeyBindings()

        @Condition
        def enter_sends() -> bool:
            return not self._multiline and not _is_open_block(self._session.default_buffer.text)

        @keys.add("enter", filter=enter_sends)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add("enter", filter=~enter_sends)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            if self._multiline:
                event.current_buffer.validate_and_handle()
            else:
                event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            text = event.current_buffer.text
            if text.strip():
                # The Up key brings it back.
                event.current_buffer.history.append_string(text)
            event.app.exit(exception=KeyboardInterrupt(text), style="class:aborting")

        return keys


def _is_open_block(text: str) -> bool:
    text = text.strip()
    return text.startswith(_QUOTES) and not (len(text) >= 2 * len(_QUOTES) and text.endswith(_QUOTES))


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600))
    except OSError:  # a home that cannot be written must not prevent a chat
        return InMemoryHistory()
    return FileHistory(str(path))


FindValues = Callable[[str], Awaitable[Sequence[str]]]  # Given a kind of argument, the values that it may have


class ChatCompleter(Completer):
    """Completes slash commands and their arguments.

    Args:
        commands: for each name its help, and what its argument is completed with: `path`, another kind that
            `find_values` knows, or empty for nothing.
        find_values: gets the values, from the server for example.
    """

    def __init__(self, commands: Mapping[str, tuple[str, str]], find_values: FindValues) -> None:
        self._commands = commands
        self._find_values = find_values
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, *_: object) -> Iterable[Completion]:
        """None: a prompt that is read asynchronously asks for them asynchronously."""
        return ()

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """The completions of the text before the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for one, (command_help, _) in self._commands.items():
                if one.startswith(name):
                    yield Completion(one, -len(name), display=f"/{one}", display_meta=command_help)
            return
        start, kind = argument.lstrip(), self._commands.get(name, ("", ""))[1]
        if kind == "path":
            for completion in self._paths.get_completions(Document(start), complete_event):
                yield completion
        elif kind:
            for value in await self._find_values(kind):
                if value.startswith(start) and value == clean(value):
                    yield Completion(value, -len(start))


# HTML and link definitions are shown as text: nothing that a model writes may disappear.
_MARKDOWN = MarkdownIt(options_update={"html": False}).enable(["strikethrough", "table"]).disable("reference")

# After an empty line these cannot continue; lists and indented code can.
_ENDED_BY_BLANK = {"paragraph_open", "blockquote_open", "table_open"}

_MAX_PARSED_LINES = 200

BlockKind = Literal["text", "item", "open", "code", "close"]


@dataclass(frozen=True, slots=True)
class Block:
    """A finished part of an answer: `text`, an `item` of a list, or of a code block: `open`, `code` lines, `close`."""

    kind: BlockKind
    text: str  # Markdown; for `open` the language, for `code` one line
    gap: bool = False  # Whether an empty line comes before it


_Start = tuple[int, "Token"]  # The line among the unfinished ones in which a block begins, and its first token


class BlockSplitter:
    """Splits arriving Markdown into blocks. The last block stays unfinished until another one begins."""

    def __init__(self) -> None:
        self._rest = ""
        self._lines: list[str] = []
        self._kind: BlockKind = "text"  # The kind of the unfinished block
        self._is_indented_code = False
        self._fence: Token | None = None  # The code block that is open
        self._fence_indent = 0
        self._last: BlockKind | None = None
        self._blank = False  # Whether an empty line came after the last finished block

    def feed(self, text: str) -> list[Block]:
        """Take more text; return the blocks that it finishes."""
        *lines, self._rest = (self._rest + text).split("\n")
        return [block for line in lines for block in self._add_line(line.removesuffix("\r"))]

    def end(self) -> list[Block]:
        """The answer has ended: return all remaining blocks."""
        blocks = list(self._add_line(self._rest)) if self._rest else []
        self._rest = ""
        blocks += self._finish(self._starts(), len(self._lines))
        if self._fence is not None:
            self._fence = None
            blocks.append(Block("close", ""))
        return blocks

    @property
    def tail(self) -> Block | None:
        """The unfinished block as it would be if the answer ended here; `None` when there is none."""
        if self._fence is not None:
            return Block("code", self._dedent(self._rest)) if self._rest else None
        lines = [*self._lines, self._rest] if self._rest else self._lines
        if not any(lines):
            return None
        kind = self._kind if self._lines else "text"
        return Block(kind, "\n".join(lines), self._gap(kind))

    def _add_line(self, line: str) -> Iterator[Block]:
        if self._fence is not None:
            bare = line.strip()
            closes = bare.startswith(self._fence.markup) and not bare.strip(self._fence.markup[0])
            yield Block("close", "") if closes else Block("code", self._dedent(line))
            self._fence = None if closes else self._fence
            return
        if not self._lines and not line.strip():
            self._blank = True
            return
        continues = self._continues_block(line)
        self._lines.append(line)
        if continues:
            return
        starts = self._starts()
        last_line, token = starts[-1]
        if token.type == "fence":
            yield from self._finish(starts[:-1], last_line)
            yield Block("open", token.info.strip().split(" ")[0], self._gap("open"))
            self._fence_indent = len(line) - len(line.lstrip(" "))
            self._lines, self._fence, self._last, self._blank = [], token, "open", False
        elif token.type in {"heading_open", "hr"} or (token.type in _ENDED_BY_BLANK and not line.strip()):
            yield from self._finish(starts, len(self._lines))
        else:
            yield from self._finish(starts[:-1], last_line)
            self._kind, self._is_indented_code = _kind_of(token), token.type == "code_block"

    def _continues_block(self, line: str) -> bool:
        """Whether a line cannot begin or end a block, so that the unfinished lines need not be parsed again."""
        if not self._lines or not self._lines[-1].strip() or self._is_indented_code:
            return False
        first = line.lstrip()[:1]
        # Parsing a long block after each of its lines takes quadratic time: there only a clear sign ends it.
        return first.isalpha() or (len(self._lines) > _MAX_PARSED_LINES and first not in {"", "`", "~", "#"})

    def _starts(self) -> list[_Start]:
        """The beginnings of the blocks in the unfinished lines; each item of a list is a block."""
        tokens: list[Token] = []
        _MARKDOWN.block.parse("\n".join(self._lines), _MARKDOWN, {}, tokens)
        starts: list[_Start] = []
        for token in tokens:
            top_level = token.level == 0 and not token.type.endswith("list_open")
            if token.map and (top_level or (token.level == 1 and token.type == "list_item_open")):
                starts.append((token.map[0], token))
        return starts

    def _finish(self, starts: Sequence[_Start], end: int) -> list[Block]:
        """Cut the blocks that begin at `starts` off the unfinished lines, up to the line `end`."""
        blocks: list[Block] = []
        ends = [*(line for line, _ in starts), end][1:]
        for (line, token), following in zip(starts, ends, strict=True):
            lines, kind = self._lines[line:following], _kind_of(token)
            blocks.append(Block(kind, "\n".join(lines).rstrip(), self._gap(kind)))
            self._last, self._blank = kind, not lines[-1].strip()
        del self._lines[:end]
        return blocks

    def _gap(self, kind: BlockKind) -> bool:
        # Only the items of a list may follow each other without an empty line.
        return self._last is not None and not (kind == self._last == "item" and not self._blank)

    def _dedent(self, line: str) -> str:
        """A line of code without the indentation of its fence."""
        indent = len(line) - len(line.lstrip(" "))
        return line[min(indent, self._fence_indent) :]


def _kind_of(token: Token) -> BlockKind:
    return "item" if token.type == "list_item_open" else "text"


class _Heading(Heading):
    """A heading at the left, as the text."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        self.text.stylize("bold underline" if self.tag == "h1" else "bold")
        yield self.text


class _Markdown(Markdown):
    """Markdown in which nothing is lost: HTML is text, and a line break is one."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": _Heading}

    def __init__(self, source: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        self.markup = source
        self.parsed = _MARKDOWN.parse(source)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"


_TAB = 4
# Longer lines are hard to read.
_MAX_COLUMNS = 100


class MarkdownRenderer:
    """Renders blocks of an answer as lines; only its own escape sequences reach the terminal."""

    def __init__(self, stream: IO[str], environ: Mapping[str, str]) -> None:
        self._console = make_console(stream, environ)
        self._colours = ColorSystem.STANDARD if self._console.color_system else None

    def markdown(self, source: str, columns: int) -> list[str]:
        """The lines of a block for a terminal of this width; what cannot be rendered is shown as it is."""
        safe, width = self._safe(source), max(1, min(columns, _MAX_COLUMNS))
        try:
            options = self._console.options.update(width=width, height=None)
            lines = [self.ansi(line) for line in self._console.render_lines(_Markdown(safe), options, pad=False)]
        except Exception:  # noqa: BLE001 - a model can write what no renderer expects, and its answer must still be seen
            return [line for row in safe.split("\n") for line in wrap(row, width) or [""]]
        while lines and not lines[0].strip():
            lines.pop(0)
        while lines and not lines[-1].strip():
            lines.pop()
        return lines

    def plain(self, text: str, style: str) -> str:
        """One line of text in one style."""
        return self.ansi([Segment(self._safe(text), Style.parse(style))])

    def _safe(self, text: str) -> str:
        return encodable(clean(text.expandtabs(_TAB), one_line=False), self._console.encoding)

    def ansi(self, line: Iterable[Segment]) -> str:
        """Clean segments as text with escape sequences, without blanks at the end unless they have a background."""
        parts = [(encodable(one.text, self._console.encoding), one.style) for one in line if not one.control]
        while parts and not (parts[-1][1] and parts[-1][1].bgcolor):
            text, style = parts.pop()
            if text.strip():
                parts.append((text.rstrip(), style))
                break
        return "".join(self._styled(text, style) for text, style in parts)

    def _styled(self, text: str, style: Style | None) -> str:
        if style is None:
            return text
        if self._console.no_color:
            style = style.without_color
        return style.render(text, color_system=self._colours)


# How many lines of code are parsed again for the colours of the next ones.
_CONTEXT_LINES = 40
_MIN_CONTEXT_LINES = 15


class CodeLines:
    """Highlights a code block line by line: a printed line stays as it is, code of an unknown language stays plain."""

    def __init__(self, language: str, renderer: MarkdownRenderer) -> None:
        self._lexer = Syntax("", language or "text").lexer
        self._renderer = renderer
        self._theme = Syntax.get_theme("ansi_dark")
        self._context: list[str] = []

    def lines(self, new: list[str]) -> list[str]:
        """Highlight the next lines of the block."""
        safe = [clean(line.expandtabs(_TAB), one_line=False) for line in new]
        highlighted = self._highlight(safe)
        self._context += safe
        if safe and len(self._context) > _MIN_CONTEXT_LINES and not safe[-1].strip() and not highlighted[-1]:
            # An empty line at the top level: what follows does not depend on what was before.
            self._context.clear()
        del self._context[:-_CONTEXT_LINES]
        return [self._renderer.ansi(line) for line in highlighted]

    def partial(self, line: str) -> str:
        """Highlight a line that is not complete yet, without remembering it."""
        return self._renderer.ansi(self._highlight([clean(line.expandtabs(_TAB), one_line=False)])[0])

    def _highlight(self, new: list[str]) -> list[list[Segment]]:
        if self._lexer is None:
            return [[Segment(line)] for line in new]
        rows: list[list[Segment]] = [[]]
        for token, text in self._lexer.get_tokens("\n".join([*self._context, *new])):
            style = self._theme.get_style_for_token(token)
            for number, part in enumerate(text.split("\n")):
                if number:
                    rows.append([])
                if part:
                    rows[-1].append(Segment(part, style))
        first = len(self._context)
        return [rows[place] if place < len(rows) else [] for place in range(first, first + len(new))]


_FRAME_S = 0.08
# A frame that takes long is not repeated at once: drawing takes at most a sixth of the time.
_PAUSE_PER_COST = 6
_WAITING_FRAME_S = 0.5
_CODE_INDENT = "  "


class AnswerView:
    """Shows one answer while it arrives.

    A printed block is never written again, so scrolling and resizing leave it whole. The unfinished block is in a few
    lines at the bottom; of a block higher than the terminal only the end is shown until it is finished.

    `mark` adds marks to a block's text before it is shown.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str], *, mark: Callable[[str], str] = str) -> None:
        self._renderer = MarkdownRenderer(stream, environ)
        self._area = RedrawnArea(stream)
        self._mark = mark
        self._splitter = BlockSplitter()
        self._code: CodeLines | None = None
        self._finished: list[Block] = []
        self._started = time.monotonic()
        self._next_frame = 0.0
        self._frame_due = False
        self._timer: asyncio.TimerHandle | None = None
        self.chars = 0  # Characters of the answer so far

    async def show(self, pieces: AsyncIterable[str]) -> None:
        """Show an answer until its pieces end, or raise. Call `finish` then, in either case."""
        self._draw_waiting()
        async for piece in pieces:
            self.feed(piece)
            self._draw_soon()

    def feed(self, text: str) -> None:
        self.chars += len(text)
        self._finished += self._splitter.feed(text)

    def draw(self) -> None:
        """Print the finished blocks and redraw the unfinished one."""
        columns, rows = self._area.size()
        above = "".join(f"{line}\r\n" for line in self._finished_lines(columns - 1))
        self._area.draw(self._tail_lines(columns - 1)[-max(1, rows - 2) :], (columns, rows), above=above)

    def finish(self, ending: str = "") -> None:
        """Print the remaining blocks, and how the answer ended where that needs saying."""
        if self._timer is not None:
            self._timer.cancel()
        self._finished += self._splitter.end()
        lines = self._finished_lines(self._area.size()[0] - 1)
        if ending:
            lines.append(self._renderer.plain(f"-- {ending} --", "yellow"))
        self._area.close(above="".join(f"{line}\r\n" for line in lines))

    def _finished_lines(self, columns: int) -> list[str]:
        """The lines of the blocks that have been finished since the last call."""
        lines: list[str] = []
        code: list[str] = []

        def flush_code() -> None:
            if self._code is not None and code:
                lines.extend(_CODE_INDENT + line for line in self._code.lines(code))
                code.clear()

        for block in self._finished:
            if block.kind == "code":
                code.append(block.text)
                continue
            flush_code()
            if block.gap:
                lines.append("")
            if block.kind == "open":
                self._code = CodeLines(block.text, self._renderer)
            elif block.kind == "close":
                self._code = None
            else:
                lines += self._renderer.markdown(self._mark(block.text), columns)
        flush_code()
        self._finished = []
        return lines

    def _tail_lines(self, columns: int) -> list[str]:
        tail = self._splitter.tail
        if tail is None:
            if self.chars:
                return []
            waited = f"waiting for the model, {time.monotonic() - self._started:.0f} s"
            return [self._renderer.plain(waited, "dim")[:columns]]
        if tail.kind == "code":
            # The end of the line is what grows, and there is room for one line.
            room = columns - len(_CODE_INDENT)
            return [_CODE_INDENT + self._code.partial(tail.text.expandtabs(_TAB)[-room:])] if self._code else []
        return [""] * tail.gap + self._renderer.markdown(self._mark(tail.text), columns)

    def _draw_waiting(self) -> None:
        if not self.chars:
            self.draw()
            self._timer = asyncio.get_running_loop().call_later(_WAITING_FRAME_S, self._draw_waiting)

    def _draw_soon(self) -> None:
        if self._frame_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._frame_due = True
        delay = max(0.0, self._next_frame - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._draw_frame)

    def _draw_frame(self) -> None:
        self._frame_due = False
        started = time.monotonic()
        self.draw()
        ended = time.monotonic()
        self._next_frame = ended + max(_FRAME_S, _PAUSE_PER_COST * (ended - started))


# Terminals ignore longer clipboard sequences.
_MAX_COPY_CHARS = 100_000


class ChatScreen:
    """What a chat prints besides answers that arrive."""

    def __init__(self, stream: IO[str], environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._environ = environ
        self._palette = Palette(make_console(stream, environ))

    def note(self, text: str) -> None:
        """Print a quiet line of information."""
        for line in wrap(clean(text), max(20, make_console(self._stream, self._environ).width - 1)):
            self._print("quiet", line)

    def blank(self) -> None:
        self._print("plain", "")

    def error(self, message: str, hint: str) -> None:
        say_error(self._stream, self._environ, message, hint)

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> None:
        print_table(rows, headers=headers, stream=self._stream, environ=self._environ)

    def turn(self, question: str, answer: str, ending: str = "") -> None:
        """Print an earlier turn."""
        for number, line in enumerate(clean(question, one_line=False).split("\n")):
            self._print("strong", f"{'  ' if number else '> '}{line}")
        view = AnswerView(self._stream, self._environ)
        view.feed(answer)
        view.finish(ending)
        self.blank()

    def answer(self, mark: Callable[[str], str]) -> AnswerView:
        """A view of one answer; `mark` as there."""
        return AnswerView(self._stream, self._environ, mark=mark)

    def edit(self, text: str) -> str:
        """Let the user edit a text in `$VISUAL` or `$EDITOR`; returns what they saved.

        Raises:
            UsageError: the editor cannot be started, or failed.
        """
        editor = self._environ.get("VISUAL") or self._environ.get("EDITOR") or "vi"
        with tempfile.TemporaryDirectory(prefix="mellea-") as folder:
            path = Path(folder) / "question.md"
            path.write_text(text, encoding="utf-8")
            try:
                done = subprocess.run([*shlex.split(editor), str(path)], check=False)  # noqa: S603 - the user's own editor
            except (OSError, ValueError) as error:
                raise UsageError(f"the editor {editor!r} cannot be started: {error}", hint="set EDITOR") from error
            if done.returncode:
                raise UsageError(f"the editor {editor!r} failed", hint="set EDITOR to another one")
            return path.read_text(encoding="utf-8", errors="replace").strip()

    def copy(self, text: str) -> bool:
        """Put text on the clipboard, through the terminal (OSC 52); `False` when it is too long for that."""
        code = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
        if len(code) > _MAX_COPY_CHARS:
            return False
        self._stream.write(f"\x1b]52;c;{code}\x07")
        self._stream.flush()
        return True

    def _print(self, role: Role, text: str) -> None:
        self._stream.write(self._palette.ansi(((role, self._palette.fit(text)),)) + "\n")
        self._stream.flush()
