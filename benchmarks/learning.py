# ruff: noqa: S603 - it starts the program
"""What learning in the run saves: a loopback server answers rows by their labels, and the row model takes the rest.

    python benchmarks/learning.py --data FOLDER            # 3,000 rows of each source
    python benchmarks/learning.py --data FOLDER --rows 1000

FOLDER is that of `accuracy_promise.py`. Each source is run once with `--learn`, in a random order. The agreement is
that of all rows that the model has taken with their labels, next to the interval that the run's own audit gives.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accuracy_promise import read_sources
from rows import Row, tell

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from loopback import ModelServer

TARGET = 0.95
SAVED = 1 / 3


def run(pairs: list[tuple[str, str]], folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the program over rows with these labels; the rows of its output, and its summary."""
    choices = sorted({label for label, _ in pairs})
    by_text = {text: label for label, text in pairs}

    def reply(prompt: str, _: Mapping[str, Any] | None) -> str:
        return json.dumps(
            {"label": by_text[prompt.rsplit("<feedback>\n", maxsplit=1)[-1].split("\n</feedback>", maxsplit=1)[0]]}
        )

    spec = f'[fields.label]\ntype = "category"\ndescription = "the label"\nchoices = {json.dumps(choices)}\n'
    Path(folder, "labels.toml").write_text(spec, encoding="utf-8")
    rows = [json.dumps({"text": text}) + "\n" for _, text in pairs]
    Path(folder, "in.jsonl").write_text("".join(rows), encoding="utf-8")
    with ModelServer(reply=reply, record=False) as server:
        command = [
            sys.executable,
            "-m",
            "mellea_cli",
            "run",
            "labels.toml",
            "in.jsonl",
            "-o",
            "out.jsonl",
            "-b",
            "openai",
        ]
        command += ["-m", "test-model", "--base-url", server.openai_url, "--learn", "--json", "-q", "-c", "8"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"mellea run ended with {ran.returncode}: {ran.stderr[-2000:]}")
    lines = Path(folder, "out.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], json.loads(ran.stderr.splitlines()[-1])


def main() -> int:
    """Run each source once and print the calls that were saved and the agreement; 1 when a bar is not held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with NAME.tsv: label, tab, text")
    parser.add_argument("--rows", type=int, default=3_000)
    args = parser.parse_args()
    if args.data is None:
        sys.stdout.write("skipped: name a folder of labelled texts with --data\n")
        return 0
    worst = 0
    for name, all_pairs in read_sources(args.data).items():
        pairs = random.Random(0).sample(all_pairs, min(args.rows, len(all_pairs)))  # noqa: S311 - a benchmark
        with tempfile.TemporaryDirectory() as folder:
            rows, summary = run(pairs, Path(folder))
        told = zip(rows, pairs, strict=True)
        learned = [(row["label"], label) for row, (label, _) in told if row["answered_by"] == "learned"]
        share = len(learned) / len(pairs)
        audit = summary["audit"]
        note = f"{summary['calls']:,} calls for {len(pairs):,} rows"
        found = [Row("learning", f"{name}: share of the calls that was saved", share, "", SAVED, True, note)]
        if learned:
            agreement = sum(said == label for said, label in learned) / len(learned)
            field = audit["fields"][0] if audit["fields"] else {"agreement": 0.0, "low": 0.0, "high": 1.0}
            note = (
                f"audit: {field['agreement']:.3f}, {field['low']:.3f} to {field['high']:.3f}, {audit['audited']} rows"
            )
            found.append(Row("learning", f"{name}: agreement of the learned rows", agreement, "", TARGET, True, note))
        for row in found:
            worst = max(worst, not row.holds)
            tell(row)
    return worst


if __name__ == "__main__":
    sys.exit(main())
