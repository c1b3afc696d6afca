"""The two ends of a run: the input, and the output with its journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mellea_cli.cli.flags import Flags
from mellea_cli.errors import UsageError

if TYPE_CHECKING:
    from mellea_cli.io.answers import Answers
    from mellea_cli.io.columns import AddedColumns
    from mellea_cli.io.source import Source, Survey
    from mellea_cli.io.target import OutputTarget
    from mellea_cli.pipelines.base import Step
    from mellea_cli.run.ends import Ends
    from mellea_cli.run.outlook import Outlook
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.ui.show import Show


@dataclass(frozen=True, slots=True)
class Input:
    """An opened input and what is known about it."""

    source: Source
    survey: Survey | None

    @property
    def total(self) -> int | None:
        """Items in it, when that is known."""
        return self.survey.count if self.survey else None

    @property
    def bad_rows(self) -> int:
        """Rows that could not be read and were left out."""
        return max(self.source.skipped, self.survey.skipped if self.survey else 0)


@contextmanager
def open_input(flags: Flags, show: Show) -> Iterator[Input]:
    """Open the input and, where that can be done, look through it once.

    Raises:
        InputError: it cannot be read, or a row is bad.
        UsageError: a flag does not fit it.
    """
    from mellea_cli.io.options import SourceOptions
    from mellea_cli.io.source import open_source

    options = SourceOptions(
        format=flags.format,
        text_field=flags.text_field,
        id_field=flags.id_field,
        encoding=flags.encoding,
        delimiter=flags.delimiter,
        limit=flags.limit,
        sample=flags.sample,
        seed=flags.seed,
        on_bad_row=flags.on_bad_row,
    )
    with open_source(flags.input, options, report=show.trouble) as source:
        survey = source.survey()
        if survey and survey.skipped:
            show.say(f"{survey.skipped} bad rows are left out")
        yield Input(source, survey)


def preview(
    flags: Flags,
    plan: RunPlan,
    opened: Input,
    facts: Sequence[tuple[str, str]] = (),
    first: tuple[Step, str] | None = None,
) -> None:
    """Print what would run; nothing is sent.

    Args:
        flags: where the output goes.
        plan: the run.
        opened: the input.
        facts: what else is worth knowing.
        first: the step and the text that are asked first, where that is not the first item.
    """
    from mellea_cli.ui.preview import Preview, print_preview

    outlook = _outlook(flags, plan, opened)
    if first is None:
        item = next(iter(opened.source), None)
        first = (plan.pipeline.steps[0], item.text) if item else None
    calls = f"{len(plan.pipeline.steps)} an item"
    if outlook is not None:
        calls += f", {plan.calls(outlook.asks(retry_failed=flags.retry_failed)):,} in all"
    told = [
        ("input", opened.source.name),
        ("items", "unknown: the input is a stream" if outlook is None else _counted(opened.total or 0, outlook)),
        ("pipeline", f"{plan.pipeline.name}: {', '.join(plan.pipeline.step_names)}"),
        ("calls", calls),
        ("backend", plan.backend),
        ("model", plan.model),
        ("in flight", f"{plan.concurrency} at most" + (f", from {plan.start} on" if plan.start else "")),
        ("output", "stdout" if flags.output == "-" else flags.output),
        *facts,
    ]
    messages = first[0].prompt.messages({"text": first[1]}) if first else ()
    name = first[0].name if first else ""
    print_preview(Preview(told, name, messages), sys.stdout, os.environ)


def _outlook(flags: Flags, plan: RunPlan, opened: Input) -> Outlook | None:
    """What the input holds beside the journal of the output, if there is one; `None` for a stream."""
    from mellea_cli.io.answers import MemoryAnswers
    from mellea_cli.io.journal import peek_answers
    from mellea_cli.io.target import resolve_output
    from mellea_cli.run.outlook import look_ahead

    if opened.survey is None:
        return None
    with closing(MemoryAnswers() if flags.fresh else peek_answers(resolve_output(flags.output))) as answers:
        return look_ahead(opened.source.look(), plan, answers)


def _counted(total: int, outlook: Outlook) -> str:
    """Words for the items of an input: how many, and those that are not new."""
    others = (
        (outlook.known, "answered already"),
        (outlook.failed, "failed earlier"),
        (outlook.identical, "with a text that stands further up"),
        (outlook.blank, "without text"),
    )
    told = [f"{count:,} {what}" for count, what in others if count]
    return f"{total:,}" + (f": {outlook.new:,} new, {', '.join(told)}" if told else "")


@contextmanager
def open_output(flags: Flags, opened: Input, added: AddedColumns, show: Show) -> Iterator[Ends]:
    """Open the output, its lock and its journal.

    Args:
        flags: where it is and how it is written.
        opened: the input.
        added: the columns that the run adds.
        show: told what a person should know.

    Raises:
        OutputError: it cannot be written, or another run writes it.
        UsageError: its form cannot be told, or a flag does not fit it.
    """
    from mellea_cli.io.sink import SinkOptions, errors_sink, open_sink
    from mellea_cli.io.target import resolve_output
    from mellea_cli.run.ends import Ends
    from mellea_cli.run.outlet import Outlet

    target = resolve_output(flags.output)
    if flags.unordered and target.kind == "file":
        raise UsageError("--unordered is for stdout: a file is put in input order at the end", hint="leave it out")
    columns = opened.survey.columns if opened.survey else ()
    options = SinkOptions(format=flags.output_format, columns=columns, raw_csv=flags.raw_csv)
    with ExitStack() as stack:
        answers = _open_answers(stack, target, flags)
        stdout = show.rows(sys.stdout) if target.kind == "stdout" else None
        sink = open_sink(target, added, options, note=show.say, stdout=stdout)
        letters = errors_sink(flags.errors_file) if flags.errors_file else None
        outlet = Outlet(sink, letters, ordered=not flags.unordered)
        stack.callback(outlet.close)
        yield Ends(
            source=opened.source,
            rows=outlet,
            to_row=added.row,
            answers=answers,
            total=opened.total,
            can_sweep=opened.survey is not None,
            retry_failed=flags.retry_failed,
            replaces=target.kind == "file" and target.path.exists(),
        )


def _open_answers(stack: ExitStack, target: OutputTarget, flags: Flags) -> Answers:
    """The journal beside a file, under its lock; memory for what has no place beside it."""
    from mellea_cli.cli.queuing import refuse_to_forget_jobs
    from mellea_cli.io.journal import open_answers
    from mellea_cli.io.lock import OutputLock

    if target.kind == "file":
        stack.enter_context(OutputLock(target.lock, target.name))
        refuse_to_forget_jobs(target.journal, flags)
    return stack.enter_context(closing(open_answers(target, fresh=flags.fresh)))


def nothing_to_ask(flags: Flags, plan: RunPlan, opened: Input, ends: Ends) -> bool:
    """Whether every answer is there already, so that no model is needed."""
    from mellea_cli.run.outlook import look_ahead

    if opened.survey is None:
        return False
    return not look_ahead(opened.source.look(), plan, ends.answers).asks(retry_failed=flags.retry_failed)
