"""`mellea summarise`: flags in, one batch run out.

`RunOptions` is the only list of the flags of `mellea summarise` and `mellea themes`. To add a flag, add a field.
"""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mellea_cli.cli.flags import (
    COLUMN,
    DISPLAY,
    EXECUTORS,
    FIELDS,
    FORMATS,
    INPUT,
    LIMITS,
    MODEL,
    OUTPUT,
    QUEUE,
    RUN,
    SAFETY,
    THEMES,
    WHERE_HELP,
    AllowHttpFlag,
    BackendFlag,
    BadRowPolicy,
    KeyFileFlag,
    LocalOnlyFlag,
    LogLevelFlag,
    ModelFlag,
    PullFlag,
    ThinkingLevel,
    concurrency_limit,
    deadline_s,
    duration,
    error_limit,
    option,
    options_command,
    own_prices,
    stdin_has_data,
    stdin_is_terminal,
    time_limit,
)
from mellea_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from mellea_cli.cli.backend_setup import ModelChoice
    from mellea_cli.cli.batch_run import Input
    from mellea_cli.engine.workers import Stop
    from mellea_cli.pipelines.pipeline import Pipeline
    from mellea_cli.run.batch import RunIO, RunResult
    from mellea_cli.run.control import RunControl
    from mellea_cli.run.executor import ExecutorFactory
    from mellea_cli.run.plan import Caps, Prices, RunPlan
    from mellea_cli.ui.run_display import RunDisplay


# The commands that take a flag, where not all batch commands do. Themes are found and labelled live by one process: the
# provider's batch queue and Ray are for `summarise` and `run` only.
SUMMARISE = ("summarise", "run", "watch-folder")
THEMES_ONLY = ("themes",)
WATCH_ONLY = ("watch-folder",)
ONE_RUN = ("summarise", "run", "themes")  # `watch-folder` names the outputs itself

DEFAULT_AGREEMENT = 0.95
LEAST_AGREEMENT = 0.5

_time_limit = partial(option, parser=time_limit, metavar="DURATION")
_duration = partial(option, parser=duration, metavar="DURATION")


