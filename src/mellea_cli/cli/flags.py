"""Flags from dataclasses: one field is one flag.

A field's annotation holds the spellings, the help line, the panel in the help and the parser. Its `MELLEA_*` variable
and its key in the configuration file follow from the name. Each command's module has the dataclass of its flags.
"""

# No `from __future__ import annotations` here: a start would spend its time on evaluating the annotations one by one.

import dataclasses
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import typer

from mellea_cli.cli.app import UsualPanel
from mellea_cli.errors import ExitCode, MelleaError, UsageError
from mellea_cli.extensions import ExtensionPoint

if TYPE_CHECKING:
    from mellea_cli.io.source import SourceOptions
    from mellea_cli.run.plan import ErrorLimit, Prices

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


def option(panel: str, help: str, *names: str, env: bool = True, usual: bool = False, **more: Any) -> Any:
    """A flag of an options dataclass, by default with a `MELLEA_*` variable.

    Args:
        panel: the section of the help.
        help: one line.
        names: further spellings, such as `-o`; the long one is the field's name unless it is among them.
        env: whether there is a variable.
        usual: whether the short help has it.
        more: further arguments of `typer.Option`.
    """
    variable = _PREFIX if env else None
    section = UsualPanel(panel) if usual else panel
    flag = typer.Option(help=help, envvar=variable, show_envvar=False, rich_help_panel=section, **more)
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


def own_prices(text: str) -> "Prices":
    """Parse the prices of a million tokens: of prompts and answers, and of cached prompt tokens if they differ.

    Raises:
        UsageError: the text is neither two prices nor three.
    """
    from mellea_cli.run.plan import Prices

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(0 <= number < math.inf for number in numbers):
        raise UsageError(f"--price {text}: is not a price of prompts and one of answers", hint="write it as 0.15,0.60")
    prompt, completion, *cached = numbers
    return Prices(prompt, completion, cached[0] if cached else None)


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
FORMATS = extension(
    "mellea.formats", "jsonl", "json", "csv", "tsv", "xlsx", "ods", "parquet", "arrow", "sqlite", "duckdb"
)
EXECUTORS = extension("mellea.executors", "here", "ray")


# Completions: what is on this machine, without a request.


def complete_model(incomplete: str) -> list[str]:
    """Models that begin so: of the catalogue, of an Ollama on this machine, and files in this folder."""
    from mellea_cli.models.catalogue import CATALOGUE

    folder = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models") / "manifests"
    ollama = []
    for path in sorted(folder.glob("*/*/*/*")):
        owner, model, tag = path.parts[-3:]
        name = model if owner == "library" else f"{owner}/{model}"
        ollama.append(name if tag == "latest" else f"{name}:{tag}")
    files = sorted(str(path) for path in Path().glob("*.gguf"))
    return [name for name in dict.fromkeys((*CATALOGUE, *ollama, *files)) if name.startswith(incomplete)]


def complete_column(ctx: typer.Context, incomplete: str) -> list[str]:
    """Columns of the input that the command line names, one or several with commas between them."""
    named = next((ctx.params[name] for name in ("inputs", "input", "results", "new") if ctx.params.get(name)), None)
    named = named[0] if isinstance(named, list | tuple) else named
    if not isinstance(named, str) or named == "-" or not Path(named).is_file():
        return []
    from mellea_cli.io.source import SourceOptions, first_columns

    before, comma, last = incomplete.rpartition(",")
    shell = os.environ.get("_MELLEA_COMPLETE", "")
    try:
        columns = first_columns(named, SourceOptions())
    except MelleaError:
        return []
    found = [f"{before}{comma}{name}" for name in columns if name.startswith(last)]
    # bash puts in what it gets; the other shells quote it.
    return [name.replace(" ", "\\ ") for name in found] if "bash" in shell else found


COLUMN: dict[str, Any] = {"autocompletion": complete_column}
"""Arguments of `option` for a flag that names a column of the input."""


