"""Kill -9 at any moment: nothing lost, nothing doubled, the same bytes in the end."""

from __future__ import annotations

from pathlib import Path

import offload_kills
import pytest
from kill_harness import harness

pytestmark = pytest.mark.slow


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    """Twelve kills, every fourth during start-up; after each one whole lines parse and no stored answer is gone."""
    figures = harness(kills=12, items=400, seed=3, latency_s=0.1, folder=tmp_path)
    assert figures.good, figures
    assert figures.kills == 12


def test_kills_hand_nothing_to_the_queue_twice(tmp_path: Path) -> None:
    """Kills around a queue of many small batches: each request stands in one of them, and the bytes are the same."""
    figures = offload_kills.harness(kills=10, items=200, seed=5, folder=tmp_path)
    assert figures.good, figures
    assert figures.kills == 10
    assert figures.killed_while_sending
