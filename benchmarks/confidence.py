"""How right and how sure the default pipeline is, and the coefficients of `mellea_cli.pipelines.confidence`.

    python benchmarks/confidence.py           # from quality/answers.jsonl; prints what the held-out sources say
    python benchmarks/confidence.py --read    # ask the embedded default model first; an hour on two idle cores

Each line of `quality/answers.jsonl` is a text of `quality/readings.jsonl` with its source and label, the answer of the
pipeline `single`, and the probabilities of the choices in it. A reading that was cut short goes on where it stopped.

A source is held out, the coefficients are fitted on the others, and the held-out rows are judged; those that the
package has are fitted on all rows. A test finds no gradient at these. Then people review 50, 100 and 150 rows, 200
times with other ones, and the confidence of the other rows is calibrated by that. Log-odds that are multiplied stand
for a model that is too sure of itself, or not sure enough.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from fit import SLOTS, Sample, fit, readings
from quality import FOLDER, surest

from mellea_cli.backends.local import LocalBackend
from mellea_cli.engine.generate import generate
from mellea_cli.engine.pipeline_runner import step_options
from mellea_cli.messages import Options
from mellea_cli.models.catalogue import DEFAULT_MODEL
from mellea_cli.pipelines import confidence
from mellea_cli.pipelines.confidence import (
    calibrated,
    log_odds,
    read_choices,
    recalibrated,
    recalibration,
    with_weighed_urgency,
)
from mellea_cli.pipelines.default_prompts import SINGLE
from mellea_cli.pipelines.pipeline import PROBABILITIES
from mellea_cli.report.agreement import calibration_error

ANSWERS = FOLDER / "answers.jsonl"
FITTED = Path(confidence.__file__).with_name("confidence.json")
URGENCIES = FOLDER / "urgency.tsv"
(STEP,) = (replace(step, reads_choices=True) for step in SINGLE.steps)
WEIGHED = with_weighed_urgency(SINGLE)
REVIEWED, DRAWS = (50, 100, 150), 200
COPIED_WORDS = 3
"""So many telling words in a row that an answer has from a worked example, and not from its own text, are copied."""
# Every summary says "the customer finds the product …", so these tell nothing.
_UNTELLING = {
    "a",
    "and",
    "but",
    "customer",
    "finds",
    "for",
    "found",
    "in",
    "is",
    "it",
    "liked",
    "loves",
    "of",
    "praises",
}
_UNTELLING |= {"praises", "product", "the", "to", "was", "were", "with"}

Judged = tuple[float, bool]


def answers(path: Path = ANSWERS) -> list[dict[str, Any]]:
    """The stored answers with their columns."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        answer = STEP.output.parse(json.dumps(row["answer"]))
        row["columns"] = WEIGHED.assemble({"text": row["text"], STEP.name: answer, PROBABILITIES: row["read"]})
    return rows


def samples(rows: Sequence[dict[str, Any]]) -> list[Sample]:
    """What the confidence is fitted on: the log-odds of each row's label, and whether it is right."""
    found = [(log_odds(row["columns"], row["read"]), int(is_right(row))) for row in rows]
    return [([value], right) for value, right in found if value is not None]


def is_right(row: dict[str, Any]) -> bool:
    """Whether the label of a row is that of the people."""
    return bool(row["columns"]["sentiment"] == row["label"])


def fitted(rows: Sequence[dict[str, Any]]) -> list[float]:
    """The coefficients for these rows."""
    wrong, right = fit(samples(rows), classes=2)
    return [one - other for one, other in zip(right, wrong, strict=True)]


def auroc(judged: Sequence[Judged]) -> float:
    """The chance that a right label is surer than a wrong one; no number where there is none of either."""
    right, wrong = ([sure for sure, is_right in judged if is_right is wanted] for wanted in (True, False))
    wins = sum((one > other) + (one == other) / 2 for one in right for other in wrong)
    return wins / (len(right) * len(wrong)) if right and wrong else math.nan


def rest(judged: Sequence[Judged], share: float = 0.8) -> float:
    """The share of right labels among those that are not the surest."""
    ranked = sorted(judged, reverse=True)[max(1, round(share * len(judged))) :]
    return sum(right for _, right in ranked) / max(1, len(ranked))


def copied(row: dict[str, Any]) -> Iterator[str]:
    """The runs of words that an answer has from a worked example, and not from the text."""
    shown = {run for example in STEP.prompt.examples for part in _texts(example) for run in _runs(part)}
    own = set(_runs(row["text"]))
    for name in ("positive_aspect", "main_complaint", "summary"):
        yield from (run for run in _runs(row["answer"][name] or "") if run in shown and run not in own)


def _texts(example: Any) -> list[str]:
    answer = json.loads(example.answer)
    return [dict(example.variables)["text"], *(text for text in answer.values() if text)]


def _runs(text: str) -> Iterator[str]:
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in _UNTELLING]
    yield from (" ".join(words[at : at + COPIED_WORDS]) for at in range(len(words) - COPIED_WORDS + 1))


async def read_all(path: Path, known: Collection[str]) -> None:
    """Ask the default model about each text that is not known."""
    left = iter([row for row in readings() if row["text"] not in known])
    backend = LocalBackend(DEFAULT_MODEL, slots=SLOTS)
    backend.share_prefixes([STEP.prompt.prefix], print)
    options = step_options(Options(temperature=0.0), STEP)
    with path.open("a", encoding="utf-8") as file:

        async def worker() -> None:
            for row in left:
                found = await generate(backend, STEP.request(DEFAULT_MODEL, options, {"text": row["text"]}))
                file.write(line(row, found.text, read_choices(STEP.output.schema, found.tokens)))
                file.flush()

        try:
            await asyncio.gather(*(worker() for _ in range(SLOTS)))
        finally:
            await backend.aclose()


