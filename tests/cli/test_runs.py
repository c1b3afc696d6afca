"""`mellea status`, `runs`, `pause`, `resume`, `stop` and `tune`, and the estimate before a run."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from loopback import Fault, ModelServer
from mellea_cli.run.control import new_record, state_folder
from mellea_cli.ui.console import rate
from rowfiles import Process, Run, write_rows

Serve = Callable[..., ModelServer]
TIMEOUT_S = 60.0


def remote(server: ModelServer) -> list[str]:
    return ["-b", "openai", "-m", "test-model", "--base-url", server.openai_url]


def record(**changes: object) -> None:
    """Write the record of a run that this test makes up."""
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    made = replace(new_record("summarise", str(changes.pop("output", "out.jsonl")), "feedback.jsonl"), **changes)  # type: ignore[arg-type]
    (folder / f"{made.id}.json").write_text(json.dumps(asdict(made)))


def test_a_run_is_controlled_by_another_process(serve: Serve, mellea_process: Run, feedback: Path) -> None:
    """Status, tune, pause, resume and stop from one process, the run in another."""
    server = serve(latency_s=0.3)
    found: list[Process] = []
    run = threading.Thread(
        target=lambda: found.append(
            mellea_process("summarise", "feedback.jsonl", "-o", "out.jsonl", *remote(server), "-c", "1", "--grace", "0")
        )
    )
    run.start()
    deadline = time.monotonic() + TIMEOUT_S
    while server.state.completed < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    paused = mellea_process("pause", "out.jsonl", "--reason", "a meeting")
    assert (paused.returncode, paused.stderr) == (
        0,
        "mellea: out.jsonl: paused: requests in flight are finished, no new one is sent\n",
    )
    shown = mellea_process("status")
    assert re.search(r"^out\.jsonl +paused: a meeting +\d+/30 .* \d+$", shown.stdout, re.MULTILINE)
    listed = json.loads(mellea_process("status", "--json").stdout)
    assert (listed["state"], listed["total"], listed["concurrency"]) == ("paused", 30, 1)
    assert "socket" not in listed
    tuned = mellea_process("tune", str(listed["pid"]), "-c", "3", "--rpm", "5")
    assert "at most 3 in flight and 5 requests a minute" in tuned.stderr
    resumed = json.loads(mellea_process("resume", "out.jsonl", "--json").stdout)
    assert (Path(resumed["output"]).name, resumed["answer"]) == ("out.jsonl", "resumed")
    assert "stopping" in mellea_process("stop", "out.jsonl").stderr
    run.join(TIMEOUT_S)
    assert found[0].returncode == 4
    assert "stopped by mellea stop" in found[0].stderr
    assert "next: mellea summarise feedback.jsonl" in found[0].stderr
    assert mellea_process("status").stderr == "mellea: nothing is running; mellea runs shows the runs that have ended\n"
    assert "stopped by mellea stop (exit code 4)" in mellea_process("runs").stdout


def test_runs_that_have_ended(mellea: Run, feedback: Path) -> None:
    """The history has every run, the latest first; nothing goes on."""
    assert "no run has been seen" in mellea("runs").stderr
    for name in ("a", "b"):
        mellea("summarise", "feedback.jsonl", "-o", f"{name}.jsonl", "-b", "scripted", "-q")
    lines = mellea("runs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["output", "b.jsonl", "a.jsonl"]
    assert "finished" in lines[1]
    assert "30/30" in lines[1]
    assert len(mellea("runs", "-n", "1", "--json").stdout.splitlines()) == 1


def test_the_rate_is_that_of_the_summary(mellea: Run, feedback: Path) -> None:
    """The same number in the same unit, also of a run that had some answers already."""
    run = ("summarise", "feedback.jsonl", "-o", "a.jsonl", "-b", "scripted")
    mellea(*run, "-q", "-n", "20")
    told = json.loads(mellea(*run, "--json").stderr.splitlines()[-1])
    assert told["items_per_s"] == pytest.approx(10 / told["elapsed_s"], rel=0.05)
    assert json.loads(mellea("runs", "-n", "1", "--json").stdout)["items_per_s"] == told["items_per_s"]
    assert f" {rate(told['items_per_s'])} items/s " in mellea("runs", "-n", "1").stdout


def test_a_killed_run_is_called_what_it_is(mellea: Run, tmp_path: Path) -> None:
    """With the command that continues it, until the output has another run; its process id means nothing."""
    record(
        output=tmp_path / "out.jsonl",
        pid=os.getpid(),
        done=5,
        total=9,
        next_command="mellea summarise feedback.jsonl -o out.jsonl",
    )
    shown = mellea("status")
    assert re.search(r"ended without notice, last seen .* 5/9 ", shown.stdout)
    assert "running" not in shown.stdout
    assert "to continue: mellea summarise feedback.jsonl -o out.jsonl" in shown.stderr
    refused = mellea("stop", "out.jsonl")
    assert refused.returncode == 2
    assert "ended without notice" in refused.stderr


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_a_killed_run_is_no_news_after_a_later_one(mellea: Run, tmp_path: Path, state: str) -> None:
    """Whatever became of the later run of the same output; a killed run of another output stays."""
    record(id="2026-1", output=tmp_path / "out.jsonl", next_command="mellea summarise feedback.jsonl -o out.jsonl")
    record(id="2026-2", output=tmp_path / "out.jsonl", state=state)
    assert mellea("status").stderr == "mellea: nothing is running; mellea runs shows the runs that have ended\n"
    record(id="2026-0", output=tmp_path / "other.jsonl")
    assert "other.jsonl" in mellea("status").stdout


def test_a_long_message_is_cut_to_the_width(mellea: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table keeps its columns and the exit code; no word stands twice; the JSON has the whole message."""
    reason = "the model server has not answered for 300 s: " + "connection refused; " * 20
    record(id="2026-1", output=tmp_path / "a.jsonl", state="failed", reason=reason, exit_code=4, model="m1")
    record(id="2026-2", output=tmp_path / "b.jsonl", state="stopped", reason="stopped by SIGTERM", exit_code=143)
    monkeypatch.setenv("COLUMNS", "110")
    _, second, first = mellea("runs").stdout.splitlines()
    assert len(first) <= 110
    assert re.search(r"failed: the model server has not .*\u2026 \(exit code 4\) ", first)
    assert first.endswith("m1")
    assert " stopped by SIGTERM (exit code 143)" in second
    assert "stopped: stopped" not in second
    assert json.loads(mellea("runs", "--json").stdout.splitlines()[1])["reason"] == reason


