"""The server's trouble is not the row's: outages, refusals, hopeless errors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from audit import audit, command, end, leaks, run, start, write_input
from outage_harness import KINDS, harness

from loopback import ModelServer, faults

pytestmark = pytest.mark.slow

Serve = Callable[..., ModelServer]
FLAGS = ("-c", "8", "--json", "-q")


@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_of_three_seconds_costs_no_row(kind: str, tmp_path: Path) -> None:
    """No failed row, and at most 12 % more requests than rows."""
    figures = harness(kind, 3.0, 300, tmp_path)
    assert figures.good, figures


def test_a_server_that_is_gone_for_good(serve: Serve, tmp_path: Path) -> None:
    """After `--max-wait` exit 4 with one message and the command that goes on; what is done is kept."""
    server = serve(record=False, latency_s=0.02)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 400)
    arguments = command(source, output, server.openai_url, *FLAGS, "--max-wait", "1.5")
    process = start(arguments, tmp_path)
    server.wait(lambda state: state.completed >= 100, 30)
    server.stop()
    ended = end(process, 40)
    found = audit(output, 400)
    assert ended.code == 4
    assert len(found.answered) >= 90
    assert found.failed == {}
    assert ended.err.count('{"error": {') == 1
    assert "has not answered for" in ended.err
    assert "summarise" in ended.summary["next_command"]
    kept, before = len(found.answered), server.state.requests
    server.start()
    again = run(arguments, tmp_path)
    found = audit(output, 400)
    assert (again.code, found.problems) == (0, [])
    assert server.state.requests - before == 400 - kept


def test_a_server_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    """Waited for as long as the user will, then exit 4, no output, one message."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        write_input(source, 50)
        ended = run(command(source, output, f"http://127.0.0.1:{port}/v1", *FLAGS, "--max-wait", "1"), tmp_path)
    assert ended.code == 4
    assert not output.exists()
    assert ended.err.count('{"error": {') == 1
    assert "connection refused" in ended.err


def test_a_server_that_comes_up_while_it_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    """A run that starts before its server goes through."""
    server = serve(record=False)
    server.stop()
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 50)
    later = threading.Timer(2.5, server.start)
    later.start()
    ended = run(command(source, output, server.openai_url, *FLAGS), tmp_path)
    later.join()
    found = audit(output, 50)
    assert (ended.code, found.problems, found.failed) == (0, [], {})


QUOTA = faults.status(429, code="insufficient_quota", message="You exceeded your current quota")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("wrong key", {"api_key": "another"}, "401"),
        ("no such model", {"models": ("something-else",)}, "does not exist"),
        ("no chat endpoint", {"fault": faults.always(faults.raw_status(404, "nothing here"))}, "404"),
        (
            "quota spent after 50",
            {"fault": lambda call: QUOTA if call.index >= 50 else None},
            "exceeded your current quota",
        ),
        (
            "redirect",
            {"fault": faults.always(faults.raw_status(302, headers={"Location": "http://192.0.2.1/"}))},
            "302",
        ),
    ],
)
def test_a_hopeless_error_costs_a_few_requests_and_one_message(
    name: str, settings: dict[str, object], words: str, serve: Serve, tmp_path: Path
) -> None:
    """At most four requests for each place in flight, exit 4, one message with the next step, no dead letters."""
    server = serve(record=False, latency_s=0.01, **settings)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 500)
    ended = run(command(source, output, server.openai_url, *FLAGS), tmp_path)
    found = audit(output, 500)
    free = 50 if "50" in name else 0
    assert ended.code == 4
    assert server.state.requests <= free + 4 * 8
    assert ended.err.count('{"error": {') == 1
    assert words in ended.err
    assert found.failed == {}
    assert len(found.answered) == free
    assert leaks(tmp_path, ended.out, ended.err) == []


@pytest.mark.parametrize("retry_after", ["", "0"])
def test_a_provider_with_four_places(retry_after: str, serve: Serve, tmp_path: Path) -> None:
    """Sixteen wanted, four allowed, 429 beyond: no row lost, few requests in vain, and the places stay in use."""
    server = serve(record=False, latency_s=0.05, max_parallel=4, retry_after=retry_after)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 300)
    ended = run(command(source, output, server.openai_url, *FLAGS, "-c", "16"), tmp_path)
    found = audit(output, 300)
    assert (ended.code, found.problems, found.failed) == (0, [], {})
    assert server.state.refused <= 40


def test_rpm_is_kept_by_the_servers_own_clock(serve: Serve, tmp_path: Path) -> None:
    """With 600 requests a minute forty requests take the server's clock about four seconds, and not less than 3.3."""
    server = serve(record=False)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source, 40)
    ended = run(command(source, output, server.openai_url, *FLAGS, "--rpm", "600"), tmp_path)
    assert ended.code == 0
    starts = server.state.started
    # The very first request is held up by its connection, the later ones are not.
    assert max(starts) - min(starts) >= 3.3
