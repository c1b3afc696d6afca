"""`--offload` against a server with a batch queue: what is handed in, what comes back, and what when it does not."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loopback import BatchPlan, ModelServer
from mellea_cli.backends.openai_batch import Batch
from mellea_cli.cli.app import app
from mellea_cli.cli.offload import BatchLines, batch_state
from rowfiles import read_rows, write_rows

KEY = "sk-never-to-be-seen-77ab"
Start = Callable[..., ModelServer]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment, which must turn up nowhere else."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


class Case:
    """One input and one output, against one server."""

    def __init__(self, folder: Path, server: ModelServer, items: int = 12) -> None:
        self.folder = folder
        self.server = server
        self.source = write_rows(folder / "in.jsonl", [{"id": n, "text": f"MARK-i{n}x is late"} for n in range(items)])
        self.output = folder / "out.jsonl"

    def arguments(self, *flags: str, output: Path | None = None) -> list[str]:
        """A command line against the server."""
        where = ["-m", "m", "--base-url", self.server.openai_url]
        return ["summarise", str(self.source), "-o", str(output or self.output), *where, *flags]

    def live(self, *flags: str) -> bytes:
        """What a live run writes, by a server of its own."""
        with ModelServer(models=("m",), record=False) as other:
            arguments = self.arguments(*flags, output=self.folder / "live.jsonl")
            arguments[arguments.index(self.server.openai_url)] = other.openai_url
            assert invoke(*arguments).exit_code == 0
        return (self.folder / "live.jsonl").read_bytes()

    def offload(self, *flags: str) -> Result:
        """A run by the queue, looking often."""
        return invoke(*self.arguments("--offload", "--batch-poll", "0.02", "--json", *flags))


def invoke(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def summary(done: Result) -> dict[str, Any]:
    """The closing line of JSON."""
    line = next(line for line in reversed(done.stderr.splitlines()) if line.startswith("{"))
    loaded: dict[str, Any] = json.loads(line)
    return loaded


def queue(**plan: Any) -> ModelServer:
    """A server with a queue that behaves so."""
    settings = {name: plan.pop(name) for name in ("api_key", "refuse") if name in plan}
    return ModelServer(models=("m",), batches=BatchPlan(**plan), **settings)


def test_a_thousand_items_survive_a_kill_while_waiting(tmp_path: Path) -> None:
    """Killed, picked up, 30 that expired finished live: one output, as a live run's, and no item asked twice."""
    gate = threading.Event()
    late = {f"MARK-i{n}x " for n in range(100, 130)}
    with queue(held=lambda: not gate.is_set(), expires=lambda prompt: any(mark in prompt for mark in late)) as server:
        case = Case(tmp_path, server, 1000)
        command = [sys.executable, "-m", "mellea_cli", *case.arguments("--offload", "--batch-poll", "0.05")]
        waiting = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        server.wait(lambda state: state.looks >= 3, 60)
        os.kill(waiting.pid, signal.SIGKILL)
        waiting.wait()
        assert not case.output.exists()
        gate.set()
        done = case.offload()
        state = server.state
    assert done.exit_code == 0, done.stderr
    assert case.output.read_bytes() == case.live()
    assert state.batches == state.uploads == 1
    assert set(state.batch_rows.values()) == {1}
    # The first item goes live to see that all is well, and the thirty that expired.
    assert state.requests == 31
    assert len(state.attempts) == 1000
    assert set(state.attempts.values()) == {1}
    assert summary(done)["offloaded"] == 970  # the first item's answer came before the kill and counts among them


def test_steps_go_in_rounds(tmp_path: Path) -> None:
    """Summary and issues in the first batch, the sentiment in the second, with the summary in its prompt."""
    with queue() as server:
        case = Case(tmp_path, server)
        done = case.offload("-p", "steps")
        uploaded = [[json.loads(line) for line in content.splitlines()] for content in server.state.uploaded]
    assert done.exit_code == 0, done.stderr
    assert case.output.read_bytes() == case.live("-p", "steps")
    steps = [sorted({request["custom_id"].split("-")[1] for request in requests}) for requests in uploaded]
    assert steps == [["issues", "summary"], ["sentiment"]]
    assert [len(requests) for requests in uploaded] == [23, 12]
    assert "The customer writes MARK-i" in uploaded[1][0]["body"]["messages"][-1]["content"]