def source_options(flags: Any, **more: Any) -> "SourceOptions":
    """How a command reads its rows: `more`, and those of its flags that have the name of an option."""
    from mellea_cli.io.row_filter import RowFilter
    from mellea_cli.io.source import SourceOptions

    names = {one.name for one in dataclasses.fields(SourceOptions)} - {"format"}  # which may be that of a report
    given = {name: getattr(flags, name) for name in names if hasattr(flags, name)} | more
    given["text_field"] = tuple(given.get("text_field") or ())
    given["where"] = RowFilter(given["where"]) if given.get("where") is not None else None
    return SourceOptions(**given)


WHERE_HELP = "Only rows that meet a condition: 'rating <= 2 and country == \"DE\"', see mellea help filters."

# Flags that `mellea chat` has, too.

ModelFlag = Annotated[
    str | None,
    option(MODEL, "Model name, or a .gguf file.", "-m", show_default=False, usual=True, autocompletion=complete_model),
]
BackendFlag = Annotated[
    str,
    option(
        MODEL,
        "auto: a running Ollama that has the model, else local.",
        "-b",
        show_default="auto",
        usual=True,
        **BACKENDS,
    ),
]
KeyFileFlag = Annotated[str | None, option(MODEL, "File with the server's key, readable only by you.", metavar="FILE")]
PullFlag = Annotated[bool, option(MODEL, "Download the model if it is missing.")]
LocalOnlyFlag = Annotated[bool, option(SAFETY, "Connect to nothing outside this machine.", usual=True)]
AllowHttpFlag = Annotated[bool, option(SAFETY, "Allow http without TLS to other machines.")]
LogLevelFlag = Annotated[LogLevel | None, option(DISPLAY, "Log to stderr from this level on.", callback=set_log_level)]

# Flags of the commands that read an output. A variable such as MELLEA_TEXT_FIELD is for the batch commands.

flag = partial(option, env=False)
WhereFlag = Annotated[str | None, flag(INPUT, WHERE_HELP, metavar="EXPR")]
TextFieldFlag = Annotated[
    list[str] | None, flag(INPUT, "Column with the feedback. Repeatable.", metavar="NAME", **COLUMN)
]
IdFieldFlag = Annotated[str | None, flag(INPUT, "Column with the id (default: id).", metavar="NAME", **COLUMN)]
InputFormatFlag = Annotated[str | None, flag(INPUT, "Input format, if its suffix does not tell.", **FORMATS)]
EncodingFlag = Annotated[str | None, flag(INPUT, "Input encoding (default: UTF-8).")]
DelimiterFlag = Annotated[str | None, flag(INPUT, "CSV delimiter.", "-d")]


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
            ctx.meta["json"] = ctx.meta.get("json") or bool(values.get("json"))
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


JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
"""`--json` of a command that prints what it found."""


def write_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    import json

    try:
        typer.echo(json.dumps(value, ensure_ascii=False))
    except UnicodeEncodeError:  # a lone surrogate, as in the name of a file
        typer.echo(json.dumps(value))


def typed_command(*added: str, without: str = "") -> str:
    """The command of this process as it was typed, without one flag and with others; empty where there is none."""
    arguments = [argument for argument in sys.argv[1:] if argument != without]
    return shlex.join(["mellea", *arguments, *added]) if arguments else ""


def typed_flags(flags: Any, names: Iterable[str]) -> list[str]:
    """Those of the named flags that do not have their default, as they are typed for another command."""
    typed = []
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name)
        if field.name in names and value != field.default:
            _, info, *_ = get_args(field.type)
            long = next(name for name in info.param_decls if name.startswith("--")).partition("/")[0]
            for one in value if isinstance(value, list) else [value]:
                typed += [long] if one is True else [long, str(one)]
    return typed


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


def stdin_is_terminal() -> bool:
    """Whether stdin is a terminal; a closed one is none."""
    try:
        return sys.stdin.isatty()
    except (ValueError, AttributeError):
        return False
