"""`mellea chat`: how a chat is opened, a chat without a terminal, and the conversation at one."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`. Only what `--help` prints is imported here.

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
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
    write_json,
)
from mellea_cli.errors import (
    AnswerError,
    BackendError,
    EmptyAnswer,
    ExitCode,
    MelleaError,
    RunawayAnswer,
    Scope,
    UsageError,
)

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from mellea_cli.chat.chat_session import Chat, PendingAnswer
    from mellea_cli.chat.conversation import Turn
    from mellea_cli.chat.slash_commands import CommandResult
    from mellea_cli.session.thunk import ModelOutputThunk
    from mellea_cli.ui.chat_screen import AnswerView

_SHORTENED = "the conversation is longer than the model's window: the oldest turns are no longer sent"


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
    max_tokens: Annotated[int | None, option(MODEL, "Tokens of an answer at most.", min=1)] = None
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
        history = None if options.no_history else _state_folder() / "chat_history"
        if history is not None and not history.exists():
            notes.append(_FIRST_TIME)
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
    if options.max_tokens is not None:
        chat.options["max_tokens"] = options.max_tokens
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
                    write_json({"prompt": line, "answer": None, "error": failure})
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
    """Ask one question and print its answer."""
    from mellea_cli.chat.citations import evidence

    while True:
        asked = await chat.ask(question)
        for note in asked.notes:
            _note(note)
        try:
            text = await _received(chat, asked, printed=not as_json)
            break
        except MelleaError as error:
            if not chat.shorten(error):
                raise
            _note(_SHORTENED)
    if not text.strip():
        raise EmptyAnswer("the model's answer is empty", hint="ask again, or another model")
    turn = chat.add_answer(asked, text, "length" if asked.thunk.cancelled else "")
    if turn.finish == "length":
        _note("the answer was cut off by the length limit: --max-tokens N")
    if as_json:
        write_json(_facts(chat, turn))
    else:
        for line in evidence(chat.tables(), turn.answer):
            _note(line)


# About 8,000 tokens. Small models may write without end, and nobody is there to stop them.
_LONGEST_UNSEEN_ANSWER = 32_768


async def _received(chat: "Chat", asked: "PendingAnswer", *, printed: bool) -> str:
    """Return an answer, printed line by line as it comes, with marked citations."""
    thunk, mark, rest, length = asked.thunk, chat.citations().mark, "", 0
    try:
        async for piece in thunk:
            length += len(piece)
            if printed:
                *lines, rest = (rest + piece).split("\n")
                for line in lines:
                    _write_line(line, mark)
            if length > _LONGEST_UNSEEN_ANSWER and "max_tokens" not in chat.options:
                await thunk.cancel_generation()
    finally:
        if rest:
            _write_line(rest, mark)
    return thunk.value or ""


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


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def _note(text: str) -> None:
    from mellea_cli.ui.console import say

    say(sys.stderr, text)


# At a terminal.

_SHOWN_TURNS = 2
_FIRST_TIME = "first time here? Ask anything. /file PATH attaches feedback, ? lists the commands, exit leaves"
# How an answer ended, by its `Turn.finish`.
_ENDINGS = {
    "stop": "",
    "cut": "stopped",
    "length": "cut off by the length limit: /set max_tokens N",
    "broken": "broken off",
    "runaway": "stopped: it repeated itself",
}


async def converse(chat: "Chat", first: str, notes: Sequence[str], history: "Path | None") -> ExitCode:
    """Chat until the user ends it, or a signal does. `notes` are shown before the first prompt."""
    import asyncio

    repl = _Repl(chat, history)
    try:
        await repl.run(first, notes)
    except asyncio.CancelledError:
        if repl.ended_by is None:
            raise
        return ExitCode(128 + repl.ended_by)
    finally:
        await chat.aclose()
    return ExitCode.OK


class _Repl:
    """The loop of prompt and answer."""

    def __init__(self, chat: "Chat", history: "Path | None") -> None:
        from mellea_cli.chat.slash_commands import COMMANDS
        from mellea_cli.ui.chat_screen import ChatCompleter, ChatPrompt, ChatScreen

        self.ended_by: int | None = None  # The signal that ended the chat
        self._chat = chat
        self._screen = ChatScreen(sys.stdout, os.environ)
        commands = {one.name: (one.help, one.completes) for one in COMMANDS.values()}
        self._prompt = ChatPrompt(ChatCompleter(commands, self._names), self._bar, history, os.environ)
        self._stop: asyncio.Event | None = None  # Stops the answer that is being streamed
        self._known: dict[str, list[str]] = {}  # Values for completion, by kind of argument
        self._draft = ""  # What the next prompt begins with
        self._write_error_told = False

    async def run(self, first: str, notes: Sequence[str]) -> None:
        self._on_signals()
        chat, screen = self._chat, self._screen
        for note in notes:
            screen.note(note)
        address = chat.model.address
        screen.note(f"mellea chat: {address.name} ({address.backend}); /help lists the commands, Ctrl-D leaves")
        self._show_turns(_SHOWN_TURNS)
        self._draft = "" if first else chat.conversation.pending
        if first:
            await self._do(first)
        await self._loop()
        if chat.history.file is not None and not chat.history.write_error and chat.conversation.turns:
            screen.note(f"to go on with this chat: mellea chat --resume {chat.history.file.id} (the last one: -c)")

    async def _loop(self) -> None:
        interrupted = False
        while True:
            draft, self._draft = self._draft, ""
            try:
                text = await self._prompt.read(draft)
            except EOFError:
                return
            except KeyboardInterrupt as interrupt:
                if not str(interrupt).strip():
                    if interrupted:
                        return
                    interrupted = True
                    self._screen.note("Ctrl-C once more leaves, and so does Ctrl-D")
                continue
            interrupted = False
            if text and await self._do(text):
                return

    async def _do(self, text: str) -> bool:
        """Run or ask what was typed; returns whether that ends the chat."""
        from mellea_cli.chat.slash_commands import as_command, is_command, run_command

        text = as_command(text)
        if not is_command(text):
            await self._ask(text)
            return False
        try:
            result = await run_command(self._chat, text)
        except MelleaError as error:
            self._screen.error(error.message, error.hint)
            return False
        self._known.clear()
        return await self._show(result)

    async def _show(self, result: "CommandResult") -> bool:
        screen = self._screen
        if result.copy and not screen.copy(result.copy):
            screen.error("this is too long for the clipboard", "/export FILE.md writes all of it")
            return False
        if result.confirm:
            if await self._prompt.confirm(result.confirm):
                return await self._do(result.confirmed)
            screen.note("nothing is written")
        for note in result.notes:
            screen.note(note)
        if result.rows:
            screen.table(result.rows, result.headers)
        self._show_turns(result.show_turns)
        if result.toggle_multiline:
            on = self._prompt.toggle_multiline()
            screen.note("Enter breaks a line, Alt-Enter sends; /multi ends it" if on else "Enter sends")
        self._draft = result.draft or ""
        if result.edit:
            try:
                self._draft = screen.edit(self._draft)
            except MelleaError as error:
                screen.error(error.message, error.hint)
        if result.ask:
            await self._ask(result.ask)
        return result.exit

    def _show_turns(self, most: int) -> None:
        turns = self._chat.conversation.turns[-most:] if most else []
        if turns and len(turns) < len(self._chat.conversation.turns):
            self._screen.note(f"the last {len(turns)} of {len(self._chat.conversation.turns)} turns:")
        for turn in turns:
            self._screen.turn(turn.question, turn.answer, _ENDINGS.get(turn.finish, turn.finish))

    async def _ask(self, question: str) -> None:
        """Have a question answered. Where that fails, it is in the prompt again."""
        chat, screen = self._chat, self._screen
        while True:
            try:
                asked = await chat.ask(question)
            except MelleaError as error:
                self._failed(error, question)
                return
            for note in asked.notes:
                screen.note(note)
            if await self._answered(asked):
                break
            screen.note(_SHORTENED)
        if chat.history.write_error and not self._write_error_told:
            self._write_error_told = True
            screen.error(f"from here on this chat is not kept: {chat.history.write_error}", "/export FILE.md saves it")

    async def _answered(self, asked: "PendingAnswer") -> bool:
        """Show the answer as it comes, and keep it; false when the question must be asked again, after fewer turns."""
        from mellea_cli.ui.terminal import NoEcho

        thunk = asked.thunk
        view = self._screen.answer(self._chat.citations().mark)
        keys = NoEcho(sys.stdin)
        keys.start()
        error: MelleaError | None = None
        try:
            error = await self._stream(thunk, view)
            text = thunk.text or "" if error is None else getattr(error, "text", "") or getattr(error, "partial", "")
            view.feed(text[view.chars :])
        finally:
            keys.stop()
            if error is not None:
                finish = "runaway" if isinstance(error, RunawayAnswer) else "broken"
            else:
                finish = "cut" if thunk.cancelled else thunk.finish_reason or "stop"
            view.finish(_ENDINGS.get(finish, "") if view.chars else "")
        if self._chat.shorten(error):
            return False
        self._take(asked, text, error)
        if text.strip() and error is None:
            self._screen.blank()
        return True

    def _take(self, asked: "PendingAnswer", text: str, error: MelleaError | None) -> None:
        from mellea_cli.chat.citations import evidence

        if isinstance(error, RunawayAnswer):
            # It is still an answer, up to where it began to repeat itself.
            self._chat.add_answer(asked, text, "runaway")
            self._screen.error(f"the answer was stopped: {error.message}", "/retry asks again")
        elif error is not None:
            self._failed(error, asked.question)
        elif not text.strip():
            self._draft = asked.question
            if asked.thunk.cancelled:
                self._screen.note("stopped before anything came; your question is below")
            else:
                self._screen.error("the model's answer is empty", "ask again, or /model NAME")
        else:
            self._chat.add_answer(asked, text)
            for line in evidence(self._chat.tables(), text):
                self._screen.note(line)

    def _failed(self, error: MelleaError, question: str) -> None:
        self._draft = question
        hint = error.hint or ("/retry asks again" if isinstance(error, AnswerError) else "Enter sends it again")
        self._screen.error(error.message, hint)

    async def _stream(self, thunk: "ModelOutputThunk", view: "AnswerView") -> MelleaError | None:
        """Show the answer; Ctrl-C cancels it. Returns why there is none."""
        import asyncio

        self._stop = asyncio.Event()
        error: MelleaError | None = None
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_cancel_when(self._stop, thunk))
            try:
                await view.show(thunk)
            except MelleaError as failure:
                error = failure
            waiting.cancel()
        self._stop = None
        return error

    def _on_signals(self) -> None:
        import asyncio
        import signal

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        with suppress(NotImplementedError):  # on Windows, where loops take no signals: Ctrl-C raises there
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
            for number in (signal.SIGTERM, signal.SIGHUP):
                # Cancelling the task restores the terminal on the way out.
                loop.add_signal_handler(number, self._end, number, task)

    def _end(self, number: int, task: "asyncio.Task[object] | None") -> None:
        self.ended_by = number
        if task is not None:
            task.cancel()

    def _interrupt(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def _bar(self) -> str:
        chat = self._chat
        window, turns = chat.model.address.known_window, chat.conversation.turns
        parts = [
            chat.model.address.name,
            f"{chat.tokens_used():,} of {window:,} tokens" if window else f"{chat.tokens_used():,} tokens",
        ]
        if turns and turns[-1].tokens_per_s:
            parts.append(f"{turns[-1].tokens_per_s:.0f} tokens/s")
        return " | ".join(parts)

    async def _names(self, kind: str) -> list[str]:
        """What an argument of this kind may be; a server is asked once."""
        from mellea_cli.chat.chat_model import CHAT_OPTIONS

        if kind == "option":
            return list(CHAT_OPTIONS)
        if kind == "session":
            return self._chat.history.store.ids() if self._chat.history.store else []
        if kind not in self._known:
            self._known[kind] = await self._chat.model.models()
        return self._known[kind]


async def _cancel_when(stop: "asyncio.Event", thunk: "ModelOutputThunk") -> None:
    await stop.wait()
    await thunk.cancel_generation()