def test_identical_texts_are_handed_in_once(tmp_path: Path) -> None:
    """A text that stands in many rows is one request, and every row has its answer; blank ones have none."""
    with queue() as server:
        case = Case(tmp_path, server)
        texts = ["MARK-a late", "MARK-b late", "MARK-c late", "", "MARK-b late"] * 5
        write_rows(case.source, [{"id": n, "text": text} for n, text in enumerate(texts)])
        done = case.offload()
        state = server.state
    assert done.exit_code == 0, done.stderr
    assert len(state.batch_rows) == 2
    assert case.output.read_bytes() == case.live()


def test_nearly_identical_texts_are_handed_in_once(tmp_path: Path) -> None:
    """One request for short texts that share an answer, and the rows of a live run."""
    with queue() as server:
        case = Case(tmp_path, server)
        texts = ["MARK-a late", "mark-a late.", "- MARK-a  LATE", "MARK-b late", "MARK-b late?"] * 2
        write_rows(case.source, [{"id": n, "text": text} for n, text in enumerate(texts)])
        done = case.offload()
        state = server.state
    assert done.exit_code == 0, done.stderr
    assert sum(state.batch_rows.values()) + state.requests == 3
    assert case.output.read_bytes() == case.live()


@pytest.mark.parametrize(("flag", "limit"), [("--batch-requests", 4), ("--batch-bytes", 14_000)])
def test_files_keep_within_the_limits(tmp_path: Path, flag: str, limit: int) -> None:
    """No file has more requests or bytes than it may, and none is missing."""
    with queue() as server:
        case = Case(tmp_path, server)
        done = case.offload(flag, str(limit))
        uploaded = server.state.uploaded
        rows = server.state.batch_rows
    assert done.exit_code == 0, done.stderr
    sizes = [content.count(b"\n") if flag == "--batch-requests" else len(content) for content in uploaded]
    assert len(sizes) >= 3
    assert max(sizes) <= limit
    assert len(rows) == 11
    assert set(rows.values()) == {1}
    assert case.output.read_bytes() == case.live()


@pytest.mark.parametrize("fault", [429, 500, "after", "cut"])
@pytest.mark.parametrize("route", ["upload", "create", "get", "content"])
def test_every_route_may_fail(tmp_path: Path, route: str, fault: int | str) -> None:
    """A call that fails is made again, but nothing is handed in twice, also when it was done and we were not told."""

    def twice(name: str, number: int) -> int | str | None:
        return fault if name == route and number < 2 else None

    with queue(route=twice) as server:
        case = Case(tmp_path, server)
        done = case.offload()
        state = server.state
    assert done.exit_code == 0, done.stderr
    assert case.output.read_bytes() == case.live()
    assert state.batches == 1
    assert set(state.batch_rows.values()) == {1}
    assert set(state.attempts.values()) == {1}


def test_a_server_without_lists_gets_the_one_in_doubt_again(tmp_path: Path) -> None:
    """Where nobody can look whether a batch was taken on, it is handed in a second time, and the rows are right."""
    with queue(lists=False, route=lambda name, number: "after" if (name, number) == ("create", 0) else None) as server:
        case = Case(tmp_path, server)
        done = case.offload()
        assert server.state.batches == 2
    assert done.exit_code == 0, done.stderr
    assert case.output.read_bytes() == case.live()


@pytest.mark.parametrize("most", [0, 1, 700, 2500])
def test_a_download_that_breaks_off_is_read_again(tmp_path: Path, most: int) -> None:
    """Half an output file is no answer to the rows in the other half, and those are not asked live either."""
    with queue(truncate=lambda number: most if number < 2 else None) as server:
        case = Case(tmp_path, server)
        done = case.offload()
        state = server.state
    assert done.exit_code == 0, done.stderr
    assert state.requests == 1
    assert case.output.read_bytes() == case.live()


