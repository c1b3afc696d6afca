# ruff: noqa: T201 - it prints what it found
"""False changes: how often `mellea compare` marks a change between two samples of one population.

Every mark is a false one. The procedure promises that at most 5 % of the pairs have any.

    python -m benchmarks.false_changes                     # 200 pairs for each size
    python -m benchmarks.false_changes --pairs 1000 --rows 5000
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

from mellea_cli.report.comparison import compare
from mellea_cli.report.results import open_results

_SENTIMENTS = {"negative": 0.4, "mixed": 0.15, "positive": 0.45}
_THEMES = (0.3, 0.2, 0.15, 0.1, 0.08, 0.05, 0.05, 0.03, 0.03, 0.02, 0.01, 0.01, 0.005, 0.005, 0.002)


def sample(path: Path, rows: int, seed: int) -> Path:
    """Write rows of the population to a file."""
    draw = random.Random(seed)  # noqa: S311 - a simulation
    with path.open("w") as file:
        for number in range(rows):
            mood = draw.choices(list(_SENTIMENTS), list(_SENTIMENTS.values()))[0]
            urgency = draw.choice(("high", "medium", "low", "low")) if mood != "positive" else "low"
            themes = [f"Theme {place}" for place, chance in enumerate(_THEMES) if draw.random() < chance]
            row = {"text": f"{seed} {number}", "sentiment": mood, "issues": {"urgency": urgency}}
            file.write(json.dumps(row | {"themes": themes or ["none"]}) + "\n")
    return path


def marked(folder: Path, rows: int, seed: int) -> tuple[int, int, int]:
    """The shares of a pair, those that hold beyond chance, and those whose own interval excludes 0."""
    paths = [sample(folder / f"{side}.jsonl", rows, 2 * seed + side) for side in (0, 1)]
    with open_results(str(paths[0])) as old, open_results(str(paths[1])) as new:
        found = compare(old, new)
    alone = sum(not change.points_low <= 0 <= change.points_high for change in found.changes)
    return len(found.changes), len(found.held), alone


def main() -> None:
    """Print the figures for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="*", default=[100, 500, 2000])
    options = parser.parse_args()
    print("rows    shares  pairs with a mark  pairs with an interval without 0")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            pairs = [marked(Path(folder), rows, seed) for seed in range(options.pairs)]
        with_mark, with_interval = (sum(bool(pair[place]) for pair in pairs) for place in (1, 2))
        share, alone = (
            f"{number} of {len(pairs)} ({number / len(pairs):.1%})" for number in (with_mark, with_interval)
        )
        print(f"{rows:>6}  {pairs[0][0]:>6}  {share:>17}  {alone:>17}")


if __name__ == "__main__":
    main()