def complete_pipeline(incomplete: str) -> list[str]:
    """The built-in pipelines and the pipeline files of this folder that begin so."""
    files = [str(path) for path in Path().glob("*.toml")]
    return [name for name in ("single", "steps", "fast", *sorted(files)) if name.startswith(incomplete)]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The flags of a batch command, after flag, environment and configuration file have been weighed.

    The last part of an annotation names the commands that take the flag; without it all do. For the others the field
    keeps its default.
    """

    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Tables (JSONL, CSV, XLSX, Parquet, FILE.db::TABLE, …) or folders with them; - for stdin.",
            show_default=False,
        ),
    ] = None

    field: Annotated[
        list[str] | None,
        option(
            FIELDS,
            "One more column: 'product: the product', 'refund(bool): …', see mellea run. Repeatable.",
            metavar="'NAME(TYPE): WHAT'",
            env=False,
            usual=True,
        ),
        SUMMARISE,
    ] = None
    category: Annotated[
        list[str] | None,
        option(
            FIELDS,
            "One more column with one of these values; 'NAME[]=…' takes several. Repeatable.",
            metavar="NAME=A,B,C",
            env=False,
            usual=True,
        ),
        SUMMARISE,
    ] = None
    labels: Annotated[
        str | None,
        option(
            FIELDS,
            "Labels of the sentiment: positive,neutral,negative,mixed, or own ones as 'calm=if …,angry=if …'.",
            metavar="A,B,C",
        ),
        SUMMARISE,
    ] = None
    examples_from: Annotated[
        str | None,
        option(
            FIELDS, "Show the model a few rows of this corrections file, see docs/review.md.", metavar="CORRECTIONS"
        ),
        SUMMARISE,
    ] = None
    language: Annotated[
        str | None,
        option(FIELDS, "Language of generated text, such as de or German; same: the row's own (default: en)."),
        SUMMARISE,
    ] = None

    confidence: Annotated[
        bool, option(FIELDS, "Columns with how sure each label is, from 0 to 1, see docs/quality.md."), SUMMARISE
    ] = False
    second_reading: Annotated[
        float,
        option(FIELDS, "Confidence without log-probabilities: ask the labels of this share twice.", min=0.0, max=1.0),
        SUMMARISE,
    ] = 0.0

    themes_file: Annotated[
        str | None,
        option(THEMES, "TOML file: read if it exists, else written (default: OUTPUT.toml).", usual=True),
        THEMES_ONLY,
    ] = None
    theme_field: Annotated[
        str | None,
        option(THEMES, "Column with the texts, lists or quotes to use, not complaints and praise.", metavar="NAME"),
        THEMES_ONLY,
    ] = None
    max_themes: Annotated[
        int, option(THEMES, "Most themes to find, complaints and praise together.", min=1, max=50), THEMES_ONLY
    ] = 12
    find_only: Annotated[bool, option(THEMES, "Write the themes file, label no rows.", usual=True), THEMES_ONLY] = False
    propose: Annotated[
        bool,
        option(THEMES, "Then write proposals: new themes from `other`, splits, merges. Asks the model.", usual=True),
        THEMES_ONLY,
    ] = False
    accept: Annotated[
        str | None,
        option(
            THEMES,
            "Put proposals into the themes file, by number; ask shows each. Labels no rows.",
            metavar="N,N|all|ask",
            env=False,
        ),
        THEMES_ONLY,
    ] = None

    output: Annotated[
        str,
        option(OUTPUT, "Output file (.jsonl .json .csv .tsv .xlsx .parquet), or - for stdout.", "-o", usual=True),
        ONE_RUN,
    ] = "-"
    output_dir: Annotated[
        str | None, option(OUTPUT, "One output in this folder for each input.", metavar="DIR"), SUMMARISE
    ] = None
    output_format: Annotated[str | None, option(OUTPUT, "Output format, if its suffix does not tell.", **FORMATS)] = (
        None
    )
    unordered: Annotated[bool, option(OUTPUT, "Write rows to stdout as they complete, not in input order.")] = False
    errors_file: Annotated[str | None, option(OUTPUT, "Write failed items to this file as input rows.")] = None
    overwrite: Annotated[bool, option(OUTPUT, "Replace a file that is not this run's, or by fewer rows.")] = False
    adopt_edits: Annotated[
        bool, option(OUTPUT, "Write cells that were edited by hand into the corrections file.", env=False), SUMMARISE
    ] = False
    raw_csv: Annotated[bool, option(OUTPUT, "Do not escape CSV cells that a spreadsheet runs as formulas.")] = False

    format: Annotated[
        str | None,
        option(INPUT, "Input format, if its suffix does not tell.", "--format", "--input-format", "-f", **FORMATS),
    ] = None
    text_field: Annotated[
        list[str] | None,
        option(
            INPUT,
            "Column with the feedback, or path in JSON (default: found). Repeatable: joined.",
            metavar="NAME",
            **COLUMN,
            usual=True,
        ),
    ] = None
    id_field: Annotated[str | None, option(INPUT, "Column with the id (default: id).", **COLUMN)] = None
    encoding: Annotated[str | None, option(INPUT, "Input encoding (default: UTF-8, or UTF-16 with its mark).")] = None
    delimiter: Annotated[str | None, option(INPUT, "CSV delimiter (default: guessed from , ; tab |).", "-d")] = None
    header_row: Annotated[int | None, option(INPUT, "Line of the CSV header (default: found).", min=1)] = None
    skip_rows: Annotated[
        int | None, option(INPUT, "Rows below the CSV header that are no feedback (default: found).", min=0)
    ] = None
    sheet: Annotated[
        str | None,
        option(INPUT, "Sheet of a workbook: name or number (default: the first with a text).", metavar="NAME"),
    ] = None
    range: Annotated[
        str | None, option(INPUT, "Part of the sheet with the table: A3:F200, A:F or B2.", metavar="CELLS")
    ] = None
    query: Annotated[
        str | None, option(INPUT, "SQL whose rows are read from an SQLite or DuckDB file.", metavar="SQL")
    ] = None
    pattern: Annotated[
        str | None, option(INPUT, "Files of a folder: '*.csv', '**/*.xlsx' (default: every table).", metavar="GLOB")
    ] = None
    settle: Annotated[
        float, _duration(INPUT, "A file is complete once it is unchanged for this time.", show_default="2s"), WATCH_ONLY
    ] = 2.0
    where: Annotated[str | None, option(INPUT, WHERE_HELP, metavar="EXPR", usual=True)] = None
    limit: Annotated[int | None, option(INPUT, "Read only the first N items.", "-n", min=1, usual=True)] = None
    sample: Annotated[int | None, option(INPUT, "Read N items chosen at random, in input order.", min=1)] = None
    seed: Annotated[int, option(INPUT, "Seed of --sample.")] = 0
    on_bad_row: Annotated[
        BadRowPolicy, option(INPUT, "Unreadable rows; auto: fail before the first request, skip in a stream.")
    ] = "auto"

    model: ModelFlag = None
    backend: BackendFlag = "auto"
    base_url: Annotated[
        list[str] | None,
        option(
            MODEL, "Server address; its key: OPENAI_API_KEY. Repeatable: several servers.", metavar="URL", usual=True
        ),
    ] = None
    pool: Annotated[str | None, option(MODEL, "Servers of [pool.NAME] in the configuration file.", metavar="NAME")] = (
        None
    )
    key_file: KeyFileFlag = None
    pipeline: Annotated[
        str,
        option(
            MODEL,
            "single: one request per item; steps: the tutorial's three; fast: by clause; or as in mellea run.",
            "-p",
            metavar="PIPELINE",
            autocompletion=complete_pipeline,
        ),
        SUMMARISE,
    ] = "single"
    temperature: Annotated[float, option(MODEL, "0: always the most likely answer.", "-t", min=0.0, max=2.0)] = 0.0
    model_seed: Annotated[int | None, option(MODEL, "Seed of the model's sampling, if the server supports it.")] = None
    thinking: Annotated[
        ThinkingLevel | None,
        option(MODEL, "How much a reasoning model reasons first; default: as the server has it (Ollama: off)."),
    ] = None
    max_tokens: Annotated[
        int | None, option(MODEL, "Most tokens of one answer, reasoning included (default: by the step).", min=1)
    ] = None
    pull: PullFlag = False

    concurrency: Annotated[
        int | None,
        option(
            RUN,
            "Requests in flight; auto finds the best number.",
            "-c",
            parser=concurrency_limit,
            metavar="N|auto",
            show_default="auto",
            usual=True,
        ),
    ] = None
    max_concurrency: Annotated[int | None, option(RUN, "Upper limit of -c auto.", min=1)] = None
    rows_per_call: Annotated[
        int, option(RUN, "Most rows in one request, see docs/scaling.md.", min=1, max=50), SUMMARISE
    ] = 1
    dedupe: Annotated[bool, option(RUN, "Send identical texts once, and share the answer.", "--dedupe/--no-dedupe")] = (
        True
    )
    normalise: Annotated[
        bool,
        option(
            RUN,
            "Short texts that differ only in capitals, blanks or a last full stop share an answer.",
            "--normalise/--no-normalise",
        ),
        SUMMARISE,
    ] = True
    near_duplicates: Annotated[
        bool,
        option(RUN, "Long texts that are nearly the same share an answer (pip install 'mellea-cli[duplicates]')."),
        SUMMARISE,
    ] = False
    learn: Annotated[
        bool, option(RUN, "A small model learns from the first answers and takes the rows it is sure of."), SUMMARISE
    ] = False
    learn_fields: Annotated[
        str | None,
        option(
            RUN, "Fields that learned rows need; other own fields stay empty there (default: all).", metavar="NAMES"
        ),
        SUMMARISE,
    ] = None
    accuracy: Annotated[
        str | None,
        option(
            RUN,
            "How often rows without the full reading must agree with it; best: all rows get it.",
            metavar="SHARE|best",
            show_default="0.95 with --learn",
        ),
        SUMMARISE,
    ] = None
    engine: Annotated[
        str, option(RUN, "ray: run on a Ray cluster, see docs/ray.md.", show_default="here", **EXECUTORS), SUMMARISE
    ] = "here"
    ray_address: Annotated[
        str | None, option(RUN, "auto, HOST:PORT or ray://HOST:PORT (default: RAY_ADDRESS, or a new one)."), SUMMARISE
    ] = None
    ray_workers: Annotated[
        int | None, option(RUN, "Workers on the cluster (default: one per node).", min=1), SUMMARISE
    ] = None
    max_retries: Annotated[int, option(RUN, "Retries of a request that failed.", min=0)] = 5
    grace: Annotated[float, _duration(RUN, "Time for items in flight after Ctrl-C.", show_default="10s")] = 10.0
    fresh: Annotated[bool, option(RUN, "Discard earlier answers and start over.")] = False
    retry_failed: Annotated[
        bool, option(RUN, "Ask again for items that failed in an earlier run.", "--retry-failed/--no-retry-failed")
    ] = True
    yes: Annotated[bool, option(RUN, "Agree to ask answered rows again with other settings.", "-y")] = False
    no_lock: Annotated[bool, option(RUN, "Do not lock the output, where the file system has no locks.")] = False
    nightly: Annotated[bool, option(RUN, "For cron: no messages, one line of JSON on stderr at the end.")] = False
    dry_run: Annotated[
        bool, option(RUN, "Show what would run, its tokens, time and cost; send nothing.", usual=True)
    ] = False
    estimate: Annotated[
        bool, option(RUN, "Ask a few rows, keep their answers, and show time and cost of the rest."), SUMMARISE
    ] = False

    timeout: Annotated[float, _time_limit(LIMITS, "Maximum time for one request: 90s, 15m.", show_default="10m")] = (
        600.0
    )
    first_token_timeout: Annotated[
        float | None, _time_limit(LIMITS, "Longest wait for the first token (default: --timeout).")
    ] = None
    stall_timeout: Annotated[float, _time_limit(LIMITS, "Longest wait between two tokens.", show_default="3m")] = 180.0
    max_wait: Annotated[float, _duration(LIMITS, "Longest wait for a server that is down.", show_default="5m")] = 300.0
    rpm: Annotated[float | None, option(LIMITS, "Most requests per minute.", min=0.1)] = None
    tpm: Annotated[float | None, option(LIMITS, "Most tokens per minute, in and out.", min=1)] = None
    deadline: Annotated[
        str | None, option(LIMITS, "Stop after 90s, 15m, 6h, or at 06:30; finished rows stay.", metavar="TIME")
    ] = None
    max_errors: Annotated[
        str | None, option(LIMITS, "Stop after this many failed rows, or this share.", metavar="N|P%")
    ] = None
    max_tokens_total: Annotated[int | None, option(LIMITS, "Stop before the run uses more tokens.", min=1)] = None
    max_cost: Annotated[
        float | None, option(LIMITS, "Stop before this run costs more; a continued run counts from 0.", min=0.0)
    ] = None
    price: Annotated[
        str | None,
        option(
            LIMITS,
            "Prices of a million tokens: of prompts, answers, cached prompts (default: listed ones).",
            metavar="IN,OUT[,CACHED]",
        ),
    ] = None

    redact: Annotated[bool, option(SAFETY, "Mask e-mail, phone, card and IBAN numbers in what is sent.")] = False
    local_only: LocalOnlyFlag = False
    allow_http: AllowHttpFlag = False

    offload: Annotated[bool, option(QUEUE, "Use the provider's batch queue: half the price."), SUMMARISE] = False
    wait: Annotated[
        bool, option(QUEUE, "Wait until the batches are done, or submit and exit.", "--wait/--no-wait"), SUMMARISE
    ] = True
    export_batch: Annotated[
        str | None, option(QUEUE, "Write the requests to a file; send nothing.", metavar="FILE"), SUMMARISE
    ] = None
    import_batch: Annotated[
        str | None, option(QUEUE, "Read the answers from a batch's output file.", metavar="FILE"), SUMMARISE
    ] = None
    batch_requests: Annotated[int, option(QUEUE, "Most requests in one batch file.", min=1), SUMMARISE] = 50_000
    batch_bytes: Annotated[int, option(QUEUE, "Most bytes in one batch file.", min=1), SUMMARISE] = 200_000_000
    batch_window: Annotated[str, option(QUEUE, "Completion window, in the server's words."), SUMMARISE] = "24h"
    batch_poll: Annotated[
        float, _time_limit(QUEUE, "Longest time between two status checks.", show_default="1m"), SUMMARISE
    ] = 60.0

    quiet: Annotated[bool, option(DISPLAY, "Errors only.", "-q")] = False
    verbose: Annotated[
        int,
        option(
            DISPLAY, "Say why attempts failed; -vv: the model server's log, too.", "-v", count=True, show_default=False
        ),
    ] = 0
    log_level: LogLevelFlag = None
    live: Annotated[bool, option(DISPLAY, "Panels at a terminal, or plain lines.", "--live/--no-live")] = True
    json: Annotated[bool, option(DISPLAY, "The closing summary as one line of JSON on stderr.")] = False
    summary_file: Annotated[str | None, option(DISPLAY, "Write the closing summary to this file as JSON.")] = None
    bell: Annotated[bool, option(DISPLAY, "Ring the terminal's bell at the end.")] = False
    log_file: Annotated[str | None, option(DISPLAY, "Write every event but tokens to this file as JSON lines.")] = None

    @property
    def input(self) -> str:
        """The first input; empty for none."""
        return self.inputs[0] if self.inputs else ""

    @property
    def server_url(self) -> str | None:
        """The address of the only server; `None` for none or several."""
        return self.base_url[0] if self.base_url and len(self.base_url) == 1 else None

    def thinking_for(self, backend: str) -> bool | str | None:
        """The reasoning setting of requests to a backend; `None` is the server's own."""
        if self.thinking is None:
            # Reasoning costs a batch far more than it gains; only Ollama can be told so without being asked first.
            return False if backend == "ollama" else None
        return {"off": False, "default": None}.get(self.thinking, self.thinking)

    @property
    def has_pool(self) -> bool:
        """Whether several servers were named."""
        return bool(self.pool or len(self.base_url or ()) > 1)

    @property
    def uses_batch_files(self) -> bool:
        """Whether answers come from batch files."""
        return bool(self.offload or self.export_batch or self.import_batch)

    @property
    def target_agreement(self) -> float | None:
        """The agreement with the full reading that rows without it must have; `None` where all rows get it."""
        text = (self.accuracy or "").strip().lower()
        target: float | None = DEFAULT_AGREEMENT if self.learn else None
        if text and text != "best":
            try:
                target = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            except ValueError:
                target = math.nan
            if not LEAST_AGREEMENT <= target < 1:
                raise UsageError(
                    f"--accuracy {self.accuracy}: is not a share from {LEAST_AGREEMENT} to below 1",
                    hint="write it as 0.95 or 95%, or best for the full reading of every row",
                )
        if text == "best" and self.learn:
            raise UsageError(
                "--accuracy best gives every row the full reading, so --learn has no rows", hint="omit one"
            )
        if target is None and self.learn_fields:
            raise UsageError("--learn-fields is for --learn", hint="add --learn, or omit it")
        if target is not None and self.uses_batch_files:
            raise UsageError("--learn is for live runs, not for a batch queue", hint="omit one of them")
        return target

    def caps(self, now: datetime | None = None, prices: "Prices | None" = None) -> "Caps":
        """The limits that stop the run.

        Args:
            now: the time; `None` for the clock's.
            prices: the listed prices, for a run without the user's own.
        """
        from mellea_cli.run.plan import Caps, ErrorLimit

        for name, limit in (("--max-tokens-total", self.max_tokens_total), ("--max-cost", self.max_cost)):
            # NaN is not above zero either.
            if limit is not None and not limit > 0:
                raise UsageError(f"{name} {limit:g}: allows no request", hint="use a number above 0, or omit the flag")
        return Caps(
            deadline_s=deadline_s(self.deadline, now or datetime.now().astimezone()) if self.deadline else None,
            errors=error_limit(self.max_errors) if self.max_errors else ErrorLimit(),
            tokens=self.max_tokens_total,
            cost=self.max_cost,
            prices=own_prices(self.price) if self.price else prices,
        )


