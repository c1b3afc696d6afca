"""The flags that `mellea summarise` and `mellea themes` share, as one value."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from mellea_cli.errors import UsageError
from mellea_cli.ui.run_display import DisplayOptions

if TYPE_CHECKING:
    from mellea_cli.run.plan import Caps, ErrorLimit, Prices


# Flags that several commands share, each also a `MELLEA_*` variable and a key of the configuration file.

BackendName = Literal["auto", "ollama", "openai", "local", "scripted"]
FormatName = Literal["jsonl", "json", "csv", "tsv"]
OnBadRow = Literal["auto", "fail", "skip"]
EngineName = Literal["here", "ray"]
PipelineName = Literal["single", "steps"]

MODEL = "Model"
INPUT = "Input"
OUTPUT = "Output"
RUN = "Run"
QUEUE = "Batch queue"
LIMITS = "Limits"
SAFETY = "Safety"
DISPLAY = "Display"


def duration(text: str) -> float:
    """A duration for a flag, in seconds: `90`, `90s`, `15m`, `6h`. Raises `typer.BadParameter` when it is none."""
    try:
        return seconds(text)
    except UsageError as error:
        raise typer.BadParameter(f"{error.message}; {error.hint}") from error


def time_limit(text: str) -> float:
    """A time limit for a flag, in seconds and more than none at all. Raises `typer.BadParameter` when it is none."""
    value = duration(text)
    if value <= 0:
        raise typer.BadParameter(f"{text}: a time limit is more than 0; leave the flag out for the usual one")
    return value


def in_flight(value: str | int) -> int | None:
    """A number of requests, or `None` for `auto`. Raises `typer.BadParameter` when it is neither."""
    text = str(value).strip()  # the configuration file gives numbers
    if text.lower() == "auto":
        return None
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise typer.BadParameter(f"{text}: how many requests, 1 or more, or auto")


def flag(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002 - Typer's own word for it
    """A flag with its `MELLEA_*` variable.

    Args:
        panel: the part of the help it stands in.
        names: its spellings, the first long one names the variable.
        help: what it does, in one line.
        more: whatever else `typer.Option` takes.
    """
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "MELLEA_" + long.removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, help=help, envvar=variable, show_envvar=False, rich_help_panel=panel, **more)


# Reads the limits that a user sets a run: durations, times of the day, shares of errors, money.

Number = TypeVar("Number", int, float)

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")


def seconds(text: str | float) -> float:
    """Read a duration: `90`, `90s`, `15m`, `6h`, `1h30m`, `2d`.

    Raises:
        UsageError: it is none.
    """
    found = _DURATION.fullmatch(str(text).strip().lower())
    if found is None or not any(found.groups()):
        raise UsageError(f"{text!r} is not a duration", hint="write it as 90, 90s, 15m, 6h or 1h30m")
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def deadline_s(text: str, now: datetime) -> float:
    """Read a deadline: a duration from `now` on, or a time of the day such as `06:30`, the next one there is.

    Raises:
        UsageError: it is neither, or no time at all.
    """
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        duration = seconds(text)
        if duration <= 0:
            raise UsageError(f"--deadline {text}: leaves no time to do anything", hint="write it as 90s, 15m or 6h")
        return duration
    hour, minute = int(clock[1]), int(clock[2])
    if hour > 23 or minute > 59:
        raise UsageError(f"--deadline {text}: there is no such time of the day", hint="write it as 06:30")
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((at if at > now else at + timedelta(days=1)) - now).total_seconds()


def error_limit(text: str) -> ErrorLimit:
    """Read how many items may fail: `20`, or `5%` of those that were asked about.

    Raises:
        UsageError: it is neither.
    """
    from mellea_cli.run.plan import ErrorLimit

    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) if percent else int(number)
    except ValueError:
        value = 0
    if value <= 0 or (percent and value > 100):
        raise UsageError(f"--max-errors {text}: is no number of items", hint="write it as 20, or as 5%")
    return ErrorLimit(share=value / 100) if percent else ErrorLimit(count=int(value))


def caps(flags: Flags, now: datetime | None = None) -> Caps:
    """The limits on a run that the flags set.

    Raises:
        UsageError: one cannot be read or allows nothing, or `--max-cost` stands without prices.
    """
    from mellea_cli.run.plan import Caps, ErrorLimit

    return Caps(
        deadline_s=deadline_s(flags.deadline, now or datetime.now().astimezone()) if flags.deadline else None,
        errors=error_limit(flags.max_errors) if flags.max_errors else ErrorLimit(),
        tokens=_above_zero("--max-tokens-total", flags.max_tokens_total),
        cost=_above_zero("--max-cost", flags.max_cost),
        prices=_prices(flags),
    )


def _above_zero(flag: str, limit: Number | None) -> Number | None:
    # Not a number is not above zero either.
    if limit is not None and not limit > 0:
        raise UsageError(f"{flag} {limit:g}: allows no request at all", hint="set more than 0, or leave it out")
    return limit


def _prices(flags: Flags) -> Prices | None:
    from mellea_cli.run.plan import Prices

    if flags.max_cost is None:
        return None
    if flags.price_in is None or flags.price_out is None:
        raise UsageError(
            "--max-cost needs to know what tokens cost",
            hint="add --price-in and --price-out, each for a million tokens, or set them in the configuration file",
        )
    return Prices(flags.price_in, flags.price_out)


@dataclass(frozen=True, slots=True)
class Flags:
    """What was asked for, after flags, environment and configuration file have been weighed."""

    input: str
    output: str
    output_format: str | None
    unordered: bool
    errors_file: str | None
    raw_csv: bool
    format: str | None
    text_field: str | None
    id_field: str | None
    encoding: str | None
    delimiter: str | None
    limit: int | None
    sample: int | None
    seed: int
    on_bad_row: Literal["auto", "fail", "skip"]
    model: str | None
    backend: str
    base_url: str | None
    base_urls: tuple[str, ...]
    pool: str | None
    key_file: str | None
    pipeline: str
    temperature: float
    model_seed: int | None
    pull: bool
    concurrency: int | None
    max_concurrency: int | None
    dedupe: bool
    engine: str
    ray_address: str | None
    ray_workers: int | None
    timeout: float
    first_token_timeout: float | None
    stall_timeout: float
    max_retries: int
    max_wait: float
    grace: float
    rpm: float | None
    tpm: float | None
    deadline: str | None
    max_errors: str | None
    max_tokens_total: int | None
    max_cost: float | None
    price_in: float | None
    price_out: float | None
    redact: bool
    local_only: bool
    allow_http: bool
    offload: bool
    wait: bool
    export_batch: str | None
    import_batch: str | None
    batch_requests: int
    batch_bytes: int
    batch_window: str
    batch_poll: float
    fresh: bool
    retry_failed: bool
    nightly: bool
    dry_run: bool
    quiet: bool
    verbose: int
    live: bool
    json: bool
    summary_file: str | None
    log_file: str | None

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Flags:
        """Take the flags from a command's parameters; those of other commands are left out."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: parameters[name] for name in names})

    @property
    def queued(self) -> bool:
        """Whether the answers go by batch files, this way or that."""
        return bool(self.offload or self.export_batch or self.import_batch)

    def look(self) -> DisplayOptions:
        """How the run is to be shown; a nightly one says nothing but one line of JSON at its end."""
        return DisplayOptions(
            quiet=self.quiet or self.nightly,
            verbose=self.verbose,
            live=self.live and not self.nightly,
            json=self.json or self.nightly,
            summary_file=self.summary_file,
            log_file=self.log_file,
        )
