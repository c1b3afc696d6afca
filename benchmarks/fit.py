"""Fit the coefficients of `mellea_cli.pipelines.fast` on stored readings of labelled feedback.

    python benchmarks/fit.py              # from quality/readings.jsonl; prints what the held-out sources say
    python benchmarks/fit.py --read       # ask the two embedded models first; half an hour on two idle cores

Each line of `quality/readings.jsonl` is a text of `quality/sources.tsv` or `quality/items.tsv` with its source and
label, the small model's log-probabilities of the labels for each clause and, where the text was among the least sure,
the default model's for the whole.

A source is held out, the classifier is fitted on the others, and the held-out rows are judged; the shipped coefficients
are fitted on all rows. The objective is convex and regularized, so it has one optimum: Newton's method finds it, and a
test finds no gradient at the shipped coefficients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from quality import FOLDER, labelled_rows, surest

from mellea_cli.backends.local import LocalBackend
from mellea_cli.engine.generate import generate
from mellea_cli.messages import GenerateRequest, Options
from mellea_cli.models.catalogue import DEFAULT_MODEL, SMALL_MODEL
from mellea_cli.pipelines import fast
from mellea_cli.pipelines.fast import FAST, SENTIMENTS, features, features_of_second_look, log_softmax
from mellea_cli.pipelines.pipeline import Step, read_labels
from mellea_cli.report.agreement import calibration_error

READINGS = FOLDER / "readings.jsonl"
FITTED = Path(fast.__file__).with_name("fast.json")
PENALTY = 2.0
SLOTS = 4
SECOND_LOOKS = 0.3
"""The share of texts that the default model reads too."""
READ_TWICE = 0.35
"""The share that it reads for the fit: of a held-out source more than a third may be in doubt."""

Weights = list[list[float]]
Sample = tuple[Sequence[float], int]


def readings(path: Path = READINGS) -> list[dict[str, Any]]:
    """The stored readings."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def gradient(weights: Weights, samples: Sequence[Sample]) -> list[float]:
    """The gradient of the penalized loss at these coefficients."""
    width = len(weights[0])
    found = [PENALTY * weight for row in weights for weight in row]
    for values, truth in samples:
        chances = [math.exp(one) for one in log_softmax(weights, values)]
        for label, chance in enumerate(chances):
            error = chance - (label == truth)
            for place, value in enumerate((*values, 1.0)):
                found[label * width + place] += error * value
    return found


def curvature(weights: Weights, samples: Sequence[Sample]) -> list[list[float]]:
    """The matrix of second derivatives of the penalized loss."""
    width = len(weights[0])
    size = width * len(weights)
    found = [[PENALTY * (row == column) for column in range(size)] for row in range(size)]
    for values, _ in samples:
        chances = [math.exp(one) for one in log_softmax(weights, values)]
        full = (*values, 1.0)
        products = [[one * other for other in full] for one in full]
        for label, chance in enumerate(chances):
            for other, its in enumerate(chances):
                factor = chance * ((label == other) - its)
                for place in range(width):
                    row, line = found[label * width + place], products[place]
                    for column in range(width):
                        row[other * width + column] += factor * line[column]
    return found


def solved(matrix: list[list[float]], right: Sequence[float]) -> list[float]:
    """The solution of a system of linear equations, by elimination with pivots."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for place in range(len(rows)):
        best = max(range(place, len(rows)), key=lambda row: abs(rows[row][place]))
        rows[place], rows[best] = rows[best], rows[place]
        pivot = rows[place][place]
        rows[place] = [value / pivot for value in rows[place]]
        for other in range(len(rows)):
            if other != place and (factor := rows[other][place]):
                rows[other] = [value - factor * its for value, its in zip(rows[other], rows[place], strict=True)]
    return [row[-1] for row in rows]


def fit(samples: Sequence[Sample], classes: int = len(SENTIMENTS)) -> Weights:
    """The coefficients with the least penalized loss, a row for each class."""
    width = len(samples[0][0]) + 1
    weights = [[0.0] * width for _ in range(classes)]
    for _ in range(30):
        steps = solved(curvature(weights, samples), gradient(weights, samples))
        for label, row in enumerate(weights):
            for place in range(width):
                row[place] -= steps[label * width + place]
        if max(map(abs, steps)) < 1e-9:
            break
    return weights


def first_samples(rows: Iterable[dict[str, Any]]) -> list[Sample]:
    """What the first classifier learns from."""
    return [(features(row["clauses"]), SENTIMENTS.index(row["label"])) for row in rows]


def second_samples(rows: Iterable[dict[str, Any]], first: Weights) -> list[Sample]:
    """What the second classifier learns from: the rows that the default model has read."""
    return [
        (
            features_of_second_look(log_softmax(first, features(row["clauses"])), row["whole"]),
            SENTIMENTS.index(row["label"]),
        )
        for row in rows
        if row.get("whole")
    ]


def fitted(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Both classifiers, and the confidence below which the default model is asked too."""
    first = fit(first_samples(rows))
    sure = sorted(max(log_softmax(first, features(row["clauses"]))) for row in rows)
    below = math.exp(sure[int(SECOND_LOOKS * len(sure))])
    second = fit(second_samples(rows, first))
    return {"first": first, "second": second, "second_look_below": round(below, 3)}


