"""`mellea chat` as its users have it: the real program on a pseudo-terminal, a model server on loopback."""

from __future__ import annotations

import base64
import json
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loopback import Call, Fault, ModelServer, faults
from rowfiles import write_rows
from terminals import Terminal, mellea_on_terminal

pytestmark = [pytest.mark.slow, pytest.mark.terminal]

Start = Callable[..., AbstractContextManager[Terminal]]

MARKDOWN = """# Two ways

Some **bold** and `code`, with <b>tags</b> and a paragraph that is long enough to be wrapped on eighty columns.

1. first
2. second
   - nested

```python
def double(x):
    return 2 * x
```

The \x1b[31mred\x1b[2J end.
"""


def reply(prompt: str, _: Mapping[str, Any] | None) -> str:
    if "markdown" in prompt:
        return MARKDOWN
    if "long" in prompt:
        return "\n\n".join(f"Paragraph {number} of a long answer, with words." for number in range(60))
    return f"You said <{prompt}>."


@pytest.fixture
def server(serve: Callable[..., ModelServer]) -> ModelServer:
    return serve(reply=reply)


@pytest.fixture
def chat(tmp_path: Path, server: ModelServer) -> Start:
    """Start `mellea chat` against the server."""

    def start(*arguments: str, at: ModelServer = server, **more: Any) -> AbstractContextManager[Terminal]:
        where = ("-b", "openai", "--base-url", f"{at.url}/v1", "-m", "test-model")
        return mellea_on_terminal("chat", *where, *arguments, folder=tmp_path, **more)

    return start


def at_prompt(text: str) -> bool:
    """The program waits for the next text: an empty prompt, and the bar on the last line."""
    lines = [line for line in text.splitlines() if line]
    return bool(lines) and "test-model |" in lines[-1] and lines[-2] == ">"


def say(terminal: Terminal, text: str, answer: str | None = None) -> str:
    """Type a line and wait for its answer and the next prompt."""
    terminal.wait(at_prompt)
    terminal.type(text)
    terminal.wait(lambda shown: shown.rstrip().splitlines()[-1].startswith("test-model") and text[-20:] in shown)
    terminal.type("\r")
    wanted = f"You said <{text}>" if answer is None else answer
    return terminal.wait(lambda shown: wanted in shown and at_prompt(shown))


def leave(terminal: Terminal) -> None:
    terminal.wait(at_prompt)
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert terminal.echoes
    assert not terminal.screen.cursor.hidden


