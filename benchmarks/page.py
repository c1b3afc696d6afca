"""Writes the tables of `docs/performance.md` from `results.json`, so that the page says what was measured.

python benchmarks/page.py
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- what follows is written by benchmarks/page.py -->", "<!-- until here -->"


def _bar(row: dict[str, Any]) -> str:
    if row["bar"] is None:
        return ""
    word = "at least" if row["at_least"] else "at most"
    held = row["value"] >= row["bar"] if row["at_least"] else row["value"] <= row["bar"]
    return f"{word} {row['bar']:g}" + ("" if held else ", **not held**")


def tables(results: dict[str, Any]) -> str:
    """All tables, a part of the benchmarks each."""
    told = []
    for part, rows in groupby(sorted(results["rows"], key=lambda row: str(row["part"])), key=lambda row: row["part"]):
        listed = list(rows)
        on = listed[0]["on"]
        told += [
            f"### {part}",
            "",
            f"{on['date']}, {on['system']}, {on['cores']} cores, Python {on['python']}",
            "",
            "| what | figure | bar | behind it |",
            "|---|---|---|---|",
            *(f"| {row['what']} | {row['value']:.2f} {row['unit']} | {_bar(row)} | {row['note']} |" for row in listed),
            "",
        ]
    return "\n".join(told)


def page(text: str, results: dict[str, Any]) -> str:
    """The page with its tables made again."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables(results)}\n{END}{tail}"


def main() -> None:
    """Write the page."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {len(results['rows'])} rows\n")


if __name__ == "__main__":
    main()