def batch_command(name: str, **replaced: Any) -> Callable[[Callable[[RunOptions], ExitCode]], Callable[..., None]]:
    """Turn a function of `RunOptions` into a command that takes those flags of `RunOptions` that apply to it.

    Args:
        name: the command.
        replaced: Typer parameters that replace those of fields, by field.
    """
    return options_command(RunOptions, name, _resolve_input_and_servers, **replaced)


def _resolve_input_and_servers(ctx: typer.Context, values: dict[str, Any]) -> dict[str, Any]:
    from mellea_cli.cli.settings import choose_servers

    if not values["inputs"] and values.get("accept") is None:
        if stdin_is_terminal() and not values["nightly"]:
            from mellea_cli.cli.help_pages import first_minute

            typer.echo(first_minute("summarise" if ctx.info_name == "summarize" else str(ctx.info_name)))
            raise typer.Exit(0)
        # Under a scheduler there is no stdin either; the command then refuses the empty name.
        values["inputs"] = ["-"] if stdin_has_data() else []
    if getattr(ctx.get_parameter_source("text_field"), "name", "") == "ENVIRONMENT":
        # Typer splits a variable at blanks, which columns' names contain: several stand on lines of their own.
        values["text_field"] = os.environ["MELLEA_TEXT_FIELD"].splitlines()
    return choose_servers(values, ctx.get_parameter_source)


