"""The prompt of a chat: line editing, history, keys and the bar at the bottom."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from mellea_cli.errors import UsageError
from mellea_cli.ui.console import clean

# Completes slash commands and what comes after them.

Names = Callable[[str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Completable:
    """A slash command, as the completion knows it."""

    help: str
    argument: str
    """What its argument is one of: `path`, another word that is asked for by name, or nothing."""


class ChatCompleter(Completer):
    """Completes what stands behind a slash at the beginning of the text.

    Args:
        commands: the commands by name.
        names: given a kind of argument, the values that it may have.
    """

    def __init__(self, commands: Mapping[str, Completable], names: Names) -> None:
        self._commands = commands
        self._names = names
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What needs nobody to be asked: commands and paths."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for one, command in self._commands.items():
                if one.startswith(name):
                    yield Completion(one, -len(name), display=f"/{one}", display_meta=command.help)
        elif name in self._commands and self._commands[name].argument == "path":
            inner = Document(argument.lstrip())
            yield from self._paths.get_completions(inner, complete_event)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Everything, also what the server or the disk is asked for."""
        for one in self.get_completions(document, complete_event):
            yield one
        text = document.text_before_cursor
        name, space, argument = text[1:].partition(" ")
        command = self._commands.get(name) if text.startswith("/") and space else None
        if command is None or command.argument in {"", "path"}:
            return
        start = argument.lstrip()
        for value in await self._names(command.argument):
            if value.startswith(start) and value == clean(value):
                yield Completion(value, -len(start))


_QUOTES = '"""'
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack", "prompt": "bold ansicyan"})


class ChatPrompt:
    """Asks the user for the next text.

    Args:
        completer: completes commands.
        bar: the text of the bottom bar at this moment.
        history: the file that remembers what was typed; `None` remembers it until the end only.
        environ: the environment, for the user's inputrc.
    """

    def __init__(
        self, completer: ChatCompleter, bar: Callable[[], str], history: Path | None, environ: Mapping[str, str]
    ) -> None:
        self._multi = False
        self._bar = bar
        self._session: PromptSession[str] = PromptSession(
            completer=completer,
            complete_while_typing=True,
            history=_history(history),
            enable_history_search=False,
            multiline=True,
            key_bindings=self._keys(),
            editing_mode=editing_mode(environ),
            bottom_toolbar=self._toolbar,
            prompt_continuation=lambda width, *_: " " * width,
            style=_STYLE,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
            reserve_space_for_menu=6,
        )

    async def read(self, draft: str = "") -> str:
        """Read a text; what stood in a block of three quotes comes without them.

        Args:
            draft: what stands in the prompt already.

        Raises:
            EOFError: Ctrl-D at an empty prompt.
            KeyboardInterrupt: Ctrl-C; what was typed is in the history.
        """
        text = await self._session.prompt_async([("class:prompt", "> ")], default=draft, handle_sigint=False)
        bare = text.strip()
        if len(bare) >= 2 * len(_QUOTES) and bare.startswith(_QUOTES) and bare.endswith(_QUOTES):
            return bare[len(_QUOTES) : -len(_QUOTES)].strip("\n")
        return bare

    def toggle_multi(self) -> bool:
        """Change what Enter does; returns whether it breaks lines now."""
        self._multi = not self._multi
        return self._multi

    def _toolbar(self) -> AnyFormattedText:
        keys = "  Enter breaks a line, Alt-Enter sends" if self._multi else ""
        return [("class:bottom-toolbar.text", f"{clean(self._bar())}{keys}")]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @Condition
        def sends() -> bool:
            """Whether Enter sends: not in /multi, and not in an open block of quotes."""
            return not self._multi and not _open_block(self._session.default_buffer.text)

        @keys.add("enter", filter=sends)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add("enter", filter=~sends)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            if self._multi:
                event.current_buffer.validate_and_handle()
            else:
                event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            text = event.current_buffer.text
            if text.strip():
                # Not lost: Up brings it back.
                event.current_buffer.history.append_string(text)
            event.app.exit(exception=KeyboardInterrupt(text), style="class:aborting")

        return keys


def _open_block(text: str) -> bool:
    bare = text.strip()
    return bare.startswith(_QUOTES) and not (len(bare) >= 2 * len(_QUOTES) and bare.endswith(_QUOTES))


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600))
    except OSError:  # a home that cannot be written must not keep anybody from chatting
        return InMemoryHistory()
    return FileHistory(str(path))


def editing_mode(environ: Mapping[str, str]) -> EditingMode:
    """Vi or emacs keys, as the user's inputrc says."""
    path = Path(environ.get("INPUTRC") or "~/.inputrc").expanduser()
    try:
        found = re.findall(r"^\s*set\s+editing-mode\s+(\w+)", path.read_text("utf-8", "replace"), re.MULTILINE)
    except (OSError, RuntimeError):
        return EditingMode.EMACS
    return EditingMode.VI if found and found[-1].lower() == "vi" else EditingMode.EMACS


def edit(text: str, environ: Mapping[str, str]) -> str:
    """Let the user write a text in `$VISUAL` or `$EDITOR`; returns what they saved.

    Raises:
        UsageError: the editor cannot be started, or failed.
    """
    editor = environ.get("VISUAL") or environ.get("EDITOR") or "vi"
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
