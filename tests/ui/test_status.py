"""The state of batches."""

from __future__ import annotations

from mellea_cli.backends.openai_batch import Batch
from mellea_cli.ui.status import BatchLines, batch_state


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