@batch_command("summarise")
def summarise(options: RunOptions) -> ExitCode:
    """Write a summary, the sentiment and the issues for each row of INPUT.

    The same command again asks only for items that are missing, edited or failed. Several files, or the files of a
    folder, become one output with a column source, or one output each with --output-dir.
    """
    from mellea_cli.cli.batch_run import run_inputs
    from mellea_cli.cli.run import chosen_pipeline

    return run_inputs(options, chosen_pipeline(options))


def run_pipeline(options: RunOptions, pipeline: "Pipeline", show: "RunDisplay") -> ExitCode:
    """Run a pipeline over the input that the flags name."""
    import asyncio
    from contextlib import ExitStack

    from mellea_cli.cli import batch_run, dry_run, offload
    from mellea_cli.cli.backend_setup import choose_for_run, ensure_model
    from mellea_cli.cli.run import check_columns
    from mellea_cli.io.writers import ANSWERED_BY, Added, AddedColumns

    _check_together(options, pipeline)
    elsewhere = _executor_factory(options, show)
    options = batch_run.with_files(options)
    batch_run.check_options(options)
    target = options.target_agreement
    learned = None if target is None else batch_run.learned_fields(options, pipeline)
    with ExitStack() as stack:
        opened = stack.enter_context(batch_run.open_input(options, show))
        plan_for = partial(batch_run.run_plan, options, pipeline=pipeline, longest=opened.longest)
        check_columns(pipeline, opened, options)
        for line in _announced(options, opened.total):
            show.say(line)
        if options.uses_batch_files:
            offload.check_flags(options, opened.source)
        if options.dry_run:
            dry_run.preview(options, plan_for(choose_for_run(options)), opened)
            return ExitCode.OK
        if options.estimate:
            dry_run.check_estimate(options, opened)
        # Source and sink are opened before a model is looked for or downloaded: what cannot work is said at once.
        columns = [Added(column.name, column.parts, column.joint, column.type) for column in pipeline.columns]
        added = AddedColumns((*columns, *[Added(ANSWERED_BY)] * (target is not None or options.near_duplicates)))
        run_io = stack.enter_context(batch_run.open_output(options, opened, added, show, "summarise", pipeline.columns))
        chosen = choose_for_run(options)
        for line in (chosen.reason, chosen.warning):
            show.say(line)
        plan = plan_for(chosen)
        batch_run.confirm_changes(options, plan, opened, run_io, show)
        batch_run.say_left_out(pipeline.columns, run_io, options.output, show)
        batch_run.note_own_fields(pipeline.columns, run_io)
        batch_run.note_sample(options, opened, run_io)
        learner = batch_run.row_learner(target, learned, plan, opened) if target is not None and learned else None
        run_io = learner.run_io(run_io) if learner is not None else _marked(run_io, options)
        if options.export_batch:
            return offload.export(options, plan, run_io, opened.source, show.say)
        if options.estimate:
            ensure_model(chosen, options, show.say, small=bool(plan.pipeline.small_prefixes))
            return batch_run.run_on_loop(dry_run.ask_sample(options, chosen, plan, opened, run_io, show))
        with batch_run.controlled(options, plan, "summarise", show, chosen) as (control, stop):
            if elsewhere is not None:
                with elsewhere.connect(plan) as plan:
                    result = asyncio.run(_run_elsewhere(elsewhere, options, plan, run_io, show, stop, control))
            else:
                ensure_model(chosen, options, show.say, small=bool(plan.pipeline.small_prefixes))
                result = batch_run.run_on_loop(_run(options, chosen, plan, opened, run_io, show, stop, control))
            control.ended(result, batch_run.next_command(options, result))
        audit = None if learner is None else learner.figures()
        batch_run.finish(options, plan, opened, result, show, audit=audit)
    return result.exit_code


