"""One run of `mellea themes`: themes are found if there are none, rows are labelled, and the counts are checked."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import typer

from mellea_cli.cli import batch_run, dry_run
from mellea_cli.cli.backend_setup import ModelChoice, choose_for_run, ensure_model, open_servers, start_at_server_slots
from mellea_cli.cli.batch_run import Input, open_input
from mellea_cli.cli.flags import stdin_is_terminal, typed_command
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.engine.workers import Stop
from mellea_cli.errors import ExitCode, InputError, MelleaError, UsageError, nearest
from mellea_cli.events import Observer
from mellea_cli.io.columns import is_path, listed
from mellea_cli.io.files import resolve_output
from mellea_cli.io.source import Source
from mellea_cli.io.themes_file import (
    JOINT,
    Proposal,
    accept_proposals,
    read_proposals,
    read_themes,
    write_proposals,
    write_themes,
)
from mellea_cli.io.writers import ERROR, Added, AddedColumns
from mellea_cli.items import Item, Outcome, Row
from mellea_cli.messages import Usage
from mellea_cli.pipelines.pipeline import Column, Pipeline
from mellea_cli.pipelines.theme_prompts import Kind, Theme, label_pipeline
from mellea_cli.report.figures import many, percent
from mellea_cli.report.results import THEMES_FILE, added_column, own_columns, sample_note
from mellea_cli.run.batch import RunIO, RunResult, run_batch
from mellea_cli.run.control import RunControl
from mellea_cli.run.executor import Servers
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.theme_discovery import (
    LEAST_OTHER,
    LabelledSample,
    SubRun,
    SubRunStopped,
    Texts,
    column_texts,
    discover,
    first_question,
    most_questions,
    propose,
    sample_phrases,
    without_main_run,
)
from mellea_cli.run.theme_labels import LabelCounts, LabelRun, audit, labelled_text, read_labels, settle_question
from mellea_cli.ui.console import clean
from mellea_cli.ui.run_display import RunDisplay
from mellea_cli.ui.summary import ThemeCounts


@dataclass(frozen=True, slots=True)
class _ThemeColumns(AddedColumns):
    """The columns of themes; a table keeps one column `error` for this run and the one that wrote the input."""

    columns: tuple[Added, ...] = (Added("themes", joint=JOINT), Added("theme_quotes"))
    earlier: dict[int, str] = field(default_factory=dict)  # Why rows failed in the earlier run, by position

    def row(self, item: Item, outcome: Outcome) -> Row:
        row = AddedColumns.row(self, item, outcome)
        if (text := self.earlier.get(item.position)) is None:
            return row
        kind, _, message = text.partition(": ")
        error = {"kind": kind, "message": message}
        if own := row.added.get(ERROR):
            error = {**own, **error, "message": f"{message}; themes: {own['kind']}: {own['message']}"}
        return Row(item, {**row.added, ERROR: error})


class _WithoutErrors:
    """A source whose tables have no column in which the earlier run says why rows failed.

    Args:
        source: the source.
        own: the columns of own fields, which also show that a table is the output of a run.
        errors: receives the texts of that column by position.
    """

    def __init__(self, source: Source, own: Sequence[Column], errors: dict[int, str]) -> None:
        self._source = source
        self._errors = errors
        self._marks = ("sentiment", *(column.name for column in own))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __iter__(self) -> Iterator[Item]:
        return self._items(iter(self._source))

    def reread(self) -> Iterator[Item]:
        return self._items(self._source.reread())

    def column(self, names: Iterable[str]) -> str | None:
        """The column to leave out of a table with these columns."""
        names = tuple(names)
        is_output = any(added_column(mark, names) for mark in self._marks)
        return added_column(ERROR, names) if is_output and self._source.dialect is not None else None

    def _items(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            if (column := self.column(item.fields)) is not None:
                if error := item.fields[column]:
                    self._errors[item.position] = str(error)
                kept = {name: value for name, value in item.fields.items() if name != column}
                item = dataclasses.replace(item, fields=kept)  # noqa: PLW2901 - the same item
            yield item


Phrases = dict["Kind", "Counter[str]"]


class NoThemes(MelleaError):
    """There are complaints or praise, but the model found no theme in them."""

    exit_code = ExitCode.SOME_FAILED
    kind = "no-themes"


def run_themes(options: RunOptions) -> ExitCode:
    """Run `mellea themes`."""
    return batch_run.with_display(options, "themes", lambda show: _ThemeRun(options, show).run())


class _ThemeRun:
    def __init__(self, options: RunOptions, show: RunDisplay) -> None:
        self._options = options
        self._show = show
        self._longest: int | None = None
        self._added = _ThemeColumns()
        self._about = options.theme_field or ""
        self._texts: Texts | None = None  # reads the column of --theme-field
        self._path = _themes_path(options)

    def run(self) -> ExitCode:
        self._options = options = batch_run.with_files(self._options)
        show = self._show
        batch_run.check_options(options)
        self._check_themes_path()
        if options.propose and (options.find_only or resolve_output(options.output).kind != "file"):
            raise UsageError(
                "--propose reads the labelled output",
                hint="omit --find-only" if options.find_only else "name a file with -o",
            )
        own = tuple({one.name: one for path in options.inputs or () for one in own_columns(path)}.values())
        self._texts = self._column_texts(own)
        if options.themes_file and not options.find_only and not Path(options.themes_file).exists():
            raise UsageError(
                f"{options.themes_file}: there is no such themes file",
                hint=f"correct the name, or find themes first: add --find-only, which writes {options.themes_file}",
            )
        themes = read_themes(self._path) if self._path else None
        phrases = None if themes else self._read_phrases()
        with ExitStack() as stack:
            opened = self._without_errors(stack.enter_context(open_input(options, show)), own)
            self._check_column(opened)
            # The questions that find themes hold many phrases.
            self._longest = max(opened.longest or 0, batch_run.UNKNOWN_TEXT)
            if options.dry_run:
                self._preview(opened, themes, phrases)
                return ExitCode.OK
            run_io = stack.enter_context(batch_run.open_output(options, opened, self._added, show, "themes"))
            batch_run.note_own_fields(own, run_io)
            batch_run.note_sample(options, opened, run_io, carried=sample_note(options.input))
            chosen = choose_for_run(options)
            for line in (chosen.reason, chosen.warning):
                show.say(line)
            # The themes are left out: an edited themes file asks only what it must, and is meant to.
            plan = self._plan(chosen, ())
            batch_run.confirm_changes(options, plan, opened, run_io, show, rows=opened.total or 0)
            ensure_model(chosen, options, show.say)
            with batch_run.controlled(options, plan, "themes", show, chosen) as (control, stop):
                return batch_run.run_on_loop(self._run(opened, run_io, chosen, themes, phrases, control, stop))

    def _check_themes_path(self) -> None:
        others = [*(self._options.inputs or ()), self._options.output, self._options.errors_file]
        if self._path and os.path.realpath(self._path) in {os.path.realpath(name) for name in others if name}:
            raise UsageError(
                f"{self._path}: is the themes file and another file of the run", hint="choose another name"
            )

    def _column_texts(self, own: Sequence[Column]) -> Texts | None:
        """What reads the column of `--theme-field`; `None` without the flag."""
        if not self._about:
            return None

        column = next((one for one in own if one.name == self._about), Column(self._about))
        if column.type not in ("", "text", "quote", "list", "model"):
            texts = [one.name for one in own if one.type in ("text", "quote", "list")]
            hint = f"name one with texts: {', '.join(texts)}" if texts else "its values are counted by mellea report"
            raise UsageError(f"--theme-field {self._about}: is of the type {column.type}, not text", hint=hint)
        return column_texts(column)

    def _without_errors(self, opened: Input, own: Sequence[Column]) -> Input:
        """The input without the column `error` of the run that wrote it, which the output has once."""
        source = _WithoutErrors(opened.source, own, self._added.earlier)
        scan = opened.scan
        if scan is not None and (column := source.column(scan.columns)) is not None:
            scan = dataclasses.replace(scan, columns=tuple(name for name in scan.columns if name != column))
        return Input(cast("Source", source), scan)

    def _check_column(self, opened: Input) -> None:
        if not self._about or opened.scan is None or is_path(self._about):
            return
        columns = opened.scan.columns
        if self._about not in columns:
            near = nearest(self._about, columns)
            hint = f"did you mean {near!r}?" if near else f"columns seen: {listed(columns)}"
            raise InputError(f"has no column {self._about!r} for --theme-field", path=self._options.input, hint=hint)

    def _read_phrases(self) -> Phrases:
        """Sample the complaints and praise, or the texts of a column, to find themes in.

        This is a pass of its own over the input.
        """
        if self._options.input == "-":
            raise UsageError(
                "themes are found in a first pass over all rows, and a pipe can be read only once",
                hint="write the rows to a file first, or name an existing themes file: --themes-file FILE",
            )
        with open_input(self._options, self._show) as opened:
            self._check_column(opened)
            phrases = sample_phrases(iter(opened.source), seed=self._options.seed, texts=self._texts)
        if self._about and not any(phrases.values()):
            raise InputError(
                f"has no text in the column {self._about!r} to find themes in",
                path=self._options.input,
                hint="name another column with --theme-field",
            )
        if not any(phrases.values()):
            raise InputError(
                "has no complaint and no praise to find themes in",
                path=self._options.input,
                hint=f"summarise it first: mellea summarise {self._options.input} -o results.jsonl",
            )
        return phrases

    def _preview(self, opened: Input, themes: tuple[Theme, ...] | None, phrases: Phrases | None) -> None:
        # Rows without complaint and praise are not asked about.
        show = partial(dry_run.preview, text_of=lambda item: labelled_text(item, self._texts))
        plan = self._plan(choose_for_run(self._options), themes or ())
        if themes:
            show(self._options, plan, opened, (("themes", f"{len(themes)} from {self._path}"),))
            return
        sizes = [f"{len(counts)} {self._plural(kind)}" for kind, counts in (phrases or {}).items() if counts]
        first = first_question(phrases or {}, self._options.max_themes, self._about)
        facts = (("themes", f"found first, in {' and '.join(sizes)}"),)
        show(self._options, plan, opened, facts, first)

    async def _run(
        self,
        opened: Input,
        run_io: RunIO,
        chosen: ModelChoice,
        themes: tuple[Theme, ...] | None,
        phrases: Phrases | None,
        control: RunControl,
        stop: Stop,
    ) -> ExitCode:
        discovery = None
        try:
            if themes is None:
                async with open_servers(self._options, chosen, (), self._show) as servers:
                    plan = await start_at_server_slots(self._plan(chosen, ()), servers)
                    with stop.on_signals():
                        discovery = self._subrun(plan, servers, run_io, stop)
                        themes = await self._find(discovery, phrases or {})
            elif self._path:
                self._show.say(f"{_count(themes)} from {self._path}")
            if self._options.find_only:
                result = without_main_run(discovery)
                control.ended(result, "")
                self._show.say(f"to label the rows: {typed_command(without='--find-only')}")
                # A table about rows that were not labelled would say nothing.
                if self._options.json or self._options.nightly or self._options.summary_file:
                    batch_run.finish(self._options, self._plan(chosen, themes), opened, result, self._show)
                return result.exit_code
            return await self._label(opened, run_io, chosen, themes, stop, discovery, control)
        except SubRunStopped as early:
            control.ended(early.result, "")
            batch_run.finish(self._options, self._plan(chosen, themes or ()), opened, early.result, self._show)
            return early.result.exit_code

    def _subrun(self, plan: RunPlan, servers: Servers, run_io: RunIO, stop: Stop) -> SubRun:
        show = self._show

        def begin(pipeline: Pipeline, questions: int) -> Observer:
            show.say(f"finding {pipeline.name}: {questions} question{'s' if questions > 1 else ''}")
            return show.begin(plan.caps.prices)

        return SubRun(plan, servers, run_io.answers, begin=begin, stop=stop, retry_failed=self._options.retry_failed)

    async def _find(self, discovery: SubRun, phrases: Phrases) -> tuple[Theme, ...]:
        found = await discover(phrases, discovery.ask, most=self._options.max_themes, about=self._about)
        if not found:
            raise NoThemes(
                f"no themes were found in {sum(map(len, phrases.values()))} {self._plural()}",
                hint="try a larger model with -m, or write the themes file yourself",
            )
        if self._path is None:
            self._show.say(f"{_count(found)} found, and not saved: name a file with --themes-file to save them")
        else:
            write_themes(self._path, found)
            self._show.say(f"{_count(found)} found and written to {self._path}, where you can edit them")
        for theme in found:
            self._show.say(f"  {theme.kind}: {theme.name}: {theme.definition}")
        return found

    def _plural(self, kind: str = "") -> str:
        if self._about:
            return f"texts of {self._about}"
        return f"{kind}s" if kind else "complaints and praises"

    async def _label(
        self,
        opened: Input,
        run_io: RunIO,
        chosen: ModelChoice,
        themes: tuple[Theme, ...],
        stop: Stop,
        discovery: SubRun | None,
        control: RunControl,
    ) -> ExitCode:
        if self._path:
            run_io.answers.note_facts({THEMES_FILE: str(self._path.absolute())})
        question = settle_question(themes, run_io.answers, self._about)
        plan = self._plan(chosen, question.asked)
        if discovery is not None:
            plan = dataclasses.replace(plan, caps=discovery.caps)
        labelled = LabelRun(themes, question, plan, run_io, self._texts)
        async with open_servers(self._options, chosen, plan.prefixes, self._show) as servers:
            plan = await start_at_server_slots(plan, servers)
            with stop.on_signals():
                observer = self._show.begin(plan.caps.prices)
                result = await run_batch(plan, servers, labelled.run_io, observer=observer, stop=stop, control=control)
        audited = self._audit(labelled, result)
        figures, proposals = labelled.counts, None
        if self._options.propose and not result.stopped:
            result, proposals = await self._propose(run_io, chosen, themes, result, plan, stop)
        elif discovery is None and not result.stopped:
            self._tell_other(figures)
        result = result if discovery is None else discovery.added_to(result)
        control.ended(result, batch_run.next_command(self._options, result))
        themed = ThemeCounts(
            themes_file=str(self._path or ""),
            themes={theme.name: figures.themes[theme.name] for theme in themes},
            rows=opened.total,
            labelled=figures.labelled,
            other=figures.other,
            none=figures.none,
            failed=figures.failed,
            quotes=figures.quotes,
            audited=audited,
            proposals=proposals,
        )
        batch_run.finish(self._options, plan, opened, result, self._show, themed)
        return result.exit_code

    def _audit(self, labelled: LabelRun, result: RunResult) -> bool:
        """Read the output file back and count again; `False` when there is none to read."""
        if not result.finished or resolve_output(self._options.output).kind != "file":
            return False
        with self._output(corrected=False) as opened:
            audit(labelled.counts, read_labels(opened.source, self._texts), labelled.run_io.edited)
        return True

    def _output(self, *, corrected: bool = True) -> AbstractContextManager[Input]:
        options = self._options
        whole = dataclasses.replace(
            options,
            inputs=[options.output],
            sheet=None,
            range=None,
            query=None,
            format=options.output_format,
            limit=None,
            sample=None,
            encoding=None,
            delimiter=None,
        )
        return open_input(whole, self._show, corrected=corrected)

    async def _propose(
        self, run_io: RunIO, chosen: ModelChoice, themes: Sequence[Theme], result: RunResult, plan: RunPlan, stop: Stop
    ) -> tuple[RunResult, int | None]:
        """Write proposals for the themes file. Returns the run's result with what they took, and their number."""
        if self._path is None or not result.finished:
            return result, None
        with self._output() as opened:
            rows = read_labels(opened.source, self._texts)
            sample = LabelledSample(rows, themes, seed=self._options.seed, texts=self._texts)
        most = sample.most_questions(self._options.max_themes)
        if 0 < (few := sample.without_theme) < LEAST_OTHER:
            self._show.say(f"no theme fits {many(few, 'row')}: new themes are searched for in {LEAST_OTHER} or more")
        asked = f"at most {most} questions" if most else "the model is not asked"
        self._show.say(f"looking for proposals for {self._path}: {asked}")
        caps = plan.caps.left(result.tally.usage, result.elapsed_s, Usage())
        plan = dataclasses.replace(self._plan(chosen, ()), caps=caps)
        try:
            async with AsyncExitStack() as stack:
                subrun = None
                if most:
                    servers = await stack.enter_async_context(open_servers(self._options, chosen, (), self._show))
                    subrun = self._subrun(await start_at_server_slots(plan, servers), servers, run_io, stop)
                    stack.enter_context(stop.on_signals())
                ask = None if subrun is None else subrun.ask
                found = await propose(sample, ask, most=self._options.max_themes, about=self._about)
        except SubRunStopped as early:
            result.tally.spend(early.result.tally.usage, early.result.tally.calls)
            stopped = f"{early.result.stopped}; there are labels, and no proposals"
            return dataclasses.replace(result, exit_code=early.result.exit_code, stopped=stopped), None
        result = result if subrun is None else subrun.added_to(result)
        target = write_proposals(self._path, found)
        for one in found:
            self._show.say(_headline(one))
        hint = shlex.join(["mellea", "themes", "--themes-file", str(self._path), "--accept", "ask"])
        self._show.say(f"{many(len(found), 'proposal')} in {target}: {hint}" if found else "nothing to propose")
        return result, len(found)

    def _tell_other(self, counts: LabelCounts) -> None:
        """Say how many rows have something to say that no theme fits, where themes may be missing."""
        rows = counts.labelled + counts.other
        if counts.other < max(LEAST_OTHER, _MUCH_OTHER * rows):
            return
        other = [counts.other] if self._about else [counts.other + counts.none] * 2
        most = most_questions(other, counts.themes, rows, self._options.max_themes)
        share = f"{counts.other:,} of {many(rows, 'row')} ({percent(counts.other / rows)})"
        self._show.say(f"no theme fits {share}: --propose searches them for new themes, with at most {most} questions")

    def _plan(self, chosen: ModelChoice, themes: Sequence[Theme]) -> RunPlan:
        plan = batch_run.run_plan(self._options, chosen, label_pipeline(themes, self._about), self._longest)
        return dataclasses.replace(plan, normalise=False)  # quotes are verbatim from each row's own text


