"""`mellea chat` without a terminal: pipes, scripts, objects, and what the process ends with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from loopback import Call, Fault, ModelServer, faults
from rowfiles import Process, Run, write_rows

Ask = Callable[..., Process]


def reply(prompt: str, _: Mapping[str, Any] | None) -> str:
    return "\tone\x1b[31m\n\ntwo" if prompt == "lines" else f"You said <{prompt}>."


@pytest.fixture
def server(serve: Callable[..., ModelServer]) -> ModelServer:
    return serve(reply=reply)


@pytest.fixture
def ask(mellea: Run, server: ModelServer) -> Ask:
    """Run `mellea chat` against the server."""

    def run(*arguments: str, stdin: str | bytes | None = None, at: ModelServer = server) -> Process:
        where = ("-b", "openai", "--base-url", f"{at.url}/v1", "-m", "test-model")
        return mellea("chat", *where, *arguments, stdin=stdin)

    return run


def prompts(server: ModelServer) -> list[list[str]]:
    return [[message["content"] for message in body["messages"]] for body in server.state.bodies]


def test_a_piped_question_is_answered_once(ask: Ask, server: ModelServer) -> None:
    """The answer, and nothing else, is on stdout; all of stdin is one question."""
    done = ask(stdin="first line\nsecond line\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said <first line\nsecond line>.\n", "")
    assert server.state.requests == 1


def test_a_question_as_an_argument_is_answered(ask: Ask) -> None:
    """It answers and leaves; a stdin that is there as well is not read."""
    assert ask("what?").stdout == "You said <what?>.\n"
    assert ask("what?", stdin="never read").stdout == "You said <what?>.\n"


def test_an_argument_does_not_wait_for_stdin(ask: Ask, server: ModelServer, tmp_path: Path) -> None:
    """A stdin that stays open and silent, as supervisors give it, does not keep the answer back."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "mellea_cli", "chat", "-b", "openai", "--base-url", f"{server.url}/v1"]
    done = subprocess.run(
        [*command, "-m", "test-model", "hello"], stdin=read, capture_output=True, timeout=60, check=True, cwd=tmp_path
    )
    os.close(read)
    os.close(write)
    assert done.stdout == b"You said <hello>.\n"


def test_escape_sequences_are_taken_out(ask: Ask) -> None:
    """What a terminal would obey is not passed on; tabs and line breaks are."""
    assert ask("lines").stdout == "\tone\n\ntwo\n"


def test_json_is_one_object(ask: Ask) -> None:
    """--json prints one line with the answer and what it cost."""
    done = ask("--json", "what?")
    answer = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert answer["answer"] == "You said <what?>."
    assert (answer["prompt"], answer["model"], answer["backend"]) == ("what?", "test-model", "openai")
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 4}
    assert answer["finish_reason"] == "stop"
    assert answer["session"]


def test_turns_are_one_conversation(ask: Ask, server: ModelServer) -> None:
    """Each line is a turn that sees those before it; empty lines are none."""
    done = ask("--turns", stdin="one\n\ntwo\n")
    assert (done.returncode, done.stdout) == (0, "You said <one>.\n\nYou said <two>.\n")
    assert prompts(server)[1] == ["one", "You said <one>.", "two"]


def test_turns_as_objects(ask: Ask) -> None:
    """--turns --json prints a line for each answer."""
    done = ask("--turns", "--json", stdin="one\ntwo\n")
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["one", "two"]


def test_a_command_that_asks_is_answered_as_an_object(ask: Ask) -> None:
    """`/retry` among turns with --json prints a line of JSON like any question."""
    done = ask("--turns", "--json", stdin="one\n/retry\n")
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["one", "one"]


