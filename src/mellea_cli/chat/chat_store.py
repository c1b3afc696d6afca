"""Chats on disk, and their export as Markdown.

Each chat is a JSONL file that is only ever appended to, so a kill costs at most the answer in flight.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mellea_cli.chat.conversation import Conversation, Turn
from mellea_cli.errors import InputError, OutputError, UsageError
from mellea_cli.io.files import OutputLock, atomic_write, resolve_output, sync_folder
from mellea_cli.messages import Usage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
# Each listed chat is read.
_MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class ChatSummary:
    """A chat as `/sessions` lists it."""

    id: str
    changed: datetime
    turns: int
    first_line: str


class ChatStore:
    """The folder of chats; made, for its owner alone, when the first chat is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, name: str = "") -> ChatFile:
        """A chat of this name, or with a generated id. Its file appears with its first record.

        Raises:
            UsageError: the name is not a file name, or is taken.
        """
        if name and not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a chat's name", hint="use letters, digits, dots, dashes")
        if name and self._path(name).exists():
            raise UsageError(f"there is a chat {name!r} already", hint="choose another name")
        generated = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        return ChatFile(self._path(name or generated))

    def open(self, name: str) -> tuple[ChatFile, Conversation]:
        """Open a chat by its id, or by the beginning of one.

        Raises:
            UsageError: no chat or several begin like this.
            InputError: it cannot be read.
        """
        ids = self.ids()
        found = [name] if name in ids else [one for one in ids if name and one.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} chats begin with" if found else "there is no chat"
            raise UsageError(f"{what} {name!r}", hint="list them with /sessions, inside mellea chat")
        file = ChatFile(self._path(found[0]))
        return file, file.read()

    def ids(self) -> list[str]:
        """Ids of all chats, the last changed first."""
        dated: list[tuple[float, str]] = []
        for path in self.folder.glob("*.jsonl"):
            try:
                dated.append((path.stat().st_mtime, path.stem))
            except OSError:  # deleted in the meantime
                continue
        return [name for _, name in sorted(dated, reverse=True)]

    def latest(self) -> str | None:
        """The id of the last changed chat; `None` when there is none."""
        ids = self.ids()
        return ids[0] if ids else None

    def summaries(self) -> list[ChatSummary]:
        """The last changed chats; unreadable ones are left out."""
        found: list[ChatSummary] = []
        for name in self.ids()[:_MAX_LISTED]:
            path = self._path(name)
            try:
                conversation = ChatFile(path).read()
                changed = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
            except (OSError, InputError):
                continue
            found.append(ChatSummary(name, changed, len(conversation.turns), conversation.first_line))
        return found

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"


class ChatFile:
    """One chat's file, made by its first record, and locked from then until it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.stem
        self._fd: int | None = None
        self._lock: OutputLock | None = None

    def read(self) -> Conversation:
        """Everything that was kept. A record torn by a crash is left out."""
        conversation = Conversation()
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path=str(self.path)) from error
        for line in data.splitlines():
            # A record is whole exactly when it parses: its last character closes it.
            try:
                _replay(conversation, json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
        return conversation

    def append(self, kind: str, **facts: Any) -> None:
        """Keep a record; it is on the disk when this returns.

        Raises:
            OutputError: it cannot be written, or another chat writes this file.
        """
        at = datetime.now().astimezone().isoformat(timespec="seconds")
        line = json.dumps({"kind": kind, **facts, "at": at}, ensure_ascii=False) + "\n"
        # A lone surrogate has no form in UTF-8, but must not cost the chat.
        data = line.encode("utf-8", "replace")
        try:
            fd = self._open()
            whole = os.write(fd, data) == len(data)
            os.fsync(fd)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        if not whole:
            raise OutputError(f"{self.path}: cannot be written: the disk is full")

    def close(self) -> None:
        """Close and unlock the file. May be called twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open(self) -> int:
        if self._fd is not None:
            return self._fd
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = OutputLock(self.path.with_suffix(".lock"), f"the chat {self.id}")
        lock.acquire()
        self._lock = lock
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            # A crash has torn the last record: the next one needs a line of its own.
            os.write(fd, b"\n")
        self._fd = fd
        sync_folder(self.path.parent)
        return fd


def answer_record(turn: Turn) -> Mapping[str, Any]:
    """The facts of an `answer` record."""
    return {
        "text": turn.answer,
        "model": turn.model,
        "usage": [turn.usage.prompt_tokens, turn.usage.completion_tokens],
        "first_token_s": round(turn.first_token_s, 3),
        "total_s": round(turn.total_s, 3),
        "finish": turn.finish,
    }


def _replay(conversation: Conversation, record: Mapping[str, Any]) -> None:
    match record["kind"]:
        case "question":
            conversation.pending = str(record["text"])
        case "answer":
            turn = Turn(
                conversation.pending,
                str(record["text"]),
                str(record.get("model", "")),
                Usage(*record.get("usage", (0, 0))),
                float(record.get("first_token_s", 0)),
                float(record.get("total_s", 0)),
                str(record.get("finish", "stop")),
            )
            conversation.turns.append(turn)
            conversation.pending = ""
        case "undo":
            del conversation.turns[-1:]
            conversation.pending = ""
        case "clear":
            conversation.turns.clear()
            conversation.pending = ""
        case "system":
            conversation.system = str(record["text"])
        case "attached":
            conversation.attached.append((str(record["what"]), str(record["path"])))
        case _:  # a kind that a later version added: the others still count
            return


def write_export(conversation: Conversation, path: str) -> Path:
    """Write the conversation to a Markdown file, whole or not at all; an existing file is replaced."""
    target = Path(path).expanduser()
    text = to_markdown(conversation).encode("utf-8", "replace").decode()
    try:
        atomic_write(resolve_output(str(target)), [text])
    except OutputError as error:
        raise OutputError(error.message, hint="/export FILE.md with another place") from error
    return target


def to_markdown(conversation: Conversation) -> str:
    """The whole conversation, answers as they came."""
    parts = [f"# {conversation.first_line or 'Chat'}"]
    if conversation.system:
        parts.append("## System\n\n" + conversation.system)
    for turn in conversation.turns:
        parts.append("## You\n\n" + turn.question)
        stopped = " (stopped by you)" if turn.finish == "cut" else ""
        parts.append(f"## {turn.model or 'Answer'}{stopped}\n\n{turn.answer}")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def last_code_block(turns: Sequence[Turn]) -> str | None:
    """The last code block of the last answer that has any, without its fence; `None` when there is none."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt().disable("inline")
    for turn in reversed(turns):
        blocks = [token.content for token in parser.parse(turn.answer) if token.type == "fence"]
        if blocks:
            return blocks[-1].removesuffix("\n")
    return None
