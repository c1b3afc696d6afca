"""A chat at a terminal: reads a text, answers it or runs it as a command, and repeats."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.chat.chat_model import CHAT_OPTIONS
from mellea_cli.chat.chat_session import Chat, PendingAnswer
from mellea_cli.chat.citations import evidence
from mellea_cli.chat.slash_commands import COMMANDS, CommandResult, as_command, is_command, run_command
from mellea_cli.errors import AnswerError, ExitCode, MelleaError, RunawayAnswer
from mellea_cli.ui.chat_screen import AnswerView, ChatCompleter, ChatPrompt, ChatScreen, edit
from mellea_cli.ui.terminal import NoEcho

if TYPE_CHECKING:
    from mellea_cli.session.thunk import ModelOutputThunk

_SHOWN_TURNS = 2
FIRST_TIME = "first time here? Ask anything. /file PATH attaches feedback, ? lists the commands, exit leaves"
# How an answer ended, by its `Turn.finish`.
_ENDINGS = {
    "stop": "",
    "cut": "stopped",
    "length": "cut off by the length limit: /set max_tokens N",
    "broken": "broken off",
    "runaway": "stopped: it repeated itself",
}


async def converse(chat: Chat, first: str, notes: Sequence[str], history: Path | None) -> ExitCode:
    """Chat until the user ends it, or a signal does.

    Args:
        chat: the conversation; its model has not been asked yet.
        first: the first question; empty to wait for one.
        notes: lines to show before the first prompt.
        history: the file with earlier input; `None` for none.
    """
    repl = Repl(chat, history)
    try:
        await repl.run(first, notes)
    except asyncio.CancelledError:
        if repl.ended_by is None:
            raise
        return ExitCode(128 + repl.ended_by)
    finally:
        await chat.aclose()
    return ExitCode.OK


class Repl:
    """The loop of prompt and answer."""

    def __init__(self, chat: Chat, history: Path | None) -> None:
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

    async def _show(self, result: CommandResult) -> bool:
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
                self._draft = edit(self._draft, os.environ)
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
            screen.note("the conversation is longer than the model's window: the oldest turns are no longer sent")
        if chat.history.write_error and not self._write_error_told:
            self._write_error_told = True
            screen.error(f"from here on this chat is not kept: {chat.history.write_error}", "/export FILE.md saves it")

    async def _answered(self, asked: PendingAnswer) -> bool:
        """Show the answer as it comes, and keep it; false when the question must be asked again, after fewer turns."""
        thunk = asked.thunk
        view = AnswerView(sys.stdout, os.environ, mark=self._chat.citations().mark)
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

    def _take(self, asked: PendingAnswer, text: str, error: MelleaError | None) -> None:
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

    async def _stream(self, thunk: ModelOutputThunk, view: AnswerView) -> MelleaError | None:
        """Show the answer; Ctrl-C cancels it. Returns why there is none."""
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
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        with suppress(NotImplementedError):  # on Windows, where loops take no signals: Ctrl-C raises there
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
            for number in (signal.SIGTERM, signal.SIGHUP):
                # Cancelling the task restores the terminal on the way out.
                loop.add_signal_handler(number, self._end, number, task)

    def _end(self, number: int, task: asyncio.Task[object] | None) -> None:
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
        if kind == "option":
            return list(CHAT_OPTIONS)
        if kind == "session":
            return self._chat.history.store.ids() if self._chat.history.store else []
        if kind not in self._known:
            self._known[kind] = await self._chat.model.models()
        return self._known[kind]


async def _cancel_when(stop: asyncio.Event, thunk: ModelOutputThunk) -> None:
    await stop.wait()
    await thunk.cancel_generation()
