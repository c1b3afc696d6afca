"""One `mellea chat`: opens the conversation with what it is given, and answers at a terminal or as a script."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING

from mellea_cli.cli.backend_setup import choose_model, ensure_model, network_policy, secrets
from mellea_cli.cli.flags import stdin_has_data
from mellea_cli.errors import ExitCode, UsageError
from mellea_cli.ui.console import say

if TYPE_CHECKING:
    from pathlib import Path

    from mellea_cli.chat.chat_session import Chat
    from mellea_cli.cli.chat import ChatOptions


def run_chat(options: ChatOptions) -> ExitCode:
    """Run `mellea chat`.

    Raises:
        MelleaError: the chat cannot start; or, without a terminal, there is no answer.
    """
    if sys.stdin.isatty() and sys.stdout.isatty() and not (options.json or options.turns):
        chat, notes = _open(options)
        from mellea_cli.cli.chat_repl import converse

        history = None if options.no_history else state() / "chat_history"
        return asyncio.run(converse(chat, options.prompt or "", notes, history))
    from mellea_cli.cli.chat_script import Script, answer_all

    script = Script(_asked(options), json=options.json, commands=options.turns)
    chat, notes = _open(options)
    for note in notes:
        say(sys.stderr, note)
    return asyncio.run(answer_all(chat, script))


def state() -> Path:
    """The folder for what lasts from run to run."""
    from platformdirs import user_state_path

    return user_state_path("mellea")


def _asked(options: ChatOptions) -> list[str]:
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


def _open(options: ChatOptions) -> tuple[Chat, list[str]]:
    """The chat, ready for its first question, and notes for the user. Only `auto` sends anything."""
    from mellea_cli.chat.chat_model import ChatModel, ModelAddress
    from mellea_cli.chat.chat_session import Chat, ChatHistory

    found = asyncio.run(choose_model(options.backend, options.model, options.base_url, concurrency=1))
    history = ChatHistory() if options.no_history else ChatHistory.in_folder(state() / "chats")
    address = ModelAddress(
        found.backend,
        found.model,
        options.base_url,
        options.context,
        network=network_policy(options),
        secrets=secrets(options),
    )
    chat = Chat(ChatModel(address), history)
    notes = [line for line in (found.reason, found.warning) if line]
    notes += [*_resume(chat, options), *_give(chat, options)]
    # Last, as it may take long: what cannot be read has been reported by then.
    ensure_model(found, options, partial(say, sys.stderr))
    return chat, notes


def _resume(chat: Chat, options: ChatOptions) -> list[str]:
    if not (options.last or options.resume):
        return []
    store = chat.history.store
    if store is None:
        raise UsageError("--no-history saves no chat to continue", hint="omit --no-history")
    name = options.resume or store.latest()
    if name is None:
        raise UsageError("there is no chat to continue", hint="start one with: mellea chat")
    return chat.resume(*store.open(name))


def _give(chat: Chat, options: ChatOptions) -> list[str]:
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
