"""A conversation as a Markdown file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mellea_cli.chat.conversation import Conversation, Turn
from mellea_cli.errors import OutputError


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


def export(said: Conversation, path: str) -> Path:
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
