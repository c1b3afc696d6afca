"""Signals, closed pipes, two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from audit import Ended, audit, command, end, leaks, run, start, write_input

from loopback import ModelServer, faults

pytestmark = pytest.mark.slow

Serve = Callable[..., ModelServer]
FLAGS = ("-c", "4", "--json", "-q")
ITEMS = 300


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_a_signal_stops_a_run_which_can_be_gone_on_with(
    number: signal.Signals, code: int, serve: Serve, tmp_path: Path
) -> None:
    """Items in flight finish, the output holds what is done, the exit code says why; the next run asks for the rest."""
    server = serve(record=False, latency_s=0.02)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, ITEMS)
    arguments = command(source, output, server.openai_url, *FLAGS)
    process = start(arguments, tmp_path)
    server.wait(lambda state: state.completed >= 60, 30)
    process.send_signal(number)
    ended = end(process, 20)
    found = audit(output, ITEMS)
    assert ended.code == code
    assert 60 <= len(found.answered) < ITEMS
    assert found.failed == {}
    assert len(found.answered) == server.state.completed == server.state.requests
    assert ended.summary["next_command"]
    again = run(arguments, tmp_path)
    assert (again.code, audit(output, ITEMS).problems) == (0, [])
    assert server.state.requests == ITEMS
    assert leaks(tmp_path, ended.out, ended.err) == []


def test_a_second_signal_stops_at_once(serve: Serve, tmp_path: Path) -> None:
    """An item that hangs is given up on the second Ctrl-C; what was committed is in the output."""
    server = serve(record=False, fault=lambda call: faults.stall(2) if call.index == 40 else None)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, ITEMS)
    arguments = command(source, output, server.openai_url, *FLAGS, "--grace", "1h", "-c", "1")
    process = start(arguments, tmp_path)
    server.wait(lambda state: state.requests == 41 and state.pieces > 0 and state.completed == 40, 30)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)  # a person's second keystroke
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = end(process, 20)
    assert ended.code == 130
    assert len(audit(output, ITEMS).answered) == 40
    again = run(arguments, tmp_path)
    assert (again.code, audit(output, ITEMS).problems) == (0, [])
    assert server.state.completed == ITEMS


def test_a_reader_that_goes_away_ends_the_run_quietly(serve: Serve, tmp_path: Path) -> None:
    """`| head -5`: exit 141, nothing on stderr, few requests."""
    server = serve(record=False, latency_s=0.02)
    source = tmp_path / "in.jsonl"
    write_input(source, 2_000)
    arguments = command(source, "-", server.openai_url, "-c", "8", "-q")
    process = start(arguments, tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    first = [process.stdout.readline() for _ in range(5)]
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(20), said) == (141, "")
    process.stderr.close()
    assert all(line.endswith("\n") for line in first)
    assert server.state.requests <= 5 + 6 * 8


@pytest.mark.parametrize("apart_s", [0.0, 0.3, 0.8])
def test_two_runs_on_one_output(apart_s: float, serve: Serve, tmp_path: Path) -> None:
    """One does the work, the other says who holds the output and exits with 2, having sent nothing."""
    server = serve(record=False, latency_s=0.02)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 200)
    arguments = command(source, output, server.openai_url, *FLAGS)
    first = start(arguments, tmp_path)
    time.sleep(apart_s)
    second = start(arguments, tmp_path)
    ended: list[Ended] = [end(first), end(second)]
    assert sorted(one.code for one in ended) == [0, 2]
    refused = next(one for one in ended if one.code == 2)
    holder = first if refused is ended[1] else second
    assert str(holder.pid) in refused.err
    assert server.state.requests == 200
    assert audit(output, 200).problems == []


def test_a_lock_dies_with_its_process(serve: Serve, tmp_path: Path) -> None:
    """A killed run leaves its lock file, and the next run does not mind."""
    server = serve(record=False, latency_s=0.02)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 100)
    arguments = command(source, output, server.openai_url, *FLAGS)
    process = start(arguments, tmp_path)
    server.wait(lambda state: state.completed >= 20, 30)
    os.killpg(process.pid, signal.SIGKILL)
    end(process)
    assert (tmp_path / "out.jsonl.lock").exists()
    assert run(arguments, tmp_path).code == 0


def test_a_nightly_run_says_one_line_of_json(serve: Serve, tmp_path: Path) -> None:
    """Nothing else on stderr when all is well; a hopeless start says why first; both last lines tell the exit code."""
    server = serve(record=False)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 20)
    arguments = command(source, output, server.openai_url, "--nightly")
    good = run(arguments, tmp_path)
    assert (good.code, good.out, len(good.err.splitlines())) == (0, "", 1)
    assert (good.summary["done"], good.summary["exit_code"]) == (20, 0)
    again = run(arguments, tmp_path)
    assert (again.summary["reused"], server.state.requests) == (20, 20)
    source.write_text("no json at all\n")
    bad = run(arguments, tmp_path)
    assert bad.code == bad.summary["exit_code"] == 2
    assert bad.err.splitlines()[-1].startswith("{")
    assert "in.jsonl:1" in bad.summary["stopped"]


def test_a_deadline_ends_a_run_with_everything_kept(serve: Serve, tmp_path: Path) -> None:
    """Exit 4, the rows so far, and the next run goes on."""
    server = serve(record=False, latency_s=0.05)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, ITEMS)
    arguments = command(source, output, server.openai_url, *FLAGS)
    ended = run([*arguments, "--deadline", "1s"], tmp_path)
    done = len(audit(output, ITEMS).answered)
    assert (ended.code, "deadline" in ended.summary["stopped"]) == (4, True)
    assert 0 < done == server.state.requests < ITEMS
    assert run(arguments, tmp_path).code == 0
    assert server.state.requests == ITEMS


def test_local_only_sends_nothing_to_another_machine(tmp_path: Path) -> None:
    """It is refused before a name is looked up, whatever the scheme; plain http needs a word of its own."""
    source = tmp_path / "in.jsonl"
    write_input(source, 3)
    for address in ("https://192.0.2.1/v1", "http://192.0.2.1/v1", "https://model.example/v1"):
        ended = run(command(source, "-", address, "--local-only", "-q"), tmp_path)
        assert (ended.code, ended.out) == (2, "")
        assert "--local-only" in ended.err
    plain = run(command(source, "-", "http://192.0.2.1/v1", "-q"), tmp_path)
    assert (plain.code, "--allow-http" in plain.err) == (2, True)


def test_redacted_runs_send_no_address(serve: Serve, tmp_path: Path) -> None:
    """The server gets masks, the output keeps the text as it was."""
    server = serve()
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": 1, "text": "Write to jo@example.com or call +44 20 7946 0958. MARK-1"}\n')
    assert run(command(source, output, server.openai_url, "-q", "--redact"), tmp_path).code == 0
    sent = str(server.state.bodies)
    assert "[email]" in sent
    assert "jo@example.com" not in sent
    assert "7946" not in sent
    assert "jo@example.com" in output.read_text()


def test_the_key_is_in_no_process_list(serve: Serve, tmp_path: Path) -> None:
    """The command line that others can see holds no key."""
    server = serve(record=False, latency_s=0.1)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 60)
    process = start(command(source, output, server.openai_url, *FLAGS, "-v"), tmp_path)
    server.wait(lambda state: state.completed >= 4, 30)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout  # noqa: S607 - the system's own
    ended = end(process)
    assert leaks(tmp_path, listed, ended.out, ended.err) == []
