"""Conversations as Markdown, and the code in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mellea_cli.chat.chat_store import code_blocks, write_export
from mellea_cli.chat.turns import Conversation, Turn
from mellea_cli.errors import OutputError


def test_the_last_answer_with_code_is_the_one(tmp_path: Path) -> None:
    """Blocks come without fences, a longer fence holds a shorter one, an open block counts as far as it came."""
    turns = [
        Turn("?", "```py\nold\n```"),
        Turn("?", "````md\n```py\ninner\n```\n````\ntext\n~~~\nlast\n  line"),
        Turn("?", "no code"),
    ]
    assert code_blocks(turns) == ["```py\ninner\n```", "last\n  line"]
    assert code_blocks([]) == []


def test_an_export_replaces_the_file_whole(tmp_path: Path) -> None:
    """The file holds the conversation; nothing else is left beside it."""
    path = tmp_path / "x.md"
    path.write_text("old")
    write_export(Conversation([Turn("q", "a", "m", finish="cut")], "Be brief."), str(path))
    assert path.read_text() == "# q\n\n## System\n\nBe brief.\n\n## You\n\nq\n\n## m (stopped by you)\n\na\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError):
        write_export(Conversation(), str(tmp_path / "no" / "x.md"))
