"""Slash commands, each on a chat in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatmodels import EchoModel
from mellea_cli.chat.chat_session import Chat, ChatHistory
from mellea_cli.chat.slash_commands import COMMANDS, CommandResult, as_command, is_command, run_command
from mellea_cli.errors import UsageError


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return Chat(EchoModel(), ChatHistory.in_folder(tmp_path / "chats"))


async def say(chat: Chat, question: str, answer: str = "yes") -> None:
    chat.add_answer(await chat.ask(question), answer)


def test_a_path_is_no_command() -> None:
    """A word with a second slash is part of a question."""
    assert [is_command(line) for line in ("/help", "/modle x", "/etc/hosts is what?", "no /help", "")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_words_that_leave_or_ask_for_help_are_commands() -> None:
    """A line of one such word is a command; a question that holds one is not."""
    assert [as_command(word) for word in ("exit", "Quit", " bye ", ":q", "?", "help")] == [
        "/exit", "/exit", "/exit", "/exit", "/help", "/help",
    ]  # fmt: skip
    assert [as_command(line) for line in ("exit the shop?", "why quit", "/model")] == [
        "exit the shop?", "why quit", "/model",
    ]  # fmt: skip


async def test_other_spellings_of_exit_and_help(chat: Chat) -> None:
    """/quit, /bye and /q leave, /? helps."""
    for line in ("/quit", "/bye", "/q", "/EXIT"):
        assert (await run_command(chat, line)).exit
    assert (await run_command(chat, "/?")).rows == (await run_command(chat, "/help")).rows


async def test_an_export_asks_before_it_replaces_a_file(chat: Chat, tmp_path: Path) -> None:
    """An existing file stays until the question is answered with yes."""
    await say(chat, "one")
    target = tmp_path / "my notes.md"
    target.write_text("mine")
    asked = await run_command(chat, f"/export {target}")
    assert asked.confirm == f"{target} exists; replace it?"
    assert target.read_text() == "mine"
    await run_command(chat, asked.confirmed)
    assert "## You" in target.read_text()


async def test_an_unknown_command_names_the_nearest(chat: Chat) -> None:
    """It is an error with a hint."""
    with pytest.raises(UsageError, match="no command /modle") as raised:
        await run_command(chat, "/modle x")
    assert raised.value.hint == "did you mean /model?"


async def test_help_lists_every_command(chat: Chat) -> None:
    """Each command has a row."""
    rows = (await run_command(chat, "/help")).rows
    assert {row[0].split()[0] for row in rows} >= {f"/{name}" for name in COMMANDS}


async def test_another_model_takes_over(chat: Chat) -> None:
    """The old one is closed, the conversation stays; an unknown name is a note, and for Ollama an error."""
    await say(chat, "one")
    before = chat.model
    assert [tuple(row) for row in (await run_command(chat, "/model")).rows] == [
        ("", "granite4.1:3b"), ("*", "test-model"),
    ]  # fmt: skip
    result = await run_command(chat, "/model granite4.1:3b")
    assert result.notes == ["the model is granite4.1:3b from here on"]
    assert (before.closed, chat.model.address.model, len(chat.conversation.turns)) == (True, "granite4.1:3b", 1)
    assert "does not list this model" in (await run_command(chat, "/model other")).notes[0]
    ollama = Chat(EchoModel("ollama"))
    with pytest.raises(UsageError, match="Ollama does not have the model granite") as raised:
        await run_command(ollama, "/model granite4.1:3bb")
    assert raised.value.hint == "did you mean granite4.1:3b?"


async def test_the_system_prompt_is_set_shown_and_removed(chat: Chat) -> None:
    """Without a text it is shown; none removes it."""
    assert (await run_command(chat, "/system")).notes == ["no system prompt"]
    await run_command(chat, "/system Be kind.")
    assert (await run_command(chat, "/system")).notes == ["the system prompt is: Be kind."]
    await run_command(chat, "/system none")
    assert chat.conversation.system == ""


async def test_retry_and_undo_remove_the_last_turn(chat: Chat) -> None:
    """Retry asks its question again, undo puts it into the prompt; an empty conversation is an error."""
    await say(chat, "one")
    await say(chat, "two")
    assert (await run_command(chat, "/retry")).ask == "two"
    assert (await run_command(chat, "/undo")).draft == "one"
    with pytest.raises(UsageError, match="empty"):
        await run_command(chat, "/undo")
    chat.conversation.pending = "unanswered"
    assert (await run_command(chat, "/retry")).ask == "unanswered"


async def test_a_chat_is_saved_listed_and_loaded(chat: Chat) -> None:
    """A named copy continues; loading it brings back turns and system prompt."""
    await run_command(chat, "/system Be kind.")
    await say(chat, "remember this")
    await run_command(chat, "/save trip")
    await say(chat, "and this")
    mark, name, _, turns, first_line = (await run_command(chat, "/sessions")).rows[0]
    assert (mark, name, turns, first_line) == ("*", "trip", "2", "remember this")
    await run_command(chat, "/clear")
    assert chat.conversation.turns == []
    first = next(row[1] for row in (await run_command(chat, "/sessions")).rows if row[1] != "trip")
    loaded = await run_command(chat, f"/load {first}")
    assert (loaded.show_turns, chat.conversation.system, len(chat.conversation.turns)) == (2, "Be kind.", 1)
    await chat.aclose()


@pytest.mark.parametrize("line", ["/save x", "/load x"])
async def test_a_chat_without_history_cannot_be_saved(line: str) -> None:
    """The error says why."""
    with pytest.raises(UsageError, match="--no-history"):
        await run_command(Chat(EchoModel()), line)


async def test_options_are_set_and_taken_back(chat: Chat) -> None:
    """A value is checked; default removes it; a new window makes a new model."""
    await run_command(chat, "/set temperature 0.5")
    await run_command(chat, "/set max_tokens 1,000")
    assert chat.options == {"temperature": 0.5, "max_tokens": 1000}
    assert (await run_command(chat, "/set temperature default")).notes == ["temperature is the default"]
    shown = dict((await run_command(chat, "/set")).rows)
    assert (shown["temperature"], shown["max_tokens"]) == ("default", "1000")
    await run_command(chat, "/set context 2048")
    assert chat.model.address.window == 2048
    for line, words in (("/set sede 1", "no option 'sede'"), ("/set temperature 3", "a number from 0 to 2")):
        with pytest.raises(UsageError, match=words):
            await run_command(chat, line)


async def test_files_code_and_exports(chat: Chat, tmp_path: Path) -> None:
    """A file is attached, the last code block is copied, the conversation is exported; each needs its argument."""
    (tmp_path / "a.txt").write_text("text")
    assert "no file is attached" in (await run_command(chat, "/file")).notes[0]
    await run_command(chat, f"/file {tmp_path / 'a.txt'}")
    assert (await run_command(chat, "/file")).notes == ["attached: a.txt"]
    with pytest.raises(UsageError, match="no code block"):
        await run_command(chat, "/copy")
    await say(chat, "code?", "```py\nx = 1\ny = 2\n```")
    result = await run_command(chat, "/copy")
    assert (result.copy, result.notes[0].startswith("copied 2 lines")) == ("x = 1\ny = 2", True)
    await run_command(chat, f"/export {tmp_path / 'out.md'}")
    assert (tmp_path / "out.md").read_text().startswith("# code?")
    with pytest.raises(UsageError, match="/export needs a file"):
        await run_command(chat, "/export")


async def test_usage_counts_tokens(chat: Chat) -> None:
    """Window, turns, and the speed of the last answer."""
    await say(chat, "one")
    rows = dict((await run_command(chat, "/usage")).rows)
    assert rows["turns"] == "1"
    assert "size is unknown" in rows["window"]
    assert "first token after 0.5 s" in rows["last answer"]


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("/multi", CommandResult(toggle_multiline=True)),
        ("/edit words", CommandResult(draft="words", edit=True)),
        ("/exit", CommandResult(exit=True)),
    ],
)
async def test_some_commands_are_the_screens(chat: Chat, line: str, result: CommandResult) -> None:
    """They only say what the screen has to do."""
    assert await run_command(chat, line) == result
