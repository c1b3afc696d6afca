"""One run of `mellea themes`: themes are found if there are none, rows are labelled, and the counts are checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.cli import batch_run
from mellea_cli.cli.backend_setup import (
    ModelChoice,
    choose_for_run,
    ensure_model,
    open_servers,
    start_at_server_slots,
)
from mellea_cli.cli.batch_run import Input, open_input
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.errors import ExitCode, InputError, MelleaError, UsageError
from mellea_cli.io.files import resolve_output
from mellea_cli.io.themes_file import JOINT, read_themes, write_themes
from mellea_cli.io.writers import Added, AddedColumns
from mellea_cli.pipelines.theme_prompts import Theme, label_pipeline
from mellea_cli.report.results import own_columns

if TYPE_CHECKING:
    from collections import Counter

    from mellea_cli.engine.workers import Stop
    from mellea_cli.events import Observer
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.pipelines.theme_prompts import Polarity
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.control import RunControl
    from mellea_cli.run.executor import Servers
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.run.theme_discovery import SubRun
    from mellea_cli.run.theme_labels import LabelRun
    from mellea_cli.ui.run_display import RunDisplay

ADDED = AddedColumns((Added("themes", joint=JOINT), Added("theme_quotes")))

Phrases = dict["Polarity", "Counter[str]"]


class NoThemes(MelleaError):
    """There are complaints or praise, but the model found no theme in them."""

    exit_code = ExitCode.SOME_FAILED
    kind = "no-themes"


def run_themes(options: RunOptions) -> ExitCode:
    """Run `mellea themes`.

    Raises:
        MelleaError: nothing was sent, the output cannot be written any more, or the counts do not add up.
    """
    return batch_run.with_display(options, "themes", lambda show: _ThemeRun(options, show).run())


class _ThemeRun:
    def __init__(self, options: RunOptions, show: RunDisplay) -> None:
        self._options = options
        self._show = show
        self._longest: int | None = None
        self._path: Path | None = None
        if options.themes_file:
            self._path = Path(options.themes_file)
        elif resolve_output(options.output).kind == "file":
            self._path = Path(f"{options.output}.toml")

    def run(self) -> ExitCode:
        self._options = options = batch_run.with_files(self._options)
        show = self._show
        batch_run.check_options(options)
        self._check_themes_path()
        if options.themes_file and not options.find_only and not Path(options.themes_file).exists():
            raise UsageError(
                f"{options.themes_file}: there is no such themes file",
                hint=f"correct the name, or find themes first: add --find-only, which writes {options.themes_file}",
            )
        themes = read_themes(self._path) if self._path else None
        phrases = None if themes else self._read_phrases()
        with ExitStack() as stack:
            opened = stack.enter_context(open_input(options, show))
            # The questions that find themes hold many phrases.
            self._longest = max(opened.longest or 0, batch_run.UNKNOWN_TEXT)
            if options.dry_run:
                self._preview(opened, themes, phrases)
                return ExitCode.OK
            run_io = stack.enter_context(batch_run.open_output(options, opened, ADDED, show, "themes"))
            own = {column.name: column for path in options.inputs or () for column in own_columns(path)}
            batch_run.note_own_fields(tuple(own.values()), run_io)
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

    def _read_phrases(self) -> Phrases:
        """Sample the complaints and praise to find themes in, in a pass of its own over the input.

        Raises:
            UsageError: the input can be read only once.
            InputError: there are none.
        """
        from mellea_cli.run.theme_discovery import sample_phrases

        if self._options.input == "-":
            raise UsageError(
                "themes are found in a first pass over all rows, and a pipe can be read only once",
                hint="write the rows to a file first, or name an existing themes file: --themes-file FILE",
            )
        with open_input(self._options, self._show) as opened:
            phrases = sample_phrases(iter(opened.source), seed=self._options.seed)
        if not any(phrases.values()):
            raise InputError(
                "has no complaint and no praise to find themes in",
                path=self._options.input,
                hint=f"summarise it first: mellea summarise {self._options.input} -o results.jsonl",
            )
        return phrases

    def _preview(self, opened: Input, themes: tuple[Theme, ...] | None, phrases: Phrases | None) -> None:
        from mellea_cli.run.theme_discovery import first_question

        plan = self._plan(choose_for_run(self._options), themes or ())
        if themes:
            batch_run.preview(self._options, plan, opened, (("themes", f"{len(themes)} from {self._path}"),))
            return
        sizes = [f"{len(counts)} {kind}s" for kind, counts in (phrases or {}).items() if counts]
        first = first_question(phrases or {}, self._options.max_themes)
        facts = (("themes", f"found first, in {' and '.join(sizes)}"),)
        batch_run.preview(self._options, plan, opened, facts, first)

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
        from mellea_cli.run.theme_discovery import SubRunStopped

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
                control.ended(int(ExitCode.OK), "", "")
                return self._finish_without_labels(opened, chosen, themes, discovery)
            return await self._label(opened, run_io, chosen, themes, stop, discovery, control)
        except SubRunStopped as early:
            control.ended(int(early.result.exit_code), early.result.stopped, "")
            batch_run.finish(self._options, self._plan(chosen, themes or ()), opened, early.result, self._show)
            return early.result.exit_code

    def _subrun(self, plan: RunPlan, servers: Servers, run_io: RunIO, stop: Stop) -> SubRun:
        from mellea_cli.run.theme_discovery import SubRun

        show = self._show

        def begin(pipeline: Pipeline, questions: int) -> Observer:
            show.say(f"finding {pipeline.name}: {questions} question{'s' if questions > 1 else ''}")
            return show.begin(plan.caps.prices)

        return SubRun(plan, servers, run_io.answers, begin=begin, stop=stop, retry_failed=self._options.retry_failed)

    async def _find(self, discovery: SubRun, phrases: Phrases) -> tuple[Theme, ...]:
        from mellea_cli.run.theme_discovery import discover

        found = await discover(phrases, discovery.ask, most=self._options.max_themes)
        if not found:
            raise NoThemes(
                f"no themes were found in {sum(map(len, phrases.values()))} complaints and praises",
                hint="try a larger model with -m, or write the themes file yourself",
            )
        if self._path is None:
            self._show.say(f"{_count(found)} found, and not saved: name a file with --themes-file to save them")
        else:
            write_themes(self._path, found)
            self._show.say(f"{_count(found)} found and written to {self._path}: edit it and run the same command again")
        for theme in found:
            self._show.say(f"  {theme.kind}: {theme.name}: {theme.definition}")
        return found

    def _finish_without_labels(
        self, opened: Input, chosen: ModelChoice, themes: Sequence[Theme], discovery: SubRun | None
    ) -> ExitCode:
        from mellea_cli.run.theme_discovery import without_main_run

        result = without_main_run(discovery)
        # A table about rows that were not labelled would say nothing.
        if self._options.json or self._options.nightly or self._options.summary_file:
            batch_run.finish(self._options, self._plan(chosen, themes), opened, result, self._show)
        return result.exit_code

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
        from mellea_cli.run.batch import run_batch
        from mellea_cli.run.theme_labels import LabelRun, settle_question
        from mellea_cli.ui.summary import ThemeCounts

        question = settle_question(themes, run_io.answers)
        plan = self._plan(chosen, question.asked)
        if discovery is not None:
            plan = dataclasses.replace(plan, caps=discovery.caps)
        labelled = LabelRun(themes, question, plan, run_io)
        async with open_servers(self._options, chosen, plan.prefixes, self._show) as servers:
            plan = await start_at_server_slots(plan, servers)
            with stop.on_signals():
                observer = self._show.begin(plan.caps.prices)
                result = await run_batch(plan, servers, labelled.run_io, observer=observer, stop=stop, control=control)
        control.ended(int(result.exit_code), result.stopped, batch_run.next_command(self._options, result))
        result = result if discovery is None else discovery.added_to(result)
        audited = self._audit(labelled, result)
        figures = labelled.counts
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
        )
        batch_run.finish(self._options, plan, opened, result, self._show, themed)
        return result.exit_code

    def _audit(self, labelled: LabelRun, result: RunResult) -> bool:
        """Read the output file back and count again; `False` when there is none to read."""
        from mellea_cli.run.theme_labels import audit, read_labels

        options = self._options
        if not result.finished or resolve_output(options.output).kind != "file":
            return False
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
        with open_input(whole, self._show) as opened:
            audit(labelled.counts, read_labels(opened.source), labelled.run_io.edited)
        return True

    def _plan(self, chosen: ModelChoice, themes: Sequence[Theme]) -> RunPlan:
        return batch_run.run_plan(self._options, chosen, label_pipeline(themes), self._longest)


def _count(themes: Sequence[Theme]) -> str:
    return f"{len(themes)} theme" + ("s" if len(themes) > 1 else "")