def test_rows_without_a_good_answer_are_finished_live(tmp_path: Path) -> None:
    """An error line, a line of another shape and an answer that is no JSON: each is asked live, with reason."""
    odd: dict[str, dict[str, Any]] = {
        "i3x": {"response": {"status_code": 400, "body": {"error": {"message": "no", "code": "x"}}}},
        "i4x": {"response": {"status_code": 200, "body": {"choices": 3}}},
        "i5x": {"error": "just words"},
        "i6x": {},
    }

    def row(prompt: str) -> dict[str, Any] | None:
        return next((line for mark, line in odd.items() if f"MARK-{mark} " in prompt), None)

    with queue(row=row, text=lambda prompt: "not json" if "MARK-i7x " in prompt else None) as server:
        case = Case(tmp_path, server)
        done = case.offload()
        state = server.state
    assert done.exit_code == 0, done.stderr
    assert case.output.read_bytes() == case.live()
    assert state.requests == 6
    repair = [body for body in state.bodies if any("not json" in message["content"] for message in body["messages"])]
    assert len(repair) == 1


def test_a_batch_that_is_refused_as_a_whole_is_not_asked_live(tmp_path: Path) -> None:
    """That would cost twice what was expected: the run ends and says why, and the same command tries again."""
    with queue(ends=lambda number: "failed" if number == 0 else "completed") as server:
        case = Case(tmp_path, server)
        refused = case.offload()
        assert refused.exit_code == 4
        assert "A line is not as it should be" in refused.stderr
        assert server.state.requests == 1
        again = case.offload()
        assert server.state.batches == 2
    assert again.exit_code == 0, again.stderr
    assert case.output.read_bytes() == case.live()


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """When the account's queue takes no more tokens, the rest goes in as other batches come out."""
    with queue(most_active=1) as server:
        case = Case(tmp_path, server)
        done = case.offload("--batch-requests", "3")
        rows = server.state.batch_rows
    assert done.exit_code == 0, done.stderr
    assert len(rows) == 11
    assert set(rows.values()) == {1}
    assert server.state.requests == 1
    assert case.output.read_bytes() == case.live()


def test_hand_in_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--no-wait ends with 4 and the command to go on; typed again it brings in what is done; jobs lists and cancels."""
    monkeypatch.chdir(tmp_path)
    gate = threading.Event()
    with queue(held=lambda: not gate.is_set()) as server:
        case = Case(tmp_path, server)
        handed_in = case.offload("--no-wait")
        assert handed_in.exit_code == 4
        assert summary(handed_in)["stopped"] == "1 batch is being worked on by the server"
        assert case.offload("--no-wait").exit_code == 4
        listed = invoke("jobs", "list", "--base-url", server.openai_url)
        assert "batch_0000" in listed.stdout
        assert "in progress" in listed.stdout
        elsewhere = invoke("jobs", "list", "out.jsonl", "--base-url", "http://127.0.0.1:9/v1")
        assert "was submitted to" in elsewhere.stderr
        assert invoke("jobs", "cancel", "out.jsonl", "batch_9", "--base-url", server.openai_url).exit_code == 2
        told = json.loads(invoke("jobs", "list", "--json", "--base-url", server.openai_url).stdout)
        assert [(job["output"], job["batch"]) for job in told["jobs"]] == [("out.jsonl", "batch_0000")]
        assert told["problems"] == []
        cancelled = invoke("jobs", "cancel", "out.jsonl", "--json", "--base-url", server.openai_url)
        assert json.loads(cancelled.stdout) == {"output": "out.jsonl", "cancelled": ["batch_0000"]}
        gate.set()
        done = case.offload()
        state = server.state
        assert done.exit_code == 0, done.stderr
        # Half of the first batch was answered before it was cancelled; the rest went in once more.
        assert state.batches == 2
        assert set(state.attempts.values()) == {1}
        assert "no batch is under way" in invoke("jobs", "list").stderr
        assert "batch_0001" in invoke("jobs", "list", "--all").stdout
    assert case.output.read_bytes() == case.live()


def test_a_batch_that_is_cancelled_meanwhile_ends_the_run(tmp_path: Path) -> None:
    """It is not handed in again by itself; what it had answered is kept, and the same command does the rest."""
    with queue(ends=lambda number: "cancelled" if number == 0 else "completed") as server:
        case = Case(tmp_path, server)
        cancelled = case.offload()
        assert cancelled.exit_code == 4
        assert "was cancelled" in cancelled.stderr
        assert server.state.batches == 1
        assert case.offload().exit_code == 0
        assert server.state.batches == 2
        assert set(server.state.attempts.values()) == {1}
    assert case.output.read_bytes() == case.live()


@pytest.mark.parametrize("flags", [(), ("--fresh",), ("--offload", "--fresh"), ("--export-batch", "x.jsonl")])
def test_batches_under_way_are_not_forgotten(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A run that would pay for their rows twice, or lose them, is refused."""
    with queue(held=lambda: True) as server:
        case = Case(tmp_path, server)
        assert case.offload("--no-wait").exit_code == 4
        refused = invoke(*case.arguments(*flags))
        assert refused.exit_code == 2
        assert "1 batch is submitted" in refused.stderr
        assert server.state.requests == 1