@dataclass(frozen=True)
class Talk:
    """A chat that several tests share, one after the other."""

    terminal: Terminal
    server: ModelServer
    folder: Path

    def say(self, text: str, answer: str | None = None) -> str:
        return say(self.terminal, text, answer)

    def sent(self) -> list[str]:
        """What was sent last."""
        return [message["content"] for message in self.server.state.bodies[-1]["messages"]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    """Start a chat with a window of 4,096 tokens."""
    folder = tmp_path_factory.mktemp("shared")
    with ModelServer(reply=reply) as server:
        where = ("-b", "openai", "--base-url", f"{server.url}/v1", "-m", "test-model", "--context", "4096")
        with mellea_on_terminal("chat", *where, folder=folder, size=(120, 40)) as terminal:
            yield Talk(terminal, server, folder)


@pytest.fixture
def talk(opened: Talk) -> Talk:
    """The shared chat, with nothing said and an empty screen."""
    opened.say("/clear", "the conversation is cleared")
    opened.terminal.type(b"\x0c")
    opened.terminal.wait(lambda shown: at_prompt(shown) and len(shown.split("\n>")) == 1)
    opened.server.state.clear()
    return opened


def kept(folder: Path) -> list[list[dict[str, Any]]]:
    """The records of each chat that is kept."""
    paths = sorted((folder / "state" / "mellea" / "chats").glob("*.jsonl"))
    return [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in paths]


def test_an_answer_is_shown_as_markdown(chat: Start) -> None:
    """Markup is rendered, HTML is text, code is coloured, and the model's escape sequences do nothing."""
    with chat() as terminal:
        shown = say(terminal, "markdown please", "The red end.")
        assert "Two ways" in shown
        assert "# Two" not in shown
        assert "Some bold and code, with <b>tags</b>" in shown
        assert re.search(r"1 first\n 2 second\n +• nested", shown)
        assert "  def double(x):\n      return 2 * x" in shown
        assert b"\x1b[2J" not in terminal.written
        leave(terminal)


def test_a_conversation_goes_on(chat: Start, server: ModelServer) -> None:
    """Each question is sent with what was said before, and the bar counts tokens as the server does."""
    with chat("-s", "Be brief.") as terminal:
        say(terminal, "one")
        shown = say(terminal, "two")
        words = [message["content"] for message in server.state.bodies[1]["messages"]]
        assert words == ["Be brief.", "one", "You said <one>.", "two"]
        assert re.search(r"test-model \| \d+ tokens", shown)
        leave(terminal)


def test_pasted_lines_arrive_whole(talk: Talk) -> None:
    """Text of several lines that is pasted is one question, sent when Enter is pressed."""
    talk.terminal.paste("first line\nsecond line\n\tthird line")
    talk.terminal.wait(lambda shown: "third line" in shown)
    assert talk.server.state.requests == 0
    talk.terminal.type("\r")
    talk.terminal.wait(lambda shown: "You said" in shown and at_prompt(shown))
    assert talk.sent() == ["first line\nsecond line\n\tthird line"]


@pytest.mark.parametrize("keys", ['"""one\rtwo"""\r', "one\x1b\rtwo\r"], ids=["quotes", "alt-enter"])
def test_several_lines_can_be_typed(talk: Talk, keys: str) -> None:
    """A block in three quotes, or Alt-Enter, makes one question of several lines."""
    talk.terminal.type(keys)
    talk.terminal.wait(lambda shown: "You said" in shown and at_prompt(shown))
    assert talk.sent() == ["one\ntwo"]


def test_ctrl_c_stops_the_answer(chat: Start, serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """The server sees the client go, the partial text stays in view and is marked, and the chat goes on with it."""
    slow = serve(reply=reply, token_delay_s=0.05)
    with chat(at=slow) as terminal:
        terminal.wait(at_prompt)
        terminal.type("a long one\r")
        terminal.wait(lambda shown: "Paragraph 1" in shown)
        terminal.type(b"\x03")
        slow.state.wait(lambda state: state.disconnects == 1, 10)
        shown = terminal.wait(lambda shown: "-- stopped --" in shown and at_prompt(shown))
        assert "Paragraph 0 of a long answer" in shown
        say(terminal, "and now")
        said = slow.state.bodies[-1]["messages"]
        assert said[1]["content"].startswith("Paragraph 0")
        leave(terminal)
    assert [record.get("finish") for record in kept(tmp_path)[0] if record["kind"] == "answer"] == ["cut", "stop"]


def test_ctrl_c_before_the_answer_gives_the_question_back(chat: Start, serve: Callable[..., ModelServer]) -> None:
    """Stopped before anything has come, the question stands in the prompt again."""
    slow = serve(reply=reply, latency_s=30.0)
    with chat(at=slow) as terminal:
        terminal.wait(at_prompt)
        terminal.type("what is it\r")
        terminal.wait(lambda shown: "waiting for the model" in shown)
        slow.state.wait(lambda state: state.requests == 1, 10)
        terminal.type(b"\x03")
        slow.state.wait(lambda state: state.disconnects == 1, 10)
        terminal.wait(lambda shown: "your question is below\n> what is it" in shown)


def test_ctrl_c_twice_at_an_empty_prompt_leaves(chat: Start) -> None:
    """The first one clears a line and warns, what was cleared comes back with Up, the second one leaves."""
    with chat() as terminal:
        terminal.wait(at_prompt)
        terminal.type("half a thought")
        terminal.wait(lambda shown: "> half a thought" in shown)
        terminal.type(b"\x03")
        terminal.wait(at_prompt)
        terminal.type(b"\x1b[A")
        terminal.wait(lambda shown: shown.count("> half a thought") == 2)
        terminal.type(b"\x03")
        terminal.wait(at_prompt)
        terminal.type(b"\x03")
        terminal.wait(lambda shown: "once more leaves" in shown and at_prompt(shown))
        terminal.type(b"\x03")
        assert terminal.end() == 0


def test_what_is_typed_during_an_answer_waits(chat: Start, serve: Callable[..., ModelServer]) -> None:
    """Keys that are pressed while an answer streams do not tear it, and are in the next prompt."""
    slow = serve(reply=reply, token_delay_s=0.015)
    with chat(at=slow) as terminal:
        terminal.wait(at_prompt)
        terminal.type("markdown please\r")
        terminal.wait(lambda shown: "Two ways" in shown)
        terminal.type("impatient words")
        shown = terminal.wait(lambda shown: "> impatient words" in shown)
        assert shown.count("impatient") == 1
        assert "The red end." in shown


@pytest.mark.parametrize("size", [(120, 40), (50, 12)], ids=str)
def test_a_resize_leaves_the_answer_whole(
    chat: Start, serve: Callable[..., ModelServer], size: tuple[int, int]
) -> None:
    """After the terminal has changed in mid-answer every paragraph stands there once."""
    slow = serve(reply=reply, token_delay_s=0.002)
    with chat(at=slow) as terminal:
        terminal.wait(at_prompt)
        terminal.type("a long one\r")
        terminal.wait(lambda shown: "Paragraph 20" in shown)
        terminal.resize(*size)
        terminal.wait(lambda shown: "Paragraph 59" in shown and at_prompt(shown))
        numbers = [int(number) for number in re.findall(r"Paragraph (\d+) of", terminal.all)]
        assert numbers == list(range(60))


def test_what_has_scrolled_away_is_not_written_again(chat: Start) -> None:
    """Each finished block of a long answer is written once."""
    with chat() as terminal:
        say(terminal, "a long one", "Paragraph 59")
        assert terminal.written.count(b"Paragraph 7 of a long answer, with words.\x1b") <= 2
        numbers = [int(number) for number in re.findall(r"Paragraph (\d+) of", terminal.all)]
        assert numbers == list(range(60))


def test_a_server_that_is_away_leaves_the_prompt_alive(chat: Start, server: ModelServer) -> None:
    """One line says what is wrong, the text stands in the prompt again, and is answered once the server is back."""
    with chat() as terminal:
        terminal.wait(at_prompt)
        server.stop()
        terminal.type("are you there\r")
        shown = terminal.wait(lambda shown: "error:" in shown and "\n> are you there" in shown.split("error:")[1])
        assert "mellea: try:" in shown
        terminal.type(b"\x03")
        leave(terminal)


def test_a_broken_answer_stays_and_is_marked(chat: Start, serve: Callable[..., ModelServer]) -> None:
    """A stream that breaks leaves what had come, and the question in the prompt."""

    def fault(call: Call) -> Fault | None:
        return faults.cut(after=6) if "markdown" in call.prompt else None

    with chat(at=serve(reply=reply, fault=fault)) as terminal:
        terminal.wait(at_prompt)
        terminal.type("markdown please\r")
        shown = terminal.wait(lambda shown: "-- broken off --" in shown and "\n> markdown please" in shown[80:])
        assert "Two ways" in shown


def test_a_killed_chat_loses_only_the_answer(chat: Start, serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """After kill -9 in mid-answer the turns before are there, and the question stands in the prompt of -c."""
    slow = serve(reply=reply, token_delay_s=0.02)
    with chat(at=slow) as terminal:
        say(terminal, "first")
        terminal.type("a long one\r")
        terminal.wait(lambda shown: "Paragraph 2" in shown)
        terminal.program.kill()
        terminal.program.wait()
    assert [record["kind"] for record in kept(tmp_path)[0]] == ["question", "answer", "question"]
    with chat("-c") as terminal:
        shown = terminal.wait(lambda shown: "\n> a long one" in shown)
        assert "> first" in shown
        assert "You said <first>." in shown


def test_continue_shows_the_last_turns(chat: Start, server: ModelServer, tmp_path: Path) -> None:
    """-c shows the last two turns and goes on with all; the file is its owner's alone."""
    with chat() as terminal:
        for word in ("alpha", "beta", "gamma"):
            say(terminal, word)
        leave(terminal)
        assert "--resume" in terminal.text
    paths = list((tmp_path / "state" / "mellea" / "chats").glob("*.jsonl"))
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state" / "mellea" / "chat_history").stat().st_mode) == 0o600
    with chat("-c") as terminal:
        shown = terminal.wait(at_prompt)
        assert "the last 2 of 3 turns" in shown
        assert "alpha" not in shown
        assert "> beta\nYou said <beta>." in shown
        say(terminal, "delta")
        assert len(server.state.bodies[-1]["messages"]) == 7
        leave(terminal)
    with chat("--resume", paths[0].stem[:-1], size=(120, 40)) as terminal:
        terminal.wait(lambda shown: "of 4 turns" in shown)


def test_history_is_searched(chat: Start) -> None:
    """Up brings back what was typed in an earlier chat, Ctrl-R searches it; --no-history keeps nothing."""
    with chat() as terminal:
        say(terminal, "a question about llamas")
        say(terminal, "something else")
        leave(terminal)
    with chat() as terminal:
        terminal.wait(at_prompt)
        terminal.type(b"\x12llam")
        terminal.wait(lambda shown: "a question about llamas" in shown)


def test_no_history_keeps_nothing(chat: Start, tmp_path: Path) -> None:
    """With --no-history no file is written."""
    with chat("--no-history") as terminal:
        say(terminal, "a secret")
        leave(terminal)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_vi_keys_as_the_inputrc_says(chat: Start, tmp_path: Path, server: ModelServer) -> None:
    """An inputrc that asks for vi keys is obeyed: Escape and 0 go to the line's start."""
    (tmp_path / "inputrc").write_text("set editing-mode vi\n")
    with chat(INPUTRC=str(tmp_path / "inputrc")) as terminal:
        terminal.wait(at_prompt)
        terminal.type("orld")
        terminal.wait(lambda shown: "> orld" in shown)
        terminal.type(b"\x1b")
        time.sleep(1.1)  # the editor itself waits so long to tell Escape from the beginning of a key
        terminal.type("0iw")
        terminal.wait(lambda shown: "> world" in shown)


def test_help_lists_every_command(talk: Talk) -> None:
    """/help names them all."""
    shown = talk.say("/help", "/exit  ")
    names = "help model system file multi edit retry undo clear save load sessions export usage set copy exit"
    assert [name for name in names.split() if f"/{name}" not in shown] == []


def test_an_unknown_command_is_an_error(talk: Talk) -> None:
    """It is told with the nearest name, and nothing is sent."""
    shown = talk.say("/modle x", "did you mean /model?")
    assert "there is no command /modle" in shown
    assert talk.server.state.requests == 0


def test_commands_and_their_values_are_completed(talk: Talk) -> None:
    """Tab completes a command, a model's name and a path."""
    (talk.folder / "notes.txt").write_text("x")
    terminal = talk.terminal
    terminal.type("/mod")
    terminal.wait(lambda shown: "switch to another model" in shown)
    terminal.type("\t")
    terminal.wait(lambda shown: "> /model" in shown)
    terminal.type(" ")
    terminal.wait(lambda shown: "granite4.1:3b" in shown)
    terminal.type(b"\x15/file note")
    terminal.wait(lambda shown: "notes.txt" in shown)
    terminal.type(b"\x15")
    terminal.wait(at_prompt)


def test_slash_model(chat: Start, server: ModelServer) -> None:
    """/model lists the models; another one goes on with the conversation."""
    with chat() as terminal:
        say(terminal, "before")
        say(terminal, "/model", "*  test-model")
        terminal.type("/model granite4.1:3b\r")
        terminal.wait(lambda shown: "the model is granite4.1:3b from here on" in shown and "granite4.1:3b |" in shown)
        terminal.type("after\r")
        terminal.wait(lambda shown: "You said <after>" in shown)
        assert server.state.bodies[-1]["model"] == "granite4.1:3b"
        assert len(server.state.bodies[-1]["messages"]) == 3


def test_slash_system(talk: Talk) -> None:
    """/system sets, shows and removes the system prompt."""
    talk.say("/system Be kind.", "the system prompt is set")
    talk.say("hello")
    assert talk.server.state.bodies[-1]["messages"][0] == {"role": "system", "content": "Be kind."}
    talk.say("/system", "the system prompt is: Be kind.")
    talk.say("/system none", "the system prompt is removed")
    talk.say("hello again")
    assert talk.sent()[0] == "hello"


def test_slash_file(chat: Start, server: ModelServer, tmp_path: Path) -> None:
    """/file attaches a file, which the model is shown; one that is not there is an error."""
    (tmp_path / "notes.txt").write_text("The password is swordfish.")
    with chat() as terminal:
        say(terminal, "/file notes.txt", "attached notes.txt")
        say(terminal, "hello")
        assert "swordfish" in server.state.bodies[-1]["messages"][0]["content"]
        say(terminal, "/file nothing.txt", "error: nothing.txt")


def test_slash_multi(talk: Talk) -> None:
    """/multi lets Enter break lines and Alt-Enter send."""
    talk.say("/multi", "/multi ends it")
    talk.terminal.type("one\rtwo")
    talk.terminal.wait(lambda shown: "> one\n  two" in shown)
    talk.terminal.type("\x1b\r")
    talk.terminal.wait(lambda shown: "You said" in shown and at_prompt(shown))
    assert talk.sent() == ["one\ntwo"]
    talk.terminal.type("/multi\x1b\r")
    talk.terminal.wait(lambda shown: "\nEnter sends" in shown and at_prompt(shown))


def test_slash_edit(chat: Start, tmp_path: Path, server: ModelServer) -> None:
    """/edit opens the editor, and what it saves stands in the prompt."""
    editor = tmp_path / "editor.py"
    editor.write_text("import sys\nopen(sys.argv[1], 'a').write(' and more')\n")
    with chat(EDITOR=f"{sys.executable} {editor}") as terminal:
        terminal.wait(at_prompt)
        terminal.type("/edit some words\r")
        terminal.wait(lambda shown: "\n> some words and more" in shown)
        terminal.type("\r")
        terminal.wait(lambda shown: "You said <some words and more>." in shown)


def test_slash_edit_without_an_editor(chat: Start) -> None:
    """An editor that cannot be started is an error, and the text is still there."""
    with chat(EDITOR="/nowhere/editor") as terminal:
        terminal.wait(at_prompt)
        terminal.type("/edit my words\r")
        terminal.wait(lambda shown: "cannot be started" in shown and "\n> my words" in shown)


def test_slash_retry(talk: Talk) -> None:
    """/retry asks the last question again, in the place of its answer."""
    talk.say("again")
    talk.terminal.type("/retry\r")
    talk.terminal.wait(lambda shown: shown.count("You said <again>.") == 2 and at_prompt(shown))
    assert [len(body["messages"]) for body in talk.server.state.bodies] == [1, 1]


def test_slash_undo(talk: Talk) -> None:
    """/undo takes the last turn back and puts its question into the prompt."""
    talk.say("keep")
    talk.say("drop")
    talk.terminal.type("/undo\r")
    talk.terminal.wait(lambda shown: "question is below\n> drop" in shown)
    talk.terminal.type("s\r")
    talk.terminal.wait(lambda shown: "You said <drops>" in shown and at_prompt(shown))
    assert talk.sent() == ["keep", "You said <keep>.", "drops"]


def test_slash_clear(talk: Talk) -> None:
    """/clear forgets what was said, and keeps the system prompt."""
    talk.say("/system Be brief.", "the system prompt is set")
    talk.say("before")
    talk.say("/clear", "the conversation is cleared")
    talk.say("after")
    assert talk.sent() == ["Be brief.", "after"]
    talk.say("/system none", "the system prompt is removed")


def test_slash_save_and_load_and_sessions(chat: Start, server: ModelServer) -> None:
    """/save gives a chat a name, /sessions lists it, /load goes on with it and shows its last turns."""
    with chat() as terminal:
        say(terminal, "remember this")
        say(terminal, "/save trip", "saved as trip")
        say(terminal, "/save trip", "there is a chat 'trip' already")
        leave(terminal)
    with chat(size=(120, 40)) as terminal:
        shown = say(terminal, "/sessions", "first line")
        assert re.search(r"trip +\d{4}-\d\d-\d\d \d\d:\d\d +1 +remember this", shown)
        say(terminal, "/load nothing", "there is no chat 'nothing'")
        say(terminal, "/load trip", "> remember this")
        say(terminal, "go on")
        assert len(server.state.bodies[-1]["messages"]) == 3


def test_slash_export(talk: Talk) -> None:
    """/export writes the conversation to a Markdown file."""
    talk.say("a question")
    talk.say("/export out.md", "written to out.md")
    talk.say("/export nowhere/out.md", "there is no folder")
    talk.say("/export", "/export needs a file")
    text = (talk.folder / "out.md").read_text()
    assert text == "# a question\n\n## You\n\na question\n\n## test-model\n\nYou said <a question>.\n"


def test_slash_export_asks_before_it_replaces(talk: Talk) -> None:
    """Only yes replaces a file."""
    (talk.folder / "notes.md").write_text("mine")
    talk.say("a question")
    for answer, said in (("no", "nothing is written"), ("y", "written to notes.md")):
        talk.terminal.type("/export notes.md\r")
        talk.terminal.wait(lambda shown: shown.rstrip().endswith("replace it? [y/N]"))
        assert (talk.folder / "notes.md").read_text() == "mine"
        talk.terminal.type(f"{answer}\r")
        talk.terminal.wait(lambda shown, said=said: said in shown and at_prompt(shown))
    assert "## You" in (talk.folder / "notes.md").read_text()


def test_exit_as_a_word_leaves(chat: Start, server: ModelServer) -> None:
    """The first chat shows a tip, and `exit` ends it without a request."""
    with chat() as terminal:
        terminal.wait(at_prompt)
        assert "first time here?" in terminal.text
        terminal.type("exit\r")
        assert terminal.end() == 0
    assert server.state.requests == 0


def test_slash_usage(talk: Talk) -> None:
    """/usage shows what the server has counted, of the window when that is known."""
    talk.say("three words here")
    shown = talk.say("/usage", "last answer")
    assert re.search(r"window +\d+ tokens of 4,096", shown)
    assert re.search(r"prompts +3 tokens", shown)


def test_slash_set(talk: Talk) -> None:
    """/set sets what is sent with each request; a wrong name or value is an error."""
    talk.say("/set temperature 0.5", "temperature is 0.5")
    talk.say("/set max_tokens 77", "max_tokens is 77")
    talk.say("/set sede 1", "did you mean /set seed?")
    talk.say("/set seed x", "seed must be a whole number")
    talk.say("hello")
    body = talk.server.state.bodies[-1]
    assert body["temperature"] == 0.5
    assert 77 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    talk.say("/set temperature default", "temperature is the default")
    shown = talk.say("/set", "thinking")
    assert re.search(r"max_tokens +77", shown)
    talk.say("hello once more")
    assert "temperature" not in talk.server.state.bodies[-1]
    talk.say("/set max_tokens default", "max_tokens is the default")


def test_slash_copy(talk: Talk) -> None:
    """/copy copies the last code block to the terminal's clipboard."""
    talk.say("/copy", "have no code block")
    talk.say("markdown please", "red end")
    talk.say("/copy", "copied 2 lines")
    code = base64.b64encode(b"def double(x):\n    return 2 * x").decode()
    assert f"\x1b]52;c;{code}\x07".encode() in talk.terminal.written


def test_slash_exit(chat: Start) -> None:
    """/exit leaves with code 0."""
    with chat() as terminal:
        terminal.wait(at_prompt)
        terminal.type("/exit\r")
        assert terminal.end() == 0


def test_a_prompt_on_the_command_line_is_asked_first(chat: Start) -> None:
    """`mellea chat QUESTION` at a terminal answers and stays."""
    with chat("the first one") as terminal:
        terminal.wait(lambda shown: "You said <the first one>." in shown and at_prompt(shown))
        leave(terminal)


def test_the_oldest_turns_leave_first(chat: Start, server: ModelServer) -> None:
    """When the window is nearly full the oldest turns are not sent any more, and that is told; the system prompt is."""
    with chat("--context", "300", "-s", "Be brief.") as terminal:
        for number in range(3):
            say(terminal, f"{number} " + "word " * 60 + "end", f"You said <{number} ")
        shown = terminal.wait(at_prompt)
        assert "the oldest 2 turns are no longer sent" in " ".join(terminal.all.split()), shown
        sent = [message["content"] for message in server.state.bodies[-1]["messages"]]
        assert sent[0] == "Be brief."
        assert not any(text.startswith("0 word") for text in sent)
        assert sent[-1].startswith("2 word")


def test_sigterm_gives_the_terminal_back(chat: Start) -> None:
    """A chat that is terminated at its prompt leaves the terminal as it was."""
    with chat() as terminal:
        terminal.wait(at_prompt)
        assert not terminal.echoes
        terminal.program.terminate()
        assert terminal.end() == 143
        assert terminal.echoes
        assert "Traceback" not in terminal.text


def test_an_answer_about_data_is_shown_with_its_rows(
    chat: Start, serve: Callable[..., ModelServer], tmp_path: Path
) -> None:
    """Below an answer stand the rows that it cites, and an id that does not exist is marked where it stands."""
    issues = {"main_complaint": "late", "positive_aspect": None, "urgency": "high"}
    row = {"id": "F-7", "summary": "The parcel came late.", "sentiment": "negative", "issues": issues}
    write_rows(tmp_path / "out.jsonl", [row])
    seer = serve(reply=lambda *_: "Parcels are **late** [F-7], and lost [F-8].")
    with chat("--data", "out.jsonl", at=seer) as terminal:
        shown = say(terminal, "what do people complain about most?", "not in the data: F-8")
        assert "attached out.jsonl: 1 row\n" in shown
        assert "Parcels are late [F-7], and lost [F-8] (no such row)." in shown
        assert "[F-7] negative/high | complaint: late | The parcel came late." in shown
        leave(terminal)
