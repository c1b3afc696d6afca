"""Completes slash commands and what comes after them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from mellea_cli.ui.plaintext import clean

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
