"""`mellea compare` as its users have it."""

from __future__ import annotations

import json
from pathlib import Path

from resultrows import result_rows
from rowfiles import Run, write_rows


def test_it_shows_what_moved(mellea: Run, tmp_path: Path) -> None:
    """Both sums, the rows, and a line for each judgement and theme."""
    rows = result_rows(120, themed=True)
    write_rows(tmp_path / "old.jsonl", rows[:80])
    write_rows(tmp_path / "new.jsonl", rows[30:])
    done = mellea("compare", "old.jsonl", "new.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert "rows       rows by id: 40 new, 30 gone, 50 in both" in done.stdout
    for word in ("old        old.jsonl: 80 rows = ", "sentiment  negative", "urgency    high", "theme      "):
        assert word in done.stdout
    assert all(len(line) < 80 for line in done.stdout.splitlines())


def test_markdown_json_and_files(mellea: Run, tmp_path: Path) -> None:
    """The same figures in each form; the suffix says which."""
    write_rows(tmp_path / "old.jsonl", result_rows(20, themed=True))
    write_rows(tmp_path / "new.jsonl", result_rows(40, themed=True))
    assert mellea("compare", "old.jsonl", "new.jsonl", "-o", "change.md").returncode == 0
    assert (tmp_path / "change.md").read_text(encoding="utf-8").startswith("# What changed\n")
    told = json.loads(mellea("compare", "old.jsonl", "new.jsonl", "--format", "json").stdout)
    assert told["rows"]["added"] == 20
    assert told["themes_compared"] is True


def test_errors_name_the_file(mellea: Run, tmp_path: Path) -> None:
    """Whichever of the two is wrong; an input is never written over."""
    good = write_rows(tmp_path / "good.jsonl", result_rows(3))
    write_rows(tmp_path / "bad.jsonl", [{"text": "x"}])
    done = mellea("compare", "good.jsonl", "bad.jsonl")
    assert done.returncode == 2
    assert "bad.jsonl:1: is not an output of mellea summarise" in done.stderr
    before = good.read_bytes()
    assert mellea("compare", "good.jsonl", "bad.jsonl", "-o", "good.jsonl", "--format", "md").returncode == 2
    assert good.read_bytes() == before
    assert "both files cannot come from stdin" in mellea("compare", "-", "-", stdin="").stderr
