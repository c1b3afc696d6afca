"""Whether `--accuracy` keeps its promise: the row model over stored answers, in many orders of the rows.

    python benchmarks/accuracy_promise.py --data FOLDER            # 50 orders of each source
    python benchmarks/accuracy_promise.py --data FOLDER --seeds 10 --target 0.95 --rows 3000

FOLDER has one file for each source: `NAME.tsv` with a label and a text in each line. The label stands for the answer of
the full reading, so nothing is asked. A run keeps its promise if the rows that the model has taken agree with their
labels in the promised share, or if it has taken none. `docs/fewer-calls.md` says which public sources were used.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from pathlib import Path

from rows import Row, tell

from mellea_cli.io.journal import MemoryAnswers
from mellea_cli.io.writers import AddedColumns
from mellea_cli.items import Item, Outcome, Success
from mellea_cli.messages import Options
from mellea_cli.pipelines.own_fields import own_pipeline
from mellea_cli.pipelines.pipeline_spec import PipelineSpec
from mellea_cli.run.batch import RunIO
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.row_model import LEARNED, Audit, Guess, LearnedFields, RowLearner, RowModel, audit_share

KEPT = 0.95
_AHEAD = 200


def read_sources(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """The labels and texts of each source, every text once."""
    sources = {}
    for path in sorted(folder.glob("*.tsv")):
        by_text: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            label, _, text = line.partition("\t")
            by_text.setdefault(text, label)
        sources[path.stem] = [(label, text) for text, label in by_text.items() if text]
    return sources


def plan_for(labels: set[str]) -> RunPlan:
    """A plan of a pipeline with one category."""
    spec = PipelineSpec.model_validate(
        {"fields": {"label": {"type": "category", "choices": sorted(labels), "description": "the label"}}}
    )
    return RunPlan(own_pipeline(spec, "labels"), "stored", "stored", "stored", Options(), concurrency=1)


class _Stored:
    """A source without rows: the simulation gives them one by one."""

    skipped = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(())

    def stop(self) -> None:
        """Nothing waits here."""


class _NoRows:
    def add(self, row: object) -> None: ...
    def flush(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class _GuessesAhead:
    """What a model says about texts in this order, many at a time: one at a time takes most of a simulation's time."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._places = {text: place for place, text in enumerate(texts)}
        self._model: RowModel | None = None
        self._known: dict[str, Guess] = {}

    def __call__(self, model: RowModel, text: str) -> Guess:
        if model is not self._model or text not in self._known:
            start = self._places[text]
            ahead = self._texts[start : start + _AHEAD]
            self._model, self._known = model, dict(zip(ahead, model.guesses(ahead), strict=True))
        return self._known[text]


async def simulate(pairs: list[tuple[str, str]], plan: RunPlan, target: float) -> tuple[int, int, RowLearner]:
    """Run the learner over rows in this order.

    Returns:
        The rows that the model has taken, those of them that agree, and the learner.
    """
    fields = LearnedFields.of(plan.pipeline)
    learner = RowLearner(plan, fields, Audit(target, fields.names, audit_share(len(pairs))))
    added = AddedColumns.of("label")
    run_io = learner.run_io(RunIO(_Stored(), _NoRows(), added.row, MemoryAnswers(), total=len(pairs)))
    taken = right = 0
    ahead = _GuessesAhead([text for _, text in pairs])
    setattr(RowModel, "guess", lambda model, text: ahead(model, text))  # noqa: B010, PLW0108 - a method binds its model
    for place, (label, text) in enumerate(pairs):
        item = Item(place, place, text)

        async def ask(_: Item, label: str = label) -> Outcome:
            return Success({"label": label})

        outcome = await learner.read(ask, item)
        if outcome is not None:
            run_io.to_row(item, outcome)
        if isinstance(outcome, Success) and outcome.answered_by == LEARNED:
            taken += 1
            right += outcome.values["label"] == label
    return taken, right, learner


def main() -> int:
    """Simulate, print the share of the promises that were kept and the speed-up; 1 when a bar is not held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with NAME.tsv: label, tab, text")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--target", type=float, default=0.9)
    args = parser.parse_args()
    if args.data is None:
        sys.stdout.write("skipped: name a folder of labelled texts with --data\n")
        return 0
    worst = 0
    for name, pairs in read_sources(args.data).items():
        plan = plan_for({label for label, _ in pairs})
        kept, speed, agreement = 0, [], []
        for seed in range(args.seeds):
            order = random.Random(seed).sample(pairs, min(args.rows, len(pairs)))  # noqa: S311 - a benchmark
            taken, right, _ = asyncio.run(simulate(order, plan, args.target))
            kept += right >= args.target * taken
            speed.append(len(order) / (len(order) - taken))
            agreement += [right / taken] if taken else []
        note = f"{args.seeds} orders of {args.rows:,} rows"
        if agreement:
            note += (
                f"; agreement {min(agreement):.3f} to {max(agreement):.3f}, median {statistics.median(agreement):.3f}"
            )
        row = Row("accuracy", f"{name}: promise of {args.target:g} kept", kept / args.seeds, "", KEPT, True, note)
        worst = max(worst, not row.holds)
        tell(row)
        tell(Row("accuracy", f"{name}: rows per full reading, median", statistics.median(speed), "x"))
    return worst


if __name__ == "__main__":
    sys.exit(main())
