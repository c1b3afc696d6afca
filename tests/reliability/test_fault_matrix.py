"""Every fault alone, for ever, and all together: nothing lost, nothing doubled, every answer its own item's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit import Audit, audit, command, leaks, mark, run, write_input

from loopback import Call, Fault, ModelServer, faults

pytestmark = pytest.mark.slow

Serve = Callable[..., ModelServer]

SOON = {"Retry-After": "0"}
TRANSPORT: dict[str, Fault] = {
    "408": faults.status(408),
    "409": faults.status(409),
    "425": faults.status(425),
    "429": faults.status(429),
    "429 with Retry-After": faults.status(429, headers={"Retry-After": "1"}),
    "429 with milliseconds": faults.status(429, headers={"retry-after-ms": "150"}),
    "429 with a date": faults.status(
        429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:01 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    ),
    "500": faults.status(500),
    "502 web page": faults.raw_status(502, "<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
    "503": faults.status(503),
    "503 with Retry-After": faults.status(503, headers={"Retry-After": "1"}),
    "504": faults.status(504),
    "529": faults.status(529),
    "overloaded in a 400": faults.status(400, type="overloaded_error"),
    "cut at once": faults.cut(0),
    "cut": faults.cut(),
    "no finish": faults.no_finish(),
    "no finish at once": faults.no_finish(0),
    "stall at once": faults.stall(0),
    "stall": faults.stall(3),
    "half JSON": faults.half_json(),
    "error object": faults.error_object(),
    "error object at once": faults.error_object(0),
}
ANSWERS: dict[str, Fault] = {
    "empty": faults.empty(),
    "blank": faults.says("   \n"),
    "length": faults.length(),
    "not JSON": faults.not_json(),
    "wrong schema": faults.wrong_schema(),
    "half an object": faults.says('{"summary": "The cus'),
    "white space": faults.white_space(),
    "repetition": faults.repetition(),
    "huge": faults.huge(3_000_000),
}
FOR_EVER: dict[str, tuple[Fault, str, int]] = {
    "500": (faults.status(500), "server-fault", 6),
    "429": (faults.status(429, headers={"retry-after-ms": "20"}), "rate-limited", 10),
    "429 for a day": (faults.status(429, headers={"Retry-After": "86400"}), "rate-limited", 1),
    "cut": (faults.cut(), "stream-broken", 6),
    "no finish": (faults.no_finish(), "stream-broken", 6),
    "half JSON": (faults.half_json(), "stream-broken", 6),
    "error object": (faults.error_object(), "server-fault", 6),
    "refused": (faults.status(400, message="bad request"), "refused", 3),
    "too large": (faults.status(413), "context-too-long", 1),
    "context": (faults.status(400, code="context_length_exceeded"), "context-too-long", 1),
    "filtered": (faults.status(400, code="content_filter"), "content-filter", 1),
    "filtered in the middle": (faults.says("I can", "content_filter"), "content-filter", 1),
    "empty": (faults.empty(), "empty", 3),
    "length": (faults.length(), "length", 3),
    "not JSON": (faults.not_json(), "parse", 3),
    "wrong schema": (faults.wrong_schema(), "parse", 3),
    "white space": (faults.white_space(), "runaway", 3),
    "repetition": (faults.repetition(), "runaway", 3),
    "huge": (faults.huge(3_000_000), "runaway", 3),
}
CHARGED = ("server-fault", "stream-broken", "rate-limited")
FLAGS = ("-c", "8", "--json", "-q", "--first-token-timeout", "2", "--stall-timeout", "1", "--timeout", "10")


class Bench:
    """A folder, an input, and a run over a server that fails as planned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "in.jsonl"
        self.output = folder / "out.jsonl"

    def run(
        self, server: ModelServer, items: int, *flags: str, timeout: float = 100, protocol: str = "openai"
    ) -> tuple[Audit, Any]:
        """Run to the end and audit; the key must be nowhere."""
        write_input(self.source, items)
        url = server.openai_url if protocol == "openai" else server.url
        ended = run(command(self.source, self.output, url, *FLAGS, *flags), self.folder, timeout)
        assert leaks(self.folder, ended.out, ended.err) == []
        return audit(self.output, items), ended


def each_item_its_own(table: dict[str, Fault]) -> Callable[[Call], Fault | None]:
    """The first attempt of item n meets fault number n."""
    kinds = list(table.values())

    def plan(call: Call) -> Fault | None:
        if "MARK-i" not in call.prompt:
            return None  # a probe
        number = int(call.prompt.rsplit("MARK-i", 1)[1][:6])
        return kinds[number] if call.attempt == 1 and number < len(kinds) else None

    return plan