def _executor_factory(options: RunOptions, show: "RunDisplay") -> "ExecutorFactory | None":
    """What opens the executor of `--engine`; `None` for this process."""
    if options.engine != "ray":
        for value, name in ((options.ray_address, "--ray-address"), (options.ray_workers, "--ray-workers")):
            if value is not None:
                raise UsageError(f"{name} is for --engine ray", hint="add --engine ray, or omit it")
    if options.engine == "here":
        return None
    if options.uses_batch_files or options.has_pool:
        raise UsageError(
            f"--engine {options.engine} needs one server, not a pool or a batch queue", hint="omit one of them"
        )
    from mellea_cli.run.executor import EXECUTORS

    flags = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    factory = EXECUTORS.require(options.engine)(flags, show.say)
    factory.check()
    return factory


def _announced(options: RunOptions, rows: int | None) -> Iterator[str]:
    if options.examples_from:
        yield f"{options.examples_from}: corrected rows are shown to the model as examples: those most similar to all"
    if share := options.second_reading:
        about = "" if rows is None else f", about {share * rows:,.0f} more calls for {rows:,}"
        yield f"--second-reading: the labels of {share:.0%} of the rows are asked twice{about}"


def _marked(run_io: "RunIO", options: RunOptions) -> "RunIO":
    """The ends of a run, whose rows say what has answered them where some share an answer of another."""
    from mellea_cli.run.answer_cache import with_answered_by

    if not options.near_duplicates:
        return run_io
    to_row = run_io.to_row
    return dataclasses.replace(run_io, to_row=lambda item, outcome: to_row(item, with_answered_by(outcome)))


