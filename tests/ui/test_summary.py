"""The summary of a run: for people, for programs, with themes and endpoints."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mellea_cli.engine.endpoint import EndpointFigures
from mellea_cli.messages import Usage
from mellea_cli.run.row_model import AuditFigures, FieldAgreement
from mellea_cli.ui.console import make_console
from mellea_cli.ui.summary import (
    RunSummary,
    ThemeCounts,
    drawn_summary,
    endpoint_line,
    plain_summary,
    print_summary,
    to_json,
)
from mellea_cli.ui.theme import Palette, cells_of
from memorystreams import TerminalStream

WHOLE = RunSummary(
    model="qwen2.5-coder-1.5b",
    backend="local",
    pipeline="single",
    total=500,
    done=497,
    failed=3,
    asked=480,
    reused=20,
    failures={"parse": 2, "unavailable": 1},
    calls=520,
    retries=17,
    usage=Usage(48_210, 21_902),
    elapsed_s=192.0,
    items_per_s=2.5,
    output="out.jsonl",
    values={"sentiment": {"negative": 83, "positive": 310, "mixed": 104}, "urgency": {"low": 490, "high": 7}},
    next_command="mellea summarise in.jsonl -o out.jsonl",
    exit_code=3,
)


def drawn(summary: RunSummary, columns: int = 79, encoding: str = "utf-8") -> list[str]:
    palette = Palette(make_console(TerminalStream(encoding), {"TERM": "xterm"}))
    return ["".join(text for _, text in line).rstrip() for line in drawn_summary(summary, columns, palette)]


def test_people_see_the_result_at_a_glance() -> None:
    """What was done, what failed and why, how fast, where it is, what the answers say, what to type next."""
    lines = drawn(WHOLE)
    assert lines[1] == "! 497 of 500 items answered in 3m 12s"
    assert [line.strip() for line in lines[3:10]] == [
        "failed    3: 2 parse · 1 unavailable",
        "reused    20 answers of earlier runs",
        "speed     2.5 items/s · 114 tokens/s",
        "tokens    48,210 in · 21,902 out",
        "calls     520 · 17 retries",
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
    lines = drawn(RunSummary(total=12, done=12, asked=12, elapsed_s=5.0))
    assert lines[1] == "✓ 12 of 12 items answered in 5.0s"
    assert not any("failed" in line or "next" in line for line in lines)


def test_a_run_with_nothing_to_do_says_that() -> None:
    """The third time the same command is typed, nothing is asked."""
    assert drawn(RunSummary(total=12, done=12, reused=12, elapsed_s=0.1))[1] == (
        "✓ all 12 answers were known already, nothing was sent"
    )
    # The questions of a sub-run are no rows.
    searched = drawn(RunSummary(total=12, done=12, reused=12, elapsed_s=9.0, calls=4))
    assert searched[1] == "✓ all 12 answers were known already"


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


def test_off_a_terminal_there_are_plain_summary() -> None:
    """A log gets sentences without escapes; at a terminal there are colours."""
    log, terminal = io.StringIO(), TerminalStream()
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
    text = "\n".join(plain_summary(summary))
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
        "asked": 480,
        "reused": 20,
        "failures": {"parse": 2, "unavailable": 1},
        "skipped": 0,
        "calls": 520,
        "retries": 17,
        "repairs": 0,
        "prompt_tokens": 48210,
        "cached_tokens": 0,
        "completion_tokens": 21902,
        "cost": None,
        "currency": None,
        "elapsed_s": 192.0,
        "items_per_s": 2.5,
        "output": "out.jsonl",
        "values": {"sentiment": {"negative": 83, "positive": 310, "mixed": 104}, "urgency": {"low": 490, "high": 7}},
        "stopped": None,
        "next_command": "mellea summarise in.jsonl -o out.jsonl",
        "exit_code": 3,
        "same": 0,
        "alike": 0,
        "learned": 0,
        "audit": None,
        "concurrency": None,
        "unwritten": None,
        "endpoints": [],
        "offloaded": 0,
        "blank": 0,
        "edited_cells": 0,
        "edited_rows": 0,
        "edited_ids": [],
        "commonest_failure": None,
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
    lines = list(plain_summary(RunSummary(total=3, done=3, asked=1, reused=2, same=1, skipped=1, elapsed_s=1.0)))
    assert "reused: 1 answer of an earlier run" in lines
    assert "same: 1 answered with an identical text, without a call" in lines
    assert "skipped: 1 row that could not be read" in lines
    assert next(plain_summary(RunSummary(total=1, done=1, asked=1, elapsed_s=1.0))).startswith("1 of 1 item answered")
    assert not any(
        line.startswith("reused") for line in plain_summary(RunSummary(total=2, done=2, asked=1, reused=1, same=1))
    )


def test_the_audit_says_what_was_promised_and_measured() -> None:
    """With the interval of each field; a promise that was not kept is a warning."""
    fields = (FieldAgreement("sentiment", 0.97, 0.93, 0.99), FieldAgreement("urgency", 0.94, 0.8912, 0.97))
    summary = RunSummary(total=900, done=900, asked=500, learned=400, audit=AuditFigures(0.95, 400, 100, fields=fields))
    lines = list(plain_summary(summary))
    assert "learned: 400 rows by the row model, without a call" in lines
    assert "promised: they agree with the full reading in 95.0% or more" in lines
    measured = "sentiment 97.0% (93.0% to 99.0%), urgency 94.0% (89.1% to 97.0%) in 100 audited rows"
    assert f"measured: {measured}" in lines
    assert json.loads(to_json(summary))["audit"] == {
        "promised": 0.95,
        "rows": 400,
        "audited": 100,
        "confidence": 0.95,
        "fields": [
            {"field": "sentiment", "agreement": 0.97, "low": 0.93, "high": 0.99},
            {"field": "urgency", "agreement": 0.94, "low": 0.8912, "high": 0.97},
        ],
        "kept": False,
    }
    unmeasured = dataclasses.replace(summary, audit=AuditFigures(0.95, 5, 0))
    assert "measured: nothing: no such row was drawn for the audit" in plain_summary(unmeasured)


def test_cached_tokens_are_named_where_the_server_says_them() -> None:
    """Next to the prompt's tokens, of which they are a part."""
    summary = RunSummary(total=3, done=3, usage=Usage(4_800, 60, cached_tokens=4_096), elapsed_s=1.0)
    assert "tokens: 4,800 in (4,096 of them cached), 60 out" in plain_summary(summary)


