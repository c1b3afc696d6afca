"""The event log: every event as a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mellea_cli.errors import ExitCode, OutputError
from mellea_cli.events import (
    AttemptFailed,
    Event,
    ItemFinished,
    ItemStarted,
    Paused,
    RetryScheduled,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    TokensReceived,
)
from mellea_cli.messages import Usage
from mellea_cli.ui.event_log import EventLog

STORY: tuple[Event, ...] = (
    RunStarted("single", ("analysis",), "m", "b", 2, 2),
    ItemStarted(0, "a-17", "a secret complaint"),
    StepStarted(0, "analysis"),
    TokensReceived(0, "analysis", "hush"),
    AttemptFailed(0, "analysis", "parse", "not JSON"),
    RetryScheduled(0, "analysis", 0.0, 2),
    TokensReceived(0, "analysis", "hush "),
    TokensReceived(0, "analysis", "hush"),
    StepFinished(0, "analysis", Usage(3, 2)),
    ItemFinished(0, "a-17", True, "", "", Usage(3, 2), 1.0, False),
    Paused("too many requests", 4.0),
    RetryScheduled(1, "analysis", 2.5, 3),
    ItemFinished(1, "b", False, "unavailable", "no answer", Usage(), 9.0, False),
    RunFinished(1, 1, 0, Usage(3, 2), 12.0, ""),
)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_programs_get_every_event_without_the_texts(tmp_path: Path) -> None:
    """Each event is a line of JSON; tokens are counted where their step ends, texts stay out."""
    path = tmp_path / "log.jsonl"
    with EventLog(path) as log:
        for event in STORY:
            log(event)
    logged = records(path)
    assert [one["event"] for one in logged] == [type(e).__name__ for e in STORY if not isinstance(e, TokensReceived)]
    assert logged[1]["text"] == len("a secret complaint")
    assert (logged[3]["pieces"], logged[3]["chars"]) == (1, 4)
    assert (logged[5]["pieces"], logged[5]["chars"], logged[5]["usage"]) == (
        2,
        9,
        {"prompt_tokens": 3, "completion_tokens": 2},
    )
    assert all(one["time"].endswith("+00:00") and one["t"] >= 0 for one in logged)
    assert "hush" not in path.read_text()
    assert "secret" not in path.read_text()
    assert not log._streams


def test_a_log_is_continued(tmp_path: Path) -> None:
    """A second run adds to the file of the first, and what comes after the end is ignored."""
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        with EventLog(path) as log:
            log(STORY[0])
        log(STORY[0])
    assert len(records(path)) == 2


def test_any_text_can_be_logged(tmp_path: Path) -> None:
    """Lone surrogates and line breaks keep a line a line."""
    path = tmp_path / "log.jsonl"
    with EventLog(path) as log:
        log(AttemptFailed(0, "s", "parse", "bad \udc80\nletter"))
    assert len(records(path)) == 1


def test_a_log_that_cannot_be_opened_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """The run does not begin without the log that was asked for."""
    with pytest.raises(OutputError) as caught:
        EventLog(tmp_path / "missing" / "log.jsonl")
    assert caught.value.exit_code is ExitCode.CANNOT_WRITE
    assert "log.jsonl" in caught.value.message
    assert "--log-file" in caught.value.hint


def test_a_full_disk_ends_the_log_and_not_the_run() -> None:
    """When the log can no longer be written, the run goes on and the reason is kept."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    log = EventLog(full)
    for _ in range(3):
        log(STORY[-1])
    log.close()
    assert log.fault is not None
    assert "space" in str(log.fault)
