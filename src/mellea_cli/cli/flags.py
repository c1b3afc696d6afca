"""The flags of the batch commands: one field of `RunOptions` is one flag.

`RunOptions` is the only list of the flags of `mellea summarise` and `mellea themes`. To add a flag, add a field: its
annotation holds the spellings, the help line, the panel in the help and the parser. Its `MELLEA_*` variable and its key
in the configuration file follow from the name.
"""

# No `from __future__ import annotations` here: a start would spend its time on evaluating the annotations one by one.

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import typer

from mellea_cli.errors import ExitCode, UsageError
from mellea_cli.extensions import ExtensionPoint

if TYPE_CHECKING:
    from mellea_cli.run.plan import Caps, ErrorLimit, Prices

T = TypeVar("T")

BadRowPolicy = Literal["auto", "fail", "skip"]
LogLevel = Literal["debug", "info", "warning", "error"]
ThinkingLevel = Literal["off", "low", "medium", "high", "default"]

FIELDS = "Own fields"
THEMES = "Themes"
OUTPUT = "Output"
INPUT = "Input"
MODEL = "Model"
RUN = "Run"
LIMITS = "Limits"
SAFETY = "Safety"
QUEUE = "Batch queue"
DISPLAY = "Display"


_PREFIX = "MELLEA_"


def option(panel: str, help: str, *names: str, env: bool = True, **more: Any) -> Any:
    """A flag of an options dataclass, by default with a `MELLEA_*` variable.

    Args:
        panel: the section of the help.
        help: one line.
        names: further spellings, such as `-o`; the long one is the field's name unless it is among them.
        env: whether there is a variable.
        more: further arguments of `typer.Option`.
    """
    variable = _PREFIX if env else None
    flag = typer.Option(help=help, envvar=variable, show_envvar=False, rich_help_panel=panel, **more)
    flag.param_decls = names
    return flag


def _name_flag(info: Any, field: str) -> None:
    """Complete a flag's spellings and its variable from the name of its field."""
    long = next((name for name in info.param_decls if name.startswith("--")), "")
    if not long:
        long = "--" + field.replace("_", "-")
        info.param_decls = (long, *info.param_decls)
    if info.envvar == _PREFIX:
        info.envvar = _PREFIX + long.split("/")[0].removeprefix("--").replace("-", "_").upper()


# Parsers of flag values.

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})")


def seconds(text: str | float) -> float:
    """Parse a duration: `90`, `90s`, `15m`, `6h`, `1h30m`, `2d`.

    Raises:
        UsageError: the text is not a duration.
    """
    found = _DURATION.fullmatch(str(text).strip().lower())
    if found is None or not any(found.groups()):
        raise UsageError(f"{text!r} is not a duration", hint="write it as 90, 90s, 15m, 6h or 1h30m")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def duration(text: str) -> float:
    """Parse a flag's duration in seconds, 0 included."""
    try:
        return seconds(text)
    except UsageError as error:
        raise typer.BadParameter(f"{error.message}; {error.hint}") from error


def time_limit(text: str) -> float:
    """Parse a flag's duration in seconds, above 0."""
    value = duration(text)
    if value <= 0:
        raise typer.BadParameter(f"{text}: a time limit must be above 0; omit the flag to use the default")
    return value


def concurrency_limit(value: str | int) -> int | None:
    """Parse a number of requests in flight, `None` for `auto`."""
    text = str(value).strip()  # the configuration file gives numbers
    if text.lower() == "auto":
        return None
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise typer.BadParameter(f"{text}: must be a number of requests from 1 on, or auto")


def deadline_s(text: str, now: datetime) -> float:
    """Parse a deadline: a duration from `now`, or the next occurrence of a time of day such as `06:30`.

    Raises:
        UsageError: the text is neither, or allows no time.
    """
    clock = _TIME_OF_DAY.fullmatch(text.strip())
    if clock is None:
        value = seconds(text)
        if value <= 0:
            raise UsageError(f"--deadline {text}: allows no time", hint="write it as 90s, 15m or 6h")
        return value
    hour, minute = int(clock[1]), int(clock[2])
    if hour > 23 or minute > 59:
        raise UsageError(f"--deadline {text}: is not a time of day", hint="write it as 06:30")
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((at if at > now else at + timedelta(days=1)) - now).total_seconds()