def test_turns_may_be_commands(ask: Ask, server: ModelServer, tmp_path: Path) -> None:
    """Commands work in a script, talk on stderr, and an unknown one ends it with code 2 before anything is sent."""
    done = ask("--turns", stdin="/system Be brief.\nhello\n/export out.md\n/exit\nnever\n")
    assert (done.returncode, done.stdout) == (0, "You said <hello>.\n")
    assert prompts(server) == [["Be brief.", "hello"]]
    assert (tmp_path / "out.md").exists()
    done = ask("--turns", stdin="/hlep\nhello\n")
    assert done.returncode == 2
    assert "did you mean /help?" in done.stderr
    assert server.state.requests == 1
    assert ask("--turns", stdin="/multi\n").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ([], None, "there is nothing to ask"),
        ([], "  \n", "there is nothing to ask"),
        (["--turns"], None, "--turns reads one question per line from stdin"),
        (["-f", "nothing.txt", "x"], None, "nothing.txt: cannot be read"),
        (["--data", "nothing.jsonl", "x"], None, "nothing.jsonl"),
        (["--resume", "nothing", "x"], None, "there is no chat 'nothing'"),
        (["-c", "x"], None, "there is no chat to continue"),
        (["-c", "--no-history", "x"], None, "--no-history saves no chat"),
    ],
)
def test_wrong_use_ends_with_2(ask: Ask, server: ModelServer, arguments: list[str], stdin: str, words: str) -> None:
    """Nothing is sent, and one line says what is wrong."""
    done = ask(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert server.state.requests == 0


def test_a_server_that_is_away_ends_with_4(ask: Ask, server: ModelServer) -> None:
    """It is told on stderr, and stdout stays empty; as an object it is an error."""
    server.stop()
    done = ask("hello")
    assert (done.returncode, done.stdout) == (4, "")
    assert "mellea: error:" in done.stderr
    done = ask("--json", "hello")
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"]["kind"] == "unavailable"


def test_a_question_that_fails_for_itself_does_not_end_a_script(ask: Ask, serve: Callable[..., ModelServer]) -> None:
    """The others are answered, and the code says that some were not."""

    def fault(call: Call) -> Fault | None:
        return faults.empty() if call.prompt == "two" else None

    done = ask("--turns", stdin="one\ntwo\nthree\n", at=serve(reply=reply, fault=fault))
    assert done.returncode == 3
    assert done.stdout == "You said <one>.\n\n\nYou said <three>.\n"
    assert "the model's answer is empty" in done.stderr


def test_an_empty_answer_ends_with_3(ask: Ask, serve: Callable[..., ModelServer]) -> None:
    """No text is no success."""
    done = ask("one", at=serve(reply=reply, fault=faults.always(faults.empty())))
    assert done.returncode == 3


def test_an_answer_without_end_is_stopped(ask: Ask, serve: Callable[..., ModelServer]) -> None:
    """Nobody can press Ctrl-C in a script; who names a limit decides it."""
    rambling = serve(record=True, reply=lambda *_: " ".join(f"day {number}" for number in range(10_000)))
    done = ask("--json", "one", at=rambling)
    found = json.loads(done.stdout)
    assert (done.returncode, found["finish_reason"]) == (0, "length")
    assert found["answer"].startswith("day 0 day 1 ")
    assert len(found["answer"]) > 32_768
    assert "day 9999" not in found["answer"]
    assert "cut off by the length limit: --max-tokens N" in done.stderr
    done = ask("--max-tokens", "50000", "one", at=rambling)
    assert done.stdout.endswith("day 9999\n")
    assert rambling.state.bodies[-1]["max_tokens"] == 50_000


def test_an_interruption_ends_with_130(serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """Ctrl-C closes the connection and says so."""
    slow = serve(reply=reply, token_delay_s=1.0)
    command = [sys.executable, "-m", "mellea_cli", "chat", "-b", "openai", "--base-url", f"{slow.url}/v1"]
    with subprocess.Popen(
        [*command, "-m", "test-model", "hello"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path
    ) as program:
        slow.state.wait(lambda state: state.pieces >= 1, 60)
        program.send_signal(signal.SIGINT)
        assert b"interrupted" in program.communicate(timeout=60)[1]
    assert program.returncode == 130
    slow.state.wait(lambda state: state.disconnects == 1, 10)


def test_a_reader_that_goes_away_ends_with_141(server: ModelServer, tmp_path: Path) -> None:
    """`mellea chat ... | head -0` says nothing."""
    command = [sys.executable, "-m", "mellea_cli", "chat", "-b", "openai", "--base-url", f"{server.url}/v1"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*command, "-m", "test-model", "lines"], stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE,
        check=False, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_one_chat_over_several_commands(ask: Ask, server: ModelServer, tmp_path: Path) -> None:
    """-c goes on where the last command stopped, --resume by id; --no-history keeps nothing."""
    ask("one")
    ask("-c", "two")
    assert prompts(server)[-1] == ["one", "You said <one>.", "two"]
    (path,) = (tmp_path / "state" / "mellea" / "chats").glob("*.jsonl")
    ask("--resume", path.stem[:-2], "three")
    assert len(prompts(server)[-1]) == 5
    ask("--no-history", "secret")
    assert list(path.parent.glob("*.jsonl")) == [path]
    assert "secret" not in path.read_text()


def test_files_are_shown_to_the_model(ask: Ask, server: ModelServer, tmp_path: Path) -> None:
    """Text, rows and stdin are attached, and stay attached when the chat goes on."""
    (tmp_path / "a.txt").write_text("swordfish")
    write_rows(tmp_path / "b.jsonl", [{"id": 7, "text": "the door is stuck"}])
    done = ask("-f", "a.txt", "-f", "b.jsonl", "-f", "-", "what?", stdin="from the pipe")
    system = prompts(server)[-1][0]
    assert all(words in system for words in ("swordfish", "[7] the door is stuck", "from the pipe"))
    assert "attached a.txt" in done.stderr
    ask("-c", "and?")
    assert "swordfish" in prompts(server)[-1][0]
    ask("-c", "-f", "a.txt", "and?")
    assert prompts(server)[-1][0].count("swordfish") == 1
    (tmp_path / "a.txt").unlink()
    assert "no longer attached" in ask("-c", "and?").stderr


def outcome(number: int) -> dict[str, Any]:
    issues = {"main_complaint": "late delivery" if number % 2 else None, "positive_aspect": None, "urgency": "low"}
    return {"id": f"F-{number}", "summary": f"Parcel {number} came late.", "sentiment": "negative", "issues": issues}


def test_data_is_asked_about_with_row_ids(ask: Ask, serve: Callable[..., ModelServer], tmp_path: Path) -> None:
    """The model is shown rows and counts; ids that exist are told from those that do not."""
    write_rows(tmp_path / "out.jsonl", [outcome(number) for number in range(20)])
    seer = serve(reply=lambda *_: "Late delivery [F-3], [F-99].")
    done = ask("--data", "out.jsonl", "what do people complain about most?", at=seer)
    system = prompts(seer)[0][0]
    assert "[F-3] negative/low | complaint: late delivery | Parcel 3 came late." in system
    assert "delivery in 10" in system
    assert done.stdout == "Late delivery [F-3], [F-99] (no such row).\n"
    assert "[F-3] negative/low" in done.stderr
    assert "not in the data: F-99" in done.stderr
    done = ask("--data", "out.jsonl", "--json", "what?", at=seer)
    assert (json.loads(done.stdout)["cited"], json.loads(done.stdout)["not_in_data"]) == (["F-3"], ["F-99"])


def test_own_fields_of_a_run_are_asked_about(
    mellea: Run, ask: Ask, serve: Callable[..., ModelServer], tmp_path: Path
) -> None:
    """The output of mellea run has no summary: rows show its fields, and the counts are of its choices."""
    write_rows(tmp_path / "in.jsonl", [{"id": f"F-{number}", "text": f"Parcel {number}."} for number in range(6)])
    fields = ("--field", "stars(int!): stars", "--category", "team=delivery,shop")
    (tmp_path / "p.toml").write_text("[fields.again]\ntype = 'bool'\n")
    run = mellea("run", "p.toml", "in.jsonl", "-o", "out.jsonl", "-b", "scripted", *fields)
    assert run.returncode == 0, run.stderr
    seer = serve(reply=lambda *_: "All of them [F-3].")
    done = ask("--data", "out.jsonl", "which team?", at=seer)
    assert done.returncode == 0, done.stderr
    system = prompts(seer)[0][0]
    assert "6 rows in all." in system
    assert re.search(r"^team: (delivery|shop) in \d: \[F-\d\]", system, re.MULTILINE)
    assert re.search(r"^stars: mean ", system, re.MULTILINE)
    assert re.search(
        r"^\[F-3\] again: (yes|no) \| stars: -?\d+ \| team: (delivery|shop) \| Parcel 3\.$", system, re.MULTILINE
    )
    assert "[F-3] again: " in done.stderr


def test_rows_that_do_not_fit_are_selected_and_that_is_said(ask: Ask, server: ModelServer, tmp_path: Path) -> None:
    """With a small window some rows are sent, the one that is asked about among them, and stderr says how many."""
    rows = [outcome(number) for number in range(2000)]
    rows[1234]["summary"] = "The zipper broke."
    write_rows(tmp_path / "out.jsonl", rows)
    done = ask("--data", "out.jsonl", "--context", "2000", "is there trouble with zippers?")
    assert "of 2,000 rows fit the model's window" in done.stderr
    system = prompts(server)[0][0]
    assert "[F-1234]" in system
    assert "2000 rows in all" in system
    assert len(system) < 2000 * 5


def test_the_window_of_an_ollama_is_asked_for(mellea: Run, server: ModelServer) -> None:
    """Ollama is told how large a window the chat counts with."""
    done = mellea("chat", "-b", "ollama", "--base-url", server.url, "-m", "test-model", "--context", "5000", "hello")
    assert done.stdout == "You said <hello>.\n"
    assert server.state.bodies[0]["options"]["num_ctx"] == 5000


def test_a_conversation_that_the_server_finds_too_long_is_shortened(
    ask: Ask, serve: Callable[..., ModelServer]
) -> None:
    """Where the window is not known, the server's refusal makes the oldest turns leave, and the answer comes."""

    def fault(call: Call) -> Fault | None:
        if len(call.body["messages"]) <= 3:
            return None
        return faults.status(400, message="maximum context length exceeded", code="context_length_exceeded")

    done = ask("--turns", stdin="one\ntwo\nthree\n", at=serve(reply=reply, fault=fault))
    assert (done.returncode, done.stdout.count("You said")) == (0, 3)
    assert "the oldest turns are no longer sent" in done.stderr


def test_a_home_that_cannot_be_written_does_not_end_a_chat(ask: Ask, tmp_path: Path) -> None:
    """The answer comes, and that it is not kept is told."""
    (tmp_path / "state").write_text("a file, not a folder")
    done = ask("hello")
    assert (done.returncode, done.stdout) == (0, "You said <hello>.\n")
    assert "the chat is not kept" in done.stderr
