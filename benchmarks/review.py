# ruff: noqa: S603 - it starts the program
"""What a review gives: how narrow and how right corrected totals are, and whether corrected rows teach the model.

    python benchmarks/review.py                # the totals; a few seconds
    python benchmarks/review.py --examples     # and the examples, with the embedded model; takes half an hour

`quality/rated.tsv` has 2,000 tweets and 2,000 sentences of Amazon reviews: the mean rating by 20 people, and the score
that a lexicon gives. Both are from the resources of VADER (Hutto and Gilbert, ICWSM 2014; MIT licence, copyright 2016
C.J. Hutto), without the texts. A rating above 0.25 is positive, below -0.25 negative, else neutral; the lexicon's
answers are cut at 0.05, as its authors do it. A fifth column has what the embedded models say of the tweets with
`-p fast`; mixed counts as neutral. The default pipeline has answered the texts of `quality/answers.jsonl`, fewer than
500. 150 rows of each set are reviewed, 200 times with another sample. The truth is the share in all rows.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from confidence import answers
from quality import labelled, macro_f1
from rows import Row, tell

from mellea_cli.io.corrections import Correction, CorrectionsFile
from mellea_cli.report.agreement import corrected_share
from mellea_cli.report.intervals import share_interval

RATED = Path(__file__).parent / "quality" / "rated.tsv"
REVIEWED, DRAWS = 150, 200
DEFAULT_MODEL, FAST = "default model", "tweets read by fast"


def label(score: float, limit: float) -> str:
    """The label of a rating or score."""
    return "positive" if score > limit else "negative" if score < -limit else "neutral"


def rated(part: str) -> list[tuple[str, str]]:
    """For each row of a set the label by people and that of the lexicon, or of a pipeline."""
    if part == DEFAULT_MODEL:
        return [(row["label"], row["columns"]["sentiment"]) for row in answers()]
    rows = [line.split("\t") for line in RATED.read_text(encoding="utf-8").splitlines()]
    if part == FAST:
        return [(label(float(mean), 0.25), said) for _, _, mean, _, *told in rows for said in told]
    return [(label(float(mean), 0.25), label(float(score), 0.05)) for name, _, mean, score, *_ in rows if name == part]


def totals(part: str) -> None:
    """Review a sample again and again, and print how often the interval holds and how wide it is."""
    rows = rated(part)
    names = sorted({person for person, _ in rows})
    chance = random.Random(18)  # noqa: S311 - no secret
    held = dict.fromkeys(names, 0)
    widths = {name: [0.0, 0.0] for name in names}
    for _ in range(DRAWS):
        sample = chance.sample(rows, REVIEWED)
        for name in names:
            truth = sum(person == name for person, _ in rows) / len(rows)
            found = [(person == name, said == name) for person, said in sample]
            both, missed = found.count((True, True)), found.count((True, False))
            cells = (both, missed, found.count((False, True)), found.count((False, False)))
            _, interval = corrected_share(len(rows), sum(said == name for _, said in rows), cells)
            alone = share_interval(cells[0] + cells[1], REVIEWED, len(rows))
            held[name] += interval.low <= truth <= interval.high
            widths[name][0] += interval.high - interval.low
            widths[name][1] += alone.high - alone.low
    right = sum(person == said for person, said in rows) / len(rows)
    for name in names:
        ours, sample_alone = widths[name]
        note = f"{part}: {DRAWS} samples of {REVIEWED} of {len(rows):,} rows, the answers are right in {right:.0%}"
        tell(Row("review", f"{part}, {name}: interval holds the truth", 100 * held[name] / DRAWS, "%", note=note))
        tell(Row("review", f"{part}, {name}: width to that of the sample alone", ours / sample_alone, "x"))


PIPELINE = """\
context = "Customer feedback"

[fields.sentiment]
description = "how the author feels"
type = "category"
choices = ["positive", "negative", "mixed"]
"""
_POOL = 40


def examples(model: str | None) -> None:
    """Answer 108 labelled items, review the first 40, and answer the others again with corrected examples."""
    items = labelled()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sentiment.toml").write_text(PIPELINE, encoding="utf-8")
        before = _answers(folder, items, model)
        judged = [
            Correction(str(at + 1), text, "sentiment", said, truth)
            for at, ((truth, text), said) in enumerate(zip(items[:_POOL], before, strict=False))
        ]
        CorrectionsFile(folder / "pool.jsonl").add(judged)
        after = _answers(folder, items[_POOL:], model, "--examples-from", str(folder / "pool.jsonl"))
    truths = [truth for truth, _ in items[_POOL:]]
    for when, said in (("before", before[_POOL:]), ("after", after)):
        right = sum(truth == one for truth, one in zip(truths, said, strict=True))
        ends = share_interval(right, len(truths))
        note = f"{right} of {len(truths)}, 95 % interval {ends.low:.0%} to {ends.high:.0%}"
        tell(Row("review", f"sentiment right {when} corrected examples", 100 * right / len(truths), "%", note=note))
        tell(
            Row("review", f"macro F1 {when} corrected examples", macro_f1(Counter(zip(truths, said, strict=True))), "")
        )


def _answers(folder: Path, items: list[tuple[str, str]], model: str | None, *flags: str) -> list[str | None]:
    source, output = folder / f"in{len(items)}.jsonl", folder / f"out{len(items)}.jsonl"
    lines = (json.dumps({"id": at + 1, "text": text}) + "\n" for at, (_, text) in enumerate(items))
    source.write_text("".join(lines), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mellea_cli",
        "run",
        str(folder / "sentiment.toml"),
        str(source),
        "-o",
        str(output),
    ]
    command += ["-b", "local", "-q", *(["-m", model] if model else []), *flags]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode not in {0, 3}:
        raise RuntimeError(f"mellea run ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return [json.loads(line)["sentiment"] for line in output.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", action="store_true", help="also with the embedded model: takes half an hour")
    parser.add_argument("-m", "--model", help="a name from the catalogue, or a .gguf file")
    args = parser.parse_args()
    for part in ("tweets", "amazon", FAST, DEFAULT_MODEL):
        totals(part)
    if args.examples:
        examples(args.model)


if __name__ == "__main__":
    main()