@pytest.mark.parametrize("suffix", [".partial", ".journal"])
def test_an_output_of_an_interrupted_run_is_not_a_wrong_name(mellea: Run, tmp_path: Path, suffix: str) -> None:
    """Commands that read it say that the run is not over, and how to continue."""
    (tmp_path / f"out.jsonl{suffix}").touch()
    for command in ("report", "show", "export"):
        refused = mellea(command, "out.jsonl")
        assert refused.returncode != 0
        assert "out.jsonl: is not there yet: its run was interrupted, or goes on" in refused.stderr
        assert "the same summarise command again continues it" in refused.stderr


def test_a_process_that_stands_still_is_called_silent(mellea: Run) -> None:
    """Its lock is held, and its record is old."""
    from filelock import FileLock

    record(id="x", socket="x.sock", updated=time.time() - 100)
    with FileLock(state_folder() / "x.lock"):
        assert "its process stands still" in mellea("status", env={"COLUMNS": "200"}).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tune", "out.jsonl"), "nothing was named to change"),
        (("tune", "out.jsonl", "-c", "auto"), "for the start of a run"),
        (("tune", "out.jsonl", "-c", "0"), "must be a number of requests"),
        (("pause", "out.jsonl"), "no run on this machine writes out.jsonl"),
    ],
)
def test_what_cannot_be_asked_is_refused(mellea: Run, arguments: tuple[str, ...], message: str) -> None:
    """One line, and exit code 2."""
    refused = mellea(*arguments)
    assert refused.returncode == 2
    assert message in refused.stderr


# The estimate.