def error_limit(text: str) -> "ErrorLimit":
    """Parse how many items may fail: `20`, or `5%` of the items asked.

    Raises:
        UsageError: the text is neither.
    """
    from mellea_cli.run.plan import ErrorLimit

    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) if percent else int(number)
    except ValueError:
        value = 0
    if value <= 0 or (percent and value > 100):
        raise UsageError(f"--max-errors {text}: is not a number of items", hint="write it as 20, or as 5%")
    return ErrorLimit(share=value / 100) if percent else ErrorLimit(count=int(value))


def set_log_level(level: str | None) -> str | None:
    """Send the program's own log to stderr from this level on; the callback of `--log-level`."""
    if level is not None:
        logger = logging.getLogger("mellea_cli")
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(level.upper())
        logger.propagate = False
    return level


def extension(group: str, *known: str) -> dict[str, Any]:
    """Arguments of `option` for a flag whose values are the names of an extension point.

    Entry points are read only for a name that is not known here: a start has no time for it.

    Args:
        group: the group of the entry points.
        known: the names that every installation has.
    """
    point: ExtensionPoint[Any] = ExtensionPoint(group, {}, known)

    def parse(name: str) -> str:
        try:
            return point.check(name)
        except UsageError as error:
            raise typer.BadParameter(f"{error.message}; {error.hint}") from error

    def complete(incomplete: str) -> list[str]:
        return [name for name in point.names() if name.startswith(incomplete)]

    return {"parser": parse, "metavar": "|".join(known), "autocompletion": complete}


BACKENDS = extension("mellea.backends", "auto", "ollama", "openai", "local", "scripted")
FORMATS = extension("mellea.formats", "jsonl", "json", "csv", "tsv")
EXECUTORS = extension("mellea.executors", "here", "ray")

# Flags that `mellea chat` has, too.

ModelFlag = Annotated[str | None, option(MODEL, "Model name, or a .gguf file.", "-m", show_default=False)]
BackendFlag = Annotated[
    str, option(MODEL, "auto: a running Ollama that has the model, else local.", "-b", show_default="auto", **BACKENDS)
]
KeyFileFlag = Annotated[str | None, option(MODEL, "File with the server's key, readable only by you.", metavar="FILE")]
PullFlag = Annotated[bool, option(MODEL, "Download the model if it is missing.")]
LocalOnlyFlag = Annotated[bool, option(SAFETY, "Connect to nothing outside this machine.")]
AllowHttpFlag = Annotated[bool, option(SAFETY, "Allow http without TLS to other machines.")]
LogLevelFlag = Annotated[LogLevel | None, option(DISPLAY, "Log to stderr from this level on.", callback=set_log_level)]

# The commands that take a flag, where not all batch commands do. Themes are found and labelled live by one process: the
# provider's batch queue and Ray are for `summarise` and `run` only.
SUMMARISE = ("summarise", "run")
THEMES_ONLY = ("themes",)

_time_limit = partial(option, parser=time_limit, metavar="DURATION")
_duration = partial(option, parser=duration, metavar="DURATION")


