"""`--dry-run` and `--estimate`: what a run would ask, and what it would take."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice

from mellea_cli.cli.backend_setup import (
    ModelChoice,
    open_servers,
    server_address,
    start_at_server_slots,
)
from mellea_cli.cli.batch_run import Input, selected_rows
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.engine.pipeline_runner import variables
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode, MelleaError, UsageError
from mellea_cli.events import Event, Fanout, Observer
from mellea_cli.io.columns import listed
from mellea_cli.io.files import resolve_output
from mellea_cli.io.journal import Answers, MemoryAnswers, peek_answers
from mellea_cli.items import Item, Row
from mellea_cli.messages import Message, Usage
from mellea_cli.pipelines.pipeline import Step
from mellea_cli.pipelines.redact import redact
from mellea_cli.run.answer_cache import Forecast, forecast
from mellea_cli.run.batch import NothingAnswered, RunIO, run_batch
from mellea_cli.run.estimate import (
    FEWEST,
    MOST,
    SAMPLE_S,
    Candidates,
    Estimate,
    Interval,
    Sample,
    Sampler,
    from_sample,
    kept_sample,
    known_speed,
    remember_speed,
    sample_facts,
    shared_prompts,
    without_sample,
)
from mellea_cli.run.plan import Prices, RunPlan
from mellea_cli.ui.console import clean, count, duration, money, plural, print_table
from mellea_cli.ui.run_display import RunDisplay


def preview(
    options: RunOptions,
    plan: RunPlan,
    opened: Input,
    facts: Sequence[tuple[str, str]] = (),
    first: tuple[Step, str] | None = None,
    *,
    sampled: Sample | None = None,
    answers: Answers | None = None,
    text_of: Callable[[Item], str] | None = None,
) -> None:
    """Print what would run, with an estimate of tokens, time and cost; nothing is sent.

    `facts` are further lines. `first` is the step and the text of the first request, if that is not the first item's.
    `sampled` are the timed rows of this command, `answers` is the journal, where it is open. `text_of` is what is asked
    about, empty for nothing, where it is not the item's text.
    """
    candidates = Candidates(options.seed)
    found, sample = _forecast(options, plan, opened, candidates.offer, answers, text_of)
    item = found.first if found is not None else None
    if first is None and item is None:
        item = next(iter(opened.source), None)
    estimate: Estimate | None = None
    expected: list[tuple[str, str]] = []
    if first is None and found is not None and found.asked:
        estimate, expected = _expected(options, plan, found, candidates, sampled or sample)
    notes = [note.removeprefix(f"{opened.source.name}: ") for note in opened.source.notes]
    lines = [
        ("input", opened.source.name),
        ("text", listed(opened.source.text_columns)),
        *(("", note) for note in notes if not note.startswith("the text is in column ")),
        *(_masked(opened) if plan.redacted else ()),
        *([("where", options.where)] if options.where else ()),
        *([("", selected_rows(options, opened.scan))] if options.where and opened.scan else ()),
        (
            "items",
            "unknown: the input is a stream"
            if found is None
            else _item_counts(opened.total or 0, found, own_text=text_of is None),
        ),
        ("pipeline", f"{plan.pipeline.name}: {', '.join(plan.pipeline.step_names)}"),
        *_asked_fields(found),
        ("calls", _calls(plan, found)),
        *expected,
        ("backend", ", ".join(filter(None, (plan.backend, server_address(options, plan.backend))))),
        ("model", plan.model),
        ("in flight", f"{plan.concurrency} at most" + (f", {plan.start} at the start" if plan.start else "")),
        ("output", "stdout" if options.output == "-" else options.output),
        *facts,
    ]
    mask = redact if plan.redacted else str
    step = ""
    messages: Sequence[Message] = ()
    if first is not None:
        step, messages = first[0].name, first[0].prompt.messages({"text": mask(first[1])})
    elif item is not None and sampled is None:
        asked = plan.pipeline.narrowed(item.known or {}).steps[0]
        step, messages = asked.name, asked.prompt.messages(variables(plan.pipeline, item, mask))
    _print_prompt(step, messages)
    print_table([[("strong", what), text] for what, text in lines], stream=sys.stdout, environ=os.environ)
    sys.stdout.flush()
    if options.json and found is not None:
        nothing = Estimate(0, Interval(0, 0, 0), Interval(0, 0, 0), Interval(0, 0, 0))
        prices = plan.caps.prices
        record = {
            **(estimate or nothing).to_json(),
            "calls": found.calls,
            "currency": prices.currency or None if prices is not None else None,
            "exit_code": 0,
        }
        sys.stderr.write(json.dumps(record) + "\n")


def _print_prompt(step: str, messages: Sequence[Message]) -> None:
    """Print one rendered prompt, above what would run: the figures stay in view."""
    if not messages:
        return
    _print = sys.stdout.write
    _print(f"the prompt of step {step!r} for the first item:\n")
    for message in messages:
        # Line by line: a prompt keeps its lines, and no escape sequence in it reaches the terminal.
        _print(f"\n[{message.role}]\n" + "".join(f"{clean(line)}\n" for line in message.content.splitlines()))
    _print("\n")


def _calls(plan: RunPlan, found: Forecast | None) -> str:
    """How many requests a run sends, for each item and in all."""
    steps, rows = plan.pipeline.steps, plan.rows_per_call
    if found is not None and found.asked and any(step.parts or step.when for step in steps):
        ends = sorted({found.least_calls, found.calls})
        each = " to ".join(f"{calls / found.asked:.1f}".removesuffix(".0") for calls in ends)
        return f"{each} per item, {' to '.join(f'{calls:,}' for calls in ends)} in all"
    per = f"{len(steps)} per " + ("item" if rows == 1 else f"{rows} items")
    return per if found is None else f"{per}, {-(-found.calls // rows):,} in all"


def _expected(
    options: RunOptions, plan: RunPlan, found: Forecast, candidates: Candidates, sample: Sample | None
) -> tuple[Estimate, list[tuple[str, str]]]:
    """Tokens, time and cost of the rows that would be asked, from a sample, else the tokens alone."""
    hint, whence = "", ""
    if sample is None and plan.backend == "local":
        from mellea_cli.models.store import default_root

        if sample := known_speed(default_root(), plan.model, plan.fingerprint.hex()):
            whence = "measured on this machine"
    if sample is not None:
        estimate = from_sample(sample, found, plan, plan.caps.prices)
    else:
        texts = [*shared_prompts(plan), *candidates.texts]
        estimate = without_sample(found, plan, texts, _counted_by_model(plan, texts))
        hint = "unknown until some rows are timed: --estimate asks a few, and keeps their answers"
        if options.output == "-":
            hint += " (name a file with -o)"
    return estimate, list(_estimate_lines(estimate, plan.caps.prices, hint=hint, whence=whence))


def _estimate_lines(
    estimate: Estimate, prices: Prices | None, *, hint: str = "", whence: str = ""
) -> Iterator[tuple[str, str]]:
    """Tokens, time and cost of an estimate; how to learn the time (`hint`), and where a sample is from (`whence`)."""
    prompt, answer = estimate.prompt_tokens, estimate.completion_tokens
    source = f"{plural(estimate.sampled, 'row')} {whence or 'timed'}" if estimate.sampled else ""
    if answer is None:
        how = "counted by the model's tokenizer" if estimate.counted else "estimated by characters"
        yield "tokens", f"about {_rounded(prompt.likely)} in ({how}); out: unknown"
        if prices is not None:
            of_prompts = prices.of(Usage(round(prompt.likely)))
            yield "cost", f"about {money(of_prompts, prices.currency)} for prompts, without the answers"
        yield "time", hint
        return
    yield "tokens", f"about {_rounded(prompt.likely)} in, {_rounded(answer.likely)} out"
    if (time := estimate.seconds) is not None:
        search = "; -c auto finds its speed within these" if estimate.searches else ""
        yield (
            "time",
            f"{duration(time.low)} to {duration(time.high)}, likely {duration(time.likely)} ({source}{search})",
        )
    if (cost := estimate.cost) is not None and prices is not None:
        low, likely, high = (money(one, prices.currency) for one in (cost.low, cost.likely, cost.high))
        yield "cost", f"{low} to {high}, likely {likely}"


def _rounded(number: float) -> str:
    """A number with three significant digits: an estimate has no more."""
    whole = round(number)
    digits = max(0, len(str(whole)) - 3)
    return count(round(whole, -digits))


def _counted_by_model(plan: RunPlan, texts: Sequence[str]) -> list[int] | None:
    """Tokens by the embedded model's own tokenizer; `None` for other models, and where the file is not here."""
    if plan.backend != "local":
        return None
    from mellea_cli.backends.local import LocalBackend
    from mellea_cli.models.store import ModelStore

    async def counted() -> list[int]:
        backend = LocalBackend(plan.model, slots=1, context_per_slot=256)
        try:
            return await backend.count_tokens(texts)
        finally:
            await backend.aclose()

    try:
        return asyncio.run(counted()) if ModelStore().find(plan.model) is not None else None
    except MelleaError:
        return None  # what is wrong with the model is said by the run


