"""Batch runs on either event loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import ModelServer, faults
from mellea_cli.cli import batch_run
from rowfiles import Run, interrupted, read_rows, write_rows


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The loop that programs started from here run on."""
    chosen: str = request.param
    monkeypatch.setenv("MELLEA_LOOP", "" if chosen == "uvloop" else chosen)
    return chosen


async def _its_loop() -> str:
    import asyncio

    return type(asyncio.get_running_loop()).__module__.split(".")[0]


def test_uvloop_is_taken_where_it_is(loop: str) -> None:
    """Unless somebody wants Python's own."""
    assert batch_run.run_on_loop(_its_loop()) == loop


def test_python_s_own_is_taken_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.delenv("MELLEA_LOOP")
    monkeypatch.setattr(batch_run, "find_spec", lambda name: None)
    assert batch_run.run_on_loop(_its_loop()) == "asyncio"


def test_a_run_with_faults_ends_as_it_should(loop: str, mellea: Run, tmp_path: Path) -> None:
    """Broken connections, refusals and late answers are repaired: every row once, in order."""
    path = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"MARK-{n} x"} for n in range(120)])
    plan = faults.drawn(3, 0.2, faults.cut(), faults.status(503), faults.status(429), faults.half_json())
    with ModelServer(models=("m",), latency_s=0.01, fault=plan) as server:
        done = mellea("summarise", str(path), "-o", "out.jsonl", "-c", "16", "-m", "m", "--base-url", server.openai_url)
    assert done.returncode == 0, f"{loop}: {done.stderr}"
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == list(range(120))
    assert all(f"MARK-{row['id']} " in row["summary"] + " " for row in rows)


def test_ctrl_c_is_heard(loop: str, mellea: Run, tmp_path: Path) -> None:
    """And the same command finishes the work without asking anything twice."""
    path = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"MARK-{n} x"} for n in range(60)])
    with ModelServer(models=("m",), latency_s=0.05) as server:
        command = ("summarise", str(path), "-o", "out.jsonl", "-c", "4", "-m", "m", "--base-url", server.openai_url)
        code, talk = interrupted(command, tmp_path, server, answered=10)
        assert code == 130, f"{loop}: {talk}"
        assert mellea(*command).returncode == 0
        assert server.state.requests == 60


@pytest.mark.parametrize("yes", [True, False])
def test_other_settings_are_confirmed_at_a_terminal(
    yes: bool, mellea: Run, feedback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question names what changed and the calls; without a yes nothing is asked and nothing changes."""
    questions: list[str] = []

    def agreed(question: str) -> bool:
        questions.append(question)
        return yes

    command = ("summarise", str(feedback), "-o", "out.jsonl", "-b", "scripted")
    mellea(*command)
    monkeypatch.setattr(batch_run, "_agreed", agreed)
    done = mellea(*command, "-p", "steps", "-t", "0.5")
    assert done.returncode == (0 if yes else 2), done.stderr
    (question,) = questions
    assert "pipeline steps instead of single, temperature 0.5 instead of 0.0" in question
    assert "30 rows are asked again, 90 calls" in question
    assert mellea(*command).returncode == 0
    assert len(questions) == 1


def test_a_refused_start_leaves_no_file(mellea: Run, feedback: Path, tmp_path: Path) -> None:
    """No journal, partial file or lock beside the output, whatever refuses the run."""
    unreachable = ("-b", "openai", "-m", "m", "--base-url", "http://127.0.0.1:9/v1", "--max-wait", "0s", "-c", "1")
    for flags, code in (
        (("-b", "scripted", "--text-field", "nope"), 2),
        (("-b", "scripted", "--max-errors", "no"), 2),
        (("-b", "openai", "-m", "m", "--base-url", "ftp://127.0.0.1"), 2),
        ((*unreachable, "--errors-file", "bad.jsonl"), 4),
    ):
        done = mellea("summarise", str(feedback), "-o", "out.jsonl", *flags)
        assert done.returncode == code, done.stderr
        assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {feedback.name}
