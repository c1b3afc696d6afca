"""`mellea chat` without a terminal: questions in, answers on stdout, as text or as one JSON object each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mellea_cli.errors import BackendError, EmptyAnswer, ExitCode, MelleaError, Scope
from mellea_cli.ui.console import clean, say, say_error

if TYPE_CHECKING:
    from mellea_cli.chat.chat_session import Chat, PendingAnswer
    from mellea_cli.chat.conversation import Turn


@dataclass(frozen=True, slots=True)
class Script:
    """The questions of a chat without a terminal.

    Args:
        questions: in order.
        json: print objects, not text.
        commands: lines that begin with a slash are commands.
    """

    questions: Sequence[str]
    json: bool = False
    commands: bool = False


async def answer_all(chat: Chat, script: Script) -> ExitCode:
    """Ask every question of a script in one conversation.

    A question that fails is reported and the next one is asked; a server that cannot be used ends the script.

    Returns:
        0 when each question has its answer, 3 when some have none.

    Raises:
        MelleaError: no further question can be asked.
    """
    from mellea_cli.chat.slash_commands import is_command

    failed, before = False, len(chat.conversation.turns)
    try:
        for line in script.questions:
            if script.commands and is_command(line):
                if await _command(chat, line):
                    break
                continue
            if chat.conversation.turns[before:] and not script.json:
                _write("\n")
            try:
                await _answer(chat, line, as_json=script.json)
            except MelleaError as error:
                if script.json:
                    _write_json(
                        {"prompt": line, "answer": None, "error": {"kind": error.kind, "message": error.message}}
                    )
                if _ends_all(error) or len(script.questions) == 1:
                    raise
                _tell(error)
                failed = True
    finally:
        if chat.history.write_error:
            say(sys.stderr, f"the chat is not kept: {chat.history.write_error}")
        await chat.aclose()
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _ends_all(error: MelleaError) -> bool:
    return isinstance(error, BackendError) and error.scope is not Scope.ITEM


async def _command(chat: Chat, line: str) -> bool:
    """Run a slash command; returns whether it ends the chat. It writes to stderr: stdout is for answers."""
    from mellea_cli.chat.slash_commands import run_command
    from mellea_cli.errors import UsageError

    result = await run_command(chat, line)
    if result.edit or result.toggle_multiline or result.copy:
        raise UsageError(f"{line.split(maxsplit=1)[0]} needs a terminal", hint="leave it out of the script")
    for note in result.notes:
        say(sys.stderr, note)
    for row in result.rows:
        say(sys.stderr, "  ".join(row))
    if result.ask:
        await _answer(chat, result.ask, as_json=False)
    return result.exit


async def _answer(chat: Chat, question: str, *, as_json: bool) -> None:
    """Ask one question and print its answer.

    Raises:
        MelleaError: there is none.
    """
    while True:
        asked = await chat.ask(question)
        for note in asked.notes:
            say(sys.stderr, note)
        try:
            text = await _printed(chat, asked, as_json=as_json)
            break
        except MelleaError as error:
            if not chat.shorten(error):
                raise
            say(sys.stderr, "the conversation is longer than the model's window: the oldest turns are no longer sent")
    _finish(chat, chat.add_answer(asked, text), as_json=as_json)


async def _printed(chat: Chat, asked: PendingAnswer, *, as_json: bool) -> str:
    """Print an answer as it comes, unless it is to be an object; return it."""
    citations = chat.citations()
    lines = _Lines(None if as_json else citations.mark if citations else str)
    try:
        async for piece in asked.thunk:
            lines.feed(piece)
    finally:
        lines.end()
    text = asked.thunk.value or ""
    if not text.strip():
        raise EmptyAnswer("the model's answer is empty", hint="ask again, or another model")
    return text


def _finish(chat: Chat, turn: Turn, *, as_json: bool) -> None:
    """Report how an answer ended, or its evidence in the data."""
    from mellea_cli.chat.citations import evidence

    if turn.finish == "length":
        say(sys.stderr, "the answer was cut off by the length limit")
    if as_json:
        _write_json(_facts(chat, turn))
    elif chat.tables():
        for line in evidence(chat.tables(), turn.answer):
            say(sys.stderr, line)


def _facts(chat: Chat, turn: Turn) -> dict[str, Any]:
    file = chat.history.file
    facts: dict[str, Any] = {
        "prompt": turn.question,
        "answer": turn.answer,
        "model": turn.model,
        "backend": chat.model.address.backend,
        "finish_reason": turn.finish,
        "usage": {"prompt_tokens": turn.usage.prompt_tokens, "completion_tokens": turn.usage.completion_tokens},
        "first_token_s": round(turn.first_token_s, 3),
        "total_s": round(turn.total_s, 3),
        "session": file.id if file and not chat.history.write_error else None,
    }
    if citations := chat.citations():
        cited = citations.find(turn.answer)
        facts |= {"cited": list(cited.known), "not_in_data": list(cited.unknown)}
    return facts


class _Lines:
    """Writes an answer line by line, without terminal control characters.

    Args:
        mark: marks the citations in a line; `None` writes nothing.
    """

    def __init__(self, mark: Callable[[str], str] | None) -> None:
        self._mark = mark
        self._rest = ""

    def feed(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def end(self) -> None:
        if self._rest:
            self._line(self._rest)
        self._rest = ""

    def _line(self, line: str) -> None:
        if self._mark is not None:
            # Tabs are kept: the answer may be a Makefile.
            safe = "\t".join(clean(part, one_line=False) for part in line.removesuffix("\r").split("\t"))
            _write(self._mark(safe) + "\n")


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def _write_json(value: dict[str, Any]) -> None:
    _write(json.dumps(value, ensure_ascii=False) + "\n")


def _tell(error: MelleaError) -> None:
    import os

    say_error(sys.stderr, os.environ, error.message, error.hint)