def check_estimate(options: RunOptions, opened: Input) -> None:
    """Refuse `--estimate` where its answers could not be kept."""
    if options.output == "-":
        raise UsageError("--estimate keeps its answers for the run", hint="name the run's output with -o")
    if opened.scan is None:
        raise UsageError("--estimate needs an input that can be read twice", hint="write the rows to a file first")
    if options.uses_batch_files or options.engine != "here":
        raise UsageError("--estimate is for a live run on this machine", hint="omit it, or the batch queue or --engine")


async def ask_sample(
    options: RunOptions, chosen: ModelChoice, plan: RunPlan, opened: Input, run_io: RunIO, show: RunDisplay
) -> ExitCode:
    """Ask a sample of the rows, keep their answers in the journal, and print what the rest would take."""
    candidates = Candidates(options.seed)
    forecast(
        opened.source.reread(),
        plan,
        run_io.answers,
        carried=run_io.carried,
        retry_failed=options.retry_failed,
        asked=candidates.offer,
    )
    first_alone = plan.first_alone_s > 0
    places = min(plan.start or plan.concurrency, MOST)
    rows = candidates.choose(others=first_alone + places - 1)
    if not rows:
        preview(options, plan, opened, answers=run_io.answers)
        return ExitCode.OK
    show.say(f"asking {plural(len(rows), 'row')} for the time; the answers are kept")
    stop = Stop(show.say)
    loop = asyncio.get_running_loop()
    until = loop.time() + SAMPLE_S

    def end_long_sample(event: Event) -> None:
        sampler(event)
        if loop.time() > until and sampler.answered >= FEWEST + first_alone:
            stop.ask_once(_LONG_ENOUGH, ExitCode.OK)

    sample_io = replace(run_io, source=_Sampled(rows), rows=NoRows(), total=len(rows), can_sweep=False)
    small = plan.pipeline.small_prefixes
    async with open_servers(options, chosen, plan.prefixes, show, small_prefixes=small) as servers:
        plan = await start_at_server_slots(plan, servers)
        at_once = min(plan.start or plan.concurrency, len(rows))
        sampled_plan = replace(plan, concurrency=at_once, start=None)
        sampler = Sampler(len(rows), at_once, first_alone=first_alone)
        observer = Fanout(end_long_sample, show.begin(plan.caps.prices))
        with stop.on_signals():
            result = await run_batch(sampled_plan, servers, sample_io, observer=observer, stop=stop)
    show.stop()
    sample = sampler.sample(plan.fingerprint.hex())
    if sample is None:
        if result.error is not None:
            raise result.error
        message, _ = result.tally.commonest_failure()
        raise NothingAnswered(
            result.stopped or f"none of the sample's {len(rows)} rows was answered: {message}",
            hint="correct the cause, then type the same command again",
        )
    run_io.answers.note_facts(sample_facts(sample, plan))
    if plan.backend == "local":
        _remember(plan, sample)
    if result.stopped and result.stopped != _LONG_ENOUGH:
        show.say(result.stopped)
    preview(options, plan, opened, sampled=sample, answers=run_io.answers)
    return ExitCode.OK if result.stopped == _LONG_ENOUGH else result.exit_code