def test_cancelled_batches_may_be_given_up(tmp_path: Path) -> None:
    """After `mellea jobs cancel` the rows may be asked live; before, that is refused."""
    with queue(held=lambda: True) as server:
        case = Case(tmp_path, server)
        assert case.offload("--no-wait").exit_code == 4
        assert invoke(*case.arguments()).exit_code == 2
        assert invoke("jobs", "cancel", str(case.output), "--base-url", server.openai_url).exit_code == 0
        done = invoke(*case.arguments())
    assert done.exit_code == 0, done.stderr
    assert case.output.read_bytes() == case.live()


@pytest.mark.parametrize("route", ["upload", "create"])
def test_what_the_queue_will_not_take_ends_the_run(tmp_path: Path, route: str) -> None:
    """With its words; nothing is left under way, so that a live run or the same command may follow."""
    with queue(route=lambda name, number: 400 if (name, number) == (route, 0) else None) as server:
        case = Case(tmp_path, server)
        refused = case.offload()
        assert refused.exit_code == 4
        assert "400 Bad Request" in refused.stderr
        assert list(tmp_path.glob("*.batch-*")) == []
        assert server.state.requests == 1
        assert case.offload("--limit", "6").exit_code == 0
        assert invoke(*case.arguments()).exit_code == 0
    assert case.output.read_bytes() == case.live()


def test_a_damaged_journal_can_still_be_thrown_away(tmp_path: Path) -> None:
    """--fresh starts over, whatever stands in the journal's place."""
    with queue() as server:
        case = Case(tmp_path, server)
        (tmp_path / "out.jsonl.journal").write_text("no journal at all, but long enough to be looked at" * 50)
        assert invoke(*case.arguments()).exit_code == 5
        assert invoke(*case.arguments("--fresh")).exit_code == 0


def test_a_batch_of_another_server_is_named(tmp_path: Path) -> None:
    """The key is not sent to another server than the one that is named now, and nothing is handed in there."""
    with queue(held=lambda: True) as server, queue() as other:
        case = Case(tmp_path, server)
        assert case.offload("--no-wait").exit_code == 4
        case.server = other
        refused = case.offload()
        assert refused.exit_code == 2
        assert server.openai_url in refused.stderr
        assert other.state.uploads == other.state.requests == 0


def test_a_batch_that_the_server_has_forgotten_is_handed_in_again(tmp_path: Path) -> None:
    """The run says so and ends; the same command submits its rows once more."""
    with queue(held=lambda: True) as server:
        case = Case(tmp_path, server)
        assert case.offload("--no-wait").exit_code == 4
    with ModelServer(port=server.port, models=("m",)) as server:
        lost = case.offload()
        assert lost.exit_code == 4
        assert "no longer knows batch_0000" in lost.stderr
        assert server.state.requests == 0
        assert case.offload().exit_code == 0
    assert case.output.read_bytes() == case.live()


