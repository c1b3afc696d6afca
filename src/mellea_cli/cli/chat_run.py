"""Wires one `mellea chat`: model, conversation and what it is given, then the form that stdin and stdout ask for."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mellea_cli.cli.backend_setup import Wanted, choose, ensure_local_model
from mellea_cli.cli.batch_run import stdin_has_data
from mellea_cli.errors import ExitCode, UsageError
from mellea_cli.ui.console import say

if TYPE_CHECKING:
    from pathlib import Path

    from mellea_cli.chat.chat_session import Chat


@dataclass(frozen=True, slots=True)
class Wishes:
    """The flags of `mellea chat`."""

    prompt: str | None
    model: str | None
    backend: str
    base_url: str | None
    key_file: str | None
    system: str
    context: int | None
    pull: bool
    file: list[str] | None
    data: str | None
    turns: bool
    last: bool
    resume: str | None
    no_history: bool
    json: bool
    local_only: bool
    allow_http: bool

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Wishes:
        """Take the flags from the command's parameters."""
        return cls(**{field.name: parameters[field.name] for field in dataclasses.fields(cls)})

    @property
    def interactive(self) -> bool:
        """Whether somebody sits at both ends."""
        return sys.stdin.isatty() and sys.stdout.isatty() and not (self.json or self.turns)


def run_chat(wishes: Wishes) -> ExitCode:
    """Run `mellea chat`.

    Raises:
        MelleaError: it cannot begin; or, without a terminal, there is no answer.
    """
    _set_reach(wishes)
    if wishes.interactive:
        chat, notes = _open(wishes)
        from mellea_cli.cli.chat_repl import converse

        history = None if wishes.no_history else state() / "chat_history"
        return asyncio.run(converse(chat, wishes.prompt or "", notes, history))
    from mellea_cli.cli.chat_script import Script, answer_all

    script = Script(_asked(wishes), json=wishes.json, commands=wishes.turns)
    chat, notes = _open(wishes)
    for note in notes:
        say(sys.stderr, note)
    return asyncio.run(answer_all(chat, script))


def state() -> Path:
    """The folder of what is kept between runs."""
    from platformdirs import user_state_path

    return user_state_path("mellea")


def _asked(wishes: Wishes) -> list[str]:
    """The questions, in order. A prompt that is given wins over a stdin that may never end."""
    asked = [wishes.prompt] if wishes.prompt else []
    if wishes.turns:
        if not stdin_has_data():
            raise UsageError("--turns reads questions from stdin, one a line", hint="mellea chat --turns < FILE")
        asked += [line.strip() for line in _stdin().splitlines()]
    elif not asked and stdin_has_data() and "-" not in (wishes.file or []):
        asked = [_stdin().strip()]
    asked = [one for one in asked if one]
    if not asked:
        raise UsageError("there is nothing to ask", hint='mellea chat "QUESTION", or echo QUESTION | mellea chat')
    return asked


def _stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8-sig", "replace")


def _set_reach(wishes: Wishes) -> None:
    """Put how far traffic may go, and where the key is, into the environment, where all that connects looks."""
    from mellea_cli.backends.security import ALLOW_HTTP, KEY_FILE, LOCAL_ONLY

    for wanted, variable in ((wishes.local_only, LOCAL_ONLY), (wishes.allow_http, ALLOW_HTTP)):
        if wanted:
            os.environ[variable] = "1"
    if wishes.key_file:
        os.environ[KEY_FILE] = wishes.key_file


def _open(wishes: Wishes) -> tuple[Chat, list[str]]:
    """The chat, ready for its first question, and what is to be said about it. Nothing is sent, but by `auto`."""
    from mellea_cli.chat.chat_model import ChatModel, ModelAddress
    from mellea_cli.chat.chat_session import Chat, ChatHistory

    wanted = Wanted(wishes.backend, wishes.model, wishes.base_url, concurrency=1, pull=wishes.pull)
    found = asyncio.run(choose(wanted))
    history = ChatHistory() if wishes.no_history else ChatHistory.in_folder(state() / "chats")
    chat = Chat(ChatModel(ModelAddress(found.backend, found.model, wishes.base_url, wishes.context)), history)
    notes = [line for line in (found.reason, found.warning) if line]
    notes += [*_resume(chat, wishes), *_give(chat, wishes)]
    # Last, for it may take long: what cannot be read has been said by then.
    if found.backend == "local":
        ensure_local_model(found, pull=wishes.pull, say=lambda line: say(sys.stderr, line))
    return chat, notes


def _resume(chat: Chat, wishes: Wishes) -> list[str]:
    if not (wishes.last or wishes.resume):
        return []
    store = chat.history.store
    if store is None:
        raise UsageError("--no-history keeps nothing that could be gone on with", hint="leave --no-history out")
    name = wishes.resume or store.latest()
    if name is None:
        raise UsageError("there is no chat to go on with", hint="start one with: mellea chat")
    return chat.resume(*store.open(name))


def _give(chat: Chat, wishes: Wishes) -> list[str]:
    """System prompt, files and data."""
    from mellea_cli.chat.attachments import Document

    notes: list[str] = []
    if wishes.system and wishes.system != chat.conversation.system:
        chat.set_system(wishes.system)
    for path in wishes.file or []:
        if path == "-":
            if not stdin_has_data():
                raise UsageError("-f - reads stdin, and there is nothing", hint="pipe a file in, or name one")
            chat.attachments.append(Document("stdin", _stdin()))
        else:
            notes.append(chat.attach("file", path))
    if wishes.data:
        notes.append(chat.attach("data", wishes.data))
    return notes
