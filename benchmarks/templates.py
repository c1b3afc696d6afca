# ruff: noqa: S603 - it starts the program
"""How right the embedded model is with the templates of `mellea pipeline new`.

    python benchmarks/templates.py                         # all six; takes most of an hour on two cores
    python benchmarks/templates.py --only bug-reports -m qwen2.5-coder-1.5b

`samples/templates/NAME.jsonl` holds at least 60 rows for each, written and labelled for this by hand before any model
saw them. For each category and bool field the share of right answers is printed, and for quotes the share that stands
in the text word for word; white space does not count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rows import Row, tell

from mellea_cli.cli.pipeline_file import TEMPLATES, template_path
from mellea_cli.pipelines.pipeline_spec import load_pipeline

SAMPLES = Path(__file__).parents[1] / "samples" / "templates"
LEAST = 80
"""Least share of right answers of a category field, in percent."""


def answers(name: str, model: str | None, limit: int | None, output: Path) -> dict[str, Any]:
    """Run a template over its rows, or the first of them; return the run's own summary."""
    command = [sys.executable, "-m", "mellea_cli", "run", str(template_path(name)), str(SAMPLES / f"{name}.jsonl")]
    command += ["-o", str(output), "-b", "local", "--json", "-q", "--yes", *(["-m", model] if model else [])]
    command += ["-n", str(limit)] if limit else []
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode not in {0, 3}:
        raise RuntimeError(f"mellea run ended with {ran.returncode}: {ran.stderr[-2000:]}")
    summary: dict[str, Any] = json.loads(ran.stderr.splitlines()[-1])
    return summary


def judge(name: str, model: str | None, limit: int | None, folder: Path) -> None:
    """Run one template and print its rows."""
    output = folder / f"{name}.jsonl"
    summary = answers(name, model, limit, output)
    fields = load_pipeline(template_path(name)).fields
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    def say(what: str, value: float, unit: str, **more: Any) -> None:
        tell(Row("templates", f"{name}, {summary['model']}: {what}", value, unit, **more))

    for field in (field for field in fields if field in rows[0]["expected"]):
        pairs = Counter((str(row["expected"][field]), str(row[field])) for row in rows)
        right = sum(count for (truth, said), count in pairs.items() if truth.casefold() == said.casefold())
        wrong = sorted(
            (count, truth, said) for (truth, said), count in pairs.items() if truth.casefold() != said.casefold()
        )
        note = ", ".join(f"{truth} as {said}: {count}" for count, truth, said in reversed(wrong[-4:]))
        held = fields[field].type == "category"
        say(f"{field} right", 100 * right / len(rows), "%", bar=LEAST if held else None, at_least=True, note=note)
    for field in (field for field, spec in fields.items() if spec.type == "quote"):
        quotes = [(row[field], row["text"]) for row in rows if row[field]]
        verbatim = sum(" ".join(quote.split()) in " ".join(text.split()) for quote, text in quotes)
        say(f"{field} verbatim", 100 * verbatim / max(1, len(quotes)), "%", bar=100, at_least=True)
    say("rows answered", 100 * summary["done"] / len(rows), "%", note=f"{len(rows)} rows, {summary['failed']} failed")
    if not summary["reused"]:
        say("seconds a row", summary["elapsed_s"] / len(rows), "s")


def main() -> None:
    """Judge the templates one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(TEMPLATES), help="names, separated by commas")
    parser.add_argument("-m", "--model", help="a name from the catalogue, or a .gguf file")
    parser.add_argument("-n", "--limit", type=int, help="only the first rows of each; they are in mixed order")
    parser.add_argument("--keep", type=Path, help="folder for the outputs, so that a second run asks nothing again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.only.split(","):
            judge(name, args.model, args.limit, folder)


if __name__ == "__main__":
    main()
