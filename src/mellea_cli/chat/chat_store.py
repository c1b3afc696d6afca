"""A conversation as a Markdown file."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mellea_cli.chat.turns import Conversation, Turn
from mellea_cli.errors import InputError, OutputError, UsageError
from mellea_cli.io.files import OutputLock
from mellea_cli.messages import Usage

# Chats on disk: one JSONL file each, only ever appended to, so that a kill costs at most the answer in flight.

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A chat, as a list shows it."""

    id: str
    changed: datetime
    turns: int
    first_line: str


class ChatStore:
    """The folder of chats.

    Args:
        folder: where the files are; made, for its owner alone, when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, name: str = "") -> ChatFile:
        """A chat of this name, or of a new one. No file is there before something is said.

        Raises:
            UsageError: the name cannot be one of a file, or is taken.
        """
        if name and not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a chat's name", hint="use letters, digits, dots, dashes")
        if name and self._path(name).exists():
            raise UsageError(f"there is a chat {name!r} already", hint="choose another name")
        return ChatFile(self._path(name or _new_id()))

    def open(self, name: str) -> tuple[ChatFile, Conversation]:
        """Open a chat by its id, or by the beginning of one.

        Raises:
            UsageError: there is none, or several begin like this.
            InputError: it cannot be read.
        """
        ids = self.ids()
        found = [name] if name in ids else [one for one in ids if name and one.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} chats begin with" if found else "there is no chat"
            raise UsageError(f"{what} {name!r}", hint="list them with /sessions, inside mellea chat")
        file = ChatFile(self._path(found[0]))
        return file, file.read()

    def latest(self) -> str | None:
        """The id of the chat that was written to last; `None` when there is none."""
        listed = self.ids()
        return listed[0] if listed else None

    def ids(self) -> list[str]:
        """Ids of all chats, the latest first."""
        dated: list[tuple[float, str]] = []
        for path in self.folder.glob("*.jsonl"):
            try:
                dated.append((path.stat().st_mtime, path.stem))
            except OSError:  # it went away meanwhile
                continue
        return [name for _, name in sorted(dated, reverse=True)]

    def listed(self, most: int = 20) -> list[Listed]:
        """The latest chats; one that cannot be read is left out."""
        rows: list[Listed] = []
        for name in self.ids()[:most]:
            path = self._path(name)
            try:
                said = ChatFile(path).read()
                changed = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
            except (OSError, InputError):
                continue
            rows.append(Listed(name, changed, len(said.turns), said.first_line))
        return rows

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"


class ChatFile:
    """One chat's file, locked from its first record until it is closed.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.stem
        self._fd: int | None = None
        self._lock: OutputLock | None = None

    def read(self) -> Conversation:
        """Everything that was kept. A last line that a crash tore is left out.

        Raises:
            InputError: the file cannot be read.
        """
        said = Conversation()
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path=str(self.path)) from error
        # A record is whole exactly when it parses: its last letter closes it.
        for line in data.splitlines():
            try:
                record = json.loads(line)
                _apply(said, record)
            except (ValueError, KeyError, TypeError):  # half a line that a later run has ended, say
                continue
        return said

    def append(self, kind: str, **facts: Any) -> None:
        """Keep a record; it is on the disk when this returns.

        Raises:
            OutputError: it cannot be written, or another chat writes this file.
        """
        line = json.dumps({"kind": kind, **facts, "at": _now()}, ensure_ascii=False) + "\n"
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
        """Let go of the file. May be called twice."""
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
            # What a crash tore is ended, so that the next record has a line of its own.
            os.write(fd, b"\n")
        self._fd = fd
        _sync_folder(self.path.parent)
        return fd


def answer_facts(turn: Turn) -> Mapping[str, Any]:
    """A turn's answer, as its record holds it."""
    return {
        "text": turn.answer,
        "model": turn.model,
        "usage": [turn.usage.prompt_tokens, turn.usage.completion_tokens],
        "first_token_s": round(turn.first_token_s, 3),
        "total_s": round(turn.total_s, 3),
        "finish": turn.finish,
    }


def _apply(said: Conversation, record: Mapping[str, Any]) -> None:
    """Replay one record."""
    match record["kind"]:
        case "question":
            said.pending = str(record["text"])
        case "answer":
            said.turns.append(
                Turn(
                    said.pending,
                    str(record["text"]),
                    str(record.get("model", "")),
                    Usage(*record.get("usage", (0, 0))),
                    float(record.get("first_token_s", 0)),
                    float(record.get("total_s", 0)),
                    str(record.get("finish", "stop")),
                )
            )
            said.pending = ""
        case "undo":
            del said.turns[-1:]
            said.pending = ""
        case "clear":
            said.turns.clear()
            said.pending = ""
        case "system":
            said.system = str(record["text"])
        case "attached":
            said.attached.append((str(record["what"]), str(record["path"])))
        case _:  # a later version's: what it means is not known, and what else is there still counts
            return


def _sync_folder(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _new_id() -> str:
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def to_markdown(said: Conversation) -> str:
    """The whole conversation, answers as they came."""
    parts = [f"# {said.first_line or 'Chat'}"]
    if said.system:
        parts.append("## System\n\n" + said.system)
    for turn in said.turns:
        parts.append("## You\n\n" + turn.question)
        name = f"## {turn.model or 'Answer'}" + (" (stopped by you)" if turn.cut else "")
        parts.append(f"{name}\n\n{turn.answer}")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def write_export(said: Conversation, path: str) -> Path:
    """Write the conversation to a Markdown file, whole or not at all; a file that is there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    target = Path(path).expanduser()
    name = ""
    try:
        fd, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(fd, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(to_markdown(said))
        Path(name).replace(target)
    except OSError as error:
        if name:
            with suppress(OSError):
                Path(name).unlink()
        raise OutputError(f"{target}: cannot be written: {error.strerror}", hint="choose another place") from error
    return target


def code_blocks(turns: Sequence[Turn]) -> list[str]:
    """The code blocks of the last answer that has any, without their fences."""
    for turn in reversed(turns):
        found = _blocks(turn.answer)
        if found:
            return found
    return []


def _blocks(text: str) -> list[str]:
    blocks: list[str] = []
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        bare = line.strip()
        if not fence and bare[:3] in {"```", "~~~"}:
            fence, lines = bare[: len(bare) - len(bare.lstrip(bare[0]))], []
        elif fence and bare.startswith(fence) and not bare.strip(fence[0]):
            blocks.append("\n".join(lines))
            fence = ""
        elif fence:
            lines.append(line)
    if fence and lines:
        blocks.append("\n".join(lines))
    return blocks
