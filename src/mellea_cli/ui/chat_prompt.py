"""Chat prompt: line editing, completion, history, keys and the toolbar."""

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

_QUOTES = '"""'
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack", "prompt": "bold ansicyan"})


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
            style=_STYLE,
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


def editing_mode(environ: Mapping[str, str]) -> EditingMode:
    """Vi or emacs keys, as the user's inputrc says."""
    path = Path(environ.get("INPUTRC") or "~/.inputrc").expanduser()
    try:
        found = re.findall(r"^\s*set\s+editing-mode\s+(\w+)", path.read_text("utf-8", "replace"), re.MULTILINE)
    except (OSError, RuntimeError):
        return EditingMode.EMACS
    return EditingMode.VI if found and found[-1].lower() == "vi" else EditingMode.EMACS


@dataclass(frozen=True, slots=True)
class Completable:
    """A slash command, as the completer knows it."""

    help: str
    argument: str  # What its argument is completed with: `path`, a kind that `FindValues` knows, or nothing when empty


FindValues = Callable[[str], Awaitable[Sequence[str]]]
"""Given a kind of argument, the values that it may have."""


class ChatCompleter(Completer):
    """Completes slash commands and their arguments."""

    def __init__(self, commands: Mapping[str, Completable], find_values: FindValues) -> None:
        self._commands = commands
        self._find_values = find_values
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The completions that need no server: commands and paths."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for one, command in self._commands.items():
                if one.startswith(name):
                    yield Completion(one, -len(name), display=f"/{one}", display_meta=command.help)
        elif name in self._commands and self._commands[name].argument == "path":
            yield from self._paths.get_completions(Document(argument.lstrip()), complete_event)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """All completions, also those that come from the server or the disk."""
        for one in self.get_completions(document, complete_event):
            yield one
        text = document.text_before_cursor
        name, space, argument = text[1:].partition(" ")
        command = self._commands.get(name) if text.startswith("/") and space else None
        if command is None or command.argument in {"", "path"}:
            return
        start = argument.lstrip()
        for value in await self._find_values(command.argument):
            if value.startswith(start) and value == clean(value):
                yield Completion(value, -len(start))


def edit(text: str, environ: Mapping[str, str]) -> str:
    """Let the user edit a text in `$VISUAL` or `$EDITOR`; returns what they saved.

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
