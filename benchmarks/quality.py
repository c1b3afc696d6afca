# ruff: noqa: S603 - it starts the program
"""How right the embedded model is, and what that costs: both pipelines over labelled feedback.

    python benchmarks/quality.py                      # both pipelines; takes half an hour on two cores
    python benchmarks/quality.py --pipelines single -m qwen2.5-coder-1.5b
    python benchmarks/quality.py --pipelines single --neutral

`quality/items.tsv` holds 108 pieces of feedback, 36 of each sentiment, written for this by hand and labelled before any
model saw them: hotels, clinics, shops, software, trains; a word or two, or several sentences; a few in French and
German. The label also says what has to be null: a complaint in praise, praise in a complaint. `quality/neutral.tsv`
holds 40 more, made in the same way, of which 13 are neither: they are asked with the label `neutral`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rows import Row, tell

FOLDER = Path(__file__).parent / "quality"
LABELS = ("positive", "negative", "mixed")
WITH_NEUTRAL = (*LABELS, "neutral")
ABSENT: dict[str, tuple[str, ...]] = {"positive": ("main_complaint",), "negative": ("positive_aspect",)}
ABSENT["neutral"] = (*ABSENT["positive"], *ABSENT["negative"])


def labelled(labels: tuple[str, ...] = LABELS) -> list[tuple[str, str]]:
    """Each item's label and text, so mixed that neighbours tell nothing."""
    file = FOLDER / ("items.tsv" if labels == LABELS else "neutral.tsv")
    pairs = [line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines()]
    by_label = [[(label, text) for label, text in pairs if label == wanted] for wanted in labels]
    return [pair for together in zip_longest(*by_label) for pair in together if pair is not None]


def answers(
    items: list[tuple[str, str]], pipeline: str, model: str | None, labels: tuple[str, ...]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Summarise the items; return their rows and the run's own summary."""
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name, "in.jsonl"), Path(name, "out.jsonl")
        source.write_text("".join(json.dumps({"text": text}) + "\n" for _, text in items), encoding="utf-8")
        command = [sys.executable, "-m", "mellea_cli", "summarise", str(source), "-o", str(output), "-b", "local"]
        command += ["-p", pipeline, "--json", "-q", *(["-m", model] if model else [])]
        command += ["--labels", ",".join(labels)] if labels != LABELS else []
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode not in {0, 3}:
            raise RuntimeError(f"mellea summarise ended with {ran.returncode}: {ran.stderr[-2000:]}")
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        return rows, json.loads(ran.stderr.splitlines()[-1])


def macro_f1(pairs: Counter[tuple[str, str | None]], labels: tuple[str, ...]) -> float:
    """The mean of the labels' F1 scores."""
    scores = []
    for label in labels:
        hits = pairs[label, label]
        said = sum(count for (_, answer), count in pairs.items() if answer == label)
        there = sum(count for (truth, _), count in pairs.items() if truth == label)
        scores.append(2 * hits / (said + there) if said + there else 0.0)
    return sum(scores) / len(scores)


def judge(pipeline: str, model: str | None, labels: tuple[str, ...]) -> None:
    """Run one pipeline and print its rows."""
    items = labelled(labels)
    rows, summary = answers(items, pipeline, model, labels)
    pairs = Counter((label, row["sentiment"]) for (label, _), row in zip(items, rows, strict=True))
    count = len(items)
    right = sum(pairs[label, label] for label in labels)
    opposite = pairs["positive", "negative"] + pairs["negative", "positive"]
    known = [(label, row["issues"]) for (label, _), row in zip(items, rows, strict=True) if row["issues"]]
    nulls = [issues[field] is None for label, issues in known for field in ABSENT.get(label, ())]
    found = [
        issues[field] is not None
        for label, issues in known
        for field in ("main_complaint", "positive_aspect")
        if field not in ABSENT.get(label, ())
    ]
    tokens = summary["prompt_tokens"] + summary["completion_tokens"]
    wrong = [(truth, said or "nothing", times) for (truth, said), times in pairs.items() if truth != said]
    name, held = f"{pipeline}, {summary['model']}", pipeline == "single" and labels == LABELS
    name += ", with neutral" if labels != LABELS else ""

    def say(what: str, value: float, unit: str, **more: Any) -> None:
        tell(Row("quality", f"{name}: {what}", value, unit, **more))

    note = ", ".join(f"{truth} as {said}: {times}" for truth, said, times in sorted(wrong))
    say("sentiment right", 100 * right / count, "%", bar=85 if held else None, at_least=True, note=note)
    say("positive for negative or the reverse", 100 * opposite / count, "%", bar=2 if held else None)
    say("macro F1", macro_f1(pairs, labels), "")
    if labels != LABELS:
        neutral = [(label, row["sentiment"]) for (label, _), row in zip(items, rows, strict=True)]
        hits, said = neutral.count(("neutral", "neutral")), sum(answer == "neutral" for _, answer in neutral)
        there = sum(label == "neutral" for label, _ in neutral)
        say("neutral ones found", 100 * hits / there, "%", note=f"{hits} of {there}; {said} were called neutral")
    say("null where there is nothing", 100 * sum(nulls) / max(1, len(nulls)), "%")
    say("named where there is something", 100 * sum(found) / max(1, len(found)), "%")
    say("tokens an item", tokens / count, "tokens")
    say("seconds an item", summary["elapsed_s"] / count, "s", note=f"{summary['failed']} failed")


def main() -> None:
    """Judge the pipelines one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipelines", default="single,steps")
    parser.add_argument("-m", "--model", help="a name from the catalogue, or a .gguf file")
    parser.add_argument("--neutral", action="store_true", help="with the label neutral, over its own items")
    args = parser.parse_args()
    for pipeline in args.pipelines.split(","):
        judge(pipeline, args.model, WITH_NEUTRAL if args.neutral else LABELS)


if __name__ == "__main__":
    main()
