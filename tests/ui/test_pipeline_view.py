"""Pipeline view: nothing is wider than the terminal, and nothing from outside is obeyed."""

from __future__ import annotations

import pytest

from mellea_cli.messages import Message
from mellea_cli.ui.console import make_console
from mellea_cli.ui.pipeline_view import ShownStep, TriedRow, step_lines, system_lines, try_lines
from mellea_cli.ui.theme import Palette, width
from memorystreams import TerminalStream

PALETTE = Palette(make_console(TerminalStream(), {"TERM": "xterm"}))
STEP = ShownStep(
    "facts",
    [Message("system", "Instructions " * 20), Message("user", "a row"), Message("assistant", "{}")],
    "<feedback>\n(the row's text)\n</feedback>",
    {"type": "object"},
    ["needs nothing"],
)
ROWS = [
    TriedRow(
        "F-001",
        "The door is stuck. " * 8 + "日本語の長いテキスト" * 6,
        {"facts": "<feedback>\nThe door\n</feedback>"},
        {
            "team": "workshop",
            "topics": ["door", "glass"],
            "evidence": None,
            "urgent": True,
            "issues": {"main_complaint": "door"},
        },
        ("team",),
        ["about the field 'evidence': " + "it does not stand in the feedback " * 10, "too long", "too long"],
    ),
    TriedRow("F-002", "\x1b[2J evil", error="no answer", asked=()),
    TriedRow("F-003", "", {}, {}),
]


def shown(columns: int) -> list[str]:
    lines = [*step_lines([STEP], columns, PALETTE), *system_lines([STEP], columns, PALETTE)]
    lines += try_lines(ROWS, columns, PALETTE)
    assert all(width(line) <= columns for line in lines)
    return ["".join(text for _, text in line) for line in lines]


@pytest.mark.parametrize("columns", [24, 40, 59, 60, 79, 119, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    """At any width."""
    text = "\n".join(shown(columns))
    assert "\x1b" not in text
    assert "step facts" in text


def test_text_and_answers_stand_side_by_side() -> None:
    """The text on the left, the answers on the right, repairs in at most three lines below them."""
    lines = shown(79)
    first = next(line for line in lines if line.startswith("The door is stuck."))
    assert "│ team" in first
    assert "workshop" in first
    assert any("│ topics         door, glass" in line for line in lines)
    assert sum("stand in the feedback" in line or "…" in line for line in lines) <= 4
    assert any(line.startswith("── F-001 ") and line.rstrip("─ ").endswith("asked: team") for line in lines)
    assert any("│ main_complaint door" in line for line in lines)
    assert any("✗ no answer" in line for line in lines)
    assert any("↻ 2 times: too long" in line for line in lines)


def test_a_narrow_terminal_has_them_below_each_other() -> None:
    """Below 60 columns."""
    assert not any("│" in line for line in shown(40))


def test_an_entry_of_a_list_is_indented() -> None:
    """What does not fit into its first line stands below its text; other lines stay at the edge."""
    step = ShownStep(
        "facts", [Message("system", "Fields:\n- product: what the customer talks about, in words")], "", {}
    )
    lines = ["".join(text for _, text in line) for line in system_lines([step], 34, PALETTE)]
    assert lines[1:-1] == ["  Fields:", "  - product: what the customer", "    talks about, in words"]
