"""Chats on disk, and their export."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.chat.chat_store import ChatFile, ChatStore, answer_record, last_code_block, write_export
from mellea_cli.chat.conversation import Conversation, Turn
from mellea_cli.errors import OutputError, UsageError
from mellea_cli.messages import Usage

TURN = Turn("why?", "because", "m", Usage(3, 4), 0.5, 1.5)


def write(file: ChatFile, *turns: Turn) -> None:
    for turn in turns:
        file.append("question", text=turn.question)
        file.append("answer", **answer_record(turn))


def test_a_chat_comes_back_as_it_was(tmp_path: Path) -> None:
    """Turns, system prompt and attachments are read back; the file is its owner's alone."""
    store = ChatStore(tmp_path / "chats")
    file = store.new()
    assert not file.path.exists()
    file.append("system", text="Be brief.")
    file.append("attached", what="file", path="/x/y.txt")
    write(file, TURN, Turn("two\nlines", "part of it", finish="cut"))
    file.append("question", text="and?")
    file.close()
    _, said = store.open(file.id)
    assert said.turns == [TURN, Turn("two\nlines", "part of it", finish="cut")]
    assert said.turns[1].finish == "cut"
    assert (said.system, said.attached, said.pending) == ("Be brief.", [("file", "/x/y.txt")], "and?")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_undo_and_clear_are_replayed(tmp_path: Path) -> None:
    """What was taken back stays so."""
    file = ChatStore(tmp_path).new("x")
    write(file, TURN, TURN)
    file.append("undo")
    assert len(file.read().turns) == 1
    file.append("clear")
    assert file.read().turns == []


def whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(min_value=0, max_value=400))
def test_a_torn_end_costs_the_torn_record_only(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever a crash cuts the file, whole records count, and what is written after it counts too."""
    file = ChatStore(tmp_path_factory.mktemp("chats")).new("x")
    write(file, TURN, TURN)
    file.close()
    data = file.path.read_bytes()[:cut]
    file.path.write_bytes(data)
    before = len(file.read().turns)
    assert before == sum(whole(line) and b'"answer"' in line for line in data.splitlines())
    write(file, TURN)
    assert len(file.read().turns) == before + 1
    assert file.read().turns[-1] == TURN
    file.close()


def test_records_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    """A kind of record that is not known, or one without its parts, costs nothing else."""
    file = ChatStore(tmp_path).new("x")
    file.append("future", text="?")
    file.append("answer")
    write(file, TURN)
    assert file.read().turns == [TURN]
    file.close()


def test_one_chat_has_one_writer(tmp_path: Path) -> None:
    """A chat that is open elsewhere is refused when it is written to."""
    first, second = ChatFile(tmp_path / "x.jsonl"), ChatFile(tmp_path / "x.jsonl")
    first.append("clear")
    with pytest.raises(OutputError):
        second.append("clear")
    first.close()
    second.append("clear")
    second.close()


def test_chats_are_found_by_the_beginning_of_their_id(tmp_path: Path) -> None:
    """An id may be shortened while it is one chat's; the list has the latest first, with its first line."""
    store = ChatStore(tmp_path)
    for age, name in enumerate(("abc", "abd", "x")):
        file = store.new(name)
        write(file, Turn(f"about {name}\nmore", "yes"))
        file.close()
        os.utime(file.path, (1_000_000 + age, 1_000_000 + age))
    assert store.open("x")[0].id == "x"
    assert store.latest() == "x"
    assert [(one.id, one.turns, one.first_line) for one in store.summaries()] == [
        ("x", 1, "about x"), ("abd", 1, "about abd"), ("abc", 1, "about abc"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="2 chats begin with 'ab'"):
        store.open("ab")
    with pytest.raises(UsageError, match="no chat"):
        store.open("")


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "x" * 100])
def test_a_name_stays_inside_the_folder(tmp_path: Path, name: str) -> None:
    """What cannot be a file's name here is refused."""
    with pytest.raises(UsageError, match="cannot be a chat's name"):
        ChatStore(tmp_path).new(name)


def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """It is an error that names the file."""
    (tmp_path / "chats").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        ChatFile(tmp_path / "chats" / "x.jsonl").append("clear")


def test_the_last_answer_with_code_is_the_one(tmp_path: Path) -> None:
    """Blocks come without fences, a longer fence holds a shorter one, an open block counts as far as it came."""
    turns = [
        Turn("?", "```py\nold\n```"),
        Turn("?", "````md\n```py\ninner\n```\n````\ntext\n~~~\nlast\n  line"),
        Turn("?", "no code"),
    ]
    assert last_code_block(turns) == "last\n  line"
    assert last_code_block(turns[:1]) == "old"
    assert last_code_block([]) is None


def test_an_export_replaces_the_file_whole(tmp_path: Path) -> None:
    """The file holds the conversation; nothing else is left in the folder."""
    path = tmp_path / "x.md"
    path.write_text("old")
    write_export(Conversation([Turn("q", "a", "m", finish="cut")], "Be brief."), str(path))
    assert path.read_text() == "# q\n\n## System\n\nBe brief.\n\n## You\n\nq\n\n## m (stopped by you)\n\na\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError):
        write_export(Conversation(), str(tmp_path / "no" / "x.md"))
