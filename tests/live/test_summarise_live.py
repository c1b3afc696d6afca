"""The main job on the real small model: no server, no key, no network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.timeout(300)]

SAMPLES = Path(__file__).parents[2] / "samples"


def test_the_first_three_rows_of_a_pipe(small_model: Path) -> None:
    """`cat FILE | mellea summarise - | head -3` prints three JSON rows and ends quietly."""
    command = (
        f"cat {SAMPLES / 'feedback.csv'} | {sys.executable} -m mellea_cli summarise - --backend local"
        f" -m {small_model} -q | head -3"
    )
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["F-001", "F-002", "F-003"]
    assert all("summary" in row for row in rows)
    assert done.stderr == ""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_answers_of_the_real_model_are_whole_and_kept(
    small_model: Path, tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every item ends in an answer that keeps the schema or in a stated failure; a second run keeps the answers."""
    monkeypatch.setenv("MELLEA_LOOP", loop)
    arguments = ["summarise", str(SAMPLES / "feedback.jsonl"), "-n", "4", "-b", "local", "-m", str(small_model), "-q"]
    command = [sys.executable, "-m", "mellea_cli", *arguments, "-o", "out.jsonl", "--no-retry-failed"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert first.returncode in {0, 3}, first.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["F-001", "F-002", "F-003", "F-004"]
    for row in rows:
        if "error" in row:
            assert row["error"]["kind"] in {"requirement", "parse", "length", "runaway", "empty"}
        else:
            assert row["sentiment"] in {"positive", "negative", "mixed"}
            assert row["issues"]["urgency"] in {"low", "medium", "high"}
            assert len(row["summary"].split()) < 30
    written = (tmp_path / "out.jsonl").read_bytes()
    again = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == first.returncode
    assert (tmp_path / "out.jsonl").read_bytes() == written
    assert json.loads(again.stderr.splitlines()[-1])["calls"] == 0