def judged(row: dict[str, Any], found: dict[str, Any]) -> tuple[str, float, bool]:
    """A row's sentiment, its confidence, and whether the default model was asked."""
    chances = log_softmax(found["first"], features(row["clauses"]))
    again = math.exp(max(chances)) < found["second_look_below"] and row.get("whole") is not None
    if again:
        chances = log_softmax(found["second"], features_of_second_look(chances, row["whole"]))
    best = max(range(len(chances)), key=lambda place: chances[place])
    return SENTIMENTS[best], math.exp(chances[best]), again


async def read_all(rows: list[dict[str, Any]]) -> None:
    """Ask the small model about every clause, and the default one about the texts of which the first is least sure."""
    first, second = FAST.steps
    small = LocalBackend(SMALL_MODEL, slots=SLOTS)
    small.share_prefixes([first.prompt.prefix], print)
    found = await each(small, SMALL_MODEL, first, [row["text"] for row in rows])
    for row, clauses in zip(rows, found, strict=True):
        row["clauses"] = clauses
    weights = fit(first_samples(rows))
    ranked = sorted(rows, key=lambda row: max(log_softmax(weights, features(row["clauses"]))))
    doubtful = ranked[: round(READ_TWICE * len(rows))]
    large = LocalBackend(DEFAULT_MODEL, slots=SLOTS)
    large.share_prefixes([second.prompt.prefix], print)
    for row, wholes in zip(
        doubtful, await each(large, DEFAULT_MODEL, second, [row["text"] for row in doubtful]), strict=True
    ):
        row["whole"] = wholes[0]


async def each(backend: LocalBackend, model: str, step: Step, texts: Sequence[str]) -> list[list[list[float]]]:
    """The readings of each text's parts, a few texts at a time."""
    found: list[list[list[float]]] = [[] for _ in texts]
    left = iter(enumerate(texts))

    async def worker() -> None:
        for place, text in left:
            for part, request in step.label_requests(model, Options(temperature=0.0), text):
                likely = (await generate(backend, as_large(request))).tokens[0].likely
                found[place].append([round(one, 4) for one in read_labels(part, step.labels, likely).logprobs])

    try:
        await asyncio.gather(*(worker() for _ in range(SLOTS)))
    finally:
        await backend.aclose()
    return found


def as_large(request: GenerateRequest) -> GenerateRequest:
    """The request for a backend of one model."""
    return GenerateRequest(request.model, request.messages, request.options, top_logprobs=request.top_logprobs)


def main() -> None:
    """Judge each source by the others, fit all, and write the coefficients."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--read", action="store_true", help="ask the models first")
    if parser.parse_args().read:
        rows = [{"source": row.source, "label": row.label, "text": row.text} for row in labelled_rows()]
        asyncio.run(read_all(rows))
        READINGS.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    rows = readings()
    held: list[tuple[float, bool]] = []
    looked = opposite = 0
    sources = sorted({row["source"] for row in rows})
    for source in sources:
        found = fitted([row for row in rows if row["source"] != source])
        mine = [(row, *judged(row, found)) for row in rows if row["source"] == source]
        judgements = [(sure, label == row["label"]) for row, label, sure, _ in mine]
        wrong = sum({label, row["label"]} == {"positive", "negative"} for row, label, _, _ in mine)
        looked += sum(again for *_, again in mine)
        opposite += wrong
        held += judgements
        report(source, judgements, wrong)
    report("all, each held out", held, opposite)
    sys.stdout.write(f"second looks: {looked / len(rows):.3f}\n")
    for low, high in pairwise((0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)):
        inside = [one for one in held if low < one[0] <= high]
        if inside:
            mean, right = (sum(one[place] for one in inside) / len(inside) for place in (0, 1))
            sys.stdout.write(
                f"confidence {low:.2f} to {high:.2f}: {len(inside):>4} rows, mean {mean:.2f}, right {right:.2f}\n"
            )
    FITTED.write_text(json.dumps(fitted(rows)) + "\n", encoding="utf-8")


def report(source: str, judgements: Sequence[tuple[float, bool]], opposite: int) -> None:
    """Print what a source's rows say."""
    right = sum(right for _, right in judgements) / len(judgements)
    sys.stdout.write(
        f"{source:<20} {len(judgements):>4} rows  right {right:.3f}  opposite {opposite / len(judgements):.3f}"
        f"  ECE {calibration_error(judgements):.3f}  surest 80 % {surest(judgements):.3f}\n"
    )


if __name__ == "__main__":
    main()