def test_the_cost_is_named_where_it_is_known() -> None:
    """With the sign of a listed price, and as it is by the user's own."""
    usage = Usage(1_000_000, 1000)
    listed = RunSummary(done=1, elapsed_s=1.0, usage=usage, cost=12.4, currency="$")
    own = RunSummary(done=1, elapsed_s=1.0, usage=usage, cost=0.00421)
    assert "cost: $12.40" in list(plain_summary(listed))
    assert "cost: 0.00421" in list(plain_summary(own))
    assert not [line for line in plain_summary(RunSummary(done=1, usage=usage)) if line.startswith("cost")]
    assert '"cost": 12.4, "currency": "$"' in to_json(listed)


def test_an_output_that_was_not_written_is_not_named_as_such() -> None:
    """What became of it is said in its place, for people and for programs."""
    summary = RunSummary(stopped="gone", unwritten="out.jsonl was left as it was")
    assert "output: out.jsonl was left as it was" in list(plain_summary(summary))
    record = json.loads(to_json(summary))
    assert (record["output"], record["unwritten"]) == (None, "out.jsonl was left as it was")


THEMED = ThemeCounts(
    themes_file="t.toml",
    themes={"Late \x1b[2Jdelivery": 30, "Friendly people who are much too long for a narrow terminal": 50, "Never": 0},
    rows=100,
    labelled=70,
    other=10,
    none=15,
    failed=5,
    quotes=80,
    audited=True,
)
SUMMARY = RunSummary(total=100, done=95, failed=5, blank=15, theme_counts=THEMED)


def test_the_most_common_theme_comes_first_as_plain_summary() -> None:
    """Counts, shares of all rows, and the sum; nothing from outside reaches the terminal as an escape."""
    shown = list(plain_summary(SUMMARY))
    themes = [line for line in shown if line.startswith("theme: ")]
    assert themes[0].endswith("narrow terminal: 50 (50%)")
    assert themes[2] == "theme: Never: 0 (0%)"
    assert "rows: 70 with themes + 10 other + 15 none + 5 failed = 100 rows" in shown
    assert "checked: 80 labels, 80 quotes verbatim, read back from the output" in shown
    assert "\x1b" not in "".join(shown)


