"""`mellea chat`: its flags, how a chat is opened, and a chat without a terminal."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`. Only what `--help` prints is imported here.

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mellea_cli.cli.flags import (
    DISPLAY,
    INPUT,
    MODEL,
    OUTPUT,
    AllowHttpFlag,
    BackendFlag,
    KeyFileFlag,
    LocalOnlyFlag,
    LogLevelFlag,
    ModelFlag,
    PullFlag,
    option,
    options_command,
    stdin_has_data,
)
from mellea_cli.errors import BackendError, EmptyAnswer, ExitCode, MelleaError, Scope, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from mellea_cli.chat.chat_session import Chat, PendingAnswer
    from mellea_cli.chat.conversation import Turn


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The flags of `mellea chat`."""

    prompt: Annotated[str | None, typer.Argument(help="The first question.", show_default=False)] = None
    model: ModelFlag = None
    backend: BackendFlag = "auto"
    base_url: Annotated[str | None, option(MODEL, "Server address; its key: OPENAI_API_KEY.", metavar="URL")] = None
    key_file: KeyFileFlag = None
    system: Annotated[str, option(MODEL, "System prompt.", "-s")] = ""
    context: Annotated[
        int | None, option(MODEL, "Context window in tokens (default: 8192 with local and ollama).", min=256)
    ] = None
    pull: PullFlag = False
    file: Annotated[
        list[str] | None, option(INPUT, "Attach a file: text, JSONL or CSV; - for stdin. Repeatable.", "-f")
    ] = None
    data: Annotated[
        str | None, option(INPUT, "Ask about an output of mellea summarise or run; answers cite row ids.")
    ] = None
    turns: Annotated[bool, option(INPUT, "Each line of stdin is a turn of one conversation.")] = False
    last: Annotated[bool, option(OUTPUT, "Continue the last chat.", "--continue", "-c")] = False
    resume: Annotated[str | None, option(OUTPUT, "Continue this chat.", metavar="ID")] = None
    no_history: Annotated[bool, option(OUTPUT, "Do not save this chat.")] = False
    json: Annotated[bool, option(DISPLAY, "One JSON object for each answer.")] = False
    log_level: LogLevelFlag = None
    local_only: LocalOnlyFlag = False
    allow_http: AllowHttpFlag = False

    @property
    def server_url(self) -> str | None:
        """The server's address, as in `RunOptions`."""
        return self.base_url


@options_command(ChatOptions)
def chat(options: ChatOptions) -> ExitCode:
    """Talk with a model; ask about files or about the output of mellea summarise.

    At a terminal this is a conversation: /help lists its commands. `echo QUESTION | mellea chat` answers once.
    """
    import asyncio

    if sys.stdin.isatty() and sys.stdout.isatty() and not (options.json or options.turns):
        chat, notes = _open(options)
        from mellea_cli.cli.chat_repl import FIRST_TIME, converse

        history = None if options.no_history else _state_folder() / "chat_history"
        if history is not None and not history.exists():
            notes.append(FIRST_TIME)
        return asyncio.run(converse(chat, options.prompt or "", notes, history))
    questions = _questions(options)
    chat, notes = _open(options)
    for note in notes:
        _note(note)
    return asyncio.run(_answer_all(chat, questions, as_json=options.json, commands=options.turns))


def _state_folder() -> "Path":
    from platformdirs import user_state_path

    return user_state_path("mellea")


def _questions(options: ChatOptions) -> list[str]:
    """The questions, in order. A given prompt wins over a stdin that may never end."""
    asked = [options.prompt] if options.prompt else []
    if options.turns:
        if not stdin_has_data():
            raise UsageError("--turns reads one question per line from stdin", hint="mellea chat --turns < FILE")
        asked += [line.strip() for line in _stdin().splitlines()]
    elif not asked and stdin_has_data() and "-" not in (options.file or []):
        asked = [_stdin().strip()]
    asked = [one for one in asked if one]
    if not asked:
        raise UsageError("there is nothing to ask", hint='mellea chat "QUESTION", or echo QUESTION | mellea chat')
    return asked


def _stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8-sig", "replace")


def _open(options: ChatOptions) -> "tuple[Chat, list[str]]":
    """The chat, ready for its first question, and notes for the user. Only `auto` sends anything."""
    import asyncio

    from mellea_cli.chat.chat_model import ChatModel, ModelAddress
    from mellea_cli.chat.chat_session import Chat, ChatHistory
    from mellea_cli.cli.backend_setup import choose_model, ensure_model, network_policy, secrets

    found = asyncio.run(choose_model(options.backend, options.model, options.base_url, concurrency=1))
    address = ModelAddress(
        found.backend,
        found.model,
        options.base_url,
        options.context,
        network=network_policy(options),
        secrets=secrets(options),
    )
    history = ChatHistory() if options.no_history else ChatHistory.in_folder(_state_folder() / "chats")
    chat = Chat(ChatModel(address), history)
    notes = [line for line in (found.reason, found.warning) if line]
    if options.last or options.resume:
        if history.store is None:
            raise UsageError("--no-history saves no chat to continue", hint="omit --no-history")
        name = options.resume or history.store.latest()
        if name is None:
            raise UsageError("there is no chat to continue", hint="start one with: mellea chat")
        notes += chat.resume(*history.store.open(name))
    notes += _attach(chat, options)
    # Last, as it may take long: what cannot be read has been reported by then.
    ensure_model(found, options, _note)
    return chat, notes


