"""The page of figures says what was measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_are_those_of_the_results() -> None:
    """A new measurement writes the page again: python benchmarks/page.py."""
    page = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))["page"]
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    assert results["rows"]
    assert page(text, results) == text