def complete_pipeline(incomplete: str) -> list[str]:
    """The built-in pipelines and the pipeline files of this folder that begin so."""
    files = [str(path) for path in Path().glob("*.toml")]
    return [name for name in ("single", "steps", *sorted(files)) if name.startswith(incomplete)]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The flags of a batch command, after flag, environment and configuration file have been weighed.

    The last part of an annotation names the commands that take the flag; without it all do. For the others the field
    keeps its default.
    """

    input: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="JSONL, JSON, CSV or TSV file, also .gz; - for stdin.", show_default=False
        ),
    ] = ""

    field: Annotated[
        list[str] | None,
        option(
            FIELDS,
            "One more column: 'product: the product', 'refund(bool): …'; types: see mellea run. Repeatable.",
            metavar="'NAME(TYPE): WHAT'",
            env=False,
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
        ),
        SUMMARISE,
    ] = None
    labels: Annotated[
        str | None,
        option(FIELDS, "Labels of the sentiment, such as positive,neutral,negative,mixed.", metavar="A,B,C"),
        SUMMARISE,
    ] = None
    language: Annotated[
        str | None,
        option(FIELDS, "Language of generated text, such as de or German; same: the row's own (default: en)."),
        SUMMARISE,
    ] = None

    themes_file: Annotated[
        str | None, option(THEMES, "TOML file: read if it exists, else written (default: OUTPUT.toml)."), THEMES_ONLY
    ] = None
    max_themes: Annotated[
        int, option(THEMES, "Most themes to find, complaints and praise together.", min=1, max=50), THEMES_ONLY
    ] = 12
    find_only: Annotated[bool, option(THEMES, "Write the themes file, label no rows."), THEMES_ONLY] = False

    output: Annotated[str, option(OUTPUT, "Output file (.jsonl .json .csv .tsv), or - for stdout.", "-o")] = "-"
    output_format: Annotated[str | None, option(OUTPUT, "Output format, if its suffix does not tell.", **FORMATS)] = (
        None
    )
    unordered: Annotated[bool, option(OUTPUT, "Write rows to stdout as they complete, not in input order.")] = False
    errors_file: Annotated[str | None, option(OUTPUT, "Write failed items to this file as input rows.")] = None
    overwrite: Annotated[bool, option(OUTPUT, "Replace a file that is not this run's, or by fewer rows.")] = False
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
        ),
    ] = None
    id_field: Annotated[str | None, option(INPUT, "Column with the id (default: id).")] = None
    encoding: Annotated[str | None, option(INPUT, "Input encoding (default: UTF-8, or UTF-16 with its mark).")] = None
    delimiter: Annotated[str | None, option(INPUT, "CSV delimiter (default: guessed from , ; tab |).", "-d")] = None
    header_row: Annotated[int | None, option(INPUT, "Line of the CSV header (default: found).", min=1)] = None
    skip_rows: Annotated[
        int | None, option(INPUT, "Rows below the CSV header that are no feedback (default: found).", min=0)
    ] = None
    limit: Annotated[int | None, option(INPUT, "Read only the first N items.", "-n", min=1)] = None
    sample: Annotated[int | None, option(INPUT, "Read N items chosen at random, in input order.", min=1)] = None
    seed: Annotated[int, option(INPUT, "Seed of --sample.")] = 0
    on_bad_row: Annotated[
        BadRowPolicy, option(INPUT, "Unreadable rows; auto: fail before the first request, skip in a stream.")
    ] = "auto"

    model: ModelFlag = None
    backend: BackendFlag = "auto"
    base_url: Annotated[
        list[str] | None,
        option(MODEL, "Server address; its key: OPENAI_API_KEY. Repeatable: several servers.", metavar="URL"),
    ] = None
    pool: Annotated[str | None, option(MODEL, "Servers of [pool.NAME] in the configuration file.", metavar="NAME")] = (
        None
    )
    key_file: KeyFileFlag = None
    pipeline: Annotated[
        str,
        option(
            MODEL,
            "single: one request per item; steps: the tutorial's three; or as in mellea run.",
            "-p",
            metavar="single|steps|FILE|MODULE:NAME",
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
        ),
    ] = None
    max_concurrency: Annotated[int | None, option(RUN, "Upper limit of -c auto.", min=1)] = None
    dedupe: Annotated[bool, option(RUN, "Send identical texts once, and share the answer.", "--dedupe/--no-dedupe")] = (
        True
    )
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
    dry_run: Annotated[bool, option(RUN, "Show what would run; send nothing.")] = False

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
    max_cost: Annotated[float | None, option(LIMITS, "Stop before the run costs more; needs both prices.", min=0.0)] = (
        None
    )
    price_in: Annotated[float | None, option(LIMITS, "Price of a million prompt tokens.", min=0.0)] = None
    price_out: Annotated[float | None, option(LIMITS, "Price of a million answer tokens.", min=0.0)] = None

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
            DISPLAY,
            "Say why attempts failed; -vv: the model server's log, too.",
            "-v",
            count=True,
            show_default=False,
        ),
    ] = 0
    log_level: LogLevelFlag = None
    live: Annotated[bool, option(DISPLAY, "Panels at a terminal, or plain lines.", "--live/--no-live")] = True
    json: Annotated[bool, option(DISPLAY, "The closing summary as one line of JSON on stderr.")] = False
    summary_file: Annotated[str | None, option(DISPLAY, "Write the closing summary to this file as JSON.")] = None
    log_file: Annotated[str | None, option(DISPLAY, "Write every event but tokens to this file as JSON lines.")] = None

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

    def caps(self, now: datetime | None = None) -> "Caps":
        """The limits that stop the run.

        Raises:
            UsageError: a limit cannot be read or allows nothing, or `--max-cost` has no prices.
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
            prices=self._prices(),
        )

    def _prices(self) -> "Prices | None":
        from mellea_cli.run.plan import Prices

        if self.max_cost is None:
            return None
        if self.price_in is None or self.price_out is None:
            raise UsageError(
                "--max-cost needs the price of tokens",
                hint="add --price-in and --price-out, each per million tokens, or set them in the configuration file",
            )
        return Prices(self.price_in, self.price_out)


