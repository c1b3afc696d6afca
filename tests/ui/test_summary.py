"""The closing words of a run."""

from __future__ import annotations

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mellea_cli.messages import Usage
from mellea_cli.ui.console import make_console
from mellea_cli.ui.summary import RunSummary, drawn_lines, plain_lines, print_summary, to_json
from mellea_cli.ui.theme import Palette

WHOLE = RunSummary(
    model="qwen2.5-coder-1.5b",
    backend="local",
    pipeline="single",
    total=500,
    done=497,
    failed=3,
    reused=20,
    failures={"parse": 2, "unavailable": 1},
    calls=520,
    retries=17,
    usage=Usage(48_210, 21_902),
    elapsed_s=192.0,
    output="out.jsonl",
    values={"sentiment": {"negative": 83, "positive": 310, "mixed": 104}, "urgency": {"low": 490, "high": 7}},
    next_command="mellea summarise in.jsonl -o out.jsonl",
    exit_code=3,
)


class Terminal(io.StringIO):
    """A stream that is a terminal, with an encoding of its own."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._name = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a StringIO's own says None
        return self._name

    def isatty(self) -> bool:
        return True


def drawn(summary: RunSummary, columns: int = 79, encoding: str = "utf-8") -> list[str]:
    palette = Palette(make_console(Terminal(encoding), {"TERM": "xterm"}))
    return ["".join(text for _, text in line).rstrip() for line in drawn_lines(summary, columns, palette)]


def test_people_see_the_result_at_a_glance() -> None:
    """What was done, what failed and why, how fast, where it is, what the answers say, what to type next."""
    lines = drawn(WHOLE)
    assert lines[1] == "! 497 of 500 items answered in 3m 12s"
    assert [line.strip() for line in lines[3:10]] == [
        "failed    3: 2 parse · 1 unavailable",
        "reused    20 answers that were there already",
        "speed     2.5 items/s · 114 tokens/s",
        "tokens    48,210 in · 21,902 out",
        "calls     520 · 17 retried",
        "output    out.jsonl",
        "next      mellea summarise in.jsonl -o out.jsonl",
    ]
    bars = [line for line in lines if "█" in line]
    assert [re.sub("█+ *", "", line).split()[-3:] for line in bars] == [
        ["positive", "310", "62%"],
        ["mixed", "104", "21%"],
        ["negative", "83", "17%"],
        ["high", "7", "1%"],
        ["low", "490", "99%"],
    ]
    lengths = [line.count("█") for line in bars]
    assert lengths[0] > lengths[1] > lengths[2] >= 1


def test_a_run_without_flaw_says_so() -> None:
    """No failure, no next step, a good sign."""
    lines = drawn(RunSummary(total=12, done=12, elapsed_s=5.0))
    assert lines[1] == "✓ 12 of 12 items answered in 5.0s"
    assert not any("failed" in line or "next" in line for line in lines)


def test_a_run_with_nothing_to_do_says_that() -> None:
    """The third time the same command is typed, nothing is asked."""
    assert drawn(RunSummary(total=12, done=12, reused=12, elapsed_s=0.1))[1] == (
        "✓ all 12 answers were there already, nothing was asked"
    )


def test_a_run_that_was_stopped_says_why_first() -> None:
    """The reason comes before the figures."""
    lines = drawn(RunSummary(total=12, done=3, elapsed_s=1.0, stopped="interrupted"))
    assert lines[1] == "✗ stopped: interrupted"
    assert lines[2].strip() == "3 of 12 items answered in 1.0s"
    assert drawn(RunSummary(stopped="stopped by SIGINT"))[1] == "✗ stopped by SIGINT"


@pytest.mark.parametrize("columns", [20, 39, 79, 199])
def test_it_fits_its_terminal(columns: int) -> None:
    """Nothing is wider than the terminal but a command that is there to be copied."""
    lines = drawn(WHOLE, columns)
    assert all(cell_len(line) <= columns for line in lines if "next" not in line)
    assert any(line.endswith("mellea summarise in.jsonl -o out.jsonl") for line in lines)


def test_an_ascii_terminal_gets_ascii() -> None:
    """Bars and signs have their poorer cousins."""
    text = "\n".join(drawn(WHOLE, encoding="ascii"))
    assert text.isascii()
    assert "###" in text


def test_off_a_terminal_there_are_plain_lines() -> None:
    """A log gets sentences without escapes; at a terminal there are colours."""
    log, terminal = io.StringIO(), Terminal()
    print_summary(WHOLE, log, {})
    print_summary(WHOLE, terminal, {"TERM": "xterm"})
    assert log.getvalue().splitlines()[0] == "mellea: 497 of 500 items answered in 3m 12s"
    assert "mellea: failed: 3: 2 parse, 1 unavailable" in log.getvalue()
    assert "mellea: sentiment: positive 310, mixed 104, negative 83" in log.getvalue()
    assert "\x1b" not in log.getvalue()
    assert "\x1b[32m" in terminal.getvalue()


def test_many_kinds_and_values_are_added_up() -> None:
    """A long tail does not fill the screen, and the sum stays right."""
    summary = RunSummary(
        total=100,
        failed=55,
        done=45,
        failures={f"kind{n}": n for n in range(1, 11)},
        values={"topic": {f"topic {n}": 1 for n in range(45)}},
    )
    text = "\n".join(plain_lines(summary))
    assert "5 more kinds" in text
    assert text.count("topic ") == 6
    assert "others 39" in text


def test_programs_get_one_line_with_stable_keys() -> None:
    """The JSON is one ASCII line with every key, whatever happened."""
    line = to_json(WHOLE)
    assert "\n" not in line
    assert json.loads(line) == {
        "model": "qwen2.5-coder-1.5b",
        "backend": "local",
        "pipeline": "single",
        "total": 500,
        "done": 497,
        "failed": 3,
        "reused": 20,
        "failures": {"parse": 2, "unavailable": 1},
        "skipped": 0,
        "calls": 520,
        "retries": 17,
        "prompt_tokens": 48210,
        "completion_tokens": 21902,
        "elapsed_s": 192.0,
        "items_per_s": 2.5,
        "output": "out.jsonl",
        "values": {"sentiment": {"negative": 83, "positive": 310, "mixed": 104}, "urgency": {"low": 490, "high": 7}},
        "stopped": None,
        "next_command": "mellea summarise in.jsonl -o out.jsonl",
        "exit_code": 3,
        "same": 0,
        "concurrency": None,
        "unwritten": None,
        "endpoints": [],
        "offloaded": 0,
        "blank": 0,
        "reconciled": None,
    }
    assert json.loads(to_json(RunSummary())).keys() == json.loads(line).keys()


@given(
    st.dictionaries(
        st.text(max_size=30), st.dictionaries(st.text(max_size=30), st.integers(0, 10**9), max_size=9), max_size=3
    ),
    st.text(max_size=40),
    st.integers(20, 120),
)
def test_any_values_can_be_drawn(values: dict[str, dict[str, int]], stopped: str, columns: int) -> None:
    """Columns and values come from models: whatever they are, lines fit and nothing in them acts."""
    summary = RunSummary(total=1, done=1, stopped=stopped, values=values, elapsed_s=1.0)
    lines = drawn(summary, columns)
    assert all(cell_len(line) <= columns for line in lines)
    assert not re.search("[\x00-\x1f\x7f-\x9f]", "".join(lines))


def test_identical_texts_are_no_answers_of_earlier_runs() -> None:
    """What was answered with an identical text is counted on its own, one thing is not called several."""
    lines = list(plain_lines(RunSummary(total=3, done=3, reused=2, same=1, skipped=1, elapsed_s=1.0)))
    assert "reused: 1 answer that was there already" in lines
    assert "same: 1 answered with an identical text, without a call" in lines
    assert "skipped: 1 row that could not be read" in lines
    assert next(plain_lines(RunSummary(total=1, done=1, elapsed_s=1.0))).startswith("1 of 1 item answered")
    assert not any(line.startswith("reused") for line in plain_lines(RunSummary(total=2, done=2, reused=1, same=1)))


def test_an_output_that_was_not_written_is_not_named_as_such() -> None:
    """What became of it stands in its place, for people and for programs."""
    summary = RunSummary(stopped="gone", unwritten="out.jsonl was left as it was")
    assert "output: out.jsonl was left as it was" in list(plain_lines(summary))
    record = json.loads(to_json(summary))
    assert (record["output"], record["unwritten"]) == (None, "out.jsonl was left as it was")
