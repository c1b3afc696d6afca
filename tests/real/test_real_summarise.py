"""`mellea summarise` on real servers: whole runs, and how many requests they send."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from realservers import (
    ASKED_AGAIN,
    TEXTS,
    RealServer,
    Run,
    check_rows,
    read_rows,
    real_server,
    summary_of,
    write_feedback,
)
from relay import Relay

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("pipeline", ["single", "steps"])
def test_every_row_is_answered(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path, pipeline: str) -> None:
    """Every row has an answer or a fault of the model, tokens are counted, and the same command asks nothing again."""
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:3])
    command = ["summarise", str(feedback), "-o", "out.jsonl", "-p", pipeline, "-c", "2", "--json", "-v"]
    command += ["--no-retry-failed", *seen.flags()]
    first = mellea(*command, env=seen.environ())
    assert first.returncode in {0, 3}, first.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), TEXTS[:3], first.stderr)
    summary = summary_of(first)
    assert summary["total"] == 3
    assert summary["calls"] >= (3 if pipeline == "single" else 9)
    # Each prompt has instructions of hundreds of tokens.
    assert summary["prompt_tokens"] > 100 * summary["calls"]
    assert summary["completion_tokens"] > summary["calls"]
    written, asked = (tmp_path / "out.jsonl").read_bytes(), len(relay.questions)
    again = mellea(*command, env=seen.environ())
    assert again.returncode == first.returncode, again.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == written
    assert len(relay.questions) == asked


@pytest.mark.parametrize("concurrency", ["1", "2", "3", "4", "5", "6", "7", "8", "auto"])
def test_as_many_in_flight_as_were_asked_for(
    mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path, concurrency: str
) -> None:
    """`-c N` has N requests in flight and never more; `-c auto` stays within its bound; no row is lost."""
    most = 4 if concurrency == "auto" else int(concurrency)
    texts = TEXTS[: max(2, most)]
    feedback = write_feedback(tmp_path / "in.jsonl", texts)
    bound = ["--max-concurrency", "4"] if concurrency == "auto" else []
    done = mellea(
        "summarise", str(feedback), "-o", "out.jsonl", "-c", concurrency, *bound, *seen.flags(), env=seen.environ()
    )
    assert done.returncode in {0, 3}, done.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), texts, done.stderr)
    if concurrency == "auto":
        assert 1 <= relay.most_at_once <= most
    else:
        assert relay.most_at_once == most


def test_a_healthy_server_is_never_called_unavailable(
    mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path
) -> None:
    """No attempt fails by transport on a server that answers everything, and each answer is counted as one call."""
    texts = [TEXTS[0], ASKED_AGAIN]
    feedback = write_feedback(tmp_path / "in.jsonl", texts)
    done = mellea(
        "summarise", str(feedback), "-o", "out.jsonl", "-c", "1", "--json", "-v", *seen.flags(), env=seen.environ()
    )
    assert done.returncode in {0, 3}, done.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), texts, done.stderr)
    assert "unavailable" not in done.stderr, done.stderr
    assert summary_of(done)["calls"] == relay.answered


def test_the_progress_line_and_the_summary_count_alike(mellea: Run, server: RealServer, tmp_path: Path) -> None:
    """The progress line never tells of more repeated requests than the closing summary."""
    feedback = write_feedback(tmp_path / "in.jsonl", [TEXTS[0], ASKED_AGAIN])
    done = mellea(
        "summarise", str(feedback), "-o", "out.jsonl", "-c", "2", "--json", *server.flags(), env=server.environ()
    )
    assert done.returncode in {0, 3}, done.stderr
    told = [int(number) for number in re.findall(r"(\d+) retried", done.stderr)]
    assert max(told, default=0) <= summary_of(done)["retries"], done.stderr


def test_the_default_backend_finds_ollama(mellea: Run, tmp_path: Path) -> None:
    """Without `-b` and `-m`, an Ollama at `OLLAMA_HOST` that has the default model is taken, and that is said."""
    ollama = real_server("ollama")
    listed = mellea("doctor", env={"OLLAMA_HOST": ollama.url})
    if "granite4.1:3b" not in listed.stdout + listed.stderr:
        pytest.skip("this Ollama does not have granite4.1:3b")
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:1])
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", env={"OLLAMA_HOST": ollama.url})
    assert done.returncode in {0, 3}, done.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), TEXTS[:1], done.stderr)
    assert "granite4.1:3b" in done.stderr