def line(row: dict[str, Any], text: str, read: dict[str, Any]) -> str:
    """A line of the stored answers."""
    kept = {name: {choice: round(value, 5) for choice, value in one.items()} for name, one in read.items()}
    facts = {name: row[name] for name in ("source", "label", "text")}
    answer = STEP.output.parse(text).model_dump()
    return json.dumps({**facts, "answer": answer, "read": kept}, ensure_ascii=False) + "\n"


def report(source: str, rows: Sequence[dict[str, Any]], judged: Sequence[Judged]) -> None:
    """Print what a source's rows say."""
    right = sum(map(is_right, rows)) / len(rows)
    opposite = sum({row["columns"]["sentiment"], row["label"]} == {"positive", "negative"} for row in rows) / len(rows)
    sys.stdout.write(
        f"{source:<20} {len(rows):>4} rows  right {right:.3f}  opposite {opposite:.3f}"
        f"  ECE {calibration_error(judged):.3f}  surest 80 % {surest(judged):.3f}  rest {rest(judged):.3f}"
        f"  AUROC {auroc(judged):.3f}\n"
    )


def reviews(name: str, odds: Sequence[tuple[float, bool]]) -> None:
    """Print how far confidences with these log-odds are off in the rows that a review has not seen, by its size."""
    judged = [(calibrated(value, (1.0, 0.0)), is_right) for value, is_right in odds]
    for size in REVIEWED:
        chance = random.Random(18)  # noqa: S311 - no secret
        off = {"before": 0.0, "after": 0.0}
        used = worse = 0
        for _ in range(DRAWS):
            drawn = chance.sample(judged, len(judged))
            weights = recalibration(drawn[:size])
            before = calibration_error(drawn[size:])
            after = calibration_error([(recalibrated(sure, weights), is_right) for sure, is_right in drawn[size:]])
            off = {"before": off["before"] + before, "after": off["after"] + after}
            used += bool(weights)
            worse += after > before + 0.02
        sys.stdout.write(
            f"{name}, {size} reviewed: ECE of the others {off['before'] / DRAWS:.3f}, then {off['after'] / DRAWS:.3f};"
            f" calibrated in {used} of {DRAWS} draws, worse by more than 0.02 in {worse}\n"
        )


def urgencies(rows: Sequence[dict[str, Any]]) -> None:
    """Print how many are high, and how right they are where a person has judged them: as written, and weighed."""
    judged = dict(line.split("\t", 1)[::-1] for line in URGENCIES.read_text(encoding="utf-8").splitlines())
    written = ["low" if row["columns"]["sentiment"] == "positive" else row["answer"]["urgency"] for row in rows]
    weighed = [row["columns"]["issues"]["urgency"] for row in rows]
    for name, given in (("as written", written), ("weighed", weighed)):
        pairs = [(judged[row["text"]], one) for row, one in zip(rows, given, strict=True) if row["text"] in judged]
        high = [truth for truth, one in pairs if one == "high"]
        sys.stdout.write(
            f"urgency {name}: high in {given.count('high') / len(given):.3f} of all rows;"
            f" right in {sum(truth == one for truth, one in pairs)} of {len(pairs)} complaints;"
            f" {high.count('high')} of its {len(high)} high ones are\n"
        )


def main() -> None:
    """Judge each source by the others, fit all, and write the coefficients."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--read", action="store_true", help="ask the model first")
    if parser.parse_args().read:
        known = {row["text"] for row in answers()} if ANSWERS.exists() else set()
        asyncio.run(read_all(ANSWERS, known))
    rows = answers()
    held: list[Judged] = []
    odds: list[tuple[float, bool]] = []
    for source in sorted({row["source"] for row in rows}):
        found = fitted([row for row in rows if row["source"] != source])
        mine = [row for row in rows if row["source"] == source]
        judged = [(calibrated(value, found), bool(right)) for (value,), right in samples(mine)]
        report(source, mine, judged)
        held += judged
        odds += [(found[0] * value + found[1], bool(right)) for (value,), right in samples(mine)]
    report("all, each held out", rows, held)
    for low, high in pairwise((0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)):
        if inside := [one for one in held if low < one[0] <= high]:
            mean, right = (sum(one[place] for one in inside) / len(inside) for place in (0, 1))
            sys.stdout.write(
                f"confidence {low:.2f} to {high:.2f}: {len(inside):>4} rows, mean {mean:.2f}, right {right:.2f}\n"
            )
    reviews("default model", odds)
    reviews("without the coefficients of the package", [(value, bool(right)) for (value,), right in samples(rows)])
    reviews("log-odds twice as large", [(2 * value, is_right) for value, is_right in odds])
    reviews("log-odds half as large", [(value / 2, is_right) for value, is_right in odds])
    urgencies(rows)
    from_examples = [(row["text"], runs) for row in rows if (runs := list(copied(row)))]
    sys.stdout.write(f"answers with words of a worked example: {len(from_examples)}\n")
    for text, runs in from_examples:
        sys.stdout.write(f"  {text[:80]!r}: {'; '.join(runs)}\n")
    FITTED.write_text(json.dumps(fitted(rows)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
