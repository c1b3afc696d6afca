"""Kills runs over an output that a person edits in between, and looks for the edited cells after each kill.

`PYTHONPATH=tests python tests/reliability/edit_kills.py --kills 200` prints the figures; the suite runs a short one.
Before each run two cells are edited and rows are added to the input; every fifth run changes the pipeline, so that all
rows are asked again. The output is a table in one half of the kills and JSON lines in the other.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audit import end, run, start

_COLUMNS = ("summary", "sentiment", "date")


@dataclass
class Figures:
    """What came of it."""

    kills: int = 0
    killed_before_the_end: int = 0
    rows: int = 0
    edits: int = 0
    lost: int = 0
    """Edited cells that were missing after a kill or at the end."""
    taken_for_edits: int = 0
    """Cells at the end that nobody edited and that are not what an unbroken run writes."""
    said: int = 0
    """Edited cells according to the last run."""

    @property
    def good(self) -> bool:
        """Whether every edited cell was there after every kill, and nothing else was taken for one."""
        return not self.lost and not self.taken_for_edits and self.said == self.edits


class Output:
    """The input and the output of the runs, and what has been edited.

    Args:
        folder: where they are.
        suffix: `csv` or `jsonl`.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.source = folder / "in.jsonl"
        self.path = folder / f"out.{suffix}"
        self.edits: dict[tuple[str, str], str] = {}
        self._is_table = suffix == "csv"
        self._items = 0

    def add_rows(self, number: int) -> None:
        with self.source.open("a") as file:
            for _ in range(number):
                self._items += 1
                text = f"The parcel number {self._items} came late."
                file.write(json.dumps({"id": f"r{self._items}", "text": text, "date": "2024-05-01"}) + "\n")

    def rows(self, path: Path | None = None) -> list[dict[str, Any]]:
        text = (path or self.path).read_text(encoding="utf-8")
        if self._is_table:
            return list(csv.DictReader(io.StringIO(text, newline="")))
        return [json.loads(line) for line in text.splitlines()]

    def edit(self, draw: random.Random, cells: int) -> None:
        """Change cells as a person does with an editor."""
        rows = self.rows()
        for row in draw.sample(rows, cells):
            column = draw.choice(_COLUMNS)
            value = f"EDIT {len(self.edits)} {draw.random()}"
            row[column] = value
            self.edits[row["id"], column] = value
        temporary = self.path.with_suffix(".edited")
        with temporary.open("w", encoding="utf-8", newline="") as file:
            if self._is_table:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        temporary.replace(self.path)

    def lost(self) -> int:
        """The number of edited cells that are not in the output."""
        rows = {row["id"]: row for row in self.rows()}
        return sum(rows.get(ident, {}).get(column) != value for (ident, column), value in self.edits.items())


def arguments(source: Path, output: Path, pipeline: str) -> list[str]:
    """The command line."""
    flags = ("-b", "scripted", "-p", pipeline, "--yes", "--json", "-c", "4")
    return [sys.executable, "-m", "mellea_cli", "summarise", str(source), "-o", str(output), *flags]


def harness(kills: int, items: int, seed: int, folder: Path) -> Figures:
    """Edit and kill `kills` times, finish, and compare with an unbroken run."""
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    figures = Figures()
    for suffix, number in (("jsonl", kills - kills // 2), ("csv", kills // 2)):
        place = folder / suffix
        place.mkdir()
        output, pipeline = Output(place, suffix), "single"
        output.add_rows(items)
        began = time.monotonic()
        run(arguments(output.source, output.path, pipeline), place, 600)
        usual_s = time.monotonic() - began
        for kill in range(number):
            output.edit(draw, 2)
            output.add_rows(3)
            if kill % 5 == 4:
                pipeline = "steps" if pipeline == "single" else "single"
            process = start(arguments(output.source, output.path, pipeline), place)
            # Two of three come late: what happens at the end is the dangerous part.
            time.sleep(usual_s * draw.uniform(0.7 if kill % 3 else 0.0, 1.2))
            figures.killed_before_the_end += process.poll() is None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            end(process)
            figures.kills += 1
            figures.lost += output.lost()
        last = run(arguments(output.source, output.path, pipeline), place, 600)
        unbroken = place / f"unbroken.{suffix}"
        run(arguments(output.source, unbroken, pipeline), place, 600)
        figures.lost += output.lost()
        figures.said += last.summary["edited_cells"]
        figures.edits += len(output.edits)
        for row, clean in zip(output.rows(), output.rows(unbroken), strict=True):
            figures.rows += 1
            figures.taken_for_edits += sum(
                (row["id"], column) not in output.edits and value != clean[column] for column, value in row.items()
            )
    return figures


def main() -> int:
    """Print the figures as JSON; exit 1 when an edit was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = harness(args.kills, args.items, args.seed, Path(folder))
    sys.stdout.write(json.dumps({**asdict(figures), "good": figures.good}) + "\n")
    return 0 if figures.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