_LONG_ENOUGH = "the sample has taken long enough"


class _Sampled(list["Item"]):
    """The rows of a sample as a source."""

    skipped = 0

    def stop(self) -> None: ...


class NoRows:
    """The rows of a sample or a try are not written: their answers are in the journal."""

    def add(self, row: Row) -> None: ...

    def flush(self) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def _remember(plan: RunPlan, sample: Sample) -> None:
    from mellea_cli.models.store import default_root

    remember_speed(default_root(), plan.model, sample)


@contextmanager
def measured(plan: RunPlan, opened: Input, observer: Observer) -> Iterator[Observer]:
    """Time the rows of a run of the embedded model, and keep its speed with the model's file."""
    if plan.backend != "local":
        yield observer
        return
    sampler = Sampler(opened.total, plan.concurrency, first_alone=plan.first_alone_s > 0)
    yield Fanout(sampler, observer)
    if sampler.answered >= FEWEST and (sample := sampler.sample(plan.fingerprint.hex())):
        _remember(plan, sample)


def _asked_fields(found: Forecast | None) -> Iterator[tuple[str, str]]:
    """The units that a run would ask, and for how many rows."""
    if found is None or not found.units:
        return
    # Units with the same number of rows are asked together.
    by_rows: dict[int, list[str]] = {}
    for name, rows in found.units.items():
        by_rows.setdefault(rows, []).append(name)
    head = "fields"
    for rows, names in sorted(by_rows.items(), reverse=True):
        yield head, f"{', '.join(names)}: {'asked for ' + plural(rows, 'row') if rows else 'nothing to ask'}"
        head = ""