def _check_together(options: RunOptions, pipeline: "Pipeline") -> None:
    if options.near_duplicates:
        reasons = {
            "--learn": options.learn,
            f"--engine {options.engine}": options.engine != "here",
            "--no-dedupe": not options.dedupe,
            # Such an answer holds words of its own row, or depends on more than its text.
            "fields of the type quote": any(one.type == "quote" for one in pipeline.columns),
            "prompts with other columns": any(unit.inputs for unit in pipeline.units),
        }
        if other := next((name for name, given in reasons.items() if given), ""):
            raise UsageError(f"--near-duplicates does not work with {other}", hint="omit one of them")
    if options.second_reading and (options.engine != "here" or options.rows_per_call > 1):
        raise UsageError("--second-reading works with single rows in this process only", hint="omit it")
    if options.rows_per_call > 1 and (options.engine != "here" or options.uses_batch_files):
        other = f"--engine {options.engine}" if options.engine != "here" else "a batch queue"
        raise UsageError(f"--rows-per-call does not work with {other}", hint="omit --rows-per-call")
    if pipeline.reads_logprobs and (options.uses_batch_files or options.engine != "here" or options.rows_per_call > 1):
        what, other = ("--confidence", "omit it") if pipeline.units else (f"-p {pipeline.name}", "use -p single")
        raise UsageError(
            f"{what} reads log-probabilities: it works with single rows and live servers only",
            hint=f"{other}, or omit --engine, --rows-per-call, --offload, --export-batch and --import-batch",
        )


