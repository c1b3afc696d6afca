"""Flags that several commands share, each also a `MELLEA_*` variable and a key of the configuration file."""

from __future__ import annotations

from typing import Any, Literal

import typer

from mellea_cli.errors import UsageError

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
    from mellea_cli.cli.caps import seconds

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