def batch_command(name: str, **replaced: Any) -> Callable[[Callable[[RunOptions], ExitCode]], Callable[..., None]]:
    """Turn a function of `RunOptions` into a command that takes those flags of `RunOptions` that apply to it.

    Args:
        name: the command.
        replaced: Typer arguments that replace flags and other arguments, by field.
    """
    return options_command(RunOptions, name, _resolve_input_and_servers, **replaced)


def _resolve_input_and_servers(ctx: typer.Context, values: dict[str, Any]) -> dict[str, Any]:
    from mellea_cli.cli.settings import choose_servers

    if not values["input"]:
        if _stdin_is_terminal() and not values["nightly"]:
            typer.echo(ctx.get_help())
            raise typer.Exit(0)
        # Under a scheduler there is no stdin either; the command then refuses the empty name.
        values["input"] = "-" if stdin_has_data() else ""
    if getattr(ctx.get_parameter_source("text_field"), "name", "") == "ENVIRONMENT":
        # Typer splits a variable at blanks, which columns' names contain: several stand on lines of their own.
        values["text_field"] = os.environ["MELLEA_TEXT_FIELD"].splitlines()
    return choose_servers(values, ctx.get_parameter_source)


def options_command(
    options_type: Callable[..., T],
    name: str = "",
    prepare: Callable[[typer.Context, dict[str, Any]], dict[str, Any]] | None = None,
    **replaced: Any,
) -> Callable[[Callable[[T], ExitCode]], Callable[..., None]]:
    """Turn a function of an options dataclass into a Typer command: each field is a flag or an argument.

    Args:
        options_type: a dataclass; each annotation is `Annotated[type, Typer parameter]`, optionally followed by the
            names of the commands that take the flag.
        name: the command, for those names.
        prepare: changes the values before the dataclass is made.
        replaced: Typer arguments that replace flags and other arguments, by field.
    """

    def decorate(command: Callable[[T], ExitCode]) -> Callable[..., None]:
        def run(ctx: typer.Context, **values: Any) -> None:
            # For the error boundary, which keeps the file's key out of reports.
            ctx.meta["key_file"] = values.get("key_file")
            raise typer.Exit(command(options_type(**(prepare(ctx, values) if prepare else values))))

        parameters = [Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
        for field in dataclasses.fields(options_type):  # type: ignore[arg-type]  # mypy has no type for dataclasses
            kind, info, *commands = get_args(field.type)
            if info.param_decls is not None:  # an argument has none
                _name_flag(info, field.name)
            default = Parameter.empty if field.default is dataclasses.MISSING else field.default
            if field.name in replaced and info.param_decls:
                # A flag as an argument is required, and comes first.
                annotation: Any = Annotated[kind, replaced[field.name]]
                parameters.insert(1, Parameter(field.name, Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation))
            elif not commands or name in commands[0]:
                annotation = Annotated[kind, replaced.get(field.name, info)]
                parameters.append(
                    Parameter(field.name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
                )
        # Typer reads these three.
        run.__doc__ = command.__doc__
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # functions take attributes
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def stdin_has_data() -> bool:
    """Whether stdin is a pipe, a socket or a file.

    A terminal does not count: the program would wait for a user who waits for the program. Nor does a closed stdin or
    /dev/null, which cron and many supervisors give: there the input must be named.
    """
    import stat

    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _stdin_is_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (ValueError, AttributeError):
        return False