@pytest.mark.parametrize("protocol", ["openai", "ollama"])
@pytest.mark.parametrize("table", [TRANSPORT, ANSWERS], ids=["transport", "answers"])
def test_every_fault_heals_by_itself(table: dict[str, Fault], protocol: str, serve: Serve, tmp_path: Path) -> None:
    """Each fault once, on an item of its own: all are answered, with one more request each."""
    server = serve(fault=each_item_its_own(table), record=False)
    found, ended = Bench(tmp_path).run(server, len(table), protocol=protocol)
    assert (ended.code, found.problems, found.failed) == (0, [], {})
    assert sum(count for prompt, count in server.state.attempts.items() if "MARK-i" in prompt) <= 2 * len(table)
    assert max(count for prompt, count in server.state.attempts.items() if "MARK-i" in prompt) <= 2


def test_every_fault_that_stays_ends_in_a_dead_letter_with_its_reason(serve: Serve, tmp_path: Path) -> None:
    """One item of each fault that never heals, and as many sound ones: the reasons are right, the budgets kept."""
    table = list(FOR_EVER.values())

    def plan(call: Call) -> Fault | None:
        if "MARK-i" not in call.prompt:
            return None  # a probe
        number = int(call.prompt.rsplit("MARK-i", 1)[1][:6])
        return table[number // 2][0] if number % 2 == 0 else None

    server = serve(fault=plan, record=False)
    letters = tmp_path / "failed.jsonl"
    found, ended = Bench(tmp_path).run(server, 2 * len(table), "--errors-file", str(letters))
    assert (ended.code, found.problems) == (3, [])
    told = {name: found.failed.get(2 * number, {}) for number, name in enumerate(FOR_EVER)}
    assert {name: error.get("kind") for name, error in told.items()} == {
        name: kind for name, (_, kind, _) in FOR_EVER.items()
    }
    assert found.answered == [number for number in range(2 * len(table)) if number % 2]
    # A failure in flight when the breaker opens is not charged, and a probe follows each opening.
    probes = sum(count for prompt, count in server.state.attempts.items() if "MARK-i" not in prompt)
    for number, (name, (_, kind, budget)) in enumerate(FOR_EVER.items()):
        most = 12 if probes and kind in CHARGED and budget > 1 else budget
        prompts = [prompt for prompt in server.state.attempts if mark(2 * number) in prompt]
        assert 1 <= server.state.attempts[prompts[0]] <= most, name
        assert told[name]["attempts"] == server.state.attempts[prompts[0]], name
    # The dead letters can be fed straight back.
    assert len(letters.read_text().splitlines()) == len(table)
    assert mark(0) in letters.read_text()


def test_all_faults_together_lose_nothing(serve: Serve, tmp_path: Path) -> None:
    """A fifth of the requests fails in every way: a thousand items, each answered once with its own mark."""
    slow = ("Retry-After", "stall", "date")
    quick = {name: fault for name, fault in TRANSPORT.items() if not any(word in name for word in slow)}
    mixed = [*quick.values(), *(fault for name, fault in ANSWERS.items() if name != "huge")]
    server = serve(fault=faults.drawn(7, 0.2, *mixed), record=False)
    bench = Bench(tmp_path)
    found, ended = bench.run(server, 1_000, "-c", "16")
    # By chance a few items get three bad answers in a row; whether they do hangs on every letter of the prompt.
    assert found.problems == []
    assert len(found.failed) <= 3
    assert ended.code == (3 if found.failed else 0)
    assert found.kinds <= {"empty", "length", "parse", "runaway"}
    assert server.state.requests <= 1_600
    assert max(count for prompt, count in server.state.attempts.items() if "MARK-i" in prompt) <= 12
    assert server.state.max_in_flight <= 16
    if found.failed:
        found, ended = bench.run(server, 1_000, "-c", "16")
        assert (ended.code, found.problems, found.failed) == (0, [], {})


def test_an_answer_that_drips_for_ever_ends(serve: Serve, tmp_path: Path) -> None:
    """No read timeout fires on it, the deadline for the whole call does."""
    slow = faults.drip(0.05)
    server = serve(fault=lambda call: slow if mark(1) in call.prompt else None, record=False)
    found, ended = Bench(tmp_path).run(server, 3, "--timeout", "1", "--max-retries", "1")
    assert (ended.code, found.problems, set(found.failed)) == (3, [], {1})
    assert found.failed[1]["kind"] in {"stream-broken", "runaway"}
