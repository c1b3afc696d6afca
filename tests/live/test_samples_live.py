"""The sample results against what the default model answers here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inprocess import run_in_process
from mellea_cli.models.catalogue import DEFAULT_MODEL
from mellea_cli.models.store import ModelStore, default_root

pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.timeout(600)]

SAMPLES = Path(__file__).parents[2] / "samples"
# Another processor rounds differently, so that one or two answers may change.
MOST_DIFFERENT = 2


def test_the_default_model_answers_as_in_the_samples(tmp_path: Path) -> None:
    """Sentiment, and whether there is praise and complaint, are those of samples/results.jsonl in all but two rows."""
    if ModelStore(default_root()).find(DEFAULT_MODEL) is None:
        pytest.skip(f"{DEFAULT_MODEL} is not on this machine: mellea models pull {DEFAULT_MODEL}")
    arguments = ("summarise", str(SAMPLES / "feedback.jsonl"), "-o", "out.jsonl", "-b", "local", "-q")
    assert run_in_process(arguments, tmp_path).returncode == 0
    kept, now = read(SAMPLES / "results.jsonl"), read(tmp_path / "out.jsonl")
    assert kept.keys() == now.keys()
    different = {name: (kept[name], now[name]) for name in kept if kept[name] != now[name]}
    assert len(different) <= MOST_DIFFERENT, different


def read(path: Path) -> dict[str, tuple[str, bool, bool]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        row["id"]: (row["sentiment"], bool(row["issues"]["main_complaint"]), bool(row["issues"]["positive_aspect"]))
        for row in rows
    }
