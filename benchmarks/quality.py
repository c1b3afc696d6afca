# ruff: noqa: S603 - it starts the program
"""How right the embedded model is, how sure it is, and what that costs: pipelines over labelled feedback, by source.

    python benchmarks/quality.py                            # two pipelines over 108 texts; half an hour on two cores
    python benchmarks/quality.py --pipelines single --neutral
    python benchmarks/quality.py --pipelines single,fast --sources all --each 25

`quality/items.tsv` holds 108 pieces of feedback, 36 of each sentiment, written for this by hand and labelled before any
model saw them: hotels, clinics, shops, software, trains; a word or two, or several sentences; a few in French and
German. The label also says what has to be null: a complaint in praise, praise in a complaint. `quality/sources.tsv`
holds 610 more, see `quality/README.md`. `quality/neutral.tsv` holds 40, of which 13 are neither: they are asked with
the label `neutral`. Processor time is that of the program and its model servers, start included.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rows import Row, tell

from mellea_cli.report.agreement import calibration_error

FOLDER = Path(__file__).parent / "quality"
ITEMS = FOLDER / "items.tsv"
LABELS = ("positive", "negative", "mixed")
WITH_NEUTRAL = (*LABELS, "neutral")
ABSENT: dict[str, tuple[str, ...]] = {"positive": ("main_complaint",), "negative": ("positive_aspect",)}
ABSENT["neutral"] = (*ABSENT["positive"], *ABSENT["negative"])


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with its label, and where it comes from."""

    source: str
    label: str
    text: str


def labelled_rows() -> list[Labelled]:
    """The texts of all sources."""
    lines = (FOLDER / "sources.tsv").read_text(encoding="utf-8").splitlines()
    written = [f"written\t{line}" for line in ITEMS.read_text(encoding="utf-8").splitlines()]
    return [Labelled(*line.split("\t", 2)) for line in (*lines, *written)]


def sample(sources: str, each: int) -> list[Labelled]:
    """So many rows of each source, or of the named ones; the same ones each time."""
    rows = labelled_rows()
    names = sorted({row.source for row in rows}) if sources == "all" else sources.split(",")
    chosen: list[Labelled] = []
    for name in names:
        mine = [row for row in rows if row.source == name]
        random.Random(0).shuffle(mine)  # noqa: S311 - the same rows each time
        chosen += mine[: each or None]
    return chosen


def surest(judgements: Sequence[tuple[float, bool]], share: float = 0.8) -> float:
    """The share of right labels among the surest."""
    ranked = sorted(judgements, reverse=True)[: max(1, round(share * len(judgements)))]
    return sum(right for _, right in ranked) / len(ranked)


def labelled(labels: tuple[str, ...] = LABELS) -> list[tuple[str, str]]:
    """Each item's label and text, so mixed that neighbours tell nothing."""
    file = FOLDER / ("items.tsv" if labels == LABELS else "neutral.tsv")
    pairs = [line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines()]
    by_label = [[(label, text) for label, text in pairs if label == wanted] for wanted in labels]
    return [pair for together in zip_longest(*by_label) for pair in together if pair is not None]


def answers(
    items: list[tuple[str, str]], pipeline: str, model: str | None, labels: tuple[str, ...] = LABELS
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Summarise the items; return their rows and the run's own summary."""
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name, "in.jsonl"), Path(name, "out.jsonl")
        source.write_text("".join(json.dumps({"text": text}) + "\n" for _, text in items), encoding="utf-8")
        command = [sys.executable, "-m", "mellea_cli", "summarise", str(source), "-o", str(output), "-b", "local"]
        command += ["-p", pipeline, "--json", "-q", *(["-m", model] if model else [])]
        command += ["--labels", ",".join(labels)] if labels != LABELS else []
        command += ["--confidence"] if pipeline == "fast" else []
        before = processor_s()
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode not in {0, 3}:
            raise RuntimeError(f"mellea summarise ended with {ran.returncode}: {ran.stderr[-2000:]}")
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        return rows, {**json.loads(ran.stderr.splitlines()[-1]), "cpu_s": processor_s() - before}


def processor_s() -> float:
    """Processor time of the programs that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def macro_f1(pairs: Counter[tuple[str, str | None]], labels: tuple[str, ...] = LABELS) -> float:
    """The mean of the labels' F1 scores."""
    scores = []
    for label in labels:
        hits = pairs[label, label]
        said = sum(count for (_, answer), count in pairs.items() if answer == label)
        there = sum(count for (truth, _), count in pairs.items() if truth == label)
        scores.append(2 * hits / (said + there) if said + there else 0.0)
    return sum(scores) / len(scores)


def judge_sources(pipeline: str, model: str | None, chosen: Sequence[Labelled]) -> None:
    """Run one pipeline over rows of several sources, and print a row for each source and figure."""
    rows, summary = answers([(row.label, row.text) for row in chosen], pipeline, model)
    found = list(zip(chosen, rows, strict=True))
    name = f"{pipeline}, {summary['model']}"
    for source in (*dict.fromkeys(row.source for row in chosen), "all"):
        mine = [(truth, row) for truth, row in found if source in (truth.source, "all")]
        pairs = Counter((truth.label, row["sentiment"]) for truth, row in mine)

        def say(what: str, value: float, unit: str = "", *, source: str = source, count: int = len(mine)) -> None:
            tell(Row("quality", f"{name}, {source}: {what}", value, unit, note=f"{count} rows"))

        say("sentiment right", 100 * sum(pairs[label, label] for label in LABELS) / len(mine), "%")
        say("macro F1", macro_f1(pairs))
        opposite = pairs["positive", "negative"] + pairs["negative", "positive"]
        say("positive for negative or the reverse", 100 * opposite / len(mine), "%")
        sure = [(row["confidence"], truth.label == row["sentiment"]) for truth, row in mine if row.get("confidence")]
        if sure:
            say("calibration error", calibration_error(sure))
            say("surest 80 % right", 100 * surest(sure), "%")
        if source == "all":
            urgent = sum((row["issues"] or {}).get("urgency") == "high" for _, row in mine)
            say("urgency high", 100 * urgent / len(mine), "%")
            say("processor time an item", summary["cpu_s"] / len(mine), "s")
            say("items a second", len(mine) / summary["elapsed_s"], "")


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
    parser.add_argument("--sources", help="all, or names from quality/README.md; without it the 108 written texts")
    parser.add_argument("--each", type=int, default=0, help="so many rows of each source; 0 for all")
    args = parser.parse_args()
    for pipeline in args.pipelines.split(","):
        if args.sources:
            judge_sources(pipeline, args.model, sample(args.sources, args.each))
        else:
            judge(pipeline, args.model, WITH_NEUTRAL if args.neutral else LABELS)


if __name__ == "__main__":
    main()
