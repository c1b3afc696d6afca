"""`--export-batch` and `--import-batch`: the round by hand, with a stand-in for `vllm run-batch`."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loopback import ModelServer, default_reply
from loopback.protocols import OpenAIProtocol
from loopback.replies import prompt_of
from mellea_cli.cli.app import app
from rowfiles import read_rows, write_rows


def run_batch(source: Path, target: Path, fails: Callable[[str], bool] = lambda _: False) -> int:
    """What `vllm run-batch -i source -o target` writes: one line for each, in order, `body: null` where one failed.

    Like the real one it takes no request that wants a stream, and knows its endpoints by their path.
    """
    lines = []
    protocol = OpenAIProtocol()
    for number, line in enumerate(source.read_text().splitlines()):
        request = json.loads(line)
        body = request["body"]
        assert request["method"] == "POST"
        assert request["url"] == "/v1/chat/completions"
        assert not body.get("stream")
        prompt = prompt_of(body)
        response: dict[str, Any] = {"status_code": 200, "request_id": f"vllm-batch-{number}", "body": None}
        error = None
        if fails(prompt):
            response["status_code"] = 400
            error = {"error": {"message": "The prompt is too long.", "type": "BadRequestError", "code": 400}}
        else:
            text = default_reply(prompt, protocol.schema(body))
            whole = protocol.whole(text, "stop", (400, 50), body)
            # vLLM's model_dump_json writes every field, with null where there is nothing.
            message = {**whole["choices"][0]["message"], "refusal": None, "tool_calls": [], "reasoning": None}
            whole["choices"][0] |= {"message": message, "logprobs": None, "stop_reason": None}
            response["body"] = whole
        lines.append({"id": f"vllm-{number}", "custom_id": request["custom_id"], "response": response, "error": error})
    return len(write_rows(target, lines).read_text().splitlines())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twenty rows, one of them twice."""
    rows = [{"id": n, "text": f"MARK-i{n % 19}x is late"} for n in range(20)]
    return write_rows(tmp_path / "in.jsonl", rows)


def mellea(source: Path, *flags: str, output: str = "out.jsonl") -> Result:
    """Run the command in this process."""
    where = ["-m", "m", "-o", str(source.with_name(output))]
    return CliRunner().invoke(app, ["summarise", str(source), *where, *flags], catch_exceptions=False)


def live(source: Path, *flags: str) -> bytes:
    """What a live run writes."""
    with ModelServer(models=("m",)) as server:
        assert mellea(source, "--base-url", server.openai_url, *flags, output="live.jsonl").exit_code == 0
    return source.with_name("live.jsonl").read_bytes()


def test_there_and_back(source: Path, tmp_path: Path) -> None:
    """Exported, answered by another program, imported: the output of a live run, and no server was needed."""
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    done = mellea(source, "--export-batch", str(requests))
    assert done.exit_code == 0, done.stderr
    assert "vllm run-batch" in done.stderr
    assert stat.S_IMODE(requests.stat().st_mode) == 0o600
    assert run_batch(requests, replies) == 19
    assert len({json.loads(line)["custom_id"] for line in requests.read_text().splitlines()}) == 19
    done = mellea(source, "--import-batch", str(replies), "--json")
    assert done.exit_code == 0, done.stderr
    assert '"offloaded": 19' in done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == live(source)


def test_steps_take_two_rounds(source: Path, tmp_path: Path) -> None:
    """The second file asks what needs the first one's answers; a third would be empty, and says so."""
    first, second, third = (tmp_path / f"{name}.jsonl" for name in ("first", "second", "third"))
    replies = tmp_path / "replies.jsonl"
    steps = ("-p", "steps")
    assert mellea(source, *steps, "--export-batch", str(first)).exit_code == 0
    assert run_batch(first, replies) == 38
    done = mellea(source, *steps, "--import-batch", str(replies), "--export-batch", str(second))
    assert done.exit_code == 0, done.stderr
    assert run_batch(second, replies) == 19
    done = mellea(source, *steps, "--import-batch", str(replies), "--export-batch", str(third))
    assert "nothing to ask" in done.stderr
    assert not third.exists()
    assert mellea(source, *steps, "--base-url", "http://127.0.0.1:9/v1").exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == live(source, *steps)


def test_what_failed_is_finished_live(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other program could not answer, or left out, is asked live, but only of a server that was named."""
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    mellea(source, "--export-batch", str(requests))
    run_batch(requests, replies, fails=lambda prompt: "MARK-i3x " in prompt)
    # Not even where a key for a provider is at hand: nobody said that it may be asked.
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    refused = mellea(source, "--import-batch", str(replies))
    assert refused.exit_code == 2
    assert "no server is named" in refused.stderr
    for left in tmp_path.glob("out.jsonl*"):
        left.unlink()
    lines = replies.read_text().splitlines()
    replies.write_text("\n".join([*lines[:5], "garbage", *lines[6:]]))
    again = tmp_path / "again.jsonl"
    done = mellea(source, "--import-batch", str(replies), "--export-batch", str(again))
    assert done.exit_code == 0, done.stderr
    assert len(again.read_text().splitlines()) == 2
    for left in tmp_path.glob("out.jsonl*"):
        left.unlink()
    with ModelServer(models=("m",)) as server:
        done = mellea(source, "--import-batch", str(replies), "--base-url", server.openai_url)
        assert server.state.requests == 2
    assert done.exit_code == 0, done.stderr
    assert "17 answers, 1 request without one, 1 line not about requests of mellea" in done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == live(source)


def test_answers_to_other_questions_are_refused(source: Path, tmp_path: Path) -> None:
    """Another model or pipeline asks other questions: said before anything is asked live."""
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    mellea(source, "--export-batch", str(requests))
    run_batch(requests, replies)
    with ModelServer(models=("m",)) as server:
        done = mellea(source, "-t", "0.5", "--import-batch", str(replies), "--base-url", server.openai_url)
        assert server.state.requests == 0
    assert done.exit_code == 2
    assert "none of its answers belongs to this input" in done.stderr


def test_an_export_holds_only_what_is_missing(source: Path, tmp_path: Path) -> None:
    """Rows that have an answer are not written; masks hold; the file is neither input nor output."""
    with ModelServer(models=("m",)) as server:
        assert mellea(source, "--base-url", server.openai_url).exit_code == 0
    write_rows(source, [*read_rows(source), {"id": 20, "text": "MARK-new mail jo@example.org"}])
    requests = tmp_path / "requests.jsonl"
    assert mellea(source, "--export-batch", str(requests)).exit_code == 0
    assert len(requests.read_text().splitlines()) == 1
    assert mellea(source, "--redact", "--yes", "--export-batch", str(requests)).exit_code == 0
    assert "example.org" not in requests.read_text()
    before = source.read_bytes()
    assert mellea(source, "--export-batch", str(source)).exit_code == 2
    assert source.read_bytes() == before
    assert mellea(source, "--import-batch", str(tmp_path / "nowhere.jsonl")).exit_code == 2


def test_file_without_a_reply_is_refused_before_anything_is_asked(source: Path, tmp_path: Path) -> None:
    """The wrong file ends the run with its name, although a server could answer."""
    replies = tmp_path / "replies.jsonl"
    replies.write_text("Batch output\nNo results.\n")
    with ModelServer(models=("m",)) as server:
        done = mellea(source, "--base-url", server.openai_url, "--import-batch", str(replies))
        assert server.state.completed == 0
    assert done.exit_code == 2
    assert "replies.jsonl: no line answers a request of mellea (2 lines read)" in done.stderr
