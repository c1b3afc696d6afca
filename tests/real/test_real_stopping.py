"""Runs on real servers that are stopped, or whose server is restarted under them."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from realservers import (
    TEXTS,
    TIMEOUT_S,
    Process,
    RealServer,
    Run,
    check_rows,
    read_rows,
    summary_of,
    write_feedback,
)
from relay import Relay

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1200)]

Start = Callable[..., subprocess.Popen[str]]

ROWS = TEXTS[:8]


def text_of(question: dict[str, object]) -> str:
    """Which of the texts a request asks about."""
    return next(text for text in TEXTS if text in str(question))


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda which: which.name)
def test_a_stopped_run_goes_on(
    started: Start, mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path, which: signal.Signals
) -> None:
    """After Ctrl-C, SIGTERM or SIGKILL the same command asks only for what is missing."""
    feedback = write_feedback(tmp_path / "in.jsonl", ROWS)
    command = ["summarise", str(feedback), "-o", "out.jsonl", "-c", "2", "--json", "--no-retry-failed", *seen.flags()]
    process = started(*command, env=seen.environ())
    relay.wait(lambda now: now.answered >= 4)
    process.send_signal(which)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == (-9 if which is signal.SIGKILL else 128 + which), err
    # Four answers are at least one finished row, as a row has at most three tries. A kill keeps no more than that.
    kept = 1
    if which is not signal.SIGKILL:
        stopped = summary_of(Process(command, process.returncode, out, err))
        kept = stopped["done"] + stopped["failed"]
        assert stopped["stopped"]
        assert kept < len(ROWS)
    asked = len(relay.questions)
    rest = mellea(*command, env=seen.environ())
    assert rest.returncode in {0, 3}, rest.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), ROWS, rest.stderr)
    asked_again = {text_of(question.json) for question in relay.questions[asked:]}
    assert len(asked_again) <= len(ROWS) - kept


def test_a_second_ctrl_c_does_not_wait(
    started: Start, mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path
) -> None:
    """The first Ctrl-C lets what is in flight end, the second one gives it up; nothing that was done is lost."""
    feedback = write_feedback(tmp_path / "in.jsonl", ROWS)
    command = ["summarise", str(feedback), "-o", "out.jsonl", "-c", "4", "--grace", "600", *seen.flags()]
    process = started(*command, env=seen.environ())
    relay.wait(lambda now: now.answered >= 1)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = ""
    while "Ctrl-C again" not in said:
        line = process.stderr.readline()
        assert line, f"the program ended before: {said}"
        said += line
    process.send_signal(signal.SIGINT)
    said += process.stderr.read()
    assert process.wait(TIMEOUT_S) == 130, said
    rest = mellea(*command, env=seen.environ())
    assert rest.returncode in {0, 3}, rest.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), ROWS, rest.stderr)


def test_a_server_that_is_restarted(started: Start, server: RealServer, tmp_path: Path) -> None:
    """A restart in mid-run costs no row: the run waits for the server and asks again."""
    if not server.restart:
        pytest.skip("no command to restart this server was given")
    feedback = write_feedback(tmp_path / "in.jsonl", ROWS)
    process = started("summarise", str(feedback), "-c", "2", *server.flags(), env=server.environ())
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    assert first, process.stderr.read()
    subprocess.run(server.restart, check=True, timeout=TIMEOUT_S)
    rest, err = process.stdout.read(), process.stderr.read()
    assert process.wait(TIMEOUT_S) in {0, 3}, err
    check_rows([json.loads(line) for line in (first + rest).splitlines()], ROWS, err)