async def _run_elsewhere(
    factory: "ExecutorFactory",
    options: RunOptions,
    plan: "RunPlan",
    run_io: "RunIO",
    show: "RunDisplay",
    stop: "Stop",
    control: "RunControl",
) -> "RunResult":
    from mellea_cli.cli.backend_setup import server_settings
    from mellea_cli.run.batch import run_with

    settings = server_settings(options, model=plan.model, base_url=options.server_url, verbose=options.verbose > 1)
    observer = show.begin(plan.caps.prices)
    with stop.on_signals():
        async with factory.open(plan, settings, observer, stop) as executor:
            return await run_with(plan, executor, run_io, observer=observer, stop=stop, control=control)


async def _run(
    options: RunOptions,
    chosen: "ModelChoice",
    plan: "RunPlan",
    opened: "Input",
    run_io: "RunIO",
    show: "RunDisplay",
    stop: "Stop",
    control: "RunControl",
) -> "RunResult":
    from mellea_cli.cli.backend_setup import check_logprobs, open_servers, start_at_server_slots
    from mellea_cli.cli.dry_run import measured
    from mellea_cli.cli.offload import QueuedRun, run_queued
    from mellea_cli.run.answer_cache import forecast
    from mellea_cli.run.batch import run_batch

    def nothing_to_ask() -> bool:
        if opened.scan is None:
            return False
        found = forecast(opened.source.reread(), plan, run_io.answers, carried=run_io.carried)
        return not found.asks(retry_failed=options.retry_failed)

    prefixes = plan.prefixes
    if plan.pipeline.units and opened.scan is not None:
        # Where only some fields are missing, the prompts are those of the pipeline that asks these.
        first = forecast(opened.source.reread(), plan, run_io.answers, carried=run_io.carried).first
        prefixes = plan.prefixes_of(plan.pipeline.narrowed(first.known or {})) if first is not None else ()
    small = plan.pipeline.small_prefixes
    async with open_servers(options, chosen, prefixes, show, nothing_to_ask, small_prefixes=small) as servers:
        if plan.pipeline.reads_logprobs and chosen.backend != "local" and not nothing_to_ask():
            await check_logprobs(servers, plan.model, plan.pipeline)
        plan = await start_at_server_slots(plan, servers)
        with stop.on_signals():
            if options.uses_batch_files:
                if isinstance(servers, Sequence):
                    raise UsageError("a batch queue belongs to one provider, not to a pool", hint="name one --base-url")
                return await run_queued(QueuedRun(options, plan, run_io, servers, show, stop, control))
            with measured(plan, opened, show.begin(plan.caps.prices)) as observer:
                return await run_batch(plan, servers, run_io, observer=observer, stop=stop, control=control)