_SHOWN_MASKED = 5
_MOST_MASKED = 1_000


def _masked(opened: Input) -> Iterator[tuple[str, str]]:
    """How many of the first texts have something to mask, and the first of them as they would leave."""
    if not opened.source.repeatable:
        return
    texts = [item.text for item in islice(opened.source.reread(), _MOST_MASKED)]
    masked = [after for before in texts if (after := redact(before)) != before]
    of = "items" if len(texts) < _MOST_MASKED else "first items"
    yield "masked", f"something in {len(masked):,} of {len(texts):,} {of}"
    for text in masked[:_SHOWN_MASKED]:
        yield "", " ".join(text.split())


def _forecast(
    options: RunOptions,
    plan: RunPlan,
    opened: Input,
    asked: Callable[[Item], None],
    answers: Answers | None,
    text_of: Callable[[Item], str] | None = None,
) -> tuple[Forecast | None, Sample | None]:
    """What the input holds, compared with the journal of the output, and its timed sample; `None` for a stream."""
    if opened.scan is None:
        return None, None
    with ExitStack() as stack:
        if answers is None:
            answers = MemoryAnswers() if options.fresh else peek_answers(resolve_output(options.output))
            stack.callback(answers.close)
        items = opened.source.reread()
        if text_of is not None:
            items = (replace(item, text=text_of(item)) for item in items)
        found = forecast(items, plan, answers, retry_failed=options.retry_failed, asked=asked)
        return found, kept_sample(answers.facts(), plan)


def _item_counts(total: int, found: Forecast, *, own_text: bool = True) -> str:
    others = (
        (found.known, "answered already"),
        (found.failed, "failed earlier"),
        (found.identical, "with the text of an earlier row"),
        (found.alike, "nearly identical to an earlier row"),
        (found.blank, "without text" if own_text else "with nothing to label"),
    )
    counts = [f"{count:,} {what}" for count, what in others if count]
    return f"{total:,}" + (f": {found.new:,} new, {', '.join(counts)}" if counts else "")
