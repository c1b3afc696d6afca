"""`mellea summarise -p fast` as its users run it, with servers that give log-probabilities and without."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loopback import ModelServer
from rowfiles import Run, interrupted, read_rows, write_rows

SCRIPTED = ("--backend", "scripted")


def likely(prompt: str) -> dict[str, float]:
    """Log-probabilities by one word of a prompt."""
    label = "negative" if "stuck" in prompt else "positive"
    return {one: -0.02 if one == label else -5.0 for one in ("positive", "negative", "mixed", "neutral")}


def command(server: ModelServer, *more: str) -> tuple[str, ...]:
    url = ("--base-url", server.openai_url, "-m", "test-model")
    return ("summarise", "in.jsonl", "-o", "out.jsonl", "-p", "fast", "-b", "openai", *url, *more)


def rows_of(path: Path, count: int) -> list[dict[str, object]]:
    """Write rows with two clauses each."""
    rows: list[dict[str, object]] = [
        {"id": number, "text": f"I love car MARK-{number}x, but its door is stuck."} for number in range(count)
    ]
    write_rows(path / "in.jsonl", rows)
    return rows


def test_a_row_has_the_usual_columns(mellea: Run, tmp_path: Path) -> None:
    """Complaint and praise are clauses of the text, word by word, and the confidence is a column on demand."""
    rows_of(tmp_path, 3)
    with ModelServer(logprobs=likely) as server:
        done = mellea(*command(server, "--confidence"))
        assert done.returncode == 0, done.stderr
        # One question of the program's own, then two clauses a row.
        assert server.state.requests == 7
    row = read_rows(tmp_path / "out.jsonl")[0]
    assert list(row) == ["id", "text", "summary", "sentiment", "issues", "confidence"]
    assert row["sentiment"] == "mixed"
    assert row["issues"] == {
        "main_complaint": "its door is stuck",
        "positive_aspect": "I love car MARK-0x",
        "urgency": "medium",
    }
    assert row["summary"] == row["text"]
    assert 0.34 < row["confidence"] <= 1


def test_a_dry_run_counts_the_parts_of_texts(mellea: Run, tmp_path: Path) -> None:
    """A call for each clause; the embedded model's second look at unsure texts is one more at most."""
    rows_of(tmp_path, 3)
    flags = ("summarise", "in.jsonl", "-p", "fast", "--dry-run", "--json")
    one_model = mellea(*flags, *SCRIPTED)
    assert "2 per item, 6 in all" in one_model.stdout
    assert json.loads(one_model.stderr.splitlines()[-1])["calls"] == 6
    assert "2 to 3 per item, 6 to 9 in all" in mellea(*flags, "-b", "local").stdout


def test_ollama_gives_them_too(mellea: Run, tmp_path: Path) -> None:
    """The same question in Ollama's form has the same answer."""
    rows_of(tmp_path, 2)
    with ModelServer(logprobs=likely, record=True) as server:
        flags = ("-p", "fast", "-b", "ollama", "--base-url", server.url, "-m", "granite4.1:3b")
        done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", *flags)
        assert done.returncode == 0, done.stderr
        body = server.state.bodies[-1]
        assert (body["logprobs"], body["top_logprobs"], body["options"]["num_predict"]) == (True, 20, 1)
    assert [row["sentiment"] for row in read_rows(tmp_path / "out.jsonl")] == ["mixed", "mixed"]


def test_a_server_without_log_probabilities_is_named_before_any_row_is_sent(mellea: Run, tmp_path: Path) -> None:
    """One line says what is missing and what to use instead; no text has left."""
    rows_of(tmp_path, 3)
    with ModelServer(record=True) as server:
        done = mellea(*command(server))
        assert done.returncode == 2
        assert "gives no log-probabilities for test-model" in done.stderr
        assert "-p single" in done.stderr
        assert "MARK-" not in json.dumps(server.state.bodies)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("flags", [("--offload",), ("--engine", "ray")])