def test_files_that_the_server_has_deleted_are_asked_for_again(tmp_path: Path) -> None:
    """Output files are kept for a month or so: who comes back later is told, and the same command starts that over."""
    with queue(route=lambda name, number: 404 if (name, number) == ("content", 0) else None) as server:
        case = Case(tmp_path, server)
        late = case.offload()
        assert late.exit_code == 4
        assert "no longer knows" in late.stderr
        assert case.offload().exit_code == 0
        assert server.state.batches == 2
    assert case.output.read_bytes() == case.live()


def test_nothing_private_is_left_lying_about(tmp_path: Path) -> None:
    """Files of requests are their owner's alone and go once they are handed in; the key stands nowhere; masks hold."""
    modes: list[int] = []

    def look(name: str, _number: int) -> None:
        if name == "upload":
            modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("out.jsonl.batch-*"))

    with queue(route=look, api_key=KEY) as server:
        case = Case(tmp_path, server)
        rows = [{"id": n, "text": f"MARK-i{n}x write to jo{n}@example.org"} for n in range(4)]
        write_rows(case.source, rows)
        leftover = tmp_path / "out.jsonl.batch-old.jsonl"
        leftover.write_text("feedback of a run that was killed")
        done = case.offload("--redact")
        uploaded = b"".join(server.state.uploaded)
    assert done.exit_code == 0, done.stderr
    assert 0o600 in modes
    assert not leftover.exists()
    assert list(tmp_path.glob("*batch-*")) == []
    assert b"[email]" in uploaded
    assert b"example.org" not in uploaded
    assert KEY.encode() not in uploaded
    assert [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []


def test_a_wrong_key_is_noticed_before_anything_is_handed_in(tmp_path: Path) -> None:
    """One question goes live first: what is wrong with the account comes to light with it."""
    with queue(api_key="another") as server:
        done = Case(tmp_path, server).offload()
        assert server.state.uploads == 0
    assert done.exit_code == 4
    assert "OPENAI_API_KEY" in done.stderr


def test_a_refused_offload_leaves_no_batch(tmp_path: Path) -> None:
    """A file of requests that was never sent is not called a batch on the server."""
    with queue() as server:
        case = Case(tmp_path, server)
    done = case.offload("--max-wait", "0s", "--max-retries", "0")
    assert done.exit_code == 4
    assert "still on the server" not in done.stderr


def test_what_the_server_refuses_is_left_out_of_the_file(tmp_path: Path) -> None:
    """A parameter that the first question had to give up does not stand in thousands of lines."""
    with queue(refuse=frozenset({"max_tokens"})) as server:
        case = Case(tmp_path, server)
        done = case.offload()
        bodies = [json.loads(line)["body"] for line in server.state.uploaded[0].splitlines()]
    assert done.exit_code == 0, done.stderr
    assert all("max_tokens" not in body and body["max_completion_tokens"] for body in bodies)
    assert all("stream" not in body for body in bodies)


def test_a_cap_on_tokens_holds_before_they_are_spent(tmp_path: Path) -> None:
    """No more is handed in than the cap has room for; what was answered is in the output."""
    with queue() as server:
        case = Case(tmp_path, server, 40)
        done = case.offload("--max-tokens-total", "6000")
        rows = len(server.state.batch_rows)
    told = summary(done)
    assert done.exit_code == 4
    assert told["prompt_tokens"] + told["completion_tokens"] <= 6000
    assert 2 <= rows < 39
    assert len([row for row in read_rows(case.output) if row.get("summary")]) == told["done"] == rows + 1


def test_a_cap_on_money_counts_half(tmp_path: Path) -> None:
    """At 1 for a million tokens, 0.003 pays for 6,000 of the queue's."""
    counts = []
    for cap in (["--max-cost", "0.003", "--price", "1,1"], ["--max-tokens-total", "6000"]):
        folder = tmp_path / cap[0]
        folder.mkdir()
        with queue() as server:
            done = Case(folder, server, 40).offload(*cap)
            counts.append(len(server.state.batch_rows))
        assert done.exit_code == 4
    assert counts[0] == counts[1] > 0


def test_a_deadline_leaves_the_batches_with_the_server(tmp_path: Path) -> None:
    """The run ends with 4, a nightly one in one line of JSON; the next night brings in what has come meanwhile."""
    gate = threading.Event()
    with queue(held=lambda: not gate.is_set()) as server:
        case = Case(tmp_path, server)
        late = case.offload("--nightly", "--deadline", "3s")
        assert late.exit_code == 4
        assert "deadline" in summary(late)["stopped"]
        assert len(late.stderr.splitlines()) == 1
        gate.set()
        done = case.offload("--nightly")
        assert done.exit_code == 0, done.stderr
        assert summary(done)["offloaded"] == 12
        assert server.state.batches == 1
    assert case.output.read_bytes() == case.live()


def test_ctrl_c_leaves_the_batches_with_the_server(tmp_path: Path) -> None:
    """It ends at once with 130, and the same command goes on."""
    gate = threading.Event()
    with queue(held=lambda: not gate.is_set()) as server:
        case = Case(tmp_path, server)
        command = [sys.executable, "-m", "mellea_cli", *case.arguments("--offload", "--batch-poll", "0.05")]
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        server.wait(lambda state: state.looks >= 2, 60)
        waiting.send_signal(signal.SIGINT)
        said = waiting.communicate(timeout=60)[1]
        assert waiting.returncode == 130
        assert "1 batch is still on the server" in said
        assert f"next: mellea {command[3]} {case.source} -o {case.output}" in said
        gate.set()
        assert case.offload().exit_code == 0
        assert server.state.batches == 1
    assert case.output.read_bytes() == case.live()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--backend", "ollama"], "OpenAI's batch format"),
        (["-o", "-"], "next to the output"),
        (["--export-batch", "b.jsonl"], "by hand"),
        (["--base-url", "http://model.example/v1", "--local-only"], "--local-only"),
        (["--base-url", "http://model.example/v1"], "without TLS"),
    ],
)
def test_what_cannot_be_offloaded_is_refused(tmp_path: Path, change: list[str], says: str) -> None:
    """Before anything is sent, with the reason."""
    with queue() as server:
        arguments = Case(tmp_path, server).arguments("--offload", *change)
        if "--base-url" in change:
            # Two addresses would be a pool.
            first = arguments.index("--base-url")
            del arguments[first : first + 2]
        done = invoke(*arguments)
        assert server.state.requests == server.state.uploads == 0
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_provider_has_to_be_named(tmp_path: Path) -> None:
    """A key in the environment alone sends no feedback anywhere."""
    source = write_rows(tmp_path / "in.jsonl", [{"text": "Late."}])
    done = invoke("summarise", str(source), "-o", str(tmp_path / "o.jsonl"), "--offload", "-m", "m")
    assert done.exit_code == 2
    assert "--backend openai" in done.stderr


def test_a_pipe_cannot_be_offloaded(tmp_path: Path) -> None:
    """The input is read more than once, and again by whoever comes back."""
    arguments = ["summarise", "-", "-o", str(tmp_path / "o.jsonl"), "--offload", "-m", "m", "-b", "openai"]
    done = CliRunner().invoke(app, arguments, input='{"text": "Late."}\n')
    assert done.exit_code == 2
    assert "more than once" in done.stderr


def test_only_news_is_said() -> None:
    """A new state or another tenth, for each batch by itself; not every look."""
    said: list[str] = []
    lines = BatchLines(said.append)
    for done in range(101):
        lines.update(Batch("b1", "in_progress", completed=done), 100)
        lines.update(Batch("b2", "validating"), 100)
    assert len([line for line in said if line.startswith("b1")]) == 11
    assert len([line for line in said if line.startswith("b2")]) == 1
    lines.update(Batch("b2", "completed", completed=99, failed=1), 100)
    assert said[-1] == "b2: done, 99 of 100 answered, 1 failed"


def test_a_state_that_nobody_knows_is_repeated() -> None:
    """Other servers have other words."""
    assert batch_state(Batch("b", "queued"), 5) == "queued"