_MUCH_OTHER = 0.05  # Such a share of rows says that themes may be missing


def _count(themes: Sequence[Theme]) -> str:
    return many(len(themes), "theme")


def _themes_path(options: RunOptions) -> Path | None:
    if options.themes_file:
        return Path(options.themes_file)
    return Path(f"{options.output}.toml") if resolve_output(options.output).kind == "file" else None


def _headline(proposal: Proposal) -> str:
    """A proposal in one line."""
    names = clean(", ".join(theme.name for theme in proposal.themes))
    old = f"{clean(', '.join(proposal.replaces))} becomes " if proposal.replaces else ""
    return f"  {proposal.number} {proposal.change}: {old}{names}: {clean(proposal.reason)}"


def accept(options: RunOptions) -> ExitCode:
    """Run `mellea themes --accept`: put proposals into the themes file that they are for."""
    path = _themes_path(options)
    if path is None:
        raise UsageError("--accept changes a themes file", hint="name it with --themes-file")
    proposals = read_proposals(path)
    if not proposals:
        raise UsageError(
            f"{path}: has no proposals", hint="find some: mellea themes RESULTS -o OUTPUT --themes-file FILE --propose"
        )
    which, numbered = str(options.accept), {str(one.number): one for one in proposals}
    wanted = numbered if which in ("all", "ask") else dict.fromkeys(number.strip() for number in which.split(","))
    if unknown := [number for number in wanted if number not in numbered]:
        hint = f"the proposals have these numbers: {', '.join(numbered)}"
        raise UsageError(f"--accept {unknown[0]}: is not the number of a proposal", hint=hint)
    accepted = []
    for one in (numbered[number] for number in wanted):
        typer.echo(_headline(one))
        for theme in one.themes:
            typer.echo(f"    {clean(f'{theme.name} ({theme.kind}): {theme.definition}')}")
        for row, words in one.rows[:3]:
            typer.echo(f"      row {clean(f'{row}: {words}')}")
        if which != "ask" or (stdin_is_terminal() and typer.confirm("  accept?")):
            accepted.append(one)
    if accepted:
        changed = accept_proposals(path, accepted)
        typer.echo(f"{path}: {_count(changed)}; the next run with it asks again about every row")
        command = ["mellea", "themes", options.input.strip("-") or "RESULTS", "-o"]
        command.append(options.output if options.output != "-" else "OUTPUT")
        typer.echo(f"next: {shlex.join([*command, '--themes-file', str(path)])}")
    else:
        typer.echo(f"{path}: unchanged; --accept {proposals[0].number} takes the first")
    return ExitCode.OK
