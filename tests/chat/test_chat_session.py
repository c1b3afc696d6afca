"""One chat: what is sent, what is kept, and how it stays inside the model's window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chatmodels import EchoModel
from mellea_cli.backends.model_options import ModelOption
from mellea_cli.chat.attachments import Document
from mellea_cli.chat.chat_session import Chat, ChatHistory, reminder, system_message
from mellea_cli.chat.conversation import TokenEstimator
from mellea_cli.errors import BackendUnavailable, ContextTooLong, UsageError
from rowfiles import write_rows


async def say(chat: Chat, question: str) -> tuple[str, ...]:
    """Ask a question and take its answer; returns the notes."""
    pending = await chat.ask(question)
    chat.add_answer(pending, f"You said {question}.")
    return pending.notes


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return Chat(EchoModel(window=4096), ChatHistory.in_folder(tmp_path / "chats"))


async def test_turns_and_options_are_sent(chat: Chat) -> None:
    """Each question is sent after the turns before it, with the system prompt and the options by their keys."""
    chat.set_system("Be kind.")
    chat.options.update(temperature=0.5, context=4096)
    await say(chat, "one")
    await say(chat, "two")
    question, turns, system, options = chat.model.sent[-1]
    assert (question, [turn.question for turn in turns], system) == ("two", ["one"], "Be kind.")
    assert options == {ModelOption.TEMPERATURE: 0.5}


async def test_the_oldest_turns_are_hidden_when_the_window_is_full(chat: Chat) -> None:
    """They are no longer sent, and a note says so once."""
    notes = [await say(chat, f"{number} " + "word " * 700) for number in range(6)]
    assert chat.hidden
    assert len(chat.model.sent[-1][1]) == 5 - chat.hidden
    assert any("no longer sent" in note for note in notes[-1] + notes[-2])
    with pytest.raises(UsageError, match="too many for the model's window"):
        await chat.ask("word " * 5000)


async def test_a_conversation_that_the_server_refuses_is_shortened(chat: Chat) -> None:
    """Half of the turns are hidden each time, until none is left; other errors change nothing."""
    for word in ("one", "two", "three"):
        await say(chat, word)
    assert not chat.shorten(BackendUnavailable("gone"))
    assert [chat.shorten(ContextTooLong("too long")) for _ in range(3)] == [True, True, False]
    assert chat.hidden == 3


async def test_a_chat_is_resumed_with_its_attachments(tmp_path: Path, chat: Chat) -> None:
    """Turns and files come back; a file that is gone is a note."""
    notes, gone = tmp_path / "notes.txt", tmp_path / "gone.txt"
    notes.write_text("the note")
    gone.write_text("the other")
    row = {"id": "F-1", "text": "late", "summary": "It is late.", "sentiment": "negative"}
    rows = write_rows(tmp_path / "out.jsonl", [row])
    assert chat.attach("file", str(notes)) == "attached notes.txt: about 3 tokens"
    chat.attach("file", str(gone))
    assert chat.attach("data", str(rows)) == "attached out.jsonl: 1 row"
    await say(chat, "one")
    assert chat.history.store is not None
    name = chat.history.store.latest()
    await chat.aclose()
    gone.unlink()
    other = Chat(EchoModel(), ChatHistory.in_folder(tmp_path / "chats"))
    assert other.history.store is not None
    told = other.resume(*other.history.store.open(str(name)))
    assert [turn.answer for turn in other.conversation.turns] == ["You said one."]
    assert [one.name for one in other.attachments] == ["notes.txt", "out.jsonl"]
    assert len(told) == 1
    assert "gone.txt" in told[0]
    await other.aclose()


async def test_a_file_that_is_attached_again_replaces_itself(tmp_path: Path, chat: Chat) -> None:
    """The chat holds the new content, once."""
    path = tmp_path / "notes.txt"
    path.write_text("old")
    chat.attach("file", str(path))
    path.write_text("new")
    chat.attach("file", str(path))
    assert chat.attachments == [Document("notes.txt", "new")]


async def test_a_disk_that_takes_nothing_does_not_end_the_chat(tmp_path: Path) -> None:
    """The answer comes, and the error is kept for one message."""
    (tmp_path / "chats").write_text("a file, not a folder")
    chat = Chat(EchoModel(), ChatHistory.in_folder(tmp_path / "chats"))
    await say(chat, "one")
    assert len(chat.conversation.turns) == 1
    assert "cannot be written" in chat.history.write_error


def test_small_models_are_reminded_of_the_ids(tmp_path: Path) -> None:
    """With rows, a sample of ids follows the question; without rows nothing does."""
    chat: Any = Chat(EchoModel())
    assert reminder(chat.tables()) == ""
    chat.attach("file", str(write_rows(tmp_path / "a.jsonl", [{"id": "F-1", "text": "late"}])))
    assert reminder(chat.tables()).endswith("such as [F-1].")
    text, notes = system_message("", chat.attachments, "?", None, TokenEstimator().tokens)
    assert "[F-1] late" in text
    assert notes == []
