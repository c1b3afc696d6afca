"""Wires one `mellea themes`: finds themes where there are none yet, labels the rows, and checks that it adds up."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.cli import batch_run
from mellea_cli.cli.backend_setup import Chosen, as_the_server_says, ready_servers
from mellea_cli.cli.batch_run import Input, close, open_input, open_output, preview, run
from mellea_cli.cli.flags import Flags
from mellea_cli.errors import ExitCode, InputError, MelleaError, UsageError
from mellea_cli.io.themes_file import JOINT, read_themes, write_themes
from mellea_cli.io.writers import Added, AddedColumns
from mellea_cli.pipelines.theme_prompts import Theme, label_pipeline

if TYPE_CHECKING:
    from collections import Counter

    from mellea_cli.engine.workers import Stop
    from mellea_cli.events import Observer
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.pipelines.theme_prompts import Polarity
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.executor import Servers
    from mellea_cli.run.plan import RunPlan
    from mellea_cli.run.subrun import SubRun
    from mellea_cli.run.theme_labels import LabelRun
    from mellea_cli.ui.run_display import RunDisplay


ADDED = AddedColumns((Added("themes", joint=JOINT), Added("theme_quotes")))


@dataclass(frozen=True, slots=True)
class ThemeFlags:
    """What only `mellea themes` takes."""

    themes_file: str | None
    max_themes: int
    find_only: bool


class NoThemes(MelleaError):
    """There were complaints or praise, but nothing came of them."""

    exit_code = ExitCode.SOME_FAILED
    kind = "no-themes"


def label_rows(flags: Flags, own: ThemeFlags) -> ExitCode:
    """Run `mellea themes`.

    Returns:
        What the process should end with.

    Raises:
        MelleaError: nothing was sent, nothing more can be written, or the figures do not add up.
    """
    return batch_run.shown(flags, lambda show: _Theming(flags, own, show).run())


class _Theming:
    """One run of the command, with what all its parts need."""

    def __init__(self, flags: Flags, own: ThemeFlags, show: RunDisplay) -> None:
        self._flags = flags
        self._own = own
        self._show = show
        self._path = _themes_path(flags, own)

    def run(self) -> ExitCode:
        """Find or read the themes, label, reconcile, say how it ended."""
        flags, show = self._flags, self._show
        batch_run.check(flags)
        self._check_path()
        themes = read_themes(self._path) if self._path else None
        phrases = None if themes else self._phrases()
        with ExitStack() as stack:
            opened = stack.enter_context(open_input(flags, show))
            if flags.dry_run:
                self._preview(opened, themes, phrases)
                return ExitCode.OK
            ends = stack.enter_context(open_output(flags, opened, ADDED, show))
            chosen = batch_run.chosen_model(flags, show)
            return run(self._run(opened, ends, chosen, themes, phrases))

    def _check_path(self) -> None:
        """Refuse a themes file that is the input, the output or one of its companions."""
        names = [self._flags.input, self._flags.output, self._flags.errors_file]
        if self._path and os.path.realpath(self._path) in {os.path.realpath(name) for name in names if name}:
            raise UsageError(
                f"{self._path}: is the themes file and another file of the run", hint="choose another name"
            )

    def _phrases(self) -> dict[Polarity, Counter[str]]:
        """Draw the complaints and praise that themes are made of, in a pass of their own.

        Raises:
            UsageError: the input can be read only once.
            InputError: there are none.
        """
        from mellea_cli.run.theme_discovery import sample_phrases

        if self._flags.input == "-":
            raise UsageError(
                "themes are found in a first pass over all rows, and a pipe can be read only once",
                hint="write the rows into a file first, or name a themes file that is there: --themes-file FILE",
            )
        with open_input(self._flags, self._show) as opened:
            phrases = sample_phrases(iter(opened.source), seed=self._flags.seed)
        if not any(phrases.values()):
            raise InputError(
                "holds no complaint and no praise to find themes in",
                path=self._flags.input,
                hint=f"summarise it first: mellea summarise {self._flags.input} -o results.jsonl",
            )
        return phrases

    async def _run(
        self,
        opened: Input,
        ends: RunIO,
        chosen: Chosen,
        themes: tuple[Theme, ...] | None,
        phrases: dict[Polarity, Counter[str]] | None,
    ) -> ExitCode:
        from mellea_cli.engine.workers import Stop
        from mellea_cli.run.subrun import SubRunStopped

        stop, aside = Stop(self._show.say), None
        try:
            if themes is None:
                async with ready_servers(self._flags, chosen, (), self._show) as servers:
                    plan = await as_the_server_says(self._plan(chosen, ()), servers)
                    with stop.on_signals():
                        aside = self._aside(plan, servers, ends, stop)
                        themes = await self._find(aside, phrases or {})
            elif self._path:
                self._show.say(f"{_number(themes)} from {self._path}")
            if self._own.find_only:
                return self._found_only(opened, chosen, themes, aside)
            return await self._label(opened, ends, chosen, themes, stop, aside)
        except SubRunStopped as early:
            close(self._flags, self._plan(chosen, themes or ()), opened, early.result, self._show)
            return early.result.exit_code

    def _aside(self, plan: RunPlan, servers: Servers, ends: RunIO, stop: Stop) -> SubRun:
        from mellea_cli.run.subrun import SubRun

        show = self._show

        def begin(pipeline: Pipeline, questions: int) -> Observer:
            show.say(f"finding {pipeline.name}: {questions} question{'s' if questions > 1 else ''}")
            return show.begin()

        return SubRun(plan, servers, ends.answers, begin=begin, stop=stop, retry_failed=self._flags.retry_failed)

    async def _find(self, aside: SubRun, phrases: dict[Polarity, Counter[str]]) -> tuple[Theme, ...]:
        from mellea_cli.run.theme_discovery import discover

        found = await discover(phrases, aside.ask, most=self._own.max_themes)
        if not found:
            raise NoThemes(
                f"no themes could be found in {sum(map(len, phrases.values()))} complaints and praises",
                hint="try a larger model with -m, or write the themes file yourself",
            )
        if self._path is None:
            self._show.say(f"{_number(found)} found, and not kept: name a file with --themes-file to keep them")
        else:
            write_themes(self._path, found)
            self._show.say(
                f"{_number(found)} found and written to {self._path}: edit it and type the same command again"
            )
        for theme in found:
            self._show.say(f"  {theme.kind}: {theme.name}: {theme.definition}")
        return found

    def _found_only(self, opened: Input, chosen: Chosen, themes: Sequence[Theme], aside: SubRun | None) -> ExitCode:
        from mellea_cli.run.subrun import without_main_run

        result = without_main_run(aside)
        if not (self._flags.look().json or self._flags.summary_file):
            return result.exit_code  # a table about rows that nobody was to look at says nothing
        close(self._flags, self._plan(chosen, themes), opened, result, self._show)
        return result.exit_code

    async def _label(
        self,
        opened: Input,
        ends: RunIO,
        chosen: Chosen,
        themes: tuple[Theme, ...],
        stop: Stop,
        aside: SubRun | None,
    ) -> ExitCode:
        from mellea_cli.run.batch import run_batch
        from mellea_cli.run.theme_labels import LabelRun, settle_question

        question = settle_question(themes, ends.answers)
        plan = self._plan(chosen, question.asked)
        if aside is not None:
            plan = dataclasses.replace(plan, caps=aside.caps)
        labelled = LabelRun(themes, question, plan, ends)
        async with ready_servers(self._flags, chosen, plan.prefixes, self._show) as servers:
            plan = await as_the_server_says(plan, servers)
            with stop.on_signals():
                result = await run_batch(plan, servers, labelled.run_io, observer=self._show.begin(), stop=stop)
        result = result if aside is None else aside.added_to(result)
        audited = self._audit(labelled, result)
        figures = labelled.counts
        from mellea_cli.ui.summary import Themed

        themed = Themed(
            file=str(self._path or ""),
            counts={theme.name: figures.themes[theme.name] for theme in themes},
            rows=opened.total,
            labelled=figures.labelled,
            other=figures.other,
            none=figures.none,
            failed=figures.failed,
            quotes=figures.quotes,
            audited=audited,
        )
        close(self._flags, plan, opened, result, self._show, themed)
        return result.exit_code

    def _audit(self, labelled: LabelRun, result: RunResult) -> bool:
        """Read the output back and count again, where there is a file that was put into its place."""
        from mellea_cli.io.files import resolve_output
        from mellea_cli.run.theme_labels import audit, read_labels

        flags = self._flags
        if not result.finished or resolve_output(flags.output).kind != "file":
            return False
        whole = dataclasses.replace(
            flags,
            input=flags.output,
            format=flags.output_format,
            limit=None,
            sample=None,
            encoding=None,
            delimiter=None,
        )
        with open_input(whole, self._show) as opened:
            audit(labelled.counts, read_labels(opened.source))
        return True

    def _plan(self, chosen: Chosen, themes: Sequence[Theme]) -> RunPlan:
        return batch_run.run_plan(self._flags, chosen, label_pipeline(themes))

    def _preview(
        self, opened: Input, themes: tuple[Theme, ...] | None, phrases: dict[Polarity, Counter[str]] | None
    ) -> None:
        plan = self._plan(batch_run.choose_model(self._flags), themes or ())
        if themes:
            preview(self._flags, plan, opened, (("themes", f"{len(themes)} from {self._path}"),))
            return
        from mellea_cli.run.theme_discovery import first_question

        sizes = [f"{len(own)} {said}s" for said, own in (phrases or {}).items() if own]
        step, text = first_question(phrases or {}, self._own.max_themes)
        preview(self._flags, plan, opened, (("themes", f"found first, in {' and '.join(sizes)}"),), (step, text))


def _themes_path(flags: Flags, own: ThemeFlags) -> Path | None:
    """Where the themes are: what was named, else a file beside the output, else nowhere."""
    from mellea_cli.io.files import resolve_output

    if own.themes_file:
        return Path(own.themes_file)
    target = resolve_output(flags.output)
    return Path(f"{flags.output}.toml") if target.kind == "file" else None


def _number(themes: Sequence[Theme]) -> str:
    return f"{len(themes)} theme" + ("s" if len(themes) > 1 else "")