def _attach(chat: "Chat", options: ChatOptions) -> list[str]:
    """Give the chat the system prompt and the files that the flags name; returns what they are, in words."""
    from mellea_cli.chat.attachments import Document

    notes: list[str] = []
    if options.system and options.system != chat.conversation.system:
        chat.set_system(options.system)
    for path in options.file or []:
        if path == "-":
            if not stdin_has_data():
                raise UsageError("-f - reads stdin, which has no data", hint="pipe a file in, or name one")
            chat.attachments.append(Document("stdin", _stdin()))
        else:
            notes.append(chat.attach("file", path))
    if options.data:
        notes.append(chat.attach("data", options.data))
    return notes


async def _answer_all(chat: "Chat", questions: Sequence[str], *, as_json: bool, commands: bool) -> ExitCode:
    """Ask every question in one conversation; with `commands`, lines that begin with a slash are commands.

    A question that fails is reported and the next one is asked. A server that cannot be used ends the chat.

    Raises:
        MelleaError: no further question can be asked, or the only one has no answer.
    """
    from mellea_cli.chat.slash_commands import is_command
    from mellea_cli.ui.console import say_error

    code, before = ExitCode.OK, len(chat.conversation.turns)
    try:
        for line in questions:
            if commands and is_command(line):
                if await _run_command(chat, line, as_json=as_json):
                    break
                continue
            if chat.conversation.turns[before:] and not as_json:
                _write("\n")
            try:
                await _answer(chat, line, as_json=as_json)
            except MelleaError as error:
                if as_json:
                    failure = {"kind": error.kind, "message": error.message}
                    _write_json({"prompt": line, "answer": None, "error": failure})
                ends_all = isinstance(error, BackendError) and error.scope is not Scope.ITEM
                if ends_all or len(questions) == 1:
                    raise
                say_error(sys.stderr, os.environ, error.message, error.hint)
                code = ExitCode.SOME_FAILED
    finally:
        if chat.history.write_error:
            _note(f"the chat is not kept: {chat.history.write_error}")
        await chat.aclose()
    return code


async def _run_command(chat: "Chat", line: str, *, as_json: bool) -> bool:
    """Run a slash command; returns whether it ends the chat. It writes to stderr: stdout is for answers."""
    from mellea_cli.chat.slash_commands import run_command

    result = await run_command(chat, line)
    if result.edit or result.toggle_multiline or result.copy:
        raise UsageError(f"{line.split(maxsplit=1)[0]} needs a terminal", hint="leave it out of the script")
    if result.confirm:
        raise UsageError(result.confirm.replace("; replace it?", " already"), hint=result.confirmed)
    for note in result.notes:
        _note(note)
    for row in result.rows:
        _note("  ".join(row))
    if result.ask:
        await _answer(chat, result.ask, as_json=as_json)
    return result.exit


async def _answer(chat: "Chat", question: str, *, as_json: bool) -> None:
    """Ask one question and print its answer.

    Raises:
        MelleaError: there is none.
    """
    from mellea_cli.chat.citations import evidence

    while True:
        asked = await chat.ask(question)
        for note in asked.notes:
            _note(note)
        try:
            text = await (asked.thunk.avalue() if as_json else _printed(chat, asked))
            break
        except MelleaError as error:
            if not chat.shorten(error):
                raise
            _note("the conversation is longer than the model's window: the oldest turns are no longer sent")
    if not text.strip():
        raise EmptyAnswer("the model's answer is empty", hint="ask again, or another model")
    turn = chat.add_answer(asked, text)
    if turn.finish == "length":
        _note("the answer was cut off by the length limit")
    if as_json:
        _write_json(_facts(chat, turn))
    else:
        for line in evidence(chat.tables(), turn.answer):
            _note(line)


async def _printed(chat: "Chat", asked: "PendingAnswer") -> str:
    """Print an answer line by line as it comes, with marked citations; return it."""
    mark, rest = chat.citations().mark, ""
    try:
        async for piece in asked.thunk:
            *lines, rest = (rest + piece).split("\n")
            for line in lines:
                _write_line(line, mark)
    finally:
        if rest:
            _write_line(rest, mark)
    return asked.thunk.value or ""


def _facts(chat: "Chat", turn: "Turn") -> dict[str, Any]:
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
    if chat.tables():
        cited = chat.citations().find(turn.answer)
        facts |= {"cited": list(cited.known), "not_in_data": list(cited.unknown)}
    return facts


def _write_line(line: str, mark: Callable[[str], str]) -> None:
    from mellea_cli.ui.console import clean

    # Tabs are kept: the answer may be a Makefile.
    safe = "\t".join(clean(part, one_line=False) for part in line.removesuffix("\r").split("\t"))
    _write(mark(safe) + "\n")


def _write_json(value: dict[str, Any]) -> None:
    import json

    _write(json.dumps(value, ensure_ascii=False) + "\n")


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def _note(text: str) -> None:
    from mellea_cli.ui.console import say

    say(sys.stderr, text)