def test_what_gives_no_log_probabilities_is_refused(mellea: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A batch queue and Ray are refused before anything is opened."""
    rows_of(tmp_path, 1)
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", "-p", "fast", *flags)
    assert done.returncode == 2
    assert "log-probabilities" in done.stderr


def test_own_fields_are_refused(mellea: Run, tmp_path: Path) -> None:
    """`fast` has fields of its own only."""
    rows_of(tmp_path, 1)
    done = mellea("summarise", "in.jsonl", *SCRIPTED, "-p", "fast", "--field", "product: the product")
    assert done.returncode == 2
    assert "-p fast" in done.stderr


def test_answers_are_kept_next_to_those_of_other_pipelines(mellea: Run, tmp_path: Path) -> None:
    """Identical texts are asked once, a second run asks nothing, and `single` finds its own answers again."""
    write_rows(tmp_path / "in.jsonl", [{"id": n, "text": "I love it, but it is stuck."} for n in range(5)])
    with ModelServer(logprobs=likely) as server:
        single = tuple(word if word != "fast" else "single" for word in command(server, "-y"))
        assert mellea(*single).returncode == 0
        first = read_rows(tmp_path / "out.jsonl")
        assert server.state.requests == 1
        assert mellea(*command(server, "-y")).returncode == 0
        assert server.state.requests == 4
        assert read_rows(tmp_path / "out.jsonl") != first
        assert mellea(*command(server, "-y", "--confidence")).returncode == 0
        assert mellea(*single).returncode == 0
        assert server.state.requests == 4
    assert read_rows(tmp_path / "out.jsonl") == first


def test_ctrl_c_keeps_what_is_done(mellea: Run, tmp_path: Path) -> None:
    """The same command asks only the rows that are missing."""
    rows = rows_of(tmp_path, 40)
    with ModelServer(logprobs=likely, latency_s=0.05) as server:
        code, talk = interrupted(command(server, "-c", "2"), tmp_path, server, answered=21)
        assert code == 130, talk
        kept = read_rows(tmp_path / "out.jsonl")
        assert 0 < len(kept) < 40
        server.state.clear()
        assert mellea(*command(server, "-c", "8")).returncode == 0
        assert server.state.requests == 1 + 2 * (40 - len(kept))
    found = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert found[: len(kept)] == kept


@pytest.mark.slow
def test_a_killed_run_goes_on(mellea: Run, tmp_path: Path) -> None:
    """No answer that was kept is asked again, and every row is there once."""
    rows = rows_of(tmp_path, 60)
    with ModelServer(logprobs=likely, latency_s=0.02) as server:
        process = subprocess.Popen([sys.executable, "-m", "mellea_cli", *command(server, "-c", "2")], cwd=tmp_path)
        try:
            server.wait(lambda state: state.completed >= 41, timeout=60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        server.state.clear()
        assert mellea(*command(server)).returncode == 0
        assert server.state.requests < 121
    assert [row["id"] for row in read_rows(tmp_path / "out.jsonl")] == [row["id"] for row in rows]


def test_report_and_themes_read_the_rows(mellea: Run, tmp_path: Path) -> None:
    """The confidence is a number column of the report, and themes are found in complaints and praise."""
    rows_of(tmp_path, 12)
    with ModelServer(logprobs=likely) as server:
        assert mellea(*command(server, "--confidence")).returncode == 0
    figures = json.loads(mellea("report", "out.jsonl", "--format", "json").stdout)
    assert [(one["name"], one["type"]) for one in figures["fields"]] == [("confidence", "number")]
    assert figures["answered"] == 12
    done = mellea("themes", "out.jsonl", "-o", "themes.jsonl", *SCRIPTED)
    assert done.returncode == 0, done.stderr
    assert len(read_rows(tmp_path / "themes.jsonl")) == 12


def test_the_screen_shows_the_run_as_any_other(mellea: Run, tmp_path: Path) -> None:
    """A dry run names the steps, and the closing lines count the sentiments."""
    rows_of(tmp_path, 2)
    preview = mellea("summarise", "in.jsonl", "-p", "fast", "--dry-run", *SCRIPTED)
    assert "fast: clauses" in preview.stdout + preview.stderr
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", "-p", "fast", *SCRIPTED)
    assert "sentiment: " in done.stderr