def test_a_sample_is_asked_once(server: ModelServer, mellea: Run, feedback: Path) -> None:
    """`--estimate` asks some rows and keeps their answers: the run asks only the others."""
    flags = ("summarise", "feedback.jsonl", "-o", "out.jsonl", *remote(server), "--price", "0.15,0.60", "-c", "4")
    shown = mellea(*flags, "--estimate")
    assert shown.returncode == 0
    assert server.state.requests == 9
    assert "30: 21 new, 9 answered already" in shown.stdout
    assert re.search(r"^time +\S+ to \S+, likely \S+ \(6 rows timed\)$", shown.stdout, re.MULTILINE)
    assert re.search(r"^cost +\S+ to \S+, likely \S+$", shown.stdout, re.MULTILINE)
    assert not (feedback.parent / "out.jsonl").exists()
    later = mellea(*flags, "--dry-run")
    assert "6 rows timed" in later.stdout
    assert server.state.requests == 9
    done = mellea(*flags, "--json")
    assert server.state.requests == 30
    summary = json.loads(done.stderr.splitlines()[-1])
    assert (summary["done"], summary["reused"], summary["currency"]) == (30, 9, None)
    tokens = summary["prompt_tokens"] * 0.15 + summary["completion_tokens"] * 0.60
    assert summary["cost"] == pytest.approx(tokens / 1e6)
    assert "nothing" not in mellea(*flags, "--estimate").stderr
    assert server.state.requests == 30


def test_the_estimate_as_json(server: ModelServer, mellea: Run, feedback: Path) -> None:
    """Intervals by name, and null for what no sample says."""
    flags = ("summarise", "feedback.jsonl", "-o", "out.jsonl", *remote(server), "--json")
    before = json.loads(mellea(*flags, "--dry-run").stderr.splitlines()[-1])
    assert (before["rows"], before["calls"], before["sampled"], before["seconds"], before["cost"]) == (
        30,
        30,
        0,
        None,
        None,
    )
    after = json.loads(mellea(*flags, "--estimate", "--price", "1,1").stderr.splitlines()[-1])
    assert (after["rows"], after["sampled"]) == (17, 6)
    for name in ("prompt_tokens", "completion_tokens", "seconds", "cost"):
        assert after[name]["low"] <= after[name]["likely"] <= after[name]["high"]


def test_where_nothing_could_be_kept_nothing_is_asked(server: ModelServer, mellea: Run, feedback: Path) -> None:
    """Stdout has no journal, and a pipe cannot be read twice."""
    refused = mellea("summarise", "feedback.jsonl", *remote(server), "--estimate")
    assert (refused.returncode, server.state.requests) == (2, 0)
    assert "name the run's output with -o" in refused.stderr
    refused = mellea("summarise", "-", "-o", "out.jsonl", *remote(server), "--estimate", stdin=feedback.read_text())
    assert (refused.returncode, server.state.requests) == (2, 0)


def test_a_sample_that_fails_says_why(serve: Serve, mellea: Run, feedback: Path) -> None:
    """There is nothing to estimate by."""
    server = serve(fault=lambda _: Fault(status=422, body="no"))
    failed = mellea("summarise", "feedback.jsonl", "-o", "out.jsonl", *remote(server), "--estimate")
    assert failed.returncode == 4
    assert "rows was answered" in failed.stderr


def test_a_dry_run_sends_nothing(server: ModelServer, mellea: Run, feedback: Path) -> None:
    """It says what it cannot know, and how to learn it."""
    shown = mellea("summarise", "feedback.jsonl", "-o", "out.jsonl", *remote(server), "--dry-run", "--price", "1,1")
    assert server.state.requests == 0
    assert re.search(r"^tokens +about [\d,]+ in \(estimated by characters\); out: unknown$", shown.stdout, re.MULTILINE)
    assert "--estimate asks a few" in shown.stdout
    assert "for prompts, without the answers" in shown.stdout


def test_a_cost_needs_a_price(server: ModelServer, mellea: Run, feedback: Path) -> None:
    """A server on this machine has no listed price."""
    refused = mellea("summarise", "feedback.jsonl", "-o", "out.jsonl", *remote(server), "--max-cost", "1")
    assert (refused.returncode, server.state.requests) == (2, 0)
    assert "--price IN,OUT" in refused.stderr
    write_rows(feedback, [{"id": 1, "text": "one"}])
    stopped = mellea(
        "summarise", "feedback.jsonl", "-o", "out.jsonl", *remote(server), "--max-cost", "1", "--price", "0.15,0.60"
    )
    assert stopped.returncode == 0