def test_rows_that_were_not_reached_are_named() -> None:
    """A run that stopped early still adds up."""
    stopped = ThemeCounts("t.toml", {"Late": 1}, rows=10, labelled=1, quotes=1)
    assert "rows: 1 with themes + 0 other + 0 none + 0 failed = 1 rows of 10; 9 not reached" in list(
        plain_summary(RunSummary(total=10, done=1, theme_counts=stopped))
    )


def test_the_bars_fit_every_terminal() -> None:
    """No line is wider than the terminal; the longest bar is the most common theme's."""
    palette = Palette(make_console(io.StringIO(), {}))
    for columns in (20, 40, 79, 200):
        lines = ["".join(text for _, text in line) for line in drawn_summary(SUMMARY, columns, palette)]
        assert all(cells_of(line) <= columns for line in lines), (columns, lines)
    bars = [line.count(palette.glyphs.block) for line in lines if palette.glyphs.block in line]
    assert bars[0] == max(bars) > min(bars) > 0


def test_programs_get_the_same_figures() -> None:
    """They are under one key, which is null for a run without themes."""
    shown = json.loads(to_json(SUMMARY))
    assert (shown["blank"], shown["reconciled"]["accounted"], shown["reconciled"]["rows"]) == (15, 100, 100)
    assert sum(shown["reconciled"][what] for what in ("labelled", "other", "none", "failed")) == 100
    assert shown["reconciled"]["themes"]["Never"] == 0
    assert json.loads(to_json(RunSummary()))["reconciled"] is None


GPU = EndpointFigures("gpu1:11434", "ollama", "m", 410, 410, 0, 0, Usage(40_000, 11_000), 0.74, 0.82)
DESK = EndpointFigures(
    "desk",
    "openai",
    "desk-m",
    100,
    90,
    10,
    3,
    Usage(),
    12.34,
    0.18,
    "open",
    "cannot reach desk: refused",
)
RUN = RunSummary(model="m", total=500, done=500, elapsed_s=10, calls=510, endpoints=(GPU, DESK))


def test_people_see_shares_and_troubles() -> None:
    """What is worth saying and no more: an endpoint without failures has no word about them."""
    assert [endpoint_line(one, ", ") for one in RUN.endpoints] == [
        "gpu1:11434, 410 answered (82%), 0.74 s median, 51,000 tokens",
        "desk, 90 answered (18%), 12.3 s median, 10 of 100 requests failed, open: cannot reach desk: refused",
    ]
    assert "endpoint: gpu1:11434, 410 answered (82%), 0.74 s median, 51,000 tokens" in list(plain_summary(RUN))


def test_an_endpoint_that_did_nothing_has_no_median() -> None:
    """It may have been away for the whole run."""
    idle = dataclasses.replace(GPU, requests=0, answered=0, usage=Usage(), median_s=None, share=0.0)
    assert endpoint_line(idle, ", ") == "gpu1:11434, 0 answered (0%)"


def test_programs_see_every_figure() -> None:
    """One object for each endpoint; without a pool an empty list, for keys are never left out."""
    record = json.loads(to_json(RUN))["endpoints"]
    assert record[0] == {
        "name": "gpu1:11434",
        "backend": "ollama",
        "model": "m",
        "requests": 410,
        "answered": 410,
        "failures": 0,
        "probes": 0,
        "prompt_tokens": 40_000,
        "cached_tokens": 0,
        "completion_tokens": 11_000,
        "median_s": 0.74,
        "share": 0.82,
        "state": None,
        "reason": None,
    }
    assert (record[1]["state"], record[1]["probes"]) == ("open", 3)
    assert json.loads(to_json(RunSummary()))["endpoints"] == []


def test_repairs_are_counted() -> None:
    """Only a run whose answers had to be repaired says so."""
    assert not any("repaired" in line for line in plain_summary(RunSummary(done=3, calls=3)))
    assert any("2 answers repaired in form" in line for line in plain_summary(RunSummary(done=3, calls=3, repairs=2)))
